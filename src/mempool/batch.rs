//! Values of a pool in bulk, and the pool as one lcore sees it: for loops.
//!
//! A batch is two words and a length beside an array of its user's, and not one value with an
//! array in it: the compiler then keeps the length in a register.
#![expect(unsafe_code, reason = "keeps objects in an array that is filled in part")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::cache::Cache;
use super::pool::Object;
use super::typed::ObjectPool;
use crate::sys::lcore_local::Own;

/// A pool as the calling lcore sees it. The lcore's cache is looked up when this is made, and not
/// again for each object; the thread stays that lcore meanwhile, and this stays with the thread.
///
/// For threads that are no lcores, and for pools without caches or with cookies, it is the pool.
///
/// ```
/// use packetboat::memory::{Memory, MemoryConfig};
/// use packetboat::mempool::{MempoolConfig, ObjectPool, Places};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// let pool = ObjectPool::new(&memory, &MempoolConfig::new("jobs", 100, 0), |_, _| 0_u64)?;
/// let local = pool.local();
/// let mut places = Places::<32>::new();
/// let mut jobs = local.batch(&mut places);
/// assert!(jobs.take(8));
/// jobs.iter_mut().for_each(|job| *job += 1);
/// assert_eq!(jobs.give_back(3), 3);
/// assert_eq!(pool.as_mempool().in_use(), 5);
/// drop(jobs);
/// assert_eq!(pool.as_mempool().in_use(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalPool<'p, T> {
    pool: &'p ObjectPool<T>,
    cache: Option<Own<'p, Cache>>,
}

impl<'p, T> LocalPool<'p, T> {
    #[inline]
    pub(super) fn new(pool: &'p ObjectPool<T>) -> Self {
        Self { pool, cache: pool.as_mempool().hold_cache() }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &'p ObjectPool<T> {
        self.pool
    }

    /// An empty batch of as many values as there are places.
    #[inline(always)]
    pub fn batch<'b, const N: usize>(
        &'b self,
        places: &'b mut Places<N>,
    ) -> Batch<'b, T, Local<'b, T>> {
        Batch::new(Local { pool: self.pool, cache: self.cache.as_deref() }, places)
    }
}

impl<T> fmt::Debug for Local<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("pool", self.pool).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for LocalPool<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPool")
            .field("pool", self.pool)
            .field("cached", &self.cache.is_some())
            .finish()
    }
}

/// What a [`LocalPool`] has found, for its batches.
pub struct Local<'l, T> {
    pool: &'l ObjectPool<T>,
    cache: Option<&'l Cache>,
}

impl<T> Clone for Local<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Local<'_, T> {}

/// Where a [`Batch`] takes values from: a pool, or a [`LocalPool`]. Sealed.
pub trait Source<T>: sealed::Sealed<T> {}
impl<T, S: sealed::Sealed<T>> Source<T> for S {}

mod sealed {
    use super::{MaybeUninit, Object};

    pub trait Sealed<T>: Copy {
        /// Fills `out` or nothing of it.
        fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool;

        /// # Safety
        /// What `get` of this source gave, given back once.
        unsafe fn put(&self, objects: &[Object]);
    }
}

impl<T> sealed::Sealed<T> for &ObjectPool<T> {
    #[inline(always)]
    fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        self.as_mempool().get_bulk(out)
    }

    #[inline(always)]
    unsafe fn put(&self, objects: &[Object]) {
        // SAFETY: passed on.
        unsafe { self.as_mempool().put_bulk(objects) };
    }
}

impl<T> sealed::Sealed<T> for Local<'_, T> {
    #[inline(always)]
    fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        let pool = self.pool.as_mempool();
        match self.cache {
            // SAFETY: an `Own` is with the lcore whose cache it is; `get` calls nobody back.
            Some(cache) => unsafe { cache.get(out, pool.shared()) },
            None => pool.get_without_cache(out),
        }
    }

    #[inline(always)]
    unsafe fn put(&self, objects: &[Object]) {
        let pool = self.pool.as_mempool();
        match self.cache {
            // SAFETY: as above.
            Some(cache) => unsafe { cache.put(objects, pool.shared()) },
            // SAFETY: passed on.
            None => unsafe { pool.put_without_cache(objects) },
        }
    }
}

/// Room for `N` values of any pool. It begins with a cache line, as the caches do: copies between
/// them cross none.
#[repr(align(64))]
pub struct Places<const N: usize>([MaybeUninit<Object>; N]);

impl<const N: usize> Places<N> {
    /// Empty ones.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; N])
    }
}

impl<const N: usize> Default for Places<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Places<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({N})")
    }
}

/// Some values of a pool. Those that are in it when it is dropped go back together.
pub struct Batch<'b, T, S: Source<T>> {
    source: S,
    /// The first `len` are filled.
    places: &'b mut [MaybeUninit<Object>],
    len: usize,
    values: PhantomData<T>,
}

// SAFETY: it owns values, which may go to other threads if `T: Send`, and a share of their pool.
unsafe impl<T: Send, S: Source<T> + Send> Send for Batch<'_, T, S> {}
// SAFETY: `&Batch` gives out `&T` only.
unsafe impl<T: Send + Sync, S: Source<T> + Sync> Sync for Batch<'_, T, S> {}

impl<'b, T, S: Source<T>> Batch<'b, T, S> {
    #[inline(always)]
    pub(super) fn new<const N: usize>(source: S, places: &'b mut Places<N>) -> Self {
        Self { source, places: &mut places.0, len: 0, values: PhantomData }
    }

    /// Values in it.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `count` values more, or none: if there are no places for them, or the pool has fewer.
    #[inline(always)]
    pub fn take(&mut self, count: usize) -> bool {
        let end = self.len + count;
        let Some(room) = self.places.get_mut(self.len..end) else { return false };
        let took = self.source.get(room);
        if took {
            self.len = end;
        }
        took
    }

    /// Gives the last `count` values back, or all if there are fewer; returns how many.
    #[inline(always)]
    pub fn give_back(&mut self, count: usize) -> usize {
        match self.len.checked_sub(count) {
            Some(rest) => self.give(rest, count),
            None => self.give(0, self.len),
        }
    }

    /// `rest + count` is the length.
    #[inline(always)]
    fn give(&mut self, rest: usize, count: usize) -> usize {
        self.len = rest;
        // SAFETY: these were filled, and are no longer counted as ours. MaybeUninit<Object> has the
        // layout of Object. They came from this source.
        unsafe {
            let first = self.places.as_ptr().add(rest).cast::<Object>();
            self.source.put(std::slice::from_raw_parts(first, count));
        }
        count
    }

    /// Gives all values back.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.give(0, self.len);
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: filled, made by the pool, and this batch's alone.
        self.filled().map(|object| unsafe { object.0.cast::<T>().as_ref() })
    }

    /// The values, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        // SAFETY: as above; each is another one.
        self.filled().map(|object| unsafe { object.0.cast::<T>().as_mut() })
    }

    fn filled(&self) -> impl Iterator<Item = Object> {
        // SAFETY: the first `len` are filled.
        self.places.iter().take(self.len).map(|object| unsafe { object.assume_init() })
    }
}

impl<T, S: Source<T>> Drop for Batch<'_, T, S> {
    /// Short, so that it is inlined wherever a panic could come by: the batch's address would be
    /// known to a function otherwise, and its length couldn't stay in a register.
    #[inline(always)]
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: as in `give`; this is the last use.
            unsafe { give_all(self.source, self.places.as_ptr().cast(), self.len) };
        }
    }
}

/// # Safety
/// From `first` on are `count` objects that came from `source`; each is given back once.
#[inline(never)]
unsafe fn give_all<T, S: Source<T>>(source: S, first: *const Object, count: usize) {
    // SAFETY: passed on.
    unsafe { source.put(std::slice::from_raw_parts(first, count)) };
}

impl<T, S: Source<T>> fmt::Debug for Batch<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} of {})", self.len, self.places.len())
    }
}
