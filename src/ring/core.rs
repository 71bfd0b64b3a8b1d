//! The ring itself: slots, two pairs of indexes, and the steps by which both sides move them.
//!
//! The algorithm is the one DPDK's rte_ring and FreeBSD's bufring use. Each side has a *head*
//! (what its threads have claimed) and a *tail* (what they have finished with). A producer claims
//! slots by moving its side's head, fills them, then moves its tail; consumers trust only the
//! producers' tail, producers only the consumers' tail. On a side with several threads the head
//! is moved by compare-and-swap, and the tail in the order of the claims: a thread waits for those
//! that claimed before it. So a thread that is preempted between claim and finish stalls its side
//! until it runs again (the other side goes on with what was finished).
//!
//! Indexes run freely through 32 bits and are masked at use; `head - tail` is right across the
//! wrap because the capacity is at most 2^31.
//!
//! Memory order, which is where rings go wrong on weakly ordered machines:
//! - a tail is stored with Release after the slots were written (or read), and loaded by the other
//!   side with Acquire before it reads (or overwrites) them;
//! - a head is loaded with Acquire and swapped with Release: who sees a head also sees the
//!   opposite tail that allowed it, or a later one. Without that, an old opposite tail beside a
//!   new head would make the distance between them negative, and so enormous.
#![expect(unsafe_code, reason = "slots are handed from one thread to another without a lock")]

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::sys::sync::UnsafeCell;
use crate::sys::sync::atomic::{AtomicU32, Ordering};

/// The largest capacity a ring can have: 2^30 elements.
pub const MAX_CAPACITY: usize = 1 << 30;

/// Why a ring can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No room was asked for, or more than indexes can count.
    #[error("a ring of {0} elements was asked for; it must hold 1 to {MAX_CAPACITY}")]
    Capacity(usize),
}

/// How far one side has come. On a side with one thread the head is that thread's own affair and
/// stands in its end of the ring; the one here is unused.
#[derive(Debug)]
pub(crate) struct Side {
    /// Claimed up to here. Moved by compare-and-swap by a side's threads.
    head: AtomicU32,
    /// Finished up to here. Written by its own side, read by the other.
    tail: AtomicU32,
}

impl Side {
    fn at(index: u32) -> Self {
        Self { head: AtomicU32::new(index), tail: AtomicU32::new(index) }
    }
}

/// A claim on `count` slots from index `start` on, to be finished by the thread that made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    start: u32,
    pub(crate) count: u32,
}

/// How many elements an operation wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// All of them or none.
    Bulk(u32),
    /// As many as there are, at most this many.
    Burst(u32),
}

impl Amount {
    #[inline(always)]
    fn of(self, available: u32) -> u32 {
        match self {
            Self::Bulk(wanted) if wanted <= available => wanted,
            Self::Bulk(_) => 0,
            Self::Burst(wanted) => wanted.min(available),
        }
    }
}

/// Slots and indexes. The ends in `ends.rs` decide who may call what.
#[derive(Debug)]
pub(crate) struct Core<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: u32,
    capacity: u32,
    /// What producers have claimed and published.
    producers: CachePadded<Side>,
    /// What consumers have claimed and released.
    consumers: CachePadded<Side>,
}

// SAFETY: a slot is touched only by the thread whose claim covers it, and claims of the two sides
// never overlap (tails order them), so sharing a Core hands values of T from thread to thread,
// which T: Send allows.
unsafe impl<T: Send> Sync for Core<T> {}
// SAFETY: as above; moving the whole moves the values in it.
unsafe impl<T: Send> Send for Core<T> {}

/// Names one side of a ring that several threads share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MultiSide {
    Producers,
    Consumers,
}

impl<T> Core<T> {
    pub(crate) fn new(capacity: usize) -> Result<Self, RingError> {
        Self::starting_at(capacity, 0)
    }

    /// An empty ring whose indexes start at `index`, so that a test can begin just below the wrap
    /// of the 32 bits instead of moving 2^32 elements first.
    pub(crate) fn starting_at(capacity: usize, index: u32) -> Result<Self, RingError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(RingError::Capacity(capacity));
        }
        let slot_count = capacity.next_power_of_two();
        let slots = (0..slot_count).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        Ok(Self {
            slots,
            mask: (slot_count - 1) as u32,
            capacity: capacity as u32,
            producers: CachePadded::new(Side::at(index)),
            consumers: CachePadded::new(Side::at(index)),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Elements in the ring, as far as both sides have finished. A moment's view.
    pub(crate) fn len(&self) -> usize {
        // The consumers' tail first: it can only have grown by the time the producers' is read,
        // so the difference never goes below zero.
        let consumed = self.consumers.tail.load(Ordering::Acquire);
        let produced = self.producers.tail.load(Ordering::Acquire);
        (produced.wrapping_sub(consumed) as usize).min(self.capacity())
    }

    /// Slots that a producer at `head` may fill.
    #[inline(always)]
    fn free_at(&self, head: u32, consumed: u32) -> u32 {
        self.capacity.wrapping_sub(head.wrapping_sub(consumed))
    }

    /// Claims for a side's only thread, which keeps `head` (its own) and `seen` (the last it saw
    /// of the other side's tail) itself, so that most claims touch no shared line.
    #[inline(always)]
    pub(crate) fn claim_single(
        &self,
        side: MultiSide,
        head: &mut u32,
        seen: &mut u32,
        amount: Amount,
    ) -> Claim {
        let wanted = match amount {
            Amount::Bulk(wanted) | Amount::Burst(wanted) => wanted,
        };
        let mut available = self.available(side, *head, *seen);
        if available < wanted {
            *seen = self.opposite(side).tail.load(Ordering::Acquire);
            available = self.available(side, *head, *seen);
        }
        let claim = Claim { start: *head, count: amount.of(available) };
        *head = head.wrapping_add(claim.count);
        claim
    }

    /// Publishes a single-threaded side's claim.
    #[inline(always)]
    pub(crate) fn finish_single(&self, side: MultiSide, claim: Claim) {
        self.own(side).tail.store(claim.start.wrapping_add(claim.count), Ordering::Release);
    }

    /// Claims for one of a side's several threads.
    #[inline(always)]
    pub(crate) fn claim_multi(&self, side: MultiSide, amount: Amount) -> Claim {
        let own = self.own(side);
        let mut head = own.head.load(Ordering::Acquire);
        loop {
            let other_tail = self.opposite(side).tail.load(Ordering::Acquire);
            let count = amount.of(self.available(side, head, other_tail));
            if count == 0 {
                return Claim { start: head, count: 0 };
            }
            match own.head.compare_exchange_weak(
                head,
                head.wrapping_add(count),
                Ordering::Release,
                Ordering::Acquire,
            ) {
                Ok(_) => return Claim { start: head, count },
                Err(now) => head = now,
            }
        }
    }

    /// Publishes one thread's claim, after those that were made before it.
    #[inline(always)]
    pub(crate) fn finish_multi(&self, side: MultiSide, claim: Claim) {
        let tail = &self.own(side).tail;
        // Acquire, so that our Release store carries on what earlier claimants released: the
        // other side synchronises with the last tail it sees and must get all that lies below.
        while tail.load(Ordering::Acquire) != claim.start {
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(not(loom))]
            crate::sys::sync::spin_loop();
        }
        tail.store(claim.start.wrapping_add(claim.count), Ordering::Release);
    }

    /// Moves `claim.count` values from `source` into the claimed slots.
    ///
    /// # Safety
    /// `source` is valid for `claim.count` reads, the caller gives the values up, and `claim` is
    /// this thread's own producer claim, not finished yet.
    #[inline(always)]
    pub(crate) unsafe fn fill(&self, claim: Claim, source: *const T) {
        self.each_slot(claim, |slot, nth| {
            slot.with_mut(|slot| {
                // SAFETY: the claim makes the slot this thread's alone until it is finished;
                // `nth < claim.count`, for which the caller vouches.
                unsafe { slot.write(MaybeUninit::new(source.add(nth).read())) }
            });
        });
    }

    /// Moves the claimed slots' values to `target`.
    ///
    /// # Safety
    /// `target` is valid for `claim.count` writes, and `claim` is this thread's own consumer
    /// claim, not finished yet; the values are the caller's afterwards.
    #[inline(always)]
    pub(crate) unsafe fn empty(&self, claim: Claim, target: *mut T) {
        self.each_slot(claim, |slot, nth| {
            slot.with(|slot| {
                // SAFETY: a consumer claim covers only slots that producers have filled and
                // published, and makes them this thread's alone; `nth < claim.count`.
                unsafe { target.add(nth).write((*slot).assume_init_read()) }
            });
        });
    }

    /// Calls `visit` with each claimed slot, in order: up to the end of the slots, then from
    /// their start, so that each of the two loops runs over memory without a mask.
    #[inline(always)]
    fn each_slot(&self, claim: Claim, mut visit: impl FnMut(&UnsafeCell<MaybeUninit<T>>, usize)) {
        let start = (claim.start & self.mask) as usize;
        let count = claim.count as usize;
        let first = count.min(self.slots.len() - start);
        // SAFETY: start <= mask < slots.len(), and start + first <= slots.len(); the remainder
        // is at most the capacity, which is at most slots.len().
        let (to_end, from_start) = unsafe {
            (
                self.slots.get_unchecked(start..start + first),
                self.slots.get_unchecked(..count - first),
            )
        };
        for (nth, slot) in to_end.iter().enumerate() {
            visit(slot, nth);
        }
        for (nth, slot) in from_start.iter().enumerate() {
            visit(slot, first + nth);
        }
    }

    #[inline(always)]
    fn own(&self, side: MultiSide) -> &Side {
        match side {
            MultiSide::Producers => &self.producers,
            MultiSide::Consumers => &self.consumers,
        }
    }

    #[inline(always)]
    fn opposite(&self, side: MultiSide) -> &Side {
        match side {
            MultiSide::Producers => &self.consumers,
            MultiSide::Consumers => &self.producers,
        }
    }

    #[inline(always)]
    fn available(&self, side: MultiSide, head: u32, other_tail: u32) -> u32 {
        match side {
            MultiSide::Producers => self.free_at(head, other_tail),
            MultiSide::Consumers => other_tail.wrapping_sub(head),
        }
    }
}

impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<T>() {
            return;
        }
        let end = self.producers.tail.load(Ordering::Acquire);
        let mut at = self.consumers.tail.load(Ordering::Acquire);
        while at != end {
            let slot = &self.slots[(at & self.mask) as usize];
            slot.with_mut(|slot| {
                // SAFETY: both ends are gone (we have the only reference), so the slots between
                // the tails hold published values that nobody will take any more.
                unsafe { (*slot).assume_init_drop() }
            });
            at = at.wrapping_add(1);
        }
    }
}
