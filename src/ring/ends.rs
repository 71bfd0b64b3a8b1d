//! The two ends of a ring as types.
#![expect(unsafe_code, reason = "values move between slices and slots by pointer")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use super::core::{Amount, Claim, Core, MultiSide, RingError};
use crate::sys::sync::Arc;

/// An end that one thread has: `&mut self`, not `Clone`. It remembers what it last saw of the
/// other side, so most operations touch only their own cache line and the slots.
#[derive(Debug, Default)]
pub struct Single {
    head: u32,
    seen: u32,
}

/// An end that threads share: `&self`, `Clone`. A thread preempted inside an operation stalls the
/// other threads of its side until it runs again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Multi;

mod sealed {
    pub trait Sealed {
        /// The end of a ring whose indexes stand at `index`.
        fn at(index: u32) -> Self;
    }
    impl Sealed for super::Single {
        fn at(index: u32) -> Self {
            Self { head: index, seen: index }
        }
    }
    impl Sealed for super::Multi {
        fn at(_: u32) -> Self {
            Self
        }
    }
}

/// How the threads of one side agree: [`Single`] or [`Multi`].
pub trait Mode: sealed::Sealed + Default + Send {}
impl Mode for Single {}
impl Mode for Multi {}

/// The end that puts values in.
pub struct Producer<T, P: Mode, C: Mode> {
    core: Arc<Core<T>>,
    mode: P,
    other: PhantomData<fn() -> C>,
}

/// The end that takes values out.
pub struct Consumer<T, P: Mode, C: Mode> {
    core: Arc<Core<T>>,
    mode: C,
    other: PhantomData<fn() -> P>,
}

/// Makes a ring for exactly `capacity` elements (1 to [`super::MAX_CAPACITY`]; memory is taken
/// for the next power of two).
#[expect(clippy::type_complexity, reason = "the pair is the point: both ends, once")]
pub fn ring<T: Send, P: Mode, C: Mode>(
    capacity: usize,
) -> Result<(Producer<T, P, C>, Consumer<T, P, C>), RingError> {
    ring_starting_at(capacity, 0)
}

/// A ring whose indexes start at `index`: tests begin just below the wrap of the 32 bits.
#[expect(clippy::type_complexity, reason = "as for `ring`")]
pub(super) fn ring_starting_at<T: Send, P: Mode, C: Mode>(
    capacity: usize,
    index: u32,
) -> Result<(Producer<T, P, C>, Consumer<T, P, C>), RingError> {
    let core = Arc::new(Core::starting_at(capacity, index)?);
    Ok((
        Producer { core: core.clone(), mode: P::at(index), other: PhantomData },
        Consumer { core, mode: C::at(index), other: PhantomData },
    ))
}

impl<T, C: Mode> Clone for Producer<T, Multi, C> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), mode: Multi, other: PhantomData }
    }
}

impl<T, P: Mode> Clone for Consumer<T, P, Multi> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), mode: Multi, other: PhantomData }
    }
}

/// The methods that don't depend on the mode.
macro_rules! common {
    ($end:ident) => {
        impl<T, P: Mode, C: Mode> $end<T, P, C> {
            /// How many elements the ring can hold.
            #[must_use]
            pub fn capacity(&self) -> usize {
                self.core.capacity()
            }
            /// How many are in it now; other threads may change that at once.
            #[must_use]
            pub fn len(&self) -> usize {
                self.core.len()
            }
            /// How many more fit now.
            #[must_use]
            pub fn free(&self) -> usize {
                self.core.capacity() - self.core.len()
            }
            /// Whether nothing is in it now.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.core.len() == 0
            }
        }
        impl<T, P: Mode, C: Mode> fmt::Debug for $end<T, P, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end))
                    .field("len", &self.len())
                    .field("capacity", &self.capacity())
                    .finish()
            }
        }
    };
}
common!(Producer);
common!(Consumer);

/// How many of a slice's elements an index can count: slices longer than any ring fit in none.
fn count_of<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The public operations of an end, written once for `&mut self` (Single) and `&self` (Multi).
macro_rules! produce {
    ($mode:ty, $($receiver:tt)+) => {
        impl<T: Send, C: Mode> Producer<T, $mode, C> {
            /// Puts one value in, or gives it back when the ring is full.
            #[inline]
            pub fn push($($receiver)+ self, value: T) -> Result<(), T> {
                let value = ManuallyDrop::new(value);
                // SAFETY: the source is one value, which is given up only if it was taken.
                let taken = unsafe { self.put(&raw const *value, Amount::Bulk(1)) };
                if taken == 1 { Ok(()) } else { Err(ManuallyDrop::into_inner(value)) }
            }

            /// Puts all of `items` in, or none: true if they are in.
            #[inline]
            pub fn enqueue_bulk($($receiver)+ self, items: &[T]) -> bool where T: Copy {
                let count = count_of(items);
                // SAFETY: `items` holds `count` values, and Copy lets them stay where they are.
                unsafe { self.put(items.as_ptr(), Amount::Bulk(count)) == count }
            }

            /// Puts as many of `items` in as fit, from the front; returns how many.
            #[inline]
            pub fn enqueue_burst($($receiver)+ self, items: &[T]) -> usize where T: Copy {
                // SAFETY: as above.
                unsafe { self.put(items.as_ptr(), Amount::Burst(count_of(items))) as usize }
            }

            /// Moves as many values as fit out of `items`, from the front; returns how many.
            pub fn enqueue_from($($receiver)+ self, items: &mut Vec<T>) -> usize {
                // SAFETY: the values that were taken are removed without being dropped, below.
                let taken = unsafe { self.put(items.as_ptr(), Amount::Burst(count_of(items))) };
                let taken = taken as usize;
                let rest = items.len() - taken;
                // SAFETY: the first `taken` values live in the ring now; the rest move down over
                // them, and the length is cut to what is left.
                unsafe {
                    items.set_len(0);
                    let base = items.as_mut_ptr();
                    std::ptr::copy(base.add(taken), base, rest);
                    items.set_len(rest);
                }
                taken
            }
        }
    };
}
produce!(Single, &mut);
produce!(Multi, &);

macro_rules! consume {
    ($mode:ty, $($receiver:tt)+) => {
        impl<T: Send, P: Mode> Consumer<T, P, $mode> {
            /// Takes the oldest value out.
            #[inline]
            pub fn pop($($receiver)+ self) -> Option<T> {
                let mut value = std::mem::MaybeUninit::uninit();
                // SAFETY: the target has room for one value, and is initialised if one came.
                unsafe {
                    (self.get(value.as_mut_ptr(), Amount::Bulk(1)) == 1)
                        .then(|| value.assume_init())
                }
            }

            /// Fills all of `out`, or nothing of it: true if it was filled.
            #[inline]
            pub fn dequeue_bulk($($receiver)+ self, out: &mut [T]) -> bool where T: Copy {
                let count = count_of(out);
                // SAFETY: `out` has room for `count`, and Copy values need no drop first.
                unsafe { self.get(out.as_mut_ptr(), Amount::Bulk(count)) == count }
            }

            /// Fills `out` from the front with what there is; returns how many.
            #[inline]
            pub fn dequeue_burst($($receiver)+ self, out: &mut [T]) -> usize where T: Copy {
                // SAFETY: as above.
                unsafe { self.get(out.as_mut_ptr(), Amount::Burst(count_of(out))) as usize }
            }

            /// Appends up to `most` values to `out`; returns how many.
            pub fn dequeue_into($($receiver)+ self, out: &mut Vec<T>, most: usize) -> usize {
                let most = most.min(self.core.capacity());
                out.reserve(most);
                // SAFETY: `reserve` made room for `most` behind the length, which then grows by
                // just what was written.
                unsafe {
                    let end = out.as_mut_ptr().add(out.len());
                    let got = self.get(end, Amount::Burst(most as u32)) as usize;
                    out.set_len(out.len() + got);
                    got
                }
            }
        }
    };
}
consume!(Single, &mut);
consume!(Multi, &);

impl<T, C: Mode> Producer<T, Single, C> {
    /// # Safety
    /// `source` holds as many values as `amount` may take; those taken are given up.
    #[inline(always)]
    unsafe fn put(&mut self, source: *const T, amount: Amount) -> u32 {
        let Single { head, seen } = &mut self.mode;
        let claim = self.core.claim_single(MultiSide::Producers, head, seen, amount);
        if claim.count != 0 {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            unsafe { self.core.fill(claim, source) };
            self.core.finish_single(MultiSide::Producers, claim);
        }
        claim.count
    }
}

impl<T, C: Mode> Producer<T, Multi, C> {
    /// # Safety
    /// As for the single producer.
    #[inline(always)]
    unsafe fn put(&self, source: *const T, amount: Amount) -> u32 {
        // SAFETY: passed on.
        unsafe { self.core.put_multi(source, amount) }
    }
}

impl<T, P: Mode> Consumer<T, P, Single> {
    /// # Safety
    /// `target` has room for as many values as `amount` may give.
    #[inline(always)]
    unsafe fn get(&mut self, target: *mut T, amount: Amount) -> u32 {
        let Single { head, seen } = &mut self.mode;
        let claim = self.core.claim_single(MultiSide::Consumers, head, seen, amount);
        if claim.count != 0 {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            unsafe { self.core.empty(claim, target) };
            self.core.finish_single(MultiSide::Consumers, claim);
        }
        claim.count
    }
}

impl<T, P: Mode> Consumer<T, P, Multi> {
    /// # Safety
    /// As for the single consumer.
    #[inline(always)]
    unsafe fn get(&self, target: *mut T, amount: Amount) -> u32 {
        // SAFETY: passed on.
        unsafe { self.core.get_multi(target, amount) }
    }
}

impl<T> Core<T> {
    /// Puts values in as one of many producers; returns how many.
    ///
    /// # Safety
    /// `source` holds as many values as `amount` may take; those taken are given up. All
    /// producers of this ring use this method.
    #[inline(always)]
    pub(crate) unsafe fn put_multi(&self, source: *const T, amount: Amount) -> u32 {
        let claim: Claim = self.claim_multi(MultiSide::Producers, amount);
        if claim.count != 0 {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            unsafe { self.fill(claim, source) };
            self.finish_multi(MultiSide::Producers, claim);
        }
        claim.count
    }

    /// Takes values out as one of many consumers; returns how many.
    ///
    /// # Safety
    /// `target` has room for as many values as `amount` may give. All consumers of this ring use
    /// this method.
    #[inline(always)]
    pub(crate) unsafe fn get_multi(&self, target: *mut T, amount: Amount) -> u32 {
        let claim = self.claim_multi(MultiSide::Consumers, amount);
        if claim.count != 0 {
            // SAFETY: the caller's promise; the claim is ours and finished right after.
            unsafe { self.empty(claim, target) };
            self.finish_multi(MultiSide::Consumers, claim);
        }
        claim.count
    }
}
