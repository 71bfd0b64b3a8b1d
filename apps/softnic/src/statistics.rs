//! Counters: gathered while frames move, put into the registers when somebody looks.

use crate::registers::{RegisterFile, at};

const CRC_LEN: u64 = 4;
const QUEUE_COUNTERS: usize = 16;

/// Frames and bytes of one queue. Bytes without CRC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTally {
    /// Frames moved.
    pub frames: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Frames dropped for lack of descriptors.
    pub dropped: u64,
}

/// One direction of a NIC.
#[derive(Clone, Debug)]
pub struct Direction {
    /// Good frames.
    pub frames: u64,
    /// Their bytes without CRC.
    pub bytes: u64,
    /// Of them to groups.
    pub multicast: u64,
    /// Of them to everybody.
    pub broadcast: u64,
    sizes: [u64; 6],
    /// By queue.
    pub queues: [QueueTally; 128],
}

impl Direction {
    fn new() -> Self {
        Self {
            frames: 0,
            bytes: 0,
            multicast: 0,
            broadcast: 0,
            sizes: [0; 6],
            queues: [QueueTally::default(); 128],
        }
    }

    /// A good frame went through `queue`.
    #[inline]
    pub fn count(&mut self, frame: &[u8], queue: u32) {
        self.count_frame(frame);
        let queue = &mut self.queues[queue as usize % 128];
        queue.frames += 1;
        queue.bytes += frame.len() as u64;
    }

    /// A good frame that no queue had.
    #[inline]
    fn count_frame(&mut self, frame: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        let size = match frame.len() + CRC_LEN as usize {
            0..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        self.sizes[size] += 1;
        if frame[0] & 1 != 0 {
            if frame.starts_with(&[0xff; 6]) {
                self.broadcast += 1;
            } else {
                self.multicast += 1;
            }
        }
    }
}

/// What has happened since a given moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Frames that reached a receive ring.
    pub received: Direction,
    /// Frames that left.
    pub sent: Direction,
    /// Pause frames that were heeded: stop, and go on.
    pub pauses_received: [u64; 2],
    /// Pause frames that were sent.
    pub pauses_sent: [u64; 2],
    /// Frames of any kind that came in by the wire.
    pub arrived: u64,
    /// Their bytes without CRC.
    pub arrived_bytes: u64,
    /// Frames that the filters refused.
    pub filtered: u64,
    /// Frames that found no free descriptor, or no enabled queue.
    pub missed: u64,
    /// Bytes without CRC of those that were missed and not dropped.
    pub missed_bytes: u64,
    /// Of the missed, those whose queue has DROP_EN.
    pub dropped: u64,
    /// Longer than allowed.
    pub too_long: u64,
    /// Shorter than an Ethernet frame.
    pub too_short: u64,
    /// Bad IPv4, TCP or UDP checksums.
    pub bad_checksums: u64,
    /// Addresses that the device couldn't reach.
    pub dma_faults: u64,
    /// Transmit descriptors that make no sense.
    pub bad_descriptors: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            received: Direction::new(),
            sent: Direction::new(),
            pauses_received: [0; 2],
            pauses_sent: [0; 2],
            arrived: 0,
            arrived_bytes: 0,
            filtered: 0,
            missed: 0,
            missed_bytes: 0,
            dropped: 0,
            too_long: 0,
            too_short: 0,
            bad_checksums: 0,
            dma_faults: 0,
            bad_descriptors: 0,
        }
    }

    /// A pause frame of `len` bytes was heeded.
    pub fn pauses_heard(&mut self, stop: bool, len: usize) {
        self.pauses_received[usize::from(!stop)] += 1;
        self.arrived += 1;
        self.arrived_bytes += len as u64;
    }

    /// A pause frame was sent. Like the 82599's, the counters of good frames have it, too (Linux
    /// takes them off there).
    pub fn pause_sent(&mut self, stop: bool, frame: &[u8]) {
        self.pauses_sent[usize::from(!stop)] += 1;
        self.sent.count_frame(frame);
    }

    /// What was added since `before`, into the registers.
    pub fn publish(&self, before: &Tally, registers: &RegisterFile) {
        let add = |offset, now: u64, then: u64| registers.add(offset, now.wrapping_sub(then));
        let (rx, rx0) = (&self.received, &before.received);
        let (tx, tx0) = (&self.sent, &before.sent);
        let received = rx.frames - rx0.frames;
        let received_bytes = rx.bytes - rx0.bytes + CRC_LEN * received;
        let sent = tx.frames - tx0.frames;
        let sent_bytes = tx.bytes - tx0.bytes + CRC_LEN * sent;
        let arrived = self.arrived - before.arrived;
        let arrived_bytes = self.arrived_bytes - before.arrived_bytes + CRC_LEN * arrived;

        // The MAC counts before the packet buffer: what is missed there was good, too. Linux and DPDK
        // know, and take RXMPC off GPRC.
        let missed = (self.missed - self.dropped) - (before.missed - before.dropped);
        let missed_bytes = self.missed_bytes - before.missed_bytes + CRC_LEN * missed;
        registers.add(at::GPRC, received + missed);
        registers.add_wide(at::GORCL, at::GORCH, received_bytes + missed_bytes);
        registers.add(at::RXDGPC, received);
        registers.add_wide(at::RXDGBCL, at::RXDGBCH, received_bytes);
        registers.add(at::TPR, arrived);
        registers.add_wide(at::TORL, at::TORH, arrived_bytes);
        registers.add(at::RXNFGPC, arrived);
        registers.add_wide(at::RXNFGBCL, at::RXNFGBCH, arrived_bytes);
        registers.add(at::GPTC, sent);
        registers.add(at::TPT, sent);
        registers.add_wide(at::GOTCL, at::GOTCH, sent_bytes);
        registers.add(at::TXDGPC, sent);
        registers.add_wide(at::TXDGBCL, at::TXDGBCH, sent_bytes);
        add(at::MPRC, rx.multicast, rx0.multicast);
        add(at::BPRC, rx.broadcast, rx0.broadcast);
        add(at::MPTC, tx.multicast, tx0.multicast);
        add(at::BPTC, tx.broadcast, tx0.broadcast);
        for n in 0..6 {
            let step = 4 * n as u32;
            add(at::PRC64 + step, rx.sizes[n], rx0.sizes[n]);
            add(at::PTC64 + step, tx.sizes[n], tx0.sizes[n]);
        }
        add(at::RXMPC, self.missed - self.dropped, before.missed - before.dropped);
        add(at::LXOFFRXCNT, self.pauses_received[0], before.pauses_received[0]);
        add(at::LXONRXCNT, self.pauses_received[1], before.pauses_received[1]);
        add(at::LXOFFTXC, self.pauses_sent[0], before.pauses_sent[0]);
        add(at::LXONTXC, self.pauses_sent[1], before.pauses_sent[1]);
        add(at::ROC, self.too_long, before.too_long);
        add(at::RUC, self.too_short, before.too_short);
        add(at::XEC, self.bad_checksums, before.bad_checksums);
        self.publish_queues(before, registers);
    }

    /// By queue: RQSMR and TQSM say which counter a queue has, four queues a register.
    fn publish_queues(&self, before: &Tally, registers: &RegisterFile) {
        let counter = |base: u32, queue: usize| {
            let map = registers.get(base + (queue as u32 / 4) * 4);
            (map >> (8 * (queue % 4)) & 0xf) % QUEUE_COUNTERS as u32
        };
        for queue in 0..128 {
            let (now, then) = (self.received.queues[queue], before.received.queues[queue]);
            if now != then {
                let frames = now.frames - then.frames;
                let n = counter(at::RQSMR, queue);
                registers.add(at::QPRC + 0x40 * n, frames);
                let bytes = now.bytes - then.bytes + CRC_LEN * frames;
                registers.add_wide(at::QBRC_L + 0x40 * n, at::QBRC_H + 0x40 * n, bytes);
                registers.add(at::QPRDC + 0x40 * n, now.dropped - then.dropped);
            }
            let (now, then) = (self.sent.queues[queue], before.sent.queues[queue]);
            if now != then {
                let frames = now.frames - then.frames;
                let n = counter(at::TQSM, queue);
                registers.add(at::QPTC + 0x40 * n, frames);
                let bytes = now.bytes - then.bytes + CRC_LEN * frames;
                registers.add_wide(at::QBTC_L + 8 * n, at::QBTC_H + 8 * n, bytes);
            }
        }
    }

    /// Lines `name value`, as the control socket gives them.
    pub fn lines(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (name, value) in [
            ("rx_frames", self.received.frames),
            ("rx_bytes", self.received.bytes),
            ("rx_multicast", self.received.multicast),
            ("rx_broadcast", self.received.broadcast),
            ("rx_arrived", self.arrived),
            ("rx_filtered", self.filtered),
            ("rx_missed", self.missed),
            ("rx_missed_bytes", self.missed_bytes),
            ("rx_too_long", self.too_long),
            ("rx_too_short", self.too_short),
            ("rx_bad_checksums", self.bad_checksums),
            ("rx_xoff", self.pauses_received[0]),
            ("rx_xon", self.pauses_received[1]),
            ("tx_xoff", self.pauses_sent[0]),
            ("tx_xon", self.pauses_sent[1]),
            ("tx_frames", self.sent.frames),
            ("tx_bytes", self.sent.bytes),
            ("tx_multicast", self.sent.multicast),
            ("tx_broadcast", self.sent.broadcast),
            ("tx_bad_descriptors", self.bad_descriptors),
            ("dma_faults", self.dma_faults),
        ] {
            let _ = writeln!(text, "{name} {value}");
        }
        for (direction, queues) in [("rx", &self.received.queues), ("tx", &self.sent.queues)] {
            for (n, queue) in queues.iter().enumerate().filter(|(_, q)| q.frames + q.dropped > 0) {
                let _ = writeln!(text, "{direction}_queue_{n}_frames {}", queue.frames);
                let _ = writeln!(text, "{direction}_queue_{n}_bytes {}", queue.bytes);
                if queue.dropped > 0 {
                    let _ = writeln!(text, "{direction}_queue_{n}_dropped {}", queue.dropped);
                }
            }
        }
        text
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}
