//! Receiving: take back what the device has filled, then lend it new buffers.

use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::dma::Slots;
use packetboat::mbuf::{Burst, ChainBuilder, LentRoom, Mbuf, MbufPool, Quiesced, RxInfo};
use packetboat::memory::Iova;
use packetboat::port::{PortError, QueueCounters, RxDrop, RxQueue};

use crate::gate::{Found, Passage};
use crate::header::{HEADER_BYTES, buffer_count};
use crate::ring::{FULL, Straight, Used};

/// A receive queue on a ring of one kind; `MERGEABLE`: a frame may be spread over several buffers.
///
/// Each buffer is one descriptor: the device's header goes into the headroom, right in front of
/// the frame, so that a frame starts where any other driver's would.
#[derive(Debug)]
pub(crate) struct VirtioRx<R, const MERGEABLE: bool> {
    ring: R,
    pool: MbufPool,
    /// What was lent, by id. As many as the ring has descriptors in use.
    lent: Slots<LentRoom>,
    /// New buffers are lent once this many descriptors are free.
    refill_at: u16,
    /// The pool had fewer buffers than there were descriptors for.
    short: bool,
    port: u16,
    counters: Arc<QueueCounters>,
    passage: Passage,
    /// What the device rings, if it may.
    interrupt: Option<EventFd>,
}

/// The most buffers lent in one go.
const REFILL_MAX: u16 = 32;

/// Bytes that a device can write into each buffer of a pool: its header, and the room behind.
pub(crate) fn room_bytes(pool: &MbufPool) -> u32 {
    u32::from(pool.room_len_bytes()) + u32::from(HEADER_BYTES)
}

/// Where the device's header goes.
#[inline(always)]
fn start(room: Iova) -> Iova {
    Iova(room.0 - u64::from(HEADER_BYTES))
}

impl<R: Straight, const MERGEABLE: bool> VirtioRx<R, MERGEABLE> {
    pub(crate) fn new(
        ring: R,
        pool: MbufPool,
        port: u16,
        counters: Arc<QueueCounters>,
        passage: Passage,
        interrupt: Option<EventFd>,
    ) -> Self {
        let size = ring.size();
        Self {
            ring,
            pool,
            lent: Slots::new(usize::from(size)),
            refill_at: (size / 4).clamp(1, REFILL_MAX),
            short: false,
            port,
            counters,
            passage,
            interrupt,
        }
    }

    /// Takes what has been completed, and lends new buffers.
    #[inline(never)]
    fn work(&mut self, completed: u16, burst: &mut Burst) {
        let most = if R::COUNTS { completed } else { self.ring.outstanding() };
        self.take_frames(most, burst);
        if self.ring.free() >= self.refill_at && self.refill() {
            self.ring.publish();
        }
    }

    /// As [`Self::work`] where one has been completed. When there is little to do frames come alone, and
    /// what else is done once a burst falls on each: so this keeps no state, and calls nobody.
    #[inline(never)]
    fn work_alone(&mut self, burst: &mut Burst) {
        if !self.take_alone(burst) {
            self.work(1, burst);
        } else if self.ring.free() >= self.refill_at {
            self.refill_alone();
        }
    }

    #[inline(never)]
    fn refill_alone(&mut self) {
        if self.refill() {
            self.ring.publish();
        }
    }

    /// Lends buffers while there are descriptors for them; whether it has lent any.
    #[inline(always)]
    fn refill(&mut self) -> bool {
        let mut any = false;
        self.short = false;
        // A burst, or a frame in many buffers, may have taken more than is lent in one go: were
        // less lent than was taken, the device would run dry under load.
        while self.ring.free() >= self.refill_at {
            let wanted = self.ring.free().min(REFILL_MAX);
            let lent = self.lend(wanted);
            any |= lent != 0;
            if lent < wanted {
                self.short = true;
                break;
            }
        }
        any
    }

    /// Lends up to `count` buffers; returns how many.
    #[inline(always)]
    fn lend(&mut self, count: u16) -> u16 {
        let wanted = usize::from(count);
        let (place, free) = self.ring.free_run();
        if self.ring.is_straight() && free >= wanted {
            let Self { ring, lent, pool, .. } = self;
            let mut describe = ring.room_run(wanted);
            let mut places = lent.run(place, wanted);
            let done = pool.lend_bulk(wanted, |room, at| {
                describe(start(at));
                if let Some(place) = places.next() {
                    // Empty, so there is nothing to be dropped.
                    std::mem::forget(place.replace(room));
                }
            });
            drop(describe);
            ring.offered(done as u16);
            return if done == 0 { self.lend_few(count) } else { done as u16 };
        }
        match self.lend_anywhere(wanted) {
            0 => self.lend_few(count),
            done => done,
        }
    }

    /// As many as wanted, or none, wherever descriptors are free.
    #[inline(never)]
    fn lend_anywhere(&mut self, wanted: usize) -> u16 {
        let Self { ring, lent, pool, .. } = self;
        pool.lend_bulk(wanted, |room, at| {
            lent.fill(usize::from(ring.offer_room(start(at))), room);
        }) as u16
    }

    /// The pool runs low: tries for fewer, so that a last few still get through.
    #[cold]
    fn lend_few(&mut self, count: u16) -> u16 {
        self.counters.no_mbuf.add(1);
        let mut count = usize::from(count / 2);
        while count != 0 {
            let done = self.lend_anywhere(count);
            if done != 0 {
                return done;
            }
            count /= 2;
        }
        0
    }

    /// The next completed buffer, if it is one that the device has, with its length.
    #[inline(always)]
    fn take(&mut self, used: Used) -> Result<(LentRoom, u32), RxDrop> {
        let Used { id, len } = used;
        // An id that isn't the expected one may be none at all; places are masked, so it is
        // looked at before one is.
        if !self.ring.is_expected(id) {
            self.ring.bend();
            if id >= u32::from(self.ring.size()) {
                return Err(RxDrop::BadId);
            }
        }
        let Some(room) = self.lent.take(id as usize) else {
            self.ring.bend();
            return Err(RxDrop::BadId);
        };
        self.ring.give_back(id as u16);
        let full = R::IN_ORDER && len == FULL;
        let len = if full { room_bytes(&self.pool) } else { len };
        Ok((room, len))
    }

    /// Takes frames out of up to `completed` buffers.
    #[inline(always)]
    fn take_frames(&mut self, completed: u16, burst: &mut Burst) {
        if burst.room() == 0 {
            return; // they stay where they are
        }
        let mut left = completed;
        let (before, mut bytes) = (burst.len(), 0);
        loop {
            // For one alone, walking side by side doesn't pay; and where there is no count of them,
            // the second one tells.
            if left == 1 || !R::COUNTS || !self.ring.is_straight() {
                match self.take_one(&mut left, burst) {
                    Some(len) => bytes += len,
                    None => break,
                }
                if burst.room() == 0 || !self.ring.has_more(left) {
                    break;
                }
            }
            if self.ring.is_straight() {
                let before = left;
                bytes += self.take_straight(&mut left, burst);
                if left == 0 || burst.room() == 0 || !self.passage.is_open() {
                    break;
                }
                // It ends where the ring begins anew; or the next one is out of order, or wrong.
                if left == before {
                    match self.take_one(&mut left, burst) {
                        Some(len) => bytes += len,
                        None => break,
                    }
                }
                if burst.room() == 0 || !self.ring.has_more(left) {
                    break;
                }
            }
        }
        self.counters.packets.add((burst.len() - before) as u64);
        self.counters.bytes.add(bytes);
    }

    /// Takes frames of one buffer each, side by side, for as long as all is as it should be.
    /// Returns their bytes. `left` is counted down.
    #[inline(always)]
    fn take_straight(&mut self, left: &mut u16, burst: &mut Burst) -> u64 {
        let Self { ring, lent, pool, port, .. } = self;
        let (most, port) = (u32::from(pool.room_len_bytes()), *port);
        let mut places = lent.run(ring.used_place(), usize::from(*left));
        let mut used = ring.used_run(*left);
        // With their headers, which are taken off for all at once.
        let mut written = 0;
        // A frame that goes on in other buffers.
        let mut first_of_several = None;
        let taken = burst.fill(usize::from(*left), || {
            let len = used.next()?;
            let place = places.next()?;
            let data = len.wrapping_sub(u32::from(HEADER_BYTES));
            if data.wrapping_sub(1) >= most {
                return None; // none, or more than there is room for
            }
            let room = place.take()?;
            let filled =
                room.take_back_written(HEADER_BYTES, HEADER_BYTES, len, port, RxInfo::NONE);
            let mbuf = filled.ok()?; // the length was looked at
            if MERGEABLE {
                let count = mbuf.prefix(HEADER_BYTES).map_or(0, buffer_count);
                if count != 1 {
                    first_of_several = Some((mbuf, count));
                    return None;
                }
            }
            written += u64::from(len);
            Some(mbuf)
        });
        drop(used);
        let mut bytes = written - taken as u64 * u64::from(HEADER_BYTES);
        let taken = taken as u16 + u16::from(first_of_several.is_some());
        ring.took(taken);
        *left -= taken;
        if let Some((mbuf, count)) = first_of_several {
            match self.take_rest(mbuf, count, left) {
                Ok(mbuf) => {
                    bytes += mbuf.len_bytes() as u64;
                    let _ = burst.push(mbuf); // there was room for one more
                }
                Err(why) => self.dropped(why),
            }
        }
        bytes
    }

    /// Takes a frame of one buffer, of one that has been completed. False: nothing was taken, as it isn't
    /// as it should be.
    #[inline(always)]
    fn take_alone(&mut self, burst: &mut Burst) -> bool {
        let Self { ring, lent, pool, port, .. } = self;
        if !ring.is_straight() {
            return false;
        }
        let (most, mut bytes) = (u32::from(pool.room_len_bytes()), 0);
        let mut several = None;
        let taken = burst.fill(1, || {
            let len = ring.next_length()?;
            let data = len.wrapping_sub(u32::from(HEADER_BYTES));
            if data.wrapping_sub(1) >= most {
                return None; // none, or more than there is room for
            }
            let room = lent.take(ring.used_place())?;
            let filled =
                room.take_back_written(HEADER_BYTES, HEADER_BYTES, len, *port, RxInfo::NONE);
            let mbuf = filled.ok()?; // the length was looked at
            ring.took(1);
            if MERGEABLE && mbuf.prefix(HEADER_BYTES).map_or(0, buffer_count) != 1 {
                several = Some(mbuf);
                return None;
            }
            bytes = u64::from(data);
            Some(mbuf)
        });
        if MERGEABLE && several.is_some() {
            // Or none: the others would have been completed with it.
            self.dropped_alone(several);
            return true;
        }
        if taken == 0 {
            return false;
        }
        self.counters.packets.add(1);
        self.counters.bytes.add(bytes);
        true
    }

    #[cold]
    #[inline(never)]
    fn dropped_alone(&mut self, mbuf: Option<Mbuf>) {
        drop(mbuf);
        self.dropped(RxDrop::BadChain);
    }

    /// Takes one frame, or what is wrong with it. Returns its bytes; `None`: there is none, or
    /// nothing can be taken any more.
    #[inline(always)]
    fn take_one(&mut self, left: &mut u16, burst: &mut Burst) -> Option<u64> {
        let used = self.ring.take_used()?;
        *left -= 1;
        match self.take_frame(used, left) {
            Ok(mbuf) => {
                let bytes = mbuf.len_bytes() as u64;
                let _ = burst.push(mbuf); // there is room
                Some(bytes)
            }
            Err(why) => {
                self.dropped(why);
                self.passage.is_open().then_some(0)
            }
        }
    }

    #[cold]
    fn dropped(&mut self, why: RxDrop) {
        self.counters.rx_dropped(why);
        if why == RxDrop::BadId && !R::SURVIVES_BAD_ID {
            self.break_down();
        }
    }

    /// One frame: one completed buffer, or as many as its header says. `left` is how many more
    /// there are at most, and is counted down.
    #[inline(always)]
    fn take_frame(&mut self, used: Used, left: &mut u16) -> Result<Mbuf, RxDrop> {
        let (room, len) = self.take(used)?;
        let mbuf = room
            .take_back_written(HEADER_BYTES, HEADER_BYTES, len, self.port, RxInfo::NONE)
            .map_err(|_| RxDrop::BadLength)?;
        if len == u32::from(HEADER_BYTES) {
            return Err(RxDrop::BadLength);
        }
        if MERGEABLE {
            let count = mbuf.prefix(HEADER_BYTES).map_or(0, buffer_count);
            if count != 1 {
                return self.take_rest(mbuf, count, left);
            }
        }
        Ok(mbuf)
    }

    /// The other buffers of a frame that is spread over `count` (5.1.6.4): the device completes
    /// them together, so they must be there.
    #[cold]
    fn take_rest(&mut self, first: Mbuf, count: u16, left: &mut u16) -> Result<Mbuf, RxDrop> {
        let rest = count.checked_sub(1).ok_or(RxDrop::BadChain)?;
        if rest > *left {
            return Err(RxDrop::BadChain);
        }
        let mut chain = ChainBuilder::new();
        let mut whole = chain.push(first).map_err(|_| RxDrop::BadChain);
        // All of them are taken, even if one is bad: the next frame starts behind them.
        for _ in 0..rest {
            let Some(used) = self.ring.take_used() else {
                whole = whole.and(Err(RxDrop::BadChain));
                break;
            };
            *left -= 1;
            let part = self.take(used).and_then(|(room, len)| {
                room.take_back_written(HEADER_BYTES, 0, len, self.port, RxInfo::NONE)
                    .map_err(|_| RxDrop::BadLength)
            });
            if matches!(part, Err(RxDrop::BadId)) && !R::SURVIVES_BAD_ID {
                return Err(RxDrop::BadId);
            }
            let chained = part.and_then(|part| chain.push(part).map_err(|_| RxDrop::BadChain));
            whole = whole.and(chained);
        }
        whole.and_then(|()| chain.finish().ok_or(RxDrop::BadChain))
    }

    #[cold]
    fn break_down(&mut self) {
        self.passage.block();
        self.counters.broken.add(1);
    }

    /// The gate isn't open.
    #[cold]
    fn wait(&mut self, burst: &mut Burst) {
        if self.passage.look() != Found::Closed {
            return;
        }
        // What the device has completed before it went is whole.
        if let Ok(completed @ 1..) = self.ring.completed()
            && self.take_slowly(completed, burst)
        {
            return;
        }
        self.restart();
        self.passage.park();
    }

    /// Takes up to `completed` frames, one after the other; whether there may be more to come. There is no
    /// hurry, and what is walked over side by side stays in one place, [`Self::work`].
    fn take_slowly(&mut self, completed: u16, burst: &mut Burst) -> bool {
        let mut left = if R::COUNTS { completed } else { self.ring.outstanding() };
        let (before, mut bytes) = (burst.len(), 0);
        while burst.room() != 0 && self.ring.has_more(left) {
            let Some(len) = self.take_one(&mut left, burst) else { break };
            bytes += len;
        }
        self.counters.packets.add((burst.len() - before) as u64);
        self.counters.bytes.add(bytes);
        burst.len() != before || burst.room() == 0
    }

    /// There is no device: the ring begins anew, with the same buffers.
    fn restart(&mut self) {
        let rooms: Vec<LentRoom> = self.lent.drain().collect();
        self.ring.restart();
        for room in rooms {
            let id = self.ring.offer_room(start(room.iova()));
            self.lent.fill(usize::from(id), room);
        }
        self.refill();
        self.ring.publish_quietly();
    }
}

/// What a port does with its receive queues, whatever their kind.
pub(crate) trait OwnRx: RxQueue {
    /// Lends the device its first buffers, as many as it has descriptors for. It isn't rung yet.
    fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError>;

    /// Tells the device to look: once it is running.
    fn kick(&self);

    /// The device was reset: everything that it had goes back to the pool.
    fn reclaim(&mut self, reset: &Quiesced);
}

impl<R: Straight, const MERGEABLE: bool> OwnRx for VirtioRx<R, MERGEABLE> {
    fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        while self.ring.free() > 0 {
            if self.lend(self.ring.free().min(REFILL_MAX)) == 0 {
                break;
            }
        }
        if self.ring.free() > 0 {
            return Err(PortError::Mbufs {
                device: device.to_owned(),
                queue,
                wanted: usize::from(self.ring.size()),
                available: usize::from(self.ring.size() - self.ring.free()),
                pool: self.pool.objects().name().to_owned(),
            });
        }
        self.ring.publish_quietly();
        Ok(())
    }

    fn kick(&self) {
        self.ring.ring();
    }

    fn reclaim(&mut self, reset: &Quiesced) {
        for room in self.lent.drain() {
            drop(room.reclaim(reset));
        }
    }
}

impl<R: Straight, const MERGEABLE: bool> RxQueue for VirtioRx<R, MERGEABLE> {
    fn receive(&mut self, burst: &mut Burst) {
        if !self.passage.is_open() {
            return self.wait(burst);
        }
        // An empty ring is left as fast as possible.
        match self.ring.completed() {
            Ok(0) if !self.short => {}
            Ok(1) if R::COUNTS => self.work_alone(burst),
            Ok(completed) => self.work(completed, burst),
            Err(_) => self.break_down(),
        }
    }

    fn interrupt(&self) -> Option<&EventFd> {
        self.interrupt.as_ref()
    }

    fn arm_interrupt(&mut self) {
        // A ring that is between two devices begins without.
        if self.interrupt.is_some() && self.passage.is_open() {
            self.ring.listen(true);
        }
    }

    fn disarm_interrupt(&mut self) {
        if self.interrupt.is_some() && self.passage.is_open() {
            self.ring.listen(false);
        }
    }
}
