//! The pool: memory cut into objects, the shared ring of free ones, the caches.
#![expect(unsafe_code, reason = "per-lcore caches are reached without a lock")]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_utils::CachePadded;

use super::cache::{Cache, FreeRing, get_shared, put_shared};
use crate::memory::{Iova, IovaMode, Memory, MemoryError, Segment, Zone, ZoneRequest};
use crate::ring::MAX_CAPACITY;
use crate::sys::lcore_id::{self, MAX_LCORES};

/// The most objects that one lcore's cache may hold.
pub const MAX_CACHE_SIZE: usize = 512;

/// Why a pool can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// The number of objects is zero or beyond counting.
    #[error("mempool {name:?}: {count} objects were asked for; it can have 1 to {MAX_CAPACITY}")]
    Count {
        /// The pool's name.
        name: String,
        /// What was asked for.
        count: usize,
    },
    /// A cache larger than allowed, or so large that the pool could sit in one lcore's cache.
    #[error(
        "mempool {name:?}: a cache of {cache_size} objects per lcore was asked for; \
         the most for {count} objects is {most} (at most {MAX_CACHE_SIZE}, and 2/3 of the pool)"
    )]
    CacheSize {
        /// The pool's name.
        name: String,
        /// What was asked for.
        cache_size: usize,
        /// Objects in the pool.
        count: usize,
        /// The largest cache it may have.
        most: usize,
    },
    /// An object of no size, or larger than a page where pages aren't contiguous for the device.
    #[error(
        "mempool {name:?}: objects of {object_len_bytes} bytes don't fit; \
         with --iova-mode=pa an object must fit into one page of {page_len_bytes} bytes"
    )]
    ObjectLen {
        /// The pool's name.
        name: String,
        /// Bytes per object.
        object_len_bytes: usize,
        /// The page size that limits it.
        page_len_bytes: u64,
    },
    /// There is no memory for it.
    #[error("mempool {name:?}: no memory for {count} objects of {object_len_bytes} bytes")]
    Memory {
        /// The pool's name.
        name: String,
        /// Objects asked for.
        count: usize,
        /// Bytes per object.
        object_len_bytes: usize,
        /// Why.
        #[source]
        source: MemoryError,
    },
}

/// The memory of pools that went while objects were out.
static KEPT: Mutex<Vec<Zone>> = Mutex::new(Vec::new());

/// The address of an object of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Object(pub(crate) NonNull<u8>);

// SAFETY: an address of memory that belongs to whoever was handed the object; what may be done
// with it is for the pool's user to say.
unsafe impl Send for Object {}

/// Objects of one size in DMA memory, lent and returned in bulk.
#[derive(Debug)]
pub struct Mempool {
    name: String,
    zone: ManuallyDrop<Zone>,
    count: usize,
    object_len_bytes: usize,
    /// Every object that is neither lent out nor in a cache. It has room for all.
    shared: FreeRing,
    /// By lcore id; empty if the pool is uncached.
    caches: Box<[CachePadded<Cache>]>,
}

// SAFETY: `caches[id]` is touched only by the thread that is lcore `id` (no other thread gets that
// answer from `lcore_id::current`, and a claim hands over with Release/Acquire), except for its
// length, which is atomic. All else is immutable or synchronised by the ring.
unsafe impl Sync for Mempool {}
// SAFETY: nothing in it is bound to the thread that made it.
unsafe impl Send for Mempool {}

impl Mempool {
    /// How many bytes of memory `count` objects of `object_len_bytes` take, with what is lost at
    /// page ends where the device sees single pages.
    #[must_use]
    pub fn len_bytes(memory: &Memory, count: usize, object_len_bytes: usize) -> Option<usize> {
        if memory.iova_mode() == IovaMode::Va {
            return count.checked_mul(object_len_bytes);
        }
        let page = usize::try_from(smallest_page(memory)).ok()?;
        count.div_ceil((page / object_len_bytes).max(1)).checked_mul(page)
    }

    /// Makes a pool of `count` objects. `initialise` is called with each object's address and
    /// what the device calls it; `object_len_bytes` must be a multiple of 64.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        name: &str,
        count: usize,
        object_len_bytes: usize,
        cache_size: usize,
        node: Option<u32>,
        mut initialise: impl FnMut(Object, Iova),
    ) -> Result<Self, MempoolError> {
        let owned = || name.to_owned();
        if count == 0 || count > MAX_CAPACITY {
            return Err(MempoolError::Count { name: owned(), count });
        }
        let most = (count * 2 / 3).min(MAX_CACHE_SIZE);
        if cache_size > most {
            return Err(MempoolError::CacheSize { name: owned(), cache_size, count, most });
        }
        let page_len_bytes = smallest_page(memory);
        let paged = memory.iova_mode() == IovaMode::Pa;
        let len_bytes = Self::len_bytes(memory, count, object_len_bytes)
            .filter(|_| object_len_bytes != 0 && object_len_bytes.is_multiple_of(64))
            .filter(|_| !paged || object_len_bytes as u64 <= page_len_bytes)
            .ok_or(MempoolError::ObjectLen { name: owned(), object_len_bytes, page_len_bytes })?;
        let align = if paged { page_len_bytes as usize } else { 64 };
        let zone =
            memory.zone(&ZoneRequest::new(name, len_bytes).align(align).on_node(node)).map_err(
                |source| MempoolError::Memory { name: owned(), count, object_len_bytes, source },
            )?;

        let shared =
            FreeRing::new(count).map_err(|_| MempoolError::Count { name: owned(), count })?;
        let base = zone.as_ptr();
        let start = base.as_ptr() as u64;
        let mut placed = 0;
        // An object never spans two runs: the device must see it in one piece.
        for run in zone.iova_runs() {
            let fit = usize::try_from(run.len_bytes).unwrap_or(usize::MAX) / object_len_bytes;
            for nth in 0..fit.min(count - placed) {
                let offset = nth * object_len_bytes;
                // SAFETY: the run lies inside the zone, the object inside the run.
                let object = Object(unsafe { base.add((run.va - start) as usize + offset) });
                initialise(object, Iova(run.iova.0 + offset as u64));
                put_shared(&[object], &shared);
                placed += 1;
            }
        }
        if placed < count {
            let source = MemoryError::ZoneLen {
                name: owned(),
                len_bytes: count * object_len_bytes,
                max_bytes: placed * object_len_bytes,
            };
            return Err(MempoolError::Memory { name: owned(), count, object_len_bytes, source });
        }
        let cache_count = if cache_size == 0 { 0 } else { MAX_LCORES };
        let caches = (0..cache_count).map(|_| CachePadded::new(Cache::new(cache_size))).collect();
        Ok(Self {
            name: owned(),
            zone: ManuallyDrop::new(zone),
            count,
            object_len_bytes,
            shared,
            caches,
        })
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Objects it was made with.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes from one object to the next.
    #[must_use]
    pub fn object_len_bytes(&self) -> usize {
        self.object_len_bytes
    }

    /// The NUMA node of its memory, if known.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.zone.node()
    }

    /// Objects that nobody has: in the shared ring and in all caches. Exact while nobody takes or
    /// returns; while objects are only being returned it is never too high.
    #[must_use]
    pub fn available(&self) -> usize {
        // The ring first: a flush moves objects from a cache to the ring, and so may be missed
        // but not be counted twice.
        let shared = self.shared.len();
        let cached: usize = self.caches.iter().map(|cache| cache.len()).sum();
        (shared + cached).min(self.count)
    }

    /// Objects that somebody has.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.count - self.available()
    }

    /// Free objects in the shared ring alone.
    #[cfg(all(test, not(loom)))]
    pub(super) fn shared_len(&self) -> usize {
        self.shared.len()
    }

    /// Takes as many objects as `out` has room for, or none.
    #[inline(always)]
    pub(crate) fn get_bulk(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        match self.own_cache() {
            // SAFETY: this thread is the cache's lcore, and `get` calls nobody back.
            Some(cache) => unsafe { cache.get(out, &self.shared) },
            None => get_shared(out, &self.shared),
        }
    }

    /// Takes objects back.
    ///
    /// # Safety
    /// They came from this pool, are no longer used, and each is given back once.
    #[inline(always)]
    pub(crate) unsafe fn put_bulk(&self, objects: &[Object]) {
        match self.own_cache() {
            // SAFETY: this thread is the cache's lcore, and `put` calls nobody back.
            Some(cache) => unsafe { cache.put(objects, &self.shared) },
            None => put_shared(objects, &self.shared),
        }
    }

    #[inline(always)]
    fn own_cache(&self) -> Option<&Cache> {
        let cache = self.caches.get(lcore_id::current()? as usize)?;
        Some(cache)
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // Who uses objects must not let the pool go while some are out (MbufPool sees to it);
        // if it happens all the same, the memory must stay for whoever has them.
        if self.in_use() == 0 {
            // SAFETY: dropped here and never touched again; no object is out.
            unsafe { ManuallyDrop::drop(&mut self.zone) };
        } else {
            // SAFETY: taken here and never touched again.
            let zone = unsafe { ManuallyDrop::take(&mut self.zone) };
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(zone);
        }
    }
}

/// The smallest page that memory stands on, in bytes.
fn smallest_page(memory: &Memory) -> u64 {
    memory.segments().iter().map(Segment::page_len_bytes).min().unwrap_or(4096)
}
