//! The ring itself: slots, both sides' words, and how values move through claimed slots.
//!
//! The algorithm is the one that DPDK's rte_ring and FreeBSD's bufring use; DPDK's programmer's
//! guide, "Ring Library", describes it and the RTS and HTS modes. Each side has a *head* (what its
//! threads have claimed) and a *tail* (what they have finished with). A producer claims slots by
//! moving its side's head, fills them, then finishes, which moves its side's tail; consumers trust
//! only the producers' tail, producers only the consumers' tail. How a side's threads agree on its
//! head and tail is its [`Mode`], in a file of its own under `mode/`.
//!
//! Indexes run freely through 32 bits and are masked at use; `head - tail` is right across the
//! wrap because the capacity is at most 2^30.
//!
//! Memory order, which is where rings go wrong on weakly ordered machines:
//! - a tail is stored with Release after the slots were written (or read), and loaded by the other
//!   side with Acquire before it reads (or overwrites) them;
//! - a head that threads share is loaded with Acquire and swapped with Release: who sees a head
//!   also sees the opposite tail that allowed it, or a later one. Without that, an old opposite
//!   tail beside a new head would make the distance between them negative, and so enormous.
#![expect(unsafe_code, reason = "slots are handed from one thread to another without a lock")]

#[cfg(not(loom))]
use std::{mem::MaybeUninit, ptr::NonNull};

use crossbeam_utils::CachePadded;

use super::error::{MAX_CAPACITY, RingError};
use super::mode::{Amount, Claim, Mode, SharedMode};
use super::slots::{self, Slot, Slots};

/// Slots and indexes. The ends in `ends.rs` decide who may call what.
#[derive(Debug)]
pub(crate) struct Core<T, P: Mode, C: Mode> {
    slots: Slots<T>,
    capacity: u32,
    /// Which slot an index stands for: the number of slots, less one.
    mask: u32,
    /// What producers have claimed and published.
    producers: CachePadded<P::Shared>,
    /// What consumers have claimed and released.
    consumers: CachePadded<C::Shared>,
}

// SAFETY: a slot is touched only by the thread whose claim covers it, and claims of the two sides
// never overlap (tails order them), so sharing a Core hands values of T from thread to thread,
// which T: Send allows.
unsafe impl<T: Send, P: Mode, C: Mode> Sync for Core<T, P, C> {}
// SAFETY: as above; moving the whole moves the values in it.
unsafe impl<T: Send, P: Mode, C: Mode> Send for Core<T, P, C> {}

impl<T, P: Mode, C: Mode> Core<T, P, C> {
    /// An empty ring in plain memory whose indexes start at `index`, so that a test can begin just below the wrap
    /// of the 32 bits instead of moving 2^32 elements first.
    pub(crate) fn starting_at(capacity: usize, index: u32) -> Result<Self, RingError> {
        Self::check(capacity)?;
        Ok(Self::with_slots(Slots::boxed(capacity)?, capacity, index))
    }

    /// An empty ring with its slots at `first`.
    ///
    /// # Safety
    /// As for [`Slots::placed`].
    pub(super) unsafe fn placed(
        first: std::ptr::NonNull<Slot<T>>,
        capacity: usize,
    ) -> Result<Self, RingError> {
        Self::check(capacity)?;
        // SAFETY: passed on.
        Ok(Self::with_slots(unsafe { Slots::placed(first, capacity) }, capacity, 0))
    }

    pub(super) fn check(capacity: usize) -> Result<(), RingError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(RingError::Capacity(capacity));
        }
        Ok(())
    }

    fn with_slots(slots: Slots<T>, capacity: usize, index: u32) -> Self {
        let capacity = capacity as u32; // at most 2^30, as was checked
        let mask = slots.as_slice().len() as u32 - 1; // a power of two of them, at most 2^30
        Self {
            slots,
            capacity,
            mask,
            producers: CachePadded::new(P::shared_at(index, capacity)),
            consumers: CachePadded::new(C::shared_at(index, capacity)),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Elements in the ring, as far as both sides have finished. A moment's view.
    pub(crate) fn len(&self) -> usize {
        // The consumers' tail first: it can only have grown by the time the producers' is read,
        // so the difference never goes below zero.
        let consumed = C::tail(&self.consumers);
        let produced = P::tail(&self.producers);
        (produced.wrapping_sub(consumed) as usize).min(self.capacity())
    }

    /// The producers' shared words.
    #[inline(always)]
    pub(super) fn producers(&self) -> &P::Shared {
        &self.producers
    }

    /// The consumers' shared words.
    #[inline(always)]
    pub(super) fn consumers(&self) -> &C::Shared {
        &self.consumers
    }

    /// Claims free slots.
    #[inline(always)]
    pub(super) fn claim_free(&self, end: &mut P, amount: Amount) -> Claim {
        end.claim(&self.producers, || C::tail(&self.consumers), self.capacity, amount)
    }

    /// Claims filled slots.
    #[inline(always)]
    pub(super) fn claim_filled(&self, end: &mut C, amount: Amount) -> Claim {
        end.claim(&self.consumers, || P::tail(&self.producers), 0, amount)
    }

    /// Puts values in; returns how many.
    ///
    /// # Safety
    /// `source` holds as many values as `amount` may take; those taken are given up. `end` is an
    /// end of this ring's producers: the only one, if their mode is Single.
    #[inline(always)]
    pub(super) unsafe fn put(&self, end: &mut P, source: *const T, amount: Amount) -> u32 {
        let claim = self.claim_free(end, amount);
        if claim.count == 0 {
            return 0;
        }
        match amount.whole(claim) {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            Some(whole) => unsafe { self.fill(whole, source) },
            // SAFETY: as above.
            None => unsafe { self.fill_part(claim, source) },
        }
        end.finish(&self.producers, claim);
        claim.count
    }

    /// Takes values out; returns how many.
    ///
    /// # Safety
    /// `target` has room for as many values as `amount` may give. `end` is an end of this ring's
    /// consumers: the only one, if their mode is Single.
    #[inline(always)]
    pub(super) unsafe fn get(&self, end: &mut C, target: *mut T, amount: Amount) -> u32 {
        let claim = self.claim_filled(end, amount);
        if claim.count == 0 {
            return 0;
        }
        match amount.whole(claim) {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            Some(whole) => unsafe { self.empty(whole, target) },
            // SAFETY: as above.
            None => unsafe { self.empty_part(claim, target) },
        }
        end.finish(&self.consumers, claim);
        claim.count
    }

    /// Moves `claim.count` values from `source` into the claimed slots.
    ///
    /// # Safety
    /// `source` is valid for `claim.count` reads, the caller gives the values up, and `claim` is
    /// this thread's own producer claim, not finished yet.
    #[inline(always)]
    unsafe fn fill(&self, claim: Claim, source: *const T) {
        // SAFETY: the claim makes these slots this thread's alone until it is finished, and the
        // caller vouches for as many values at `source`.
        self.each_run(claim, |slots, from| unsafe { slots::fill(slots, source.add(from)) });
    }

    /// Moves the claimed slots' values to `target`.
    ///
    /// # Safety
    /// `target` is valid for `claim.count` writes, and `claim` is this thread's own consumer
    /// claim, not finished yet; the values are the caller's afterwards.
    #[inline(always)]
    unsafe fn empty(&self, claim: Claim, target: *mut T) {
        // SAFETY: a consumer claim covers only slots that producers have filled and published, and
        // makes them this thread's alone; the caller vouches for as much room at `target`.
        self.each_run(claim, |slots, from| unsafe { slots::empty(slots, target.add(from)) });
    }

    /// `fill` for a claim of less than was wanted: out of line, so that what usually happens is
    /// short.
    ///
    /// # Safety
    /// As for `fill`.
    #[inline(never)]
    unsafe fn fill_part(&self, claim: Claim, source: *const T) {
        // SAFETY: passed on.
        unsafe { self.fill(claim, source) };
    }

    /// `empty`, likewise.
    ///
    /// # Safety
    /// As for `empty`.
    #[inline(never)]
    unsafe fn empty_part(&self, claim: Claim, target: *mut T) {
        // SAFETY: passed on.
        unsafe { self.empty(claim, target) };
    }

    /// Calls `visit` with each run of claimed slots, in order, and how many came before.
    #[inline(always)]
    fn each_run(&self, claim: Claim, visit: impl Fn(&[Slot<T>], usize)) {
        let slots = self.slots.as_slice();
        let start = (claim.start & self.mask) as usize;
        let count = claim.count as usize;
        let to_end = (self.mask - (claim.start & self.mask)) as usize; // less one
        // Seldom does a claim go around the end, and one of a single slot never. If not, the
        // run's length is the caller's, often a constant to unroll for.
        if count == 1 || count <= to_end + 1 {
            // SAFETY: the number of slots is a power of two, so the masked start is below it, and
            // the run ends within the slots, as was just found.
            visit(unsafe { slots.get_unchecked(start..start + count) }, 0);
        } else {
            self.each_of_two_runs(claim, visit);
        }
    }

    /// Not `cold`: of thirty-two elements, one claim in a few dozen goes around the end of a small
    /// ring.
    #[inline(never)]
    fn each_of_two_runs(&self, claim: Claim, visit: impl Fn(&[Slot<T>], usize)) {
        let (to_end, from_start) = self.claimed(claim);
        visit(to_end, 0);
        visit(from_start, to_end.len());
    }

    /// The claimed slots, in order: up to the end of the slots, then from their start.
    #[inline(always)]
    pub(super) fn claimed(&self, claim: Claim) -> (&[Slot<T>], &[Slot<T>]) {
        let slots = self.slots.as_slice();
        let start = (claim.start & self.mask) as usize;
        let count = claim.count as usize;
        let first = count.min(slots.len() - start);
        // SAFETY: the number of slots is a power of two, so start < slots.len(), and start + first
        // <= slots.len(); the remainder is at most the capacity, which is at most slots.len().
        unsafe { (slots.get_unchecked(start..start + first), slots.get_unchecked(..count - first)) }
    }

    /// The `nth` slot of a claim, `nth < claim.count`.
    #[inline(always)]
    pub(super) fn nth(&self, claim: Claim, nth: u32) -> &Slot<T> {
        debug_assert!(nth < claim.count);
        let slots = self.slots.as_slice();
        let index = (claim.start.wrapping_add(nth) & self.mask) as usize;
        // SAFETY: the number of slots is a power of two, so the masked index is below it.
        unsafe { slots.get_unchecked(index) }
    }

    /// Where the claimed slots stand: at most two runs of places and how many they are. (loom's
    /// cells are larger than what they hold, so there are no such runs under it.)
    #[cfg(not(loom))]
    pub(super) fn runs(&self, claim: Claim) -> [(NonNull<MaybeUninit<T>>, usize); 2] {
        let (to_end, from_start) = self.claimed(claim);
        [to_end, from_start].map(|slots| {
            // A slot is `repr(transparent)` around what it holds. The pointer comes from a shared
            // reference to cells, through which writing is allowed.
            (NonNull::from(slots).cast(), slots.len())
        })
    }
}

impl<T, P: SharedMode, C: Mode> Core<T, P, C> {
    /// Puts values in as one of many producers; returns how many.
    ///
    /// # Safety
    /// `source` holds as many values as `amount` may take; those taken are given up.
    #[inline(always)]
    pub(crate) unsafe fn enqueue(&self, source: *const T, amount: Amount) -> u32 {
        // SAFETY: passed on; in a shared mode, every value of P is an end.
        unsafe { self.put(&mut P::default(), source, amount) }
    }
}

impl<T, P: Mode, C: SharedMode> Core<T, P, C> {
    /// Takes values out as one of many consumers; returns how many.
    ///
    /// # Safety
    /// `target` has room for as many values as `amount` may give.
    #[inline(always)]
    pub(crate) unsafe fn dequeue(&self, target: *mut T, amount: Amount) -> u32 {
        // SAFETY: passed on; in a shared mode, every value of C is an end.
        unsafe { self.get(&mut C::default(), target, amount) }
    }
}

impl<T, P: Mode, C: Mode> Drop for Core<T, P, C> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<T>() {
            return;
        }
        let start = C::tail(&self.consumers);
        let count = P::tail(&self.producers).wrapping_sub(start);
        let claim = Claim { start, count };
        for nth in 0..count {
            self.nth(claim, nth).with_mut(|slot| {
                // SAFETY: both ends are gone (we have the only reference), so the slots between
                // the tails hold published values that nobody will take any more.
                unsafe { (*slot).assume_init_drop() }
            });
        }
    }
}
