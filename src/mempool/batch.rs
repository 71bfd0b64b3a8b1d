//! Values of a pool in bulk, and the pool as one lcore sees it: for loops.
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
/// use packetboat::mempool::{MempoolConfig, ObjectPool};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// let pool = ObjectPool::new(&memory, &MempoolConfig::new("jobs", 100, 0), |_, _| 0_u64)?;
/// let local = pool.local();
/// let mut jobs = local.batch::<32>();
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

    /// Room for up to `N` values of this pool.
    #[inline]
    #[must_use]
    pub fn batch<const N: usize>(&self) -> Batch<T, &Self, N> {
        Batch::new(self)
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

/// Where a [`Batch`] takes values from: a pool, or a [`LocalPool`]. Sealed.
pub trait Source<T>: sealed::Sealed<T> {}
impl<T, S: sealed::Sealed<T>> Source<T> for S {}

mod sealed {
    use super::{MaybeUninit, Object};

    pub trait Sealed<T> {
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

impl<T> sealed::Sealed<T> for &LocalPool<'_, T> {
    #[inline(always)]
    fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        let pool = self.pool.as_mempool();
        match &self.cache {
            // SAFETY: an `Own` is with the lcore whose cache it is; `get` calls nobody back.
            Some(cache) => unsafe { cache.get(out, pool.shared()) },
            None => pool.get_without_cache(out),
        }
    }

    #[inline(always)]
    unsafe fn put(&self, objects: &[Object]) {
        let pool = self.pool.as_mempool();
        match &self.cache {
            // SAFETY: as above.
            Some(cache) => unsafe { cache.put(objects, pool.shared()) },
            // SAFETY: passed on.
            None => unsafe { pool.put_without_cache(objects) },
        }
    }
}

/// Up to `N` values of a pool. Those that are in it when it is dropped go back together.
pub struct Batch<T, S: Source<T>, const N: usize> {
    source: S,
    /// The first `len` are filled.
    objects: [MaybeUninit<Object>; N],
    len: usize,
    values: PhantomData<T>,
}

// SAFETY: it owns values, which may go to other threads if `T: Send`, and a share of their pool.
unsafe impl<T: Send, S: Source<T> + Send, const N: usize> Send for Batch<T, S, N> {}
// SAFETY: `&Batch` gives out `&T` only.
unsafe impl<T: Send + Sync, S: Source<T> + Sync, const N: usize> Sync for Batch<T, S, N> {}

impl<T, S: Source<T>, const N: usize> Batch<T, S, N> {
    #[inline(always)]
    pub(super) fn new(source: S) -> Self {
        Self { source, objects: [const { MaybeUninit::uninit() }; N], len: 0, values: PhantomData }
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

    /// Takes `count` values more, or none: if there is no room for them here, or the pool has
    /// fewer.
    #[inline(always)]
    pub fn take(&mut self, count: usize) -> bool {
        let room = self.objects.get_mut(self.len..).and_then(|room| room.get_mut(..count));
        let took = room.is_some_and(|room| self.source.get(room));
        if took {
            self.len += count;
        }
        took
    }

    /// Gives the last `count` values back, or all if there are fewer; returns how many.
    #[inline(always)]
    pub fn give_back(&mut self, count: usize) -> usize {
        let rest = self.len.saturating_sub(count);
        let given = self.len - rest;
        let objects = self.objects.get(rest..).and_then(|last| last.get(..given));
        self.len = rest;
        if let Some(objects) = objects {
            // SAFETY: filled, and no longer counted as ours; MaybeUninit<Object> has the layout of
            // Object. They came from this source.
            unsafe { self.source.put(&*(&raw const *objects as *const [Object])) };
        }
        given
    }

    /// Gives all values back.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.give_back(N);
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
        self.objects.iter().take(self.len).map(|object| unsafe { object.assume_init() })
    }
}

impl<T, S: Source<T>, const N: usize> Drop for Batch<T, S, N> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.len > 0 {
            self.clear();
        }
    }
}

impl<T, S: Source<T>, const N: usize> fmt::Debug for Batch<T, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} of {N})", self.len)
    }
}
