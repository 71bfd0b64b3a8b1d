//! The two ends of a ring as types.
#![expect(unsafe_code, reason = "values move between slices and slots by pointer")]

use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::Arc;

use super::core::Core;
use super::error::RingError;
use super::home::Hold;
use super::mode::{Amount, Mode, SharedMode, Single, ZeroCopy};
use super::zero_copy::{Peeked, Reserved};
use crate::memory::Memory;

/// The end that puts values in.
pub struct Producer<T, P: Mode, C: Mode> {
    core: Hold<T, P, C>,
    mode: P,
}

/// The end that takes values out.
pub struct Consumer<T, P: Mode, C: Mode> {
    core: Hold<T, P, C>,
    mode: C,
}

/// Both ends of a new ring.
pub type Ends<T, P, C> = (Producer<T, P, C>, Consumer<T, P, C>);

/// Makes a ring in plain memory for exactly `capacity` elements (1 to [`super::MAX_CAPACITY`];
/// memory is taken for the next power of two).
///
/// # Errors
/// [`RingError::Capacity`] and [`RingError::NoMemory`].
pub fn ring<T: Send, P: Mode, C: Mode>(capacity: usize) -> Result<Ends<T, P, C>, RingError> {
    ring_starting_at(capacity, 0)
}

/// Makes a ring as [`ring`] does, whose indexes and slots stand in a zone of their own, called
/// `name`, on NUMA node `node` (`None`: any). The zone is free again when both ends are gone.
///
/// ```
/// use packetboat::memory::{Memory, MemoryConfig};
/// use packetboat::ring::{Hts, Single, ring_in};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// let (mut producer, consumer) = ring_in::<u64, Single, Hts>(&memory, "events", None, 100)?;
/// assert!(memory.lookup("events").is_some());
/// assert!(producer.push(1).is_ok());
/// assert_eq!(consumer.pop(), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RingError::Capacity`], [`RingError::NoMemory`], and [`RingError::Zone`] if the name is taken
/// or the node has no room.
pub fn ring_in<T: Send, P: Mode, C: Mode>(
    memory: &Arc<Memory>,
    name: &str,
    node: Option<u32>,
    capacity: usize,
) -> Result<Ends<T, P, C>, RingError> {
    Ok(ends_of(Hold::in_zone(memory, name, node, capacity)?, 0))
}

/// A ring whose indexes start at `index`: tests begin just below the wrap of the 32 bits.
pub(super) fn ring_starting_at<T: Send, P: Mode, C: Mode>(
    capacity: usize,
    index: u32,
) -> Result<Ends<T, P, C>, RingError> {
    Ok(ends_of(Hold::plain(Core::starting_at(capacity, index)?), index))
}

fn ends_of<T, P: Mode, C: Mode>(core: Hold<T, P, C>, index: u32) -> Ends<T, P, C> {
    (
        Producer { core: core.clone(), mode: P::end_at(index) },
        Consumer { core, mode: C::end_at(index) },
    )
}

impl<T, P: SharedMode, C: Mode> Clone for Producer<T, P, C> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), mode: self.mode }
    }
}

impl<T, P: Mode, C: SharedMode> Clone for Consumer<T, P, C> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), mode: self.mode }
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
            /// Whether nothing more fits now.
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.core.len() == self.core.capacity()
            }
            /// The NUMA node of its memory: known if it stands in a zone whose node is.
            #[must_use]
            pub fn node(&self) -> Option<u32> {
                self.core.node()
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
    clamp(items.len())
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The public operations of an end, written once for `&mut self` (Single) and `&self` (shared).
macro_rules! produce {
    ([$($mode:tt)*] $end:ty, $($receiver:tt)+) => {
        impl<T: Send, $($mode)* C: Mode> Producer<T, $end, C> {
            /// Puts one value in, or gives it back when the ring is full.
            #[inline(always)]
            pub fn push($($receiver)+ self, value: T) -> Result<(), T> {
                let value = ManuallyDrop::new(value);
                // SAFETY: the source is one value, which is given up only if it was taken.
                let taken = unsafe { self.put(&raw const *value, Amount::Bulk(1)) };
                if taken == 1 { Ok(()) } else { Err(ManuallyDrop::into_inner(value)) }
            }

            /// Puts all of `items` in, or none: true if they are in.
            #[inline(always)]
            pub fn enqueue_bulk($($receiver)+ self, items: &[T]) -> bool where T: Copy {
                let count = count_of(items);
                // SAFETY: `items` holds `count` values, and Copy lets them stay where they are.
                unsafe { self.put(items.as_ptr(), Amount::Bulk(count)) == count }
            }

            /// Puts as many of `items` in as fit, from the front; returns how many.
            #[inline(always)]
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
produce!([] Single, &mut);
produce!([P: SharedMode,] P, &);

macro_rules! consume {
    ([$($mode:tt)*] $end:ty, $($receiver:tt)+) => {
        impl<T: Send, P: Mode, $($mode)*> Consumer<T, P, $end> {
            /// Takes the oldest value out.
            #[inline(always)]
            pub fn pop($($receiver)+ self) -> Option<T> {
                let mut value = MaybeUninit::uninit();
                // SAFETY: the target has room for one value, and is initialised if one came.
                unsafe {
                    (self.get(value.as_mut_ptr(), Amount::Bulk(1)) == 1)
                        .then(|| value.assume_init())
                }
            }

            /// Fills all of `out`, or nothing of it: true if it was filled.
            #[inline(always)]
            pub fn dequeue_bulk($($receiver)+ self, out: &mut [T]) -> bool where T: Copy {
                let count = count_of(out);
                // SAFETY: `out` has room for `count`, and Copy values need no drop first.
                unsafe { self.get(out.as_mut_ptr(), Amount::Bulk(count)) == count }
            }

            /// Fills `out` from the front with what there is; returns how many.
            #[inline(always)]
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
consume!([] Single, &mut);
consume!([C: SharedMode] C, &);

impl<T: Send, P: ZeroCopy, C: Mode> Producer<T, P, C> {
    /// Reserves `count` free slots, all or none, to write values where they will stand.
    /// `None` if they aren't free, or `count` is 0.
    ///
    /// `&mut self` in shared modes, too: a second reservation through the same end would wait for
    /// the first.
    #[inline]
    pub fn reserve_bulk(&mut self, count: usize) -> Option<Reserved<'_, T, P, C>> {
        self.reserve(Amount::Bulk(clamp(count)))
    }

    /// Reserves as many free slots as there are, up to `most`. `None` if there are none.
    #[inline]
    pub fn reserve_burst(&mut self, most: usize) -> Option<Reserved<'_, T, P, C>> {
        self.reserve(Amount::Burst(clamp(most)))
    }

    #[inline(always)]
    fn reserve(&mut self, amount: Amount) -> Option<Reserved<'_, T, P, C>> {
        let claim = self.core.claim_free(&mut self.mode, amount);
        // SAFETY: the claim was made by this end just now, and the guard borrows the end.
        (claim.count != 0).then(|| unsafe { Reserved::new(&self.core, &mut self.mode, claim) })
    }
}

impl<T: Send, P: Mode, C: ZeroCopy> Consumer<T, P, C> {
    /// Looks at the `count` oldest values where they stand, at all or none. `None` if there are
    /// fewer, or `count` is 0.
    ///
    /// `&mut self` in shared modes, too: a second look through the same end would wait for the
    /// first.
    #[inline]
    pub fn peek_bulk(&mut self, count: usize) -> Option<Peeked<'_, T, P, C>> {
        self.peek(Amount::Bulk(clamp(count)))
    }

    /// Looks at as many of the oldest values as there are, up to `most`. `None` if there are none.
    #[inline]
    pub fn peek_burst(&mut self, most: usize) -> Option<Peeked<'_, T, P, C>> {
        self.peek(Amount::Burst(clamp(most)))
    }

    #[inline(always)]
    fn peek(&mut self, amount: Amount) -> Option<Peeked<'_, T, P, C>> {
        let claim = self.core.claim_filled(&mut self.mode, amount);
        // SAFETY: the claim was made by this end just now, and the guard borrows the end.
        (claim.count != 0).then(|| unsafe { Peeked::new(&self.core, &mut self.mode, claim) })
    }
}

impl<T, C: Mode> Producer<T, Single, C> {
    /// # Safety
    /// `source` holds as many values as `amount` may take; those taken are given up.
    #[inline(always)]
    unsafe fn put(&mut self, source: *const T, amount: Amount) -> u32 {
        // SAFETY: the caller's promise; `mode` was made with the core, once.
        unsafe { self.core.put(&mut self.mode, source, amount) }
    }
}

impl<T, P: SharedMode, C: Mode> Producer<T, P, C> {
    /// # Safety
    /// As for the single producer.
    #[inline(always)]
    unsafe fn put(&self, source: *const T, amount: Amount) -> u32 {
        // SAFETY: passed on.
        unsafe { self.core.enqueue(source, amount) }
    }
}

impl<T, P: Mode> Consumer<T, P, Single> {
    /// # Safety
    /// `target` has room for as many values as `amount` may give.
    #[inline(always)]
    unsafe fn get(&mut self, target: *mut T, amount: Amount) -> u32 {
        // SAFETY: the caller's promise; `mode` was made with the core, once.
        unsafe { self.core.get(&mut self.mode, target, amount) }
    }
}

impl<T, P: Mode, C: SharedMode> Consumer<T, P, C> {
    /// # Safety
    /// As for the single consumer.
    #[inline(always)]
    unsafe fn get(&self, target: *mut T, amount: Amount) -> u32 {
        // SAFETY: passed on.
        unsafe { self.core.dequeue(target, amount) }
    }
}
