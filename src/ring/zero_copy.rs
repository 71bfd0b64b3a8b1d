//! Guards on slots: values written and read where they stand in the ring.
//!
//! [`Reserved`] is a producer's: write into free slots, then commit. [`Peeked`] is a consumer's:
//! read the oldest values, then consume. Both may settle for fewer slots than they got, and a
//! guard that is dropped leaves the ring as it was. A ring's slots are a circle, so what a guard
//! covers is up to two slices.
#![expect(unsafe_code, reason = "hands out slices of slots, and drops values in them")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};

use super::core::Core;
use super::mode::{Claim, Mode, ZeroCopy};

/// A claim that is finished when this is dropped, for its first `keep` slots.
struct Held<'a, M: ZeroCopy> {
    own: &'a M::Shared,
    mode: &'a mut M,
    claim: Claim,
    keep: u32,
}

impl<M: ZeroCopy> Drop for Held<'_, M> {
    #[inline(always)]
    fn drop(&mut self) {
        self.mode.finish(self.own, Claim { start: self.claim.start, count: self.keep });
    }
}

/// Drops the values in a claim's first slots; if one of them panics, the rest all the same.
struct DropValues<'a, T: Send, P: Mode, C: Mode> {
    core: &'a Core<T, P, C>,
    claim: Claim,
    next: u32,
    end: u32,
}

impl<'a, T: Send, P: Mode, C: Mode> DropValues<'a, T, P, C> {
    /// # Safety
    /// The claim is the caller's and not finished; its first `count` slots hold values, which the
    /// caller gives up.
    unsafe fn drop_first(core: &'a Core<T, P, C>, claim: Claim, count: u32) {
        Self { core, claim, next: 0, end: count }.go_on();
    }

    fn go_on(&mut self) {
        while self.next < self.end {
            let nth = self.next;
            self.next += 1;
            self.core.nth(self.claim, nth).with_mut(|slot| {
                // SAFETY: the promise of who made this; `next` has moved on, so it is dropped once.
                unsafe { (*slot).assume_init_drop() }
            });
        }
    }
}

impl<T: Send, P: Mode, C: Mode> Drop for DropValues<'_, T, P, C> {
    fn drop(&mut self) {
        self.go_on(); // nothing is left, unless a value panicked
    }
}

/// Free slots of a ring, reserved by a producer. Values are written from the front, by
/// [`push`](Self::push), [`fill`](Self::fill), [`copy_from`](Self::copy_from) or through
/// [`slots`](Self::slots); [`commit`](Self::commit) publishes what was written. Dropped without
/// it, the guard publishes nothing and drops what was written.
///
/// ```
/// use packetboat::ring::{ring, Single};
/// let (mut producer, mut consumer) = ring::<u64, Single, Single>(8)?;
/// if let Some(mut slots) = producer.reserve_burst(4) {
///     slots.fill([1, 2, 3]);
///     assert_eq!(slots.commit(), 3);
/// }
/// assert_eq!(consumer.len(), 3);
/// # Ok::<(), packetboat::ring::RingError>(())
/// ```
#[must_use = "a reservation that isn't committed publishes nothing"]
pub struct Reserved<'a, T: Send, P: ZeroCopy, C: Mode> {
    core: &'a Core<T, P, C>,
    /// The first `written` of the claimed slots hold values.
    written: u32,
    held: Held<'a, P>,
}

impl<'a, T: Send, P: ZeroCopy, C: Mode> Reserved<'a, T, P, C> {
    /// # Safety
    /// `claim` was made by `mode`, a producers' end of `core`, and isn't finished.
    #[inline(always)]
    pub(super) unsafe fn new(core: &'a Core<T, P, C>, mode: &'a mut P, claim: Claim) -> Self {
        Self { core, written: 0, held: Held { own: core.producers(), mode, claim, keep: 0 } }
    }

    /// Slots reserved.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.held.claim.count as usize
    }

    /// Slots written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written as usize
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Slots reserved and not written.
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Writes the next slot, or gives the value back when all are written.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.written == self.held.claim.count {
            return Err(value);
        }
        self.core.nth(self.held.claim, self.written).with_mut(|slot| {
            // SAFETY: the claim makes the slot ours, and it holds no value: it is free and
            // wasn't written yet.
            unsafe { slot.write(MaybeUninit::new(value)) }
        });
        self.written += 1;
        Ok(())
    }

    /// Writes the next slots with `values` until one of both ends; returns how many. It takes no
    /// more values out of an iterator than it has slots for.
    pub fn fill(&mut self, values: impl IntoIterator<Item = T>) -> usize {
        let before = self.len();
        let mut values = values.into_iter();
        while self.written < self.held.claim.count {
            let Some(value) = values.next() else { break };
            let _ = self.push(value); // there is a slot for it
        }
        self.len() - before
    }

    /// Copies as many of `values` as there are slots for; returns how many.
    #[inline]
    pub fn copy_from(&mut self, values: &[T]) -> usize
    where
        T: Copy,
    {
        self.fill(values.iter().copied())
    }

    /// Publishes what was written, and gives the other slots back; returns how many values.
    #[inline]
    pub fn commit(mut self) -> usize {
        self.held.keep = self.written;
        self.len()
    }

    /// The slots that aren't written yet, in order. Tell how many you wrote with
    /// [`assume_written`](Self::assume_written).
    #[cfg(not(loom))]
    #[inline]
    pub fn slots(&mut self) -> (&mut [MaybeUninit<T>], &mut [MaybeUninit<T>]) {
        let Claim { start, count } = self.held.claim;
        let rest = Claim { start: start.wrapping_add(self.written), count: count - self.written };
        let [first, second] = self.core.runs(rest).map(|(slots, count)| {
            // SAFETY: the claim makes the slots ours until it is finished, which takes `self`;
            // the two runs don't overlap.
            unsafe { std::slice::from_raw_parts_mut(slots.as_ptr(), count) }
        });
        (first, second)
    }

    /// Counts the next `count` slots as written.
    ///
    /// # Safety
    /// The first `count` of [`slots`](Self::slots) were initialised, and `count` is at most
    /// [`free`](Self::free).
    #[cfg(not(loom))]
    #[inline]
    pub unsafe fn assume_written(&mut self, count: usize) {
        debug_assert!(count <= self.free());
        self.written += count as u32; // at most the claim's, by the caller's promise
    }
}

impl<T: Send, P: ZeroCopy, C: Mode> Drop for Reserved<'_, T, P, C> {
    #[inline]
    fn drop(&mut self) {
        if !needs_drop::<T>() || self.held.keep != 0 {
            return; // plain values, or committed
        }
        // SAFETY: written by us, not published, and the slots stay ours until `held` is dropped,
        // after this.
        unsafe { DropValues::drop_first(self.core, self.held.claim, self.written) };
    }
}

/// The oldest values of a ring, peeked at by a consumer. [`consume`](Self::consume) removes the
/// first of them; dropped without it, the guard removes nothing.
///
/// ```
/// use packetboat::ring::{ring, Single};
/// let (mut producer, mut consumer) = ring::<u64, Single, Single>(8)?;
/// assert!(producer.enqueue_bulk(&[1, 2, 3]));
/// if let Some(values) = consumer.peek_burst(8) {
///     let small = values.iter().take_while(|&&value| value < 3).count();
///     values.consume(small);
/// }
/// assert_eq!(consumer.pop(), Some(3));
/// # Ok::<(), packetboat::ring::RingError>(())
/// ```
#[must_use = "values that were peeked at stay in the ring until they are consumed"]
pub struct Peeked<'a, T: Send, P: Mode, C: ZeroCopy> {
    core: &'a Core<T, P, C>,
    held: Held<'a, C>,
    /// The guard lends `&T`, so it is shared between threads only if values may be.
    values: PhantomData<&'a [T]>,
}

impl<'a, T: Send, P: Mode, C: ZeroCopy> Peeked<'a, T, P, C> {
    /// # Safety
    /// `claim` was made by `mode`, a consumers' end of `core`, and isn't finished.
    #[inline(always)]
    pub(super) unsafe fn new(core: &'a Core<T, P, C>, mode: &'a mut C, claim: Claim) -> Self {
        let held = Held { own: core.consumers(), mode, claim, keep: 0 };
        Self { core, held, values: PhantomData }
    }

    /// Values that it covers: at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.held.claim.count as usize
    }

    /// The values, oldest first.
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub fn slices(&self) -> (&[T], &[T]) {
        let [first, second] = self.core.runs(self.held.claim).map(|(slots, count)| {
            // SAFETY: a consumer claim covers published values only, and makes them ours until it
            // is finished, which takes `self`; MaybeUninit<T> has the layout of T.
            unsafe { std::slice::from_raw_parts(slots.as_ptr().cast_const().cast::<T>(), count) }
        });
        (first, second)
    }

    /// The values one by one, oldest first.
    #[cfg(not(loom))]
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (first, second) = self.slices();
        first.iter().chain(second)
    }

    /// The values one by one, oldest first: `iter` for loom, which must see when a look ends.
    #[cfg(all(test, loom))]
    pub(super) fn for_each(&self, mut visit: impl FnMut(&T)) {
        for nth in 0..self.held.claim.count {
            self.core.nth(self.held.claim, nth).with(|slot| {
                // SAFETY: as for `slices`.
                visit(unsafe { (*slot).assume_init_ref() });
            });
        }
    }

    /// Drops the `count` oldest values (at most as many as it covers), and frees their slots;
    /// returns how many.
    #[inline]
    pub fn consume(mut self, count: usize) -> usize {
        let count = count.min(self.len());
        // First, so that the values are out of the ring even if dropping one of them panics.
        self.held.keep = count as u32;
        if needs_drop::<T>() {
            // SAFETY: as for `slices`; `self` is ours, so nobody looks at the values.
            unsafe { DropValues::drop_first(self.core, self.held.claim, self.held.keep) };
        }
        count
    }
}

impl<T: Send, P: ZeroCopy, C: Mode> fmt::Debug for Reserved<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved")
            .field("written", &self.written)
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T: Send, P: Mode, C: ZeroCopy> fmt::Debug for Peeked<'_, T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeked").field("len", &self.len()).finish()
    }
}
