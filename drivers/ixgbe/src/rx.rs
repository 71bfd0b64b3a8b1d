//! Receiving: take back what the device has filled, then lend it new buffers.

use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::dma::{Array, Descriptor, ReceiveRing};
use packetboat::mbuf::{Burst, ChainBuilder, LentRoom, Mbuf, MbufPool, Quiesced, RxInfo};
use packetboat::mmio::Register;
use packetboat::port::{PortError, QueueCounters, RxDrop, RxQueue};
use packetboat::telemetry::Counter;

use crate::descriptor::{RxDone, RxLower};

/// Buffers are lent this many at a time, with one write to the tail.
pub(crate) const BATCH: usize = 32;

/// The shortest frame that is one: an Ethernet header.
const MIN_FRAME_BYTES: u16 = 14;

/// The most changes between the usual and the odd in one poll.
const ROUNDS_MAX: usize = 32;

/// A receive queue; `P` is the path that its frames take.
#[derive(Debug)]
pub(crate) struct IxgbeRx<P> {
    ring: ReceiveRing,
    number: u16,
    doorbell: Register<u32>,
    pool: MbufPool,
    port: u16,
    path: P,
    counters: Arc<QueueCounters>,
    progress: Arc<Progress>,
    interrupt: Option<Interrupt>,
    /// Not to be polled: stopped by itself.
    stopped: bool,
}

/// For those who watch whether a queue gets on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Descriptors taken back.
    pub(crate) taken: Counter,
    /// Times that it was looked at.
    pub(crate) polls: Counter,
}

/// What wakes an lcore.
#[derive(Debug)]
pub(crate) struct Interrupt {
    pub(crate) eventfd: EventFd,
    /// EIMS_EX and EIMC_EX.
    pub(crate) enable: Register<u32>,
    pub(crate) disable: Register<u32>,
    /// The queue's vector in them.
    pub(crate) bit: u32,
}

/// How a queue's frames are taken: known when it is started, so that each path is compiled on its
/// own.
pub(crate) trait Path: Send + std::fmt::Debug + Sized + 'static {
    /// Status and error bits that tell whether a descriptor is as usual: done, a frame's last, no
    /// error that matters here.
    const LOOKED_AT: u64;

    /// What is noted of a whole frame in one buffer, the usual case.
    fn info(done: RxDone, descriptor: &Descriptor<'_>) -> RxInfo;

    /// What isn't usual: a part of a frame, a frame of no length, an error of the MAC, or anything
    /// while a frame is under way in parts. `None` is no frame yet.
    fn take_odd(
        &mut self,
        done: RxDone,
        lower: RxLower,
        room: LentRoom,
        port: u16,
    ) -> Result<Option<Mbuf>, RxDrop>;

    /// Whether a frame is under way in parts.
    fn is_under_way(&self) -> bool;

    /// As it is in a queue that starts anew.
    fn anew(&self) -> Self;
}

/// Frames in one buffer, of which nothing is asked.
#[derive(Debug, Default)]
pub(crate) struct Lean {
    /// Parts of a frame in several buffers are dropped up to its last one.
    skipping: bool,
}

/// Frames in several buffers, with what the device found out about them.
#[derive(Debug, Default)]
pub(crate) struct Full {
    /// A frame whose last buffer isn't there yet.
    chain: ChainBuilder,
    skipping: bool,
    /// No frame is longer.
    max_frame_bytes: usize,
}

impl Full {
    pub(crate) fn new(max_frame_bytes: usize) -> Self {
        Self { chain: ChainBuilder::new(), skipping: false, max_frame_bytes }
    }
}

impl Path for Lean {
    const LOOKED_AT: u64 = RxDone::DD | RxDone::EOP | RxDone::RXE;

    #[inline(always)]
    fn info(_: RxDone, _: &Descriptor<'_>) -> RxInfo {
        RxInfo::NONE
    }

    /// MAXFRS should have kept parts away, FCTRL errors.
    #[cold]
    fn take_odd(
        &mut self,
        done: RxDone,
        _: RxLower,
        room: LentRoom,
        port: u16,
    ) -> Result<Option<Mbuf>, RxDrop> {
        let is_last = done.is_last();
        let was_skipping = std::mem::replace(&mut self.skipping, !is_last);
        drop(room.take_back_filled(0, port, RxInfo::NONE));
        match (was_skipping, is_last) {
            (true, _) => Ok(None), // counted with its first part
            (false, false) => Err(RxDrop::BadChain),
            (false, true) => Err(RxDrop::BadLength),
        }
    }

    fn is_under_way(&self) -> bool {
        self.skipping
    }

    fn anew(&self) -> Self {
        Self::default()
    }
}

impl Path for Full {
    /// A wrong checksum isn't usual.
    const LOOKED_AT: u64 = RxDone::DD | RxDone::EOP | RxDone::RXE | RxDone::IPE | RxDone::TCPE;

    #[inline(always)]
    fn info(done: RxDone, descriptor: &Descriptor<'_>) -> RxInfo {
        let lower = RxLower(descriptor.lower());
        RxInfo {
            flags: done.flags_without_errors(lower),
            packet_type: lower.packet_type(),
            rss_hash: lower.hash(),
            vlan_tci: done.vlan_tci(),
        }
    }

    /// A part of a frame in several buffers (7.1.6.2: of all but the last, fields other than length
    /// and DD mean nothing).
    #[inline(never)]
    fn take_odd(
        &mut self,
        done: RxDone,
        lower: RxLower,
        room: LentRoom,
        port: u16,
    ) -> Result<Option<Mbuf>, RxDrop> {
        let is_last = done.is_last();
        if self.skipping {
            self.skipping = !is_last;
            drop(room.take_back_filled(0, port, RxInfo::NONE));
            return Ok(None);
        }
        // From here on an error gives the whole frame up, and the rest of it when it comes.
        let why = match room.take_back_filled(done.len_bytes().into(), port, RxInfo::NONE) {
            Err(_) => Some(RxDrop::BadLength),
            Ok(part) if part.len_bytes() == 0 || done.has_error() => Some(RxDrop::BadLength),
            Ok(part) if self.chain.len_bytes() + part.len_bytes() > self.max_frame_bytes => {
                Some(RxDrop::BadChain)
            }
            Ok(part) => self.chain.push(part).err().map(|_| RxDrop::BadChain),
        };
        if let Some(why) = why {
            self.skipping = !is_last;
            drop(self.chain.finish());
            return Err(why);
        }
        if !is_last {
            return Ok(None);
        }
        let Some(mut frame) = self.chain.finish() else { return Ok(None) };
        if frame.len_bytes() < usize::from(MIN_FRAME_BYTES) {
            return Err(RxDrop::BadLength);
        }
        frame.set_received(found(done, lower));
        Ok(Some(frame))
    }

    fn is_under_way(&self) -> bool {
        self.skipping || !self.chain.is_empty()
    }

    fn anew(&self) -> Self {
        Self::new(self.max_frame_bytes)
    }
}

/// What the device says of a frame, in its last descriptor.
fn found(done: RxDone, lower: RxLower) -> RxInfo {
    RxInfo {
        flags: done.flags(lower),
        packet_type: lower.packet_type(),
        rss_hash: lower.hash(),
        vlan_tci: done.vlan_tci(),
    }
}

/// What a queue is made of.
pub(crate) struct Parts {
    pub(crate) ring: Array<[u64; 2]>,
    /// Its number on the port.
    pub(crate) number: u16,
    pub(crate) doorbell: Register<u32>,
    pub(crate) pool: MbufPool,
    pub(crate) port: u16,
    pub(crate) counters: Arc<QueueCounters>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) interrupt: Option<Interrupt>,
}

impl<P: Path> IxgbeRx<P> {
    pub(crate) fn new(parts: Parts, path: P) -> Self {
        let Parts { ring, number, doorbell, pool, port, counters, progress, interrupt } = parts;
        Self {
            ring: ReceiveRing::new(ring),
            number,
            doorbell,
            pool,
            port,
            path,
            counters,
            progress,
            interrupt,
            stopped: false,
        }
    }

    /// Lends the device its first buffers: all but a batch. A tail that has caught up with the head
    /// would mean that there are none (7.1.9), and whole batches never cross the ring's end.
    pub(crate) fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        let wanted = self.ring.count() - BATCH;
        while self.ring.len() < wanted {
            if self.ring.lend(&self.pool, BATCH) == 0 {
                return Err(PortError::Mbufs {
                    device: device.to_owned(),
                    queue,
                    wanted,
                    available: self.ring.len(),
                    pool: self.pool.objects().name().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Tells the device of the buffers it has been lent.
    #[inline(always)]
    pub(crate) fn ring_doorbell(&self) {
        self.doorbell.write_after_dma(self.ring.tail() as u32);
    }

    /// Its number on its port.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.stopped
    }

    /// The device was reset: what it had goes back to the pool.
    pub(crate) fn reclaim(&mut self, reset: &Quiesced) {
        while let Some(room) = self.ring.pop() {
            drop(room.reclaim(reset));
        }
    }

    /// Lends new buffers, a batch at a time.
    #[inline(always)]
    fn replenish(&mut self) {
        let mut lent = false;
        while self.ring.count() - self.ring.len() >= 2 * BATCH {
            if self.ring.lend(&self.pool, BATCH) == 0 {
                self.counters.no_mbuf.add(1);
                break;
            }
            lent = true;
        }
        if lent {
            self.ring_doorbell();
        }
    }

    /// Descriptors that aren't as usual, or not done: whether the fast path may go on behind them.
    #[cold]
    fn take_odd(&mut self, burst: &mut Burst, bytes: &mut u64) -> bool {
        while burst.room() != 0 {
            let Some([lower, upper]) = self.ring.first() else { return false };
            let done = RxDone(upper);
            if !done.is_done() {
                return false;
            }
            // It may have come in since the fast path looked.
            let lengths = MIN_FRAME_BYTES..=self.pool.room_len_bytes();
            let usual = done.is_usual(P::LOOKED_AT) && lengths.contains(&done.len_bytes());
            if usual && !self.path.is_under_way() {
                return true;
            }
            let Some(room) = self.ring.pop() else { return false };
            self.progress.taken.add(1);
            match self.path.take_odd(done, RxLower(lower), room, self.port) {
                Ok(Some(mbuf)) => {
                    self.counters.packets.add(1);
                    *bytes += mbuf.len_bytes() as u64;
                    drop(burst.push(mbuf)); // there is room
                }
                Ok(None) => {}
                Err(why) => self.counters.rx_dropped(why),
            }
        }
        false
    }

    /// Isn't polled any more; the caller turns the queue off.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// It wasn't turned off after all.
    pub(crate) fn resume(&mut self) {
        self.stopped = false;
    }

    /// The queue was turned off: the device uses none of its buffers. It starts anew, at the first
    /// descriptor; the caller turns it on and rings.
    pub(crate) fn restart(&mut self) {
        // It counts descriptors modulo the ring, as the device's head does.
        let size = self.ring.count() as u64;
        self.progress.taken.add(size - self.progress.taken.get() % size);
        self.ring.rewind();
        self.path = self.path.anew();
        self.stopped = false;
    }
}

impl<P: Path> RxQueue for IxgbeRx<P> {
    fn receive(&mut self, burst: &mut Burst) {
        if self.stopped {
            return;
        }
        let mut bytes = 0;
        // Each round ends where the ring does, or behind something odd. A device that changes its
        // mind all the time is left to the next poll.
        for _ in 0..ROUNDS_MAX {
            let mut taken = 0;
            // While a frame is under way in parts, no descriptor is as usual.
            if !self.path.is_under_way() {
                let (port, shortest) = (self.port, MIN_FRAME_BYTES);
                let moved = self.ring.take_run(burst, port, shortest, |upper, descriptor| {
                    let done = RxDone(upper);
                    let usual = done.is_usual(P::LOOKED_AT);
                    usual.then(|| (done.len_bytes(), P::info(done, descriptor)))
                });
                taken = moved.frames;
                if taken != 0 {
                    bytes += moved.bytes;
                    self.counters.packets.add(taken as u64);
                    self.progress.taken.add(taken as u64);
                }
            }
            // A full burst is the usual end. Else it is the ring's end, or something odd, or there
            // is nothing more.
            if burst.room() == 0 || !self.take_odd(burst, &mut bytes) && taken == 0 {
                break;
            }
        }
        if bytes != 0 {
            self.counters.bytes.add(bytes);
        }
        self.progress.polls.add(1);
        self.replenish();
    }

    fn interrupt(&self) -> Option<&EventFd> {
        self.interrupt.as_ref().map(|interrupt| &interrupt.eventfd)
    }

    fn arm_interrupt(&mut self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.enable.write(interrupt.bit);
        }
    }

    fn disarm_interrupt(&mut self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.disable.write(interrupt.bit);
        }
    }
}
