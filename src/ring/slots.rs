//! The slots' memory: where it is, and that it goes when the ring does.
#![expect(unsafe_code, reason = "slots may stand in memory that another owner frees")]

use std::alloc::{Layout, alloc, dealloc};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use super::error::RingError;
#[cfg(not(loom))]
use crate::sys::copy::copy_few;
use crate::sys::sync::UnsafeCell;

/// The least alignment of slots.
const CACHE_LINE_BYTES: usize = 64;

/// Room for one element.
pub(super) type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// A power of two of slots, side by side. Their values are the ring's affair: dropping this frees
/// memory only.
#[derive(Debug)]
pub(super) struct Slots<T> {
    first: NonNull<Slot<T>>,
    count: usize,
    /// The slots were allocated here; else they stand in memory of whoever made this.
    boxed: bool,
}

/// How many slots a ring for `capacity` elements has.
pub(super) fn count_for(capacity: usize) -> usize {
    capacity.next_power_of_two()
}

impl<T> Slots<T> {
    /// Slots in plain memory for `capacity` elements.
    pub(super) fn boxed(capacity: usize) -> Result<Self, RingError> {
        let no_memory = || RingError::NoMemory {
            capacity,
            element_len_bytes: size_of::<T>(),
            slots: count_for(capacity),
        };
        let layout = Self::layout(count_for(capacity)).ok_or_else(no_memory)?;
        let first = match layout.size() {
            0 => NonNull::dangling(),
            // SAFETY: the size isn't 0.
            _ => NonNull::new(unsafe { alloc(layout) }.cast()).ok_or_else(no_memory)?,
        };
        // SAFETY: there is room for as many, aligned, and nobody else knows of it.
        let mut slots = unsafe { Self::placed(first, capacity) };
        slots.boxed = true;
        Ok(slots)
    }

    /// They begin with a cache line: copies of several elements then cross as few as can be.
    fn layout(count: usize) -> Option<Layout> {
        Layout::array::<Slot<T>>(count).ok()?.align_to(CACHE_LINE_BYTES).ok()
    }

    /// Slots for `capacity` elements at `first`.
    ///
    /// # Safety
    /// From `first` on there is aligned memory for `count_for(capacity)` slots that nobody else
    /// uses and that outlives this.
    pub(super) unsafe fn placed(first: NonNull<Slot<T>>, capacity: usize) -> Self {
        let count = count_for(capacity);
        for nth in 0..count {
            // SAFETY: the caller's promise: there is room for `count`.
            unsafe { first.add(nth).write(UnsafeCell::new(MaybeUninit::uninit())) };
        }
        Self { first, count, boxed: false }
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[Slot<T>] {
        // SAFETY: both constructors leave `count` initialised slots (of perhaps no value) at
        // `first`, which live as long as `self`; they are cells, so a shared reference is fair.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

/// Moves values from `source` into `slots`.
///
/// # Safety
/// `source` is valid for `slots.len()` reads, and the caller gives the values up; the slots are
/// this thread's alone.
#[inline(always)]
pub(super) unsafe fn fill<T>(slots: &[Slot<T>], source: *const T) {
    #[cfg(not(loom))]
    {
        let target = slots.as_ptr().cast_mut().cast::<T>();
        // SAFETY: a slot is `repr(transparent)` around what it holds, and may be written to through
        // a shared reference; the rest is the caller's promise.
        unsafe { copy_few(source, target, slots.len()) };
    }
    #[cfg(loom)]
    for (nth, slot) in slots.iter().enumerate() {
        // SAFETY: the caller's promise.
        slot.with_mut(|slot| unsafe { slot.write(MaybeUninit::new(source.add(nth).read())) });
    }
}

/// Moves the values in `slots` to `target`.
///
/// # Safety
/// The slots hold values and are this thread's alone; `target` is valid for as many writes.
#[inline(always)]
pub(super) unsafe fn empty<T>(slots: &[Slot<T>], target: *mut T) {
    #[cfg(not(loom))]
    {
        let source = slots.as_ptr().cast::<T>();
        // SAFETY: as above, for reading.
        unsafe { copy_few(source, target, slots.len()) };
    }
    #[cfg(loom)]
    for (nth, slot) in slots.iter().enumerate() {
        // SAFETY: the caller's promise.
        slot.with(|slot| unsafe { target.add(nth).write((*slot).assume_init_read()) });
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        let slots = ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.count);
        // SAFETY: initialised by `placed`, used by nobody any more. (The cells have nothing to
        // drop, but loom's have.)
        unsafe { ptr::drop_in_place(slots) };
        if let Some(layout) = Self::layout(self.count).filter(|to| self.boxed && to.size() != 0) {
            // SAFETY: `boxed` allocated it with this layout; freed once, here.
            unsafe { dealloc(self.first.as_ptr().cast(), layout) };
        }
    }
}
