//! Arrays and single words in DMA memory.
#![expect(unsafe_code, reason = "volatile and atomic access to memory shared with a device")]

use std::hash::{DefaultHasher, Hash, Hasher};
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
    /// `len_bytes` bytes, aligned to `align` (a power of two) for the device too, on `node`. Names may
    /// have any length, as paths of sockets do: the zone of a long one has its end, behind a number
    /// that tells it from others.
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
        let request = ZoneRequest::new(zone_name(name), len_bytes)
            .align(align)
            .on_node(node)
            .iova_contiguous();
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

/// `name`, if a zone can have it, or its end behind a number made of all of it.
fn zone_name(name: &str) -> String {
    if name.len() <= ZoneRequest::MAX_NAME_BYTES {
        return name.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let number = format!("{:016x}..", hasher.finish());
    let most = ZoneRequest::MAX_NAME_BYTES - number.len();
    let end = (name.len() - most..name.len()).find_map(|from| name.get(from..));
    number + end.unwrap_or_default()
}

/// What may stand in an [`Array`]: any bits are valid, and it has no padding.
pub trait Entry: Copy + FromBytes + IntoBytes + Immutable {}
impl<T: Copy + FromBytes + IntoBytes + Immutable> Entry for T {}

/// A power of two of entries shared with a device. Indexes are masked: they wrap, and can't miss.
#[derive(Debug)]
pub struct Array<T> {
    pub(super) base: NonNull<T>,
    pub(super) mask: usize,
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
    fn names_of_any_length_make_zones_of_their_own() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let long =
            |number: u32| format!("vhost-user:/run/{}é/{number}.sock queue 0", "x".repeat(99));
        let areas = [long(1), long(2), "short".to_owned()]
            .map(|name| Area::new(&memory, &name, 64, 64, None).unwrap());
        let names: Vec<_> = memory.zones().into_iter().map(|zone| zone.name).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().any(|name| name == "short"), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.ends_with(".sock queue 0")).count(), 2);
        assert!(names.iter().all(|name| name.len() <= ZoneRequest::MAX_NAME_BYTES));
        drop(areas);
    }

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
