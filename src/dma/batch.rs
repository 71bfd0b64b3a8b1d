//! Work on a batch of an array's entries, which stand side by side.
#![expect(unsafe_code, reason = "volatile access to memory shared with a device")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::array::{Array, Entry};

/// An array for the length of a batch: a copy of its place and length, which the compiler can keep
/// in registers while entries are written.
#[derive(Debug)]
pub struct Batch<'a, T> {
    base: NonNull<T>,
    mask: usize,
    array: PhantomData<&'a mut Array<T>>,
}

impl<T: Entry> Array<T> {
    /// The array, for a batch of reads and writes.
    #[inline(always)]
    pub fn batch(&mut self) -> Batch<'_, T> {
        Batch { base: self.base, mask: self.mask, array: PhantomData }
    }
}

impl<T: Entry> Batch<'_, T> {
    /// As [`Array::read`].
    #[inline(always)]
    #[must_use]
    pub fn read(&self, index: usize) -> T {
        // SAFETY: the masked index lies inside the array, which is borrowed; any bits make a T.
        unsafe { self.base.add(index & self.mask).read_volatile() }
    }

    /// As [`Array::write`].
    #[inline(always)]
    pub fn write(&mut self, index: usize, value: T) {
        // SAFETY: the masked index lies inside the array, which is borrowed for writing.
        unsafe { self.base.add(index & self.mask).write_volatile(value) };
    }
}

impl Batch<'_, [u64; 2]> {
    /// `len` descriptors side by side, from `start` on; none if they would cross the array's end.
    #[inline(always)]
    pub(super) fn run(&mut self, start: usize, len: usize) -> Option<Run<'_>> {
        let fits = start <= self.mask && len <= self.mask + 1 - start;
        // SAFETY: inside the array, which is borrowed for writing.
        fits.then(|| Run { first: unsafe { self.base.add(start) }, len, batch: PhantomData })
    }

    /// Word 0 or 1 of descriptor `index`.
    #[inline(always)]
    #[must_use]
    pub fn read_part(&self, index: usize, part: usize) -> u64 {
        // SAFETY: the masked index lies inside the array, and the masked part inside the entry.
        unsafe {
            let entry = self.base.add(index & self.mask).cast::<u64>();
            entry.add(part & 1).read_volatile()
        }
    }
}

/// Descriptors side by side.
#[derive(Debug)]
pub(super) struct Run<'a> {
    first: NonNull<[u64; 2]>,
    len: usize,
    batch: PhantomData<&'a mut [u64; 2]>,
}

impl<'a> Run<'a> {
    /// Each of them, in order.
    #[inline(always)]
    pub(super) fn iter(self) -> impl Iterator<Item = Descriptor<'a>> {
        (0..self.len).map(move |at| {
            // SAFETY: `at` is below the run's length.
            Descriptor { words: unsafe { self.first.add(at) }.cast(), run: PhantomData }
        })
    }
}

/// One descriptor of two words.
#[derive(Debug)]
pub struct Descriptor<'a> {
    words: NonNull<u64>,
    run: PhantomData<&'a mut u64>,
}

impl Descriptor<'_> {
    /// The lower word.
    #[inline(always)]
    #[must_use]
    pub fn lower(&self) -> u64 {
        // SAFETY: inside an array that is borrowed; any bits are a word.
        unsafe { self.words.read_volatile() }
    }

    /// The upper word.
    #[inline(always)]
    #[must_use]
    pub fn upper(&self) -> u64 {
        // SAFETY: as above, a descriptor has two words.
        unsafe { self.words.add(1).read_volatile() }
    }

    /// Both words.
    #[inline(always)]
    pub fn write(&mut self, [lower, upper]: [u64; 2]) {
        // SAFETY: as above, and the array is borrowed for writing.
        unsafe {
            self.words.write_volatile(lower);
            self.words.add(1).write_volatile(upper);
        }
    }
}
