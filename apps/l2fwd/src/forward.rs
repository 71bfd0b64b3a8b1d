//! The forwarding loop.

use std::time::{Duration, Instant};

use packetboat::eal::StopFlag;
use packetboat::mbuf::Burst;
use packetboat::net::MacAddress;
use packetboat::port::{RxQueue, Sleeper};
use packetboat::sys::tsc;

use crate::counters::{LcoreCounters, Turn};
use crate::txbuffer::TxBuffer;

/// Frames wait in a transmit buffer for this long at most, in microseconds.
pub(crate) const DRAIN_US: u64 = 100;

/// An lcore's whole life. It owns its lanes, so nothing here is shared.
pub(crate) fn forward(
    lanes: &mut [Lane],
    burst_len: usize,
    stop: &StopFlag,
    lcore: &LcoreCounters,
    sleeper: Option<&Sleeper>,
) {
    let mut idle = 0;
    let mut burst = Burst::with_limit(burst_len);
    let drain_ticks = tsc::ticks_from_us(DRAIN_US);
    let mut clock = lcore.cycles.start();
    let mut drained = clock.now();
    while !stop.is_set() {
        let mut turn = Turn::default();
        for lane in &mut *lanes {
            lane.forward(&mut burst, &mut turn);
        }
        clock.turn(turn.found != 0);
        lcore.add(&turn);
        if clock.now().wrapping_sub(drained) >= drain_ticks {
            lanes.iter_mut().for_each(|lane| lane.tx.drain());
            drained = clock.now();
        }
        if let Some(sleeper) = sleeper {
            idle = if turn.frames == 0 { idle + 1 } else { 0 };
            if idle >= TURNS_BEFORE_SLEEP {
                lanes.iter_mut().for_each(|lane| lane.tx.drain());
                sleep(lanes, &mut burst, lcore, sleeper);
                // What woke it was found while it was awake: the time asleep isn't a turn's.
                clock.skip();
                idle = 0;
            }
        }
    }
    lanes.iter_mut().for_each(|lane| lane.tx.drain());
}

/// Turns that find nothing before an lcore goes to sleep, if it may.
const TURNS_BEFORE_SLEEP: u32 = 256;
/// It wakes at least so often, to see whether it shall stop.
const NAP: Duration = Duration::from_millis(50);

/// Sleeps until a receive queue has something.
#[cold]
fn sleep(lanes: &mut [Lane], burst: &mut Burst, lcore: &LcoreCounters, sleeper: &Sleeper) {
    let queues = |lanes: &mut [Lane], what: fn(&mut dyn RxQueue)| {
        lanes.iter_mut().flat_map(|lane| &mut lane.rx).for_each(|rx| what(rx.as_mut()));
    };
    queues(lanes, <dyn RxQueue>::arm_interrupt);
    // What came in between the last poll and now rings nobody.
    let mut turn = Turn::default();
    for lane in &mut *lanes {
        lane.forward(burst, &mut turn);
    }
    lcore.add(&turn);
    if turn.found != 0 {
        return queues(lanes, <dyn RxQueue>::disarm_interrupt);
    }
    let start = Instant::now();
    sleeper.sleep(NAP);
    lcore.sleeps.add(1);
    lcore.slept_us.add(start.elapsed().as_micros() as u64);
    queues(lanes, <dyn RxQueue>::disarm_interrupt);
}

/// The way from one port to another on one lcore.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The port that frames come from.
    pub(crate) from: u16,
    /// The receive queues of that port that this lcore polls, with ascending numbers.
    pub(crate) rx: Vec<Box<dyn RxQueue>>,
    /// What is done to each frame.
    pub(crate) rewrite: Rewrite,
    /// Frames may come in with checksums that aren't filled in (virtio), and the port that they go
    /// to doesn't do that.
    pub(crate) finish: bool,
    /// The port that frames go to.
    pub(crate) to: u16,
    /// This lcore's transmit queue of that port.
    pub(crate) tx: TxBuffer,
}

impl Lane {
    /// A burst of each receive queue: received, changed, and handed on.
    #[inline(always)]
    fn forward(&mut self, burst: &mut Burst, turn: &mut Turn) {
        for rx in &mut self.rx {
            rx.receive(burst);
            turn.polled(burst.len());
            self.rewrite.apply_to(burst);
            if self.finish {
                finish(burst);
            }
            self.tx.send(burst); // takes all; what its queue has no room for is counted
        }
    }
}

/// Fills in checksums that frames ask for. One for which that can't be done goes on asking, and is
/// counted by the transmit queue, which refuses it.
fn finish(burst: &mut Burst) {
    for frame in burst.iter_mut().filter(|frame| frame.requests_any()) {
        if let Err(error) = frame.fill_checksums() {
            tracing::debug!("a checksum can't be filled in: {error}");
        }
    }
}

/// Length of an Ethernet header, in bytes.
const HEADER_BYTES: usize = 14;

/// What is done to a frame between two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// Nothing.
    Keep,
    /// Its Ethernet addresses are replaced.
    Addresses {
        /// The new destination and source, side by side as they stand in a frame.
        addresses: [u8; 12],
    },
}

impl Rewrite {
    /// As DPDK's l2fwd does it: to 02:00:00:00:00:PORT, from the address of the port it leaves by.
    pub(crate) fn for_port(port: u16, port_mac: MacAddress) -> Self {
        let [high, low] = port.to_be_bytes();
        let MacAddress([a, b, c, d, e, f]) = port_mac;
        Self::Addresses { addresses: [2, 0, 0, 0, high, low, a, b, c, d, e, f] }
    }

    /// Does it to all frames. One that is too short for a header is left as it is.
    #[inline(always)]
    fn apply_to(self, burst: &mut Burst) {
        if let Self::Addresses { addresses: [a, b, c, d, e, f, g, h, rest @ ..] } = self {
            let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
            replace_addresses(burst, first, u32::from_ne_bytes(rest));
        }
    }
}

/// Writes the first twelve bytes of each frame. As two numbers, and out of line, they stay in registers.
#[inline(never)]
fn replace_addresses(burst: &mut Burst, first: u64, rest: u32) {
    for frame in burst.iter_mut() {
        if let Some(data) = frame.data_mut()
            && let Some(header) = data.first_chunk_mut::<HEADER_BYTES>()
            && let Some((eight, others)) = header.split_first_chunk_mut()
            && let Some(four) = others.first_chunk_mut()
        {
            *eight = first.to_ne_bytes();
            *four = rest.to_ne_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use packetboat::mbuf::Mbuf;

    use super::*;
    use crate::testing::{self, Wire};

    const PORT_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 9]);

    /// Two ports, forwarded until all of the frames put in have come out.
    fn forwarded(rewrite: [Rewrite; 2], frames: usize, burst_len: usize) -> [Vec<Vec<u8>>; 2] {
        let pool = testing::pool(512);
        let stop = StopFlag::new();
        let wires = [Wire::new(64), Wire::new(64)];
        for (port, wire) in wires.iter().enumerate() {
            for number in 0..frames {
                wire.arrive(testing::frame(port, number));
            }
        }
        let mut lanes: Vec<Lane> = [(0, 1), (1, 0)]
            .into_iter()
            .map(|(from, to)| Lane {
                from: from as u16,
                rx: vec![wires[from].rx(&pool)],
                rewrite: rewrite[from],
                finish: false,
                to: to as u16,
                tx: TxBuffer::new(wires[to].tx(), burst_len),
            })
            .collect();
        let counters = Arc::new(LcoreCounters::default());
        let all = wires.clone();
        let stopper = stop.clone();
        let waiter = std::thread::spawn(move || {
            testing::wait_until(|| all.iter().all(|wire| wire.sent_len() == frames));
            stopper.set();
        });
        forward(&mut lanes, burst_len, &stop, &counters, None);
        waiter.join().unwrap();
        drop(lanes);
        let read = counters.read();
        assert_eq!(read.frames, 2 * frames as u64);
        assert!(read.found <= read.polls && read.found >= read.frames.div_ceil(burst_len as u64));
        assert!(read.time.busy_ticks > 0 && read.time.busy_ticks <= read.time.ticks);
        let sent = wires.map(|wire| wire.take_sent());
        assert_eq!(pool.objects().available(), 512);
        sent
    }

    #[test]
    fn frames_leave_by_the_other_port_in_order_and_rewritten() {
        let rewrite = [Rewrite::for_port(1, PORT_MAC), Rewrite::for_port(0x102, PORT_MAC)];
        let [out_0, out_1] = forwarded(rewrite, 1000, 32);
        for (sent, from, last) in [(out_1, 0, [0, 1]), (out_0, 1, [1, 2])] {
            assert_eq!(sent.len(), 1000);
            for (number, frame) in sent.iter().enumerate() {
                let mut wanted = testing::frame(from, number);
                wanted[..6].copy_from_slice(&[2, 0, 0, 0, last[0], last[1]]);
                wanted[6..12].copy_from_slice(&PORT_MAC.0);
                assert_eq!(*frame, wanted, "frame {number}");
            }
        }
    }

    #[test]
    fn frames_that_are_kept_are_kept_and_a_lone_frame_does_not_wait_for_others() {
        for frames in [1, 77] {
            let [out_0, out_1] = forwarded([Rewrite::Keep, Rewrite::Keep], frames, 32);
            let arrived = |port| (0..frames).map(|n| testing::frame(port, n)).collect::<Vec<_>>();
            assert_eq!(out_0, arrived(1));
            assert_eq!(out_1, arrived(0));
        }
    }

    /// A queue for which a frame comes in just when it is armed.
    #[derive(Debug)]
    struct Late {
        rx: Box<dyn RxQueue>,
        wire: Wire,
        coming: usize,
    }

    impl RxQueue for Late {
        fn receive(&mut self, burst: &mut Burst) {
            self.rx.receive(burst);
        }

        fn arm_interrupt(&mut self) {
            if let Some(left) = self.coming.checked_sub(1) {
                self.coming = left;
                self.wire.arrive(testing::frame(0, left));
            }
        }
    }

    #[test]
    fn frames_that_come_while_an_lcore_goes_to_sleep_are_counted_and_keep_it_awake() {
        let pool = testing::pool(64);
        let wires = [Wire::new(64), Wire::new(64)];
        let late = Late { rx: wires[0].rx(&pool), wire: wires[0].clone(), coming: 5 };
        let mut lanes = [Lane {
            from: 0,
            rx: vec![Box::new(late), wires[0].rx(&pool)],
            rewrite: Rewrite::Keep,
            finish: false,
            to: 1,
            tx: TxBuffer::new(wires[1].tx(), 32),
        }];
        let counters = LcoreCounters::default();
        let sleeper = Sleeper::new(std::iter::empty()).unwrap().unwrap();
        let mut burst = Burst::with_limit(32);
        for n in 1..=5 {
            sleep(&mut lanes, &mut burst, &counters, &sleeper);
            let read = counters.read();
            assert_eq!((read.frames, read.found, read.polls), (n, n, 2 * n));
            assert_eq!(counters.sleeps.get(), 0);
        }
        sleep(&mut lanes, &mut burst, &counters, &sleeper);
        assert_eq!((counters.read().frames, counters.sleeps.get()), (5, 1));
        lanes[0].tx.drain();
        assert_eq!(wires[1].take_sent().len(), 5);
    }

    #[test]
    fn a_frame_shorter_than_a_header_is_left_alone() {
        let pool = testing::pool(1);
        let mut frame = pool.alloc().unwrap();
        frame.append(13).unwrap().fill(7);
        let mut burst = Burst::with_limit(1);
        burst.push(frame).unwrap();
        Rewrite::for_port(0, PORT_MAC).apply_to(&mut burst);
        assert_eq!(burst.as_slice()[0].data(), [7; 13]);
    }

    #[test]
    fn checksums_that_the_next_port_does_not_fill_in_are_filled_in() {
        use packetboat::mbuf::{TxFlags, TxLengths, TxRequest};
        let pool = testing::pool(2);
        let mut burst = Burst::new();
        for segment in [0, 100] {
            let mut frame = pool.alloc().unwrap();
            let header = [0x45, 0, 0, 240, 0, 1, 0, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
            frame.append(14).unwrap().fill(0);
            frame.append(20).unwrap().copy_from_slice(&header);
            frame.append(220).unwrap().fill(0x3c);
            let kind = if segment == 0 { TxFlags::TCP_CHECKSUM } else { TxFlags::TCP_SEGMENT };
            let lengths = TxLengths::new(14, 20, 20).unwrap().segment(segment);
            frame.request(TxRequest { flags: TxFlags::IPV4 | kind, lengths }).unwrap();
            burst.push(frame).unwrap();
        }
        finish(&mut burst);
        let asks: Vec<bool> = burst.as_slice().iter().map(Mbuf::requests_any).collect();
        assert_eq!(asks, [false, true], "segments aren't cut here");
        let data = burst.as_slice()[0].data();
        let addresses = data[26..34].try_into().unwrap();
        let mut sum = packetboat::net::ipv4_pseudo_header(addresses, 6, 220);
        sum.add(&data[34..]);
        assert_eq!(sum.checksum().get(), 0);
    }
}
