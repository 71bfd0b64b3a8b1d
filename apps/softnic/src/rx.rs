//! Receiving: from a frame on the wire to written-back descriptors (82599 datasheet 7.1).

use tracing::trace;

use crate::crc::crc32;
use crate::faults::{Faults, Lie, WRONG_ADDRESS};
use crate::filters::Filters;
use crate::memory::{DmaSpace, Fault};
use crate::packet::{self, Headers, Network, Transport};
use crate::registers::{RegisterFile, at};
use crate::rss::{Hash, Rss};
use crate::statistics::Tally;
use crate::wire::MAX_FRAME_LEN;

/// How many receive queues there are.
pub const QUEUES: u32 = 128;

const MIN_FRAME_LEN: usize = 60;
const ENABLE: u32 = 1 << 25;
const STRIP_VLAN: u32 = 1 << 30;
const DROP_EN: u32 = 1 << 28;
const JUMBO: u32 = 1 << 2;
const STRIP_CRC: u32 = 1 << 1;
const LEGACY: u32 = 0;
const SPLIT: u32 = 2;
const SPLIT_ALWAYS: u32 = 5;

// Status and errors of a descriptor (82599 datasheet 7.1.6.2).
const DD: u32 = 1;
const EOP: u32 = 1 << 1;
const VP: u32 = 1 << 3;
const UDPCS: u32 = 1 << 4;
const L4CS: u32 = 1 << 5;
const IPCS: u32 = 1 << 6;
const L4E: u32 = 1 << 30;
const IPE: u32 = 1 << 31;
const SPH: u64 = 1 << 31;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the ring of this queue.
    Delivered(u32),
    /// It isn't for this NIC, or is no good.
    Refused,
    /// Its queue has too few free descriptors now; nothing was counted.
    NoRoom(u32),
}

/// Registers, memory and counters, as the receive unit sees them.
pub struct Context<'a> {
    /// The registers.
    pub registers: &'a RegisterFile,
    /// The client's memory.
    pub memory: &'a DmaSpace,
    /// What is counted.
    pub tally: &'a mut Tally,
    /// What is to go wrong.
    pub faults: &'a mut Faults,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    enabled: bool,
    setup: [u32; 4], // RDBAL, RDBAH, RDLEN, SRRCTL as they were when the queue was set up
    base: u64,
    len: u32, // in descriptors
    head: u32,
    touched: bool,
    epoch: u32, // of the burst in which the registers were last looked at
    tail: u32,
    strip_vlan: bool,
}

/// The receive half of a NIC.
pub struct Receiver {
    queues: Vec<Queue>,
    touched: Vec<u32>,
    filters: Filters,
    rss: Rss,
    stale: bool,
    longest: usize,
    strip_crc: bool,
    with_checksum: bool, // RXCSUM.PCSD is 0: the checksum takes the place of the hash
    scratch: Vec<u8>,
    epoch: u32,
}

/// Offset of the registers of a receive queue: 0-63 and 64-127 stand apart.
pub fn registers_of(queue: u32) -> u32 {
    if queue < 64 { at::RDBAL + 0x40 * queue } else { at::RDBAL_HI + 0x40 * (queue - 64) }
}

// Distances within a queue's registers.
const RDBAH: u32 = 0x04;
const RDLEN: u32 = 0x08;
const RDH: u32 = 0x10;
const SRRCTL: u32 = 0x14;
const RDT: u32 = 0x18;
const RXDCTL: u32 = 0x28;

impl Receiver {
    /// All queues off.
    pub fn new(registers: &RegisterFile) -> Self {
        Self {
            queues: vec![Queue::default(); QUEUES as usize],
            touched: Vec::with_capacity(QUEUES as usize),
            filters: Filters::new(registers),
            rss: Rss::new(registers),
            stale: true,
            longest: 0,
            strip_crc: true,
            with_checksum: false,
            scratch: Vec::with_capacity(MAX_FRAME_LEN + 4),
            epoch: 1,
        }
    }

    /// Forgets everything about the rings.
    pub fn reset(&mut self) {
        self.queues.fill(Queue::default());
        self.touched.clear();
        self.stale = true;
    }

    /// A register that filters or RSS depend on has changed.
    pub fn settings_changed(&mut self) {
        self.stale = true;
    }

    /// Whether the receiver is switched on.
    pub fn is_on(registers: &RegisterFile) -> bool {
        registers.get(at::RXCTRL) & 1 != 0
    }

    /// Takes in what has changed since the last frame.
    fn refresh(&mut self, registers: &RegisterFile) {
        self.stale = false;
        self.filters = Filters::new(registers);
        self.rss = Rss::new(registers);
        let maxfrs = (registers.get(at::MAXFRS) >> 16) as usize;
        let hlreg0 = registers.get(at::HLREG0);
        self.longest = if hlreg0 & JUMBO != 0 { maxfrs.saturating_sub(4) } else { 1514 };
        self.strip_crc = hlreg0 & STRIP_CRC != 0 || registers.get(at::RDRXCTL) & STRIP_CRC != 0;
        self.with_checksum = registers.get(at::RXCSUM) & 1 << 13 == 0;
    }

    /// A burst begins: what clients wrote to queue registers by now holds for all of it.
    pub fn begin(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Takes one frame from the wire.
    pub fn receive(&mut self, context: &mut Context<'_>, frame: &[u8]) -> Outcome {
        if self.stale {
            self.refresh(context.registers);
        }
        let tag_len = if frame.get(12..14) == Some(&[0x81, 0]) { 4 } else { 0 };
        if frame.len() < 14 || frame.len() > (self.longest + tag_len).min(MAX_FRAME_LEN) {
            context.tally.arrived += 1;
            context.tally.arrived_bytes += frame.len() as u64;
            if frame.len() < 14 {
                context.tally.too_short += 1;
            } else {
                context.tally.too_long += 1;
            }
            return Outcome::Refused;
        }
        // No Ethernet carries less; wires of software may.
        let mut padded = [0; MIN_FRAME_LEN];
        let frame = if frame.len() < MIN_FRAME_LEN {
            padded[..frame.len()].copy_from_slice(frame);
            &padded
        } else {
            frame
        };
        let headers = packet::parse(frame, self.filters.vlan_type());
        let destination = [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]];
        if !self.filters.pass(context.registers, destination, headers.vlan) {
            context.tally.arrived += 1;
            context.tally.arrived_bytes += frame.len() as u64;
            context.tally.filtered += 1;
            return Outcome::Refused;
        }
        let hash = self.rss.classify(frame, &headers);
        let n = hash.queue;
        if self.queues[n as usize].epoch != self.epoch {
            self.sync(context.registers, n);
        }
        let queue = &self.queues[n as usize];
        if !queue.enabled {
            trace!("queue {n} is off");
            context.tally.arrived += 1;
            context.tally.arrived_bytes += frame.len() as u64;
            context.tally.missed += 1;
            context.tally.missed_bytes += frame.len() as u64;
            return Outcome::Refused;
        }
        if context.faults.is_stuck(false, n) {
            return Outcome::NoRoom(n);
        }
        let delivered = self.deliver(context, n, frame, &headers, hash);
        if delivered == Ok(false) {
            return Outcome::NoRoom(n);
        }
        context.tally.arrived += 1;
        context.tally.arrived_bytes += frame.len() as u64;
        if delivered.is_err() {
            // Its descriptor is passed over: a bad one mustn't be tried again and again.
            let queue = &mut self.queues[n as usize];
            queue.head = if queue.head + 1 >= queue.len { 0 } else { queue.head + 1 };
            if !queue.touched {
                queue.touched = true;
                self.touched.push(n);
            }
            context.tally.dma_faults += 1;
            context.tally.missed += 1;
            context.tally.missed_bytes += frame.len() as u64;
            return Outcome::Refused;
        }
        context.tally.received.count(frame, n);
        Outcome::Delivered(n)
    }

    /// Counts a frame that found no room and isn't going to wait.
    pub fn miss(context: &mut Context<'_>, frame: &[u8], queue: u32) {
        context.tally.arrived += 1;
        context.tally.arrived_bytes += frame.len() as u64;
        context.tally.missed += 1;
        if context.registers.get(registers_of(queue) + SRRCTL) & DROP_EN != 0 {
            context.tally.dropped += 1;
            context.tally.received.queues[queue as usize % 128].dropped += 1;
        } else {
            context.tally.missed_bytes += frame.len() as u64;
        }
    }

    /// Tells software how far each ring has got. Gives the queues that took frames.
    pub fn finish(&mut self, registers: &RegisterFile) -> &[u32] {
        for n in &self.touched {
            let queue = &mut self.queues[*n as usize];
            queue.touched = false;
            registers.set(registers_of(*n) + RDH, queue.head);
        }
        &self.touched
    }

    /// Forgets which queues took frames.
    pub fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Compares a queue's registers with what is known of it.
    fn sync(&mut self, registers: &RegisterFile, n: u32) {
        let base = registers_of(n);
        let queue = &mut self.queues[n as usize];
        queue.epoch = self.epoch;
        let rxdctl = registers.get(base + RXDCTL);
        if rxdctl & ENABLE == 0 {
            queue.enabled = false;
            return;
        }
        queue.strip_vlan = rxdctl & STRIP_VLAN != 0;
        queue.tail = registers.get_acquire(base + RDT);
        let setup = [
            registers.get(base),
            registers.get(base + RDBAH),
            registers.get(base + RDLEN),
            registers.get(base + SRRCTL),
        ];
        // A client that shares pages may turn a queue off and on between two looks: then it has put
        // the head elsewhere.
        if queue.enabled && setup == queue.setup && registers.get(base + RDH) == queue.head {
            return;
        }
        let len = (setup[2] & 0xf_ff80) / 16;
        *queue = Queue {
            enabled: len > 0,
            setup,
            base: u64::from(setup[1]) << 32 | u64::from(setup[0] & !0x7f),
            len,
            head: registers.get(base + RDH) % len.max(1),
            ..*queue
        };
    }

    /// Writes a frame into buffers, then its descriptors. `false`: too few of them.
    fn deliver(
        &mut self,
        context: &mut Context<'_>,
        n: u32,
        arrived: &[u8],
        headers: &Headers,
        hash: Hash,
    ) -> Result<bool, Fault> {
        let vlan = headers.vlan.filter(|_| self.queues[n as usize].strip_vlan);
        let frame = self::reshape(&mut self.scratch, arrived, vlan.is_some(), self.strip_crc);
        let queue = &mut self.queues[n as usize];
        let srrctl = queue.setup[3];
        let kind = srrctl >> 25 & 7;
        let room = match srrctl & 0x1f {
            0 => 2048,
            kilobytes => kilobytes as usize * 1024,
        };
        let split = match kind {
            SPLIT | SPLIT_ALWAYS => {
                let header_room = (srrctl >> 8 & 0x3f) as usize * 64;
                let stripped = if vlan.is_some() { 4 } else { 0 };
                let end = header_end(context.registers, headers).saturating_sub(stripped);
                match (1..=header_room).contains(&end) {
                    true => end,
                    false if kind == SPLIT_ALWAYS => header_room.min(frame.len()),
                    false => 0,
                }
            }
            _ => 0,
        };
        let needed = (frame.len() - split).div_ceil(room).max(1);
        if (free(queue, queue.tail) as usize) < needed {
            queue.tail = context.registers.get_acquire(registers_of(n) + RDT); // by now
            if (free(queue, queue.tail) as usize) < needed {
                trace!("{queue:?}: no room for {needed}");
                return Ok(false);
            }
        }
        let checks = check(arrived, headers, hash, self.with_checksum);
        if checks.status & (IPE | L4E) != 0 {
            context.tally.bad_checksums += 1;
        }
        let lie = context.faults.lie(n, false);
        let mut done = split;
        for piece in 0..needed {
            let mut descriptor = queue.base + 16 * u64::from(queue.head);
            let mut address = context.memory.load(descriptor)?;
            let len = (frame.len() - done).min(room);
            let mut low = checks.low;
            if piece == 0 && split > 0 {
                let header = context.memory.load(descriptor + 8)?;
                context.memory.write(header & !1, &frame[..split])?;
                low |= SPH | (split as u64) << 21;
            }
            if lie == Some(Lie::Address) {
                address ^= WRONG_ADDRESS;
            }
            context.memory.write(address, &frame[done..done + len])?;
            done += len;
            let mut status = DD;
            if piece + 1 == needed {
                status |= checks.status | EOP;
            }
            if vlan.is_some() {
                status |= VP;
            }
            queue.head = if queue.head + 1 == queue.len { 0 } else { queue.head + 1 };
            let mut told = len as u64;
            match lie {
                Some(Lie::Withhold) => continue,
                Some(Lie::Length) => told = 0xffff,
                Some(Lie::Place) => descriptor = queue.base + 16 * u64::from(queue.head),
                Some(Lie::Checksum) => status ^= (IPCS | L4CS) | (IPE | L4E),
                Some(Lie::Address) | None => {}
            }
            let tag = u64::from(vlan.unwrap_or(0)) << 48;
            if kind == LEGACY {
                // Length, checksum, status, errors, tag (82599 datasheet 7.1.5).
                let word = told | u64::from(status & 0xff) << 32 | u64::from(status >> 24) << 40;
                context.memory.store(descriptor + 8, word | tag)?;
            } else {
                context.memory.store(descriptor, low)?;
                // Status and length in one piece: Linux polls the one, DPDK the other.
                context.memory.store(descriptor + 8, u64::from(status) | told << 32 | tag)?;
            }
        }
        if !queue.touched {
            queue.touched = true;
            self.touched.push(n);
        }
        Ok(true)
    }
}

/// How many descriptors are the device's.
fn free(queue: &Queue, tail: u32) -> u32 {
    if tail >= queue.len {
        return 0; // software wrote nonsense: there is nothing to trust
    }
    if tail >= queue.head { tail - queue.head } else { tail + queue.len - queue.head }
}

/// The frame as it goes to memory: without its tag, with its CRC, if it is to be so.
fn reshape<'a>(
    scratch: &'a mut Vec<u8>,
    arrived: &'a [u8],
    strip_vlan: bool,
    strip_crc: bool,
) -> &'a [u8] {
    if !strip_vlan && strip_crc {
        return arrived;
    }
    scratch.clear();
    if strip_vlan {
        scratch.extend_from_slice(&arrived[..12]);
        scratch.extend_from_slice(&arrived[16..]);
    } else {
        scratch.extend_from_slice(arrived);
    }
    if !strip_crc {
        scratch.extend_from_slice(&crc32(arrived).to_le_bytes());
    }
    scratch
}

/// Where the header ends that is to be split off, by the kinds that PSRTYPE names; 0 if none.
fn header_end(registers: &RegisterFile, headers: &Headers) -> usize {
    let wanted = registers.get(at::PSRTYPE);
    let v4 = matches!(headers.network, Network::V4 { .. });
    match (headers.network, headers.transport) {
        (_, Transport::Tcp) if wanted & 1 << 4 != 0 => headers.transport_at + 20,
        (_, Transport::Udp) if wanted & 1 << 5 != 0 => headers.transport_at + 8,
        (Network::V4 { .. } | Network::V6 { .. }, _)
            if wanted & if v4 { 1 << 8 } else { 1 << 9 } != 0 =>
        {
            headers.transport_at
        }
        _ if wanted & 1 << 12 != 0 => headers.network_at,
        _ => 0,
    }
}

struct Checks {
    status: u32,
    low: u64,
}

/// Packet type, hash and checksum results (82599 datasheet 7.1.6.2).
fn check(frame: &[u8], headers: &Headers, hash: Hash, with_checksum: bool) -> Checks {
    let mut status = 0;
    let mut kind = match headers.network {
        Network::None => 0,
        Network::V4 { options } => 0x10 | if options { 0x20 } else { 0 },
        Network::V6 { extensions } => 0x40 | if extensions { 0x80 } else { 0 },
    };
    kind |= match headers.transport {
        Transport::None => 0,
        Transport::Tcp => 0x100,
        Transport::Udp => 0x200,
        Transport::Sctp => 0x400,
    };
    if let Some(good) = packet::network_checksum_good(frame, headers) {
        status |= IPCS | if good { 0 } else { IPE };
    }
    if let Some(good) = packet::transport_checksum_good(frame, headers) {
        status |= L4CS | if good { 0 } else { L4E };
        if headers.transport == Transport::Udp {
            status |= UDPCS;
        }
    }
    let upper = if with_checksum {
        // IP identification; the fragment checksum isn't modelled and stays 0.
        let id = frame.get(headers.network_at + 4..headers.network_at + 6);
        match (headers.network, id) {
            (Network::V4 { .. }, Some(id)) => u32::from(u16::from_be_bytes([id[0], id[1]])),
            _ => 0,
        }
    } else {
        kind |= hash.kind;
        hash.value
    };
    Checks { status, low: u64::from(kind) | u64::from(upper) << 32 }
}
