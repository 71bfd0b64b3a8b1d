//! Words of an array, read or written one after the other.
#![expect(unsafe_code, reason = "volatile and atomic access to memory shared with a device")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::array::{Array, Word};

impl<T: Word> Array<T> {
    /// A copy of entry `index`; later reads of DMA memory see what the device wrote before it wrote
    /// this.
    #[inline(always)]
    #[must_use]
    pub fn load_acquire(&self, index: usize) -> T {
        // SAFETY: the masked index lies inside the array; entries are aligned.
        let value = unsafe { T::load_acquire(self.base.add(index & self.mask)) };
        crate::mmio::order_dma_reads();
        value
    }

    /// Writes entry `index` after all earlier writes: a device that sees it sees those too.
    #[inline(always)]
    pub fn store_release(&mut self, index: usize, value: T) {
        crate::mmio::order_dma_writes();
        // SAFETY: the masked index lies inside the array; entries are aligned.
        unsafe { T::store_release(self.base.add(index & self.mask), value) };
    }
}

impl Array<u64> {
    /// The pairs of words `first` to `first + count`, to be written one after the other; fewer if
    /// the array ends before that.
    #[inline(always)]
    pub fn pairs(&mut self, first: usize, count: usize) -> Pairs<'_> {
        let there = (self.count() / 2).saturating_sub(first);
        let first = first & (self.mask >> 1);
        // SAFETY: the masked pair lies inside the array.
        let at = unsafe { self.base.add(2 * first) };
        Pairs { at, left: count.min(there), array: PhantomData }
    }

    /// Every `STEP`-th word from `first` on, `count` of them; fewer if the array ends before that.
    /// Each is loaded when it is asked for: later reads of DMA memory see what the device wrote
    /// before it wrote it.
    #[inline(always)]
    pub fn run<const STEP: usize>(&self, first: usize, count: usize) -> Words<'_, STEP> {
        let there = self.count().saturating_sub(first).div_ceil(STEP);
        // SAFETY: the masked word lies inside the array.
        let at = unsafe { self.base.add(first & self.mask) };
        Words { at, left: count.min(there), array: PhantomData }
    }
}

/// Pairs of words to be written, such as descriptors of 16 bytes.
#[derive(Debug)]
pub struct Pairs<'a> {
    at: NonNull<u64>,
    left: usize,
    array: PhantomData<&'a mut Array<u64>>,
}

impl Pairs<'_> {
    /// The next pair's place, if there is one.
    #[inline(always)]
    fn next(&mut self) -> Option<NonNull<u64>> {
        if self.left == 0 {
            return None;
        }
        let at = self.at;
        // SAFETY: a pair was left: its end lies inside the array, or at its end.
        self.at = unsafe { at.add(2) };
        self.left -= 1;
        Some(at)
    }

    /// Writes the next pair's first word, and leaves the second as it is.
    #[inline(always)]
    pub fn write_first(&mut self, first: u64) {
        if let Some(at) = self.next() {
            // SAFETY: a pair inside the array.
            unsafe { at.write_volatile(first) };
        }
    }

    /// Writes the next pair.
    #[inline(always)]
    pub fn write(&mut self, first: u64, second: u64) {
        if let Some(at) = self.next() {
            // SAFETY: a pair inside the array.
            unsafe {
                at.write_volatile(first);
                at.add(1).write_volatile(second);
            }
        }
    }

    /// Writes the next pair, the second word after the first and all earlier writes.
    #[inline(always)]
    pub fn publish(&mut self, first: u64, second: u64) {
        if let Some(at) = self.next() {
            // SAFETY: a pair inside the array, aligned.
            unsafe {
                at.write_volatile(first);
                crate::mmio::order_dma_writes();
                u64::store_release(at.add(1), second);
            }
        }
    }
}

/// Words to be read.
#[derive(Debug)]
pub struct Words<'a, const STEP: usize> {
    at: NonNull<u64>,
    left: usize,
    array: PhantomData<&'a Array<u64>>,
}

impl<const STEP: usize> Words<'_, STEP> {
    /// How many are left.
    #[inline(always)]
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }
}

impl<const STEP: usize> Iterator for Words<'_, STEP> {
    type Item = u64;

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        if self.left == 0 {
            return None;
        }
        // SAFETY: a word was left: it lies inside the array, aligned. What comes after the last one
        // isn't read, and its address is computed without claiming that it is inside.
        let value = unsafe { u64::load_acquire(self.at) };
        crate::mmio::order_dma_reads();
        self.at = NonNull::new(self.at.as_ptr().wrapping_add(STEP)).unwrap_or(self.at);
        self.left -= 1;
        Some(value)
    }
}
