//! Receiving: take back what the device has filled, then lend it new buffers.

use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::dma::{Array, Fifo};
use packetboat::mbuf::{Burst, ChainBuilder, LentRoom, Mbuf, MbufPool, Quiesced, RxInfo};
use packetboat::mmio::{Register, order_dma_reads};
use packetboat::port::{PortError, QueueCounters, RxDrop, RxQueue};
use packetboat::telemetry::Counter;

use crate::descriptor::{RxDone, RxLower};

/// Buffers are lent this many at a time, with one write to the tail.
pub(crate) const BATCH: usize = 32;

/// A receive queue; `P` is the path that its frames take.
#[derive(Debug)]
pub(crate) struct IxgbeRx<P> {
    /// Descriptors as pairs of words.
    ring: Array<u64>,
    /// What the device has, in the order of its descriptors; the first one's number is `next`.
    lent: Fifo<LentRoom>,
    /// Counts descriptors taken back; masked, it is the next one to be looked at.
    next: usize,
    /// Counts descriptors lent; masked, it is the tail.
    tail: usize,
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
    /// Whether [`Self::take`] looks at the descriptor's lower word.
    const NEEDS_LOWER: bool;

    /// A descriptor is done, which is the usual case: a whole frame in one buffer.
    fn take(done: RxDone, lower: RxLower, room: LentRoom, port: u16) -> Result<Mbuf, Mbuf>;

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
    const NEEDS_LOWER: bool = false;

    #[inline(always)]
    fn take(done: RxDone, _: RxLower, room: LentRoom, port: u16) -> Result<Mbuf, Mbuf> {
        room.take_back_filled(done.len_bytes(), port, RxInfo::NONE)
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
    const NEEDS_LOWER: bool = true;

    #[inline(always)]
    fn take(done: RxDone, lower: RxLower, room: LentRoom, port: u16) -> Result<Mbuf, Mbuf> {
        room.take_back_filled(done.len_bytes(), port, found(done, lower))
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
        let why = match room.take_back_filled(done.len_bytes(), port, RxInfo::NONE) {
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
        Ok(self.chain.finish().map(|mut frame| {
            frame.set_received(found(done, lower));
            frame
        }))
    }

    fn is_under_way(&self) -> bool {
        self.skipping || !self.chain.is_empty()
    }

    fn anew(&self) -> Self {
        Self::new(self.max_frame_bytes)
    }
}

/// What the device says of a frame, in its last descriptor.
#[inline(always)]
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
    pub(crate) ring: Array<u64>,
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
        let size = ring.count() / 2;
        Self {
            ring,
            lent: Fifo::new(size),
            next: 0,
            tail: 0,
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

    /// Lends as many buffers as the device may have: one fewer than there are descriptors, since
    /// a tail that has caught up with the head means that there are none (7.1.9).
    pub(crate) fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        let wanted = self.lent.count() - 1;
        while self.lent.len() < wanted {
            if self.lend((wanted - self.lent.len()).min(BATCH)) == 0 {
                return Err(PortError::Mbufs {
                    device: device.to_owned(),
                    queue,
                    wanted,
                    available: self.lent.len(),
                    pool: self.pool.objects().name().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Tells the device of the buffers it has been lent.
    #[inline(always)]
    pub(crate) fn ring_doorbell(&self) {
        self.doorbell.write_after_dma((self.tail & (self.lent.count() - 1)) as u32);
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
        while let Some(room) = self.lent.pop() {
            drop(room.reclaim(reset));
        }
    }

    /// Lends `count` buffers or none; returns how many.
    #[inline(always)]
    fn lend(&mut self, count: usize) -> usize {
        let mut ring = self.ring.batch();
        let mut lent = self.lent.filling();
        let mut at = 2 * self.tail;
        let count = self.pool.lend_bulk(count, |room, iova| {
            // The upper word is the address of a buffer for headers, which there is none of; its
            // lowest bit is where the device will say that it is done.
            ring.write(at, iova.0);
            ring.write(at + 1, 0);
            at += 2;
            let _ = lent.push(room); // there is room: callers ask for no more
        });
        self.tail = self.tail.wrapping_add(count);
        count
    }

    /// Lends new buffers, a batch at a time.
    #[inline(always)]
    fn replenish(&mut self) {
        let mut lent = false;
        while self.lent.room() > BATCH {
            if self.lend(BATCH) == 0 {
                self.run_dry();
                break;
            }
            lent = true;
        }
        if lent {
            self.ring_doorbell();
        }
    }

    /// The pool hasn't a whole batch.
    #[cold]
    fn run_dry(&mut self) {
        self.counters.no_mbuf.add(1);
        let mut count = BATCH / 2;
        while count != 0 {
            if self.lend(count) != 0 {
                return self.ring_doorbell();
            }
            count /= 2;
        }
    }

    /// Isn't polled any more; the caller turns the queue off.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// The queue was turned off: the device uses none of its buffers. It starts anew, at the first
    /// descriptor; the caller turns it on and rings.
    pub(crate) fn restart(&mut self) {
        (self.next, self.tail) = (0, 0);
        // It counts descriptors modulo the ring, as the device's head does.
        let size = self.lent.count() as u64;
        self.progress.taken.add(size - self.progress.taken.get() % size);
        for _ in 0..self.lent.len() {
            let Some(room) = self.lent.pop() else { break };
            self.ring.write(2 * self.tail, room.iova().0);
            self.ring.write(2 * self.tail + 1, 0);
            self.tail += 1;
            let _ = self.lent.push(room); // where it came from
        }
        self.path = self.path.anew();
        self.stopped = false;
    }
}

/// What status and error bits of a usual descriptor are, of those that [`RxDone::is`] looks at.
#[inline(always)]
fn usual<P: Path>(path: &P) -> u64 {
    if path.is_under_way() { RxDone::NEVER } else { RxDone::EOP }
}

impl<P: Path> RxQueue for IxgbeRx<P> {
    fn receive(&mut self, burst: &mut Burst) {
        if self.stopped {
            return;
        }
        let Self { ring, lent, next, port, path, counters, .. } = self;
        // All that a frame needs stands in registers: nothing below is written to memory that the
        // compiler would have to read again.
        let ring = ring.batch();
        let mut lent = lent.emptying();
        let (port, mut at, mut bytes) = (*port, 2 * *next, 0);
        // While a frame is under way in parts, no descriptor is as usual.
        let mut usual = usual(path);
        let packets = burst.fill(usize::MAX, || {
            loop {
                let done = RxDone(ring.read(at + 1));
                if !done.is_done() {
                    return None;
                }
                order_dma_reads();
                // Empty: the device says that it has used what it doesn't have.
                let room = lent.pop()?;
                let lower = RxLower(if P::NEEDS_LOWER { ring.read(at) } else { 0 });
                at += 2;
                let len_bytes = done.len_bytes();
                let taken = if done.is(usual) && len_bytes != 0 {
                    P::take(done, lower, room, port).map(Some).map_err(|_| RxDrop::BadLength)
                } else {
                    let taken = path.take_odd(done, lower, room, port);
                    usual = self::usual(path);
                    taken
                };
                match taken {
                    Ok(Some(mbuf)) => {
                        bytes += mbuf.len_bytes() as u64;
                        return Some(mbuf);
                    }
                    Ok(None) => {}
                    Err(why) => counters.rx_dropped(why),
                }
            }
        });
        drop(lent);
        let count = at / 2 - *next;
        if count != 0 {
            *next = next.wrapping_add(count);
            self.counters.packets.add(packets as u64);
            self.counters.bytes.add(bytes);
            self.progress.taken.add(count as u64);
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
