//! Receiving: take back what the device has filled, then lend it new buffers.

use std::sync::Arc;

use packetboat::dma::{Slots, Table};
use packetboat::mbuf::{Burst, Lent, Mbuf, MbufPool, Quiesced};
use packetboat::memory::Iova;
use packetboat::port::{PortError, QueueCounters, RxDrop, RxQueue};

use crate::header::{HEADER_BYTES, buffer_count};
use crate::ring::{Descriptor, SplitRing, Used};

/// A receive queue.
///
/// Each buffer is one descriptor: the device's header goes into the headroom, right in front of
/// the frame, so that a frame starts where any other driver's would.
#[derive(Debug)]
pub(crate) struct VirtioRx {
    ring: SplitRing,
    pool: MbufPool,
    /// What was lent, by descriptor id.
    lent: Slots<Lent>,
    lent_count: u16,
    /// Ids of descriptors that aren't in use, first in, first out.
    free_ids: Table<u16>,
    free_first: u16,
    /// New buffers are lent once this many descriptors are free.
    refill_at: u16,
    refill: Burst,
    mergeable: bool,
    port: u16,
    counters: Arc<QueueCounters>,
    broken: bool,
}

/// The most buffers lent in one go.
const REFILL_MAX: u16 = 32;

impl VirtioRx {
    pub(crate) fn new(
        ring: SplitRing,
        pool: MbufPool,
        mergeable: bool,
        port: u16,
        counters: Arc<QueueCounters>,
    ) -> Self {
        let size = ring.size();
        Self {
            ring,
            pool,
            lent: Slots::new(usize::from(size)),
            lent_count: 0,
            free_ids: Table::new(usize::from(size), |id| id as u16),
            free_first: 0,
            refill_at: (size / 4).clamp(1, REFILL_MAX),
            refill: Burst::with_limit(usize::from(REFILL_MAX)),
            mergeable,
            port,
            counters,
            broken: false,
        }
    }

    /// Lends the device its first buffers, as many as it has descriptors for. It isn't rung yet.
    pub(crate) fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        while self.free() > 0 {
            if self.lend(self.free().min(REFILL_MAX)) == 0 {
                break;
            }
        }
        if self.free() > 0 {
            return Err(PortError::Mbufs {
                device: device.to_owned(),
                queue,
                wanted: usize::from(self.ring.size()),
                available: usize::from(self.lent_count),
                pool: self.pool.objects().name().to_owned(),
            });
        }
        self.ring.publish_quietly();
        Ok(())
    }

    /// Tells the device to look: once it is running.
    pub(crate) fn kick(&self) {
        self.ring.ring();
    }

    /// The device was reset: everything that it had goes back to the pool.
    pub(crate) fn reclaim(&mut self, reset: &Quiesced) {
        for lent in self.lent.drain() {
            drop(lent.reclaim(reset));
        }
        self.lent_count = 0;
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.ring.size() - self.lent_count
    }

    /// The next used entry's buffer, if it is one that the device has.
    #[inline(always)]
    fn take(&mut self) -> Result<(Lent, u32), RxDrop> {
        let Used { id, len } = self.ring.take_used();
        if id >= u32::from(self.ring.size()) {
            return Err(RxDrop::BadId);
        }
        let lent = self.lent.take(id as usize).ok_or(RxDrop::BadId)?;
        // Behind the last free id; there is room, as this one wasn't free.
        let last = self.free_first.wrapping_add(self.free());
        self.free_ids.set(usize::from(last), id as u16);
        self.lent_count -= 1;
        Ok((lent, len))
    }

    /// One frame: one completed buffer, or as many as its header says. `completed` is how many
    /// there are, and is counted down.
    #[inline(always)]
    fn take_frame(&mut self, completed: &mut u16) -> Result<Mbuf, RxDrop> {
        *completed -= 1;
        let (lent, len) = self.take()?;
        let mbuf = lent
            .take_back_written(HEADER_BYTES, HEADER_BYTES, len, self.port)
            .map_err(|_| RxDrop::BadLength)?;
        if mbuf.len_bytes() == 0 {
            return Err(RxDrop::BadLength);
        }
        if self.mergeable {
            let count = mbuf.prefix(HEADER_BYTES).map_or(0, buffer_count);
            if count != 1 {
                return self.take_rest(mbuf, count, completed);
            }
        }
        Ok(mbuf)
    }

    /// The other buffers of a frame that is spread over `count` (5.1.6.4): the device completes
    /// them together, so they must be there.
    #[cold]
    fn take_rest(
        &mut self,
        mut mbuf: Mbuf,
        count: u16,
        completed: &mut u16,
    ) -> Result<Mbuf, RxDrop> {
        let rest = count.checked_sub(1).ok_or(RxDrop::BadChain)?;
        if rest > *completed {
            return Err(RxDrop::BadChain);
        }
        let mut whole = Ok(());
        // All of them are taken, even if one is bad: the next frame starts behind them.
        for _ in 0..rest {
            *completed -= 1;
            let part = self.take().and_then(|(lent, len)| {
                lent.take_back_written(HEADER_BYTES, 0, len, self.port)
                    .map_err(|_| RxDrop::BadLength)
            });
            let chained = part.and_then(|part| mbuf.chain(part).map_err(|_| RxDrop::BadChain));
            whole = whole.and(chained);
        }
        whole.map(|()| mbuf)
    }

    /// Lends up to `count` buffers; returns how many. When the pool runs low it tries for fewer,
    /// so that a last few still get through.
    #[inline(always)]
    fn lend(&mut self, count: u16) -> u16 {
        let mut count = count;
        if !self.pool.alloc_bulk(&mut self.refill, usize::from(count)) {
            self.counters.no_mbuf.add(1);
            count /= 2;
            while count != 0 && !self.pool.alloc_bulk(&mut self.refill, usize::from(count)) {
                count /= 2;
            }
            if count == 0 {
                return 0;
            }
        }
        while let Some(mbuf) = self.refill.pop_front() {
            let lent = mbuf.lend();
            let id = self.free_ids.get(usize::from(self.free_first));
            self.free_first = self.free_first.wrapping_add(1);
            let start = Iova(lent.room_iova().0 - u64::from(HEADER_BYTES));
            let len = u32::from(lent.room_len_bytes()) + u32::from(HEADER_BYTES);
            self.ring.describe(id, Descriptor::writable(start, len));
            self.ring.offer(id);
            self.lent.put(usize::from(id), lent);
            self.lent_count += 1;
        }
        count
    }

    #[cold]
    fn break_down(&mut self) {
        self.broken = true;
        self.counters.broken.add(1);
    }
}

impl RxQueue for VirtioRx {
    fn receive(&mut self, burst: &mut Burst) {
        if self.broken {
            return;
        }
        let Ok(mut completed) = self.ring.completed(self.lent_count) else {
            return self.break_down();
        };
        if completed != 0 {
            let (mut packets, mut bytes) = (0, 0);
            while completed != 0 && burst.room() != 0 {
                match self.take_frame(&mut completed) {
                    Ok(mbuf) => {
                        packets += 1;
                        bytes += mbuf.len_bytes() as u64;
                        let _ = burst.push(mbuf); // there is room
                    }
                    Err(why) => self.counters.rx_dropped(why),
                }
            }
            self.counters.packets.add(packets);
            self.counters.bytes.add(bytes);
        }
        // A burst, or a frame in many buffers, may have taken more than is lent in one go: were
        // less lent than was taken, the device would run dry under load.
        let mut lent = false;
        while self.free() >= self.refill_at {
            let wanted = self.free().min(REFILL_MAX);
            let got = self.lend(wanted);
            lent |= got != 0;
            if got < wanted {
                break;
            }
        }
        if lent {
            self.ring.publish();
        }
    }
}
