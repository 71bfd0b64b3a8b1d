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
    /// Descriptor `next` is done, and `room` is its buffer: the frame, or nothing yet.
    fn take(
        queue: &mut IxgbeRx<Self>,
        done: RxDone,
        room: LentRoom,
    ) -> Result<Option<Mbuf>, RxDrop>;

    /// As it is in a queue that starts anew.
    fn default_for(before: &Self) -> Self;
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
    fn default_for(_: &Self) -> Self {
        Self::default()
    }

    #[inline(always)]
    fn take(
        queue: &mut IxgbeRx<Self>,
        done: RxDone,
        room: LentRoom,
    ) -> Result<Option<Mbuf>, RxDrop> {
        let len_bytes = done.len_bytes();
        if !done.is_whole() || len_bytes == 0 || queue.path.skipping {
            return queue.lean_oddity(done, room);
        }
        match room.take_back_filled(len_bytes, queue.port, RxInfo::NONE) {
            Ok(mbuf) => Ok(Some(mbuf)),
            Err(_) => Err(RxDrop::BadLength),
        }
    }
}

impl IxgbeRx<Lean> {
    /// A part of a frame that no buffer can hold, which MAXFRS should have kept away; a frame of
    /// no length; or one with an error of the MAC, which FCTRL should have.
    #[cold]
    fn lean_oddity(&mut self, done: RxDone, room: LentRoom) -> Result<Option<Mbuf>, RxDrop> {
        let is_last = done.0 & RxDone::EOP != 0;
        let was_skipping = std::mem::replace(&mut self.path.skipping, !is_last);
        drop(room.take_back_filled(0, self.port, RxInfo::NONE));
        match (was_skipping, is_last) {
            (true, _) => Ok(None), // counted with its first part
            (false, false) => Err(RxDrop::BadChain),
            (false, true) => Err(RxDrop::BadLength),
        }
    }
}

impl Path for Full {
    fn default_for(before: &Self) -> Self {
        Self::new(before.max_frame_bytes)
    }

    #[inline(always)]
    fn take(
        queue: &mut IxgbeRx<Self>,
        done: RxDone,
        room: LentRoom,
    ) -> Result<Option<Mbuf>, RxDrop> {
        let len_bytes = done.len_bytes();
        let lower = RxLower(queue.ring.read(2 * queue.next));
        if !done.is_whole() || len_bytes == 0 || !queue.path.chain.is_empty() || queue.path.skipping
        {
            return queue.take_part(done, lower, room);
        }
        match room.take_back_filled(len_bytes, queue.port, found(done, lower)) {
            Ok(mbuf) => Ok(Some(mbuf)),
            Err(_) => Err(RxDrop::BadLength),
        }
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

impl IxgbeRx<Full> {
    /// A part of a frame in several buffers (7.1.6.2: all but the last one's fields other than
    /// length and DD mean nothing).
    #[inline(never)]
    fn take_part(
        &mut self,
        done: RxDone,
        lower: RxLower,
        room: LentRoom,
    ) -> Result<Option<Mbuf>, RxDrop> {
        let is_last = done.0 & RxDone::EOP != 0;
        let path = &mut self.path;
        if path.skipping {
            path.skipping = !is_last;
            drop(room.take_back_filled(0, self.port, RxInfo::NONE));
            return Ok(None);
        }
        // From here on an error gives the whole frame up, and the rest of it when it comes.
        let part = room.take_back_filled(done.len_bytes(), self.port, RxInfo::NONE);
        let why = match part {
            Err(_) => Some(RxDrop::BadLength),
            Ok(part) if part.len_bytes() == 0 || done.0 & RxDone::RXE != 0 => {
                Some(RxDrop::BadLength)
            }
            Ok(part) if path.chain.len_bytes() + part.len_bytes() > path.max_frame_bytes => {
                Some(RxDrop::BadChain)
            }
            Ok(part) => path.chain.push(part).err().map(|_| RxDrop::BadChain),
        };
        if let Some(why) = why {
            path.skipping = !is_last;
            drop(path.chain.finish());
            return Err(why);
        }
        if !is_last {
            return Ok(None);
        }
        let frame = path.chain.finish();
        Ok(frame.map(|mut frame| {
            frame.set_received(found(done, lower));
            frame
        }))
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
        let Self { ring, lent, tail, pool, .. } = self;
        pool.lend_bulk(count, |room, iova| {
            // The upper word is the address of a buffer for headers, which there is none of; its
            // lowest bit is where the device will say that it is done.
            ring.write(2 * *tail, iova.0);
            ring.write(2 * *tail + 1, 0);
            *tail = tail.wrapping_add(1);
            let _ = lent.push(room); // there is room: callers ask for no more
        })
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

    /// The next frame, if one has come in.
    #[inline(always)]
    fn take_frame(&mut self) -> Option<Mbuf> {
        loop {
            let done = RxDone(self.ring.read(2 * self.next + 1));
            if !done.is_done() {
                return None;
            }
            order_dma_reads();
            // Empty: the device says that it has used what it doesn't have.
            let room = self.lent.pop()?;
            let taken = P::take(self, done, room);
            self.next = self.next.wrapping_add(1);
            match taken {
                Ok(Some(mbuf)) => return Some(mbuf),
                Ok(None) => {}
                Err(why) => self.counters.rx_dropped(why),
            }
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
        self.path = P::default_for(&self.path);
        self.stopped = false;
    }
}

impl<P: Path> RxQueue for IxgbeRx<P> {
    fn receive(&mut self, burst: &mut Burst) {
        if self.stopped {
            return;
        }
        let (before, mut bytes) = (self.next, 0);
        let packets = burst.fill(usize::MAX, || {
            let mbuf = self.take_frame()?;
            bytes += mbuf.len_bytes() as u64;
            Some(mbuf)
        });
        if self.next != before {
            self.counters.packets.add(packets as u64);
            self.counters.bytes.add(bytes);
            self.progress.taken.add(self.next.wrapping_sub(before) as u64);
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
