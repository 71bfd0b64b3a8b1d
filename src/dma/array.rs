//! Arrays and single words in DMA memory.
#![expect(unsafe_code, reason = "volatile and atomic access to memory shared with a device")]

use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::memory::{Iova, Memory, MemoryError, Zone, ZoneRequest};

/// Why DMA memory can't be had or cut up as asked.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// There is no memory for it.
    #[error("no DMA memory for {what}")]
    Memory {
        /// What it was for.
        what: String,
        /// Why.
        #[source]
        source: MemoryError,
    },
    /// A part that doesn't lie inside its area, isn't aligned, or whose length isn't a power of
    /// two.
    #[error(
        "{count} entries of {entry_len_bytes} bytes at offset {offset} can't be had from an area \
         of {area_len_bytes} bytes: entries must be aligned and a power of two of them fit"
    )]
    Part {
        /// Where.
        offset: usize,
        /// How many.
        count: usize,
        /// Of what size.
        entry_len_bytes: usize,
        /// In an area of what length.
        area_len_bytes: usize,
    },
}

/// A piece of memory that the device sees in one piece, zeroed, from which arrays and cells are
/// cut. It lives as long as any of them.
#[derive(Debug, Clone)]
pub struct Area {
    zone: Arc<Zone>,
    iova: Iova,
}

impl Area {
    /// `len_bytes` bytes, aligned to `align` (a power of two) for the device too, on `node`.
    ///
    /// # Errors
    /// If there is no such memory.
    pub fn new(
        memory: &Arc<Memory>,
        name: &str,
        len_bytes: usize,
        align: usize,
        node: Option<u32>,
    ) -> Result<Self, DmaError> {
        let request =
            ZoneRequest::new(name, len_bytes).align(align).on_node(node).iova_contiguous();
        let zone = memory
            .zone(&request)
            .map_err(|source| DmaError::Memory { what: name.to_owned(), source })?;
        let iova = zone.iova_at(0).ok_or(DmaError::Part {
            offset: 0,
            count: 1,
            entry_len_bytes: len_bytes,
            area_len_bytes: 0,
        })?;
        Ok(Self { zone: Arc::new(zone), iova })
    }

    /// What the device calls the byte at `offset`.
    #[must_use]
    pub fn iova(&self, offset: usize) -> Iova {
        Iova(self.iova.0 + offset as u64)
    }

    /// Sets all of it to zero. Only while the device doesn't use it, or it may see anything.
    pub fn clear(&self) {
        for offset in 0..self.zone.len_bytes() {
            // SAFETY: inside the zone, which is ours.
            unsafe { self.zone.as_ptr().add(offset).write_volatile(0) };
        }
    }

    /// `count` entries (a power of two) from `offset` on.
    ///
    /// # Errors
    /// If they don't lie inside the area, aligned.
    pub fn array<T: Entry>(&self, offset: usize, count: usize) -> Result<Array<T>, DmaError> {
        let entry_len_bytes = size_of::<T>();
        let area_len_bytes = self.zone.len_bytes();
        let fits = count.is_power_of_two()
            && entry_len_bytes > 0
            && offset.is_multiple_of(align_of::<T>())
            && (self.zone.as_ptr().as_ptr() as usize).is_multiple_of(align_of::<T>())
            && count
                .checked_mul(entry_len_bytes)
                .and_then(|len| len.checked_add(offset))
                .is_some_and(|end| end <= area_len_bytes);
        if !fits {
            return Err(DmaError::Part { offset, count, entry_len_bytes, area_len_bytes });
        }
        // SAFETY: inside the zone, as checked.
        let base = unsafe { self.zone.as_ptr().add(offset).cast::<T>() };
        Ok(Array { base, mask: count - 1, _zone: self.zone.clone() })
    }

    /// One word at `offset`, for flags and indexes.
    ///
    /// # Errors
    /// If it doesn't lie inside the area, aligned.
    pub fn cell<T: Word>(&self, offset: usize) -> Result<Cell<T>, DmaError> {
        let array = self.array::<T>(offset, 1)?;
        Ok(Cell { at: array.base, _zone: array._zone, word: PhantomData })
    }
}

/// What may stand in an [`Array`]: any bits are valid, and it has no padding.
pub trait Entry: Copy + FromBytes + IntoBytes + Immutable {}
impl<T: Copy + FromBytes + IntoBytes + Immutable> Entry for T {}

/// A power of two of entries shared with a device. Indexes are masked: they wrap, and can't miss.
#[derive(Debug)]
pub struct Array<T> {
    base: NonNull<T>,
    mask: usize,
    _zone: Arc<Zone>,
}

// SAFETY: entries are plain data, reached by volatile copies only; the zone stays while we have it.
unsafe impl<T: Send> Send for Array<T> {}

impl<T: Entry> Array<T> {
    /// How many entries there are.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.mask + 1
    }

    /// A copy of entry `index`, as it is at this moment.
    #[inline(always)]
    #[must_use]
    pub fn read(&self, index: usize) -> T {
        // SAFETY: the masked index lies inside the array; any bits make a T.
        unsafe { self.base.add(index & self.mask).read_volatile() }
    }

    /// Writes entry `index`.
    #[inline(always)]
    pub fn write(&mut self, index: usize, value: T) {
        // SAFETY: the masked index lies inside the array.
        unsafe { self.base.add(index & self.mask).write_volatile(value) };
    }
}

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
        Pairs {
            at: unsafe { self.base.add(2 * first) },
            left: count.min(there),
            array: PhantomData,
        }
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

/// A word that a device and the program read and write as a whole.
pub trait Word: Entry {
    /// Loads it; later reads see what was written before it was stored.
    ///
    /// # Safety
    /// `at` is valid and aligned.
    unsafe fn load_acquire(at: NonNull<Self>) -> Self;
    /// Stores it after all earlier writes.
    ///
    /// # Safety
    /// `at` is valid and aligned.
    unsafe fn store_release(at: NonNull<Self>, value: Self);
}

macro_rules! word {
    ($($int:ty, $atomic:ty;)*) => {$(
        impl Word for $int {
            #[inline(always)]
            unsafe fn load_acquire(at: NonNull<Self>) -> Self {
                // SAFETY: valid and aligned as promised; only atomic or volatile accesses are made
                // to shared words.
                unsafe { <$atomic>::from_ptr(at.as_ptr()) }.load(Ordering::Acquire)
            }
            #[inline(always)]
            unsafe fn store_release(at: NonNull<Self>, value: Self) {
                // SAFETY: as above.
                unsafe { <$atomic>::from_ptr(at.as_ptr()) }.store(value, Ordering::Release);
            }
        }
    )*};
}
word!(u16, AtomicU16; u32, AtomicU32; u64, AtomicU64;);

/// One word in DMA memory.
#[derive(Debug)]
pub struct Cell<T> {
    at: NonNull<T>,
    _zone: Arc<Zone>,
    word: PhantomData<T>,
}

// SAFETY: as for Array.
unsafe impl<T: Send> Send for Cell<T> {}

impl<T: Word> Cell<T> {
    /// Loads it; later reads of DMA memory see what the device wrote before it wrote this.
    #[inline(always)]
    #[must_use]
    pub fn load_acquire(&self) -> T {
        // SAFETY: checked when the cell was made.
        let value = unsafe { T::load_acquire(self.at) };
        crate::mmio::order_dma_reads();
        value
    }

    /// Stores it after all earlier writes: a device that sees it sees those too.
    #[inline(always)]
    pub fn store_release(&mut self, value: T) {
        crate::mmio::order_dma_writes();
        // SAFETY: checked when the cell was made.
        unsafe { T::store_release(self.at, value) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::MemoryConfig;

    #[test]
    fn runs_and_pairs_end_with_the_array() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let area = Area::new(&memory, "ring", 4096, 4096, None).unwrap();
        let mut words = area.array::<u64>(0, 8).unwrap();
        let mut pairs = words.pairs(2, 9);
        pairs.write(1, 2);
        pairs.publish(3, 4);
        pairs.write(5, 6); // beyond: nothing
        words.pairs(3, 1).write_first(7);
        assert_eq!(words.run::<1>(3, 9).collect::<Vec<_>>(), [0, 1, 2, 7, 4]);
        assert_eq!(words.run::<2>(5, 1).collect::<Vec<_>>(), [2]);
        assert_eq!(words.run::<2>(5, 9).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((words.run::<2>(8, 1).left(), words.run::<1>(usize::MAX, 1).left()), (0, 0));
        words.pairs(4, 1).write(9, 9);
        words.pairs(usize::MAX, 1).write(9, 9);
        assert_eq!(words.run::<1>(0, 9).sum::<u64>(), 14);
        assert_eq!(area.array::<u64>(64, 8).unwrap().run::<1>(0, 8).sum::<u64>(), 0);
    }

    #[test]
    fn parts_lie_inside_and_indexes_wrap() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let area = Area::new(&memory, "ring", 4096, 4096, None).unwrap();
        let mut array = area.array::<[u64; 2]>(64, 8).unwrap();
        array.write(9, [1, 2]);
        assert_eq!(array.read(1), [1, 2]);
        assert_eq!(array.read(usize::MAX - 6), [1, 2]);
        let mut cell = area.cell::<u16>(64 + 16).unwrap();
        assert_eq!(cell.load_acquire(), 1);
        cell.store_release(7);
        assert_eq!(array.read(1), [7, 2]);
        let mut words = area.array::<u64>(64, 4).unwrap();
        words.store_release(6, 9);
        assert_eq!((words.load_acquire(2), array.read(1)), (9, [9, 2]));
        area.clear();
        assert_eq!(array.read(1), [0, 0]);
        for (offset, count) in [(0, 3), (0, 512), (4, 1), (4096, 1), (usize::MAX - 7, 8), (0, 0)] {
            assert!(area.array::<[u64; 2]>(offset, count).is_err(), "{offset} {count}");
        }
        assert!(area.cell::<u32>(4094).is_err());
    }
}
