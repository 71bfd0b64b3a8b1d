//! The pool: memory cut into objects, the list of free ones, the caches.
#![expect(unsafe_code, reason = "per-lcore caches are reached without a lock")]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::audit::{AuditError, AuditReport};
use super::cache::Cache;
use super::chunks::{Chunk, Chunks};
use super::config::{MempoolConfig, MempoolError};
use super::cookie::{Cookies, Fault};
use super::free_list::{Backend, FreeList};
use super::layout::ObjectLayout;
use super::stats::MempoolStats;
use crate::memory::{Iova, Memory};
use crate::sys::lcore_local::{LcoreLocal, Own};

/// The memory of pools that went while objects were out.
static KEPT: Mutex<Vec<Chunks>> = Mutex::new(Vec::new());

/// The address of an element of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Object(pub(crate) NonNull<u8>);

// SAFETY: an address of memory that belongs to whoever was handed the object; what may be done
// with it is for the pool's user to say.
unsafe impl Send for Object {}

/// Objects of one size in DMA memory, lent and returned in bulk.
#[derive(Debug)]
pub struct Mempool {
    name: String,
    chunks: ManuallyDrop<Chunks>,
    count: usize,
    layout: ObjectLayout,
    /// Every object that is neither lent out nor in a cache. It has room for all.
    shared: FreeList,
    /// By lcore id; `None` if the pool is uncached, or has cookies.
    caches: Option<LcoreLocal<Cache>>,
    /// What a pool with cookies has instead, so that one without needn't ask.
    checked: Option<Checked>,
    faults: AtomicU64,
    /// Refusals to threads without a cache.
    empty: AtomicU64,
}

/// Cookies, and caches that are reached with them only.
#[derive(Debug)]
struct Checked {
    cookies: Cookies,
    caches: Option<LcoreLocal<Cache>>,
}

impl Mempool {
    /// Makes a pool. `initialise` is called with each object's number, its element, and what the
    /// device calls that; by address.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        config: &MempoolConfig,
        mut initialise: impl FnMut(usize, Object, Iova),
    ) -> Result<Self, MempoolError> {
        let layout = config.check(memory)?;
        let MempoolConfig { count, node, cache_size, backend, ref name, .. } = *config;
        let cookies = Cookies::new(&layout);
        let chunks = Chunks::take(memory, config, layout)?;
        let shared = FreeList::in_zone(memory, &format!("{name}.free"), node, count, backend)
            .map_err(Box::new)
            .map_err(|source| MempoolError::FreeList { name: name.clone(), count, source })?;
        // From here on nothing is refused.
        for (number, object, iova) in chunks.objects() {
            initialise(number, object, iova);
            if let Some(cookies) = cookies {
                // SAFETY: an object of this pool.
                unsafe { cookies.bake(object) };
            }
            shared.put(&[object]);
        }
        let caches = (cache_size > 0).then(|| LcoreLocal::new(|_| Cache::new(cache_size)));
        let (caches, checked) = match cookies {
            Some(cookies) => (None, Some(Checked { cookies, caches })),
            None => (caches, None),
        };
        Ok(Self {
            name: name.clone(),
            chunks: ManuallyDrop::new(chunks),
            count,
            layout,
            shared,
            caches,
            checked,
            faults: AtomicU64::new(0),
            empty: AtomicU64::new(0),
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

    /// What an object is made of.
    #[must_use]
    pub fn layout(&self) -> ObjectLayout {
        self.layout
    }

    /// Where free objects wait that no cache has.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.shared.backend()
    }

    /// The NUMA node of its memory, if known.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.chunks.node()
    }

    /// The pieces of memory that the objects stand in, by address.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        self.chunks.runs()
    }

    /// Every object's number, the address of its element, and what the device calls that; by
    /// address. What is in an element is for whoever has it to say.
    pub fn addresses(&self) -> impl Iterator<Item = (usize, NonNull<u8>, Iova)> + '_ {
        self.chunks.objects().map(|(number, object, iova)| (number, object.0, iova))
    }

    /// The number of the object whose element starts at `address`, if one does.
    #[must_use]
    pub fn number_of(&self, address: NonNull<u8>) -> Option<usize> {
        self.chunks.number_of(address)
    }

    /// Objects that nobody has: in the free list and in all caches. Exact while nobody takes or
    /// returns; while objects are only being returned it is never too high.
    #[must_use]
    pub fn available(&self) -> usize {
        // The free list first: a flush moves objects from a cache to the list, and so may be
        // missed but not be counted twice.
        let shared = self.shared.len();
        (shared + self.cached()).min(self.count)
    }

    /// Objects that somebody has.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.count - self.available()
    }

    /// Objects in the caches of all lcores.
    fn cached(&self) -> usize {
        self.each_cache().map(Cache::len).sum()
    }

    fn all_caches(&self) -> Option<&LcoreLocal<Cache>> {
        self.caches.as_ref().or_else(|| self.checked.as_ref()?.caches.as_ref())
    }

    fn each_cache(&self) -> impl Iterator<Item = &Cache> {
        // SAFETY: the functions that are called of these are for any thread: they read atomics.
        self.all_caches().into_iter().flat_map(|caches| unsafe { caches.each() })
    }

    /// What has been counted. A moment's view while others work.
    #[must_use]
    pub fn stats(&self) -> MempoolStats {
        let mut stats = MempoolStats {
            count: self.count,
            available: self.available(),
            cached: self.cached(),
            empty: self.empty.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            ..MempoolStats::default()
        };
        for cache in self.each_cache() {
            stats.cache_hits += cache.hits();
            stats.cache_misses += cache.misses.get();
            stats.cache_flushes += cache.flushes.get();
            stats.empty += cache.empty.get();
        }
        stats
    }

    /// Walks all objects and counts: with cookies, that each is marked as free or out, that nobody
    /// wrote beyond it, and that as many are free as are counted; without, that the counts agree.
    ///
    /// Nobody may take or return objects meanwhile, or the counts don't match; nothing worse
    /// happens.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn audit(&self) -> Result<AuditReport, AuditError> {
        let available = self.shared.len() + self.cached();
        let mut report = AuditReport { count: self.count, available, marked_free: None };
        if available > self.count {
            return Err(AuditError::Counts { name: self.name.clone(), report });
        }
        let Some(Checked { cookies, .. }) = &self.checked else { return Ok(report) };
        let mut free = 0;
        for (number, object, _) in self.chunks.objects() {
            // SAFETY: an object of this pool.
            match unsafe { cookies.look(object) } {
                Ok(is_free) => free += usize::from(is_free),
                Err(fault) => {
                    let (name, address) = (self.name.clone(), object.0.addr().get());
                    return Err(AuditError::Object { name, number, address, fault });
                }
            }
        }
        report.marked_free = Some(free);
        if free != available {
            return Err(AuditError::Counts { name: self.name.clone(), report });
        }
        Ok(report)
    }

    /// Free objects in the free list alone.
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
            None => self.get_without_cache(out),
        }
    }

    /// Hands `count` objects to `take` from where they stand in the calling lcore's cache, without a
    /// copy of them in between: for drivers, which put them into rings of their own. All or none; false
    /// also for threads without a cache, and where the cache can't have as many:
    /// [`get_bulk`](Self::get_bulk) may have them then. `take` may use the pool.
    #[inline(always)]
    pub(crate) fn take_each(&self, count: usize, take: impl FnMut(Object)) -> bool {
        let Some(cache) = self.hold_cache() else { return false };
        // SAFETY: the thread stays the cache's lcore as long as the cache is held.
        unsafe { cache.take_each(count, &self.shared, take) }
    }

    /// For a thread that has been at [`own_cache`](Self::own_cache) and got none.
    #[inline(always)]
    pub(super) fn get_without_cache(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        match &self.checked {
            None => self.shared.get(out) || self.none_left(),
            Some(checked) => self.get_checked(checked, out),
        }
    }

    /// Takes one object. What a thread without a cache does is out of line: whoever takes one at a
    /// time stays short.
    #[inline(always)]
    pub(crate) fn get_one(&self) -> Option<Object> {
        let mut object = [MaybeUninit::uninit()];
        let got = match self.own_cache() {
            // SAFETY: this thread is the cache's lcore, and `get` calls nobody back.
            Some(cache) => unsafe { cache.get(&mut object, &self.shared) },
            None => self.get_one_without_cache(&mut object),
        };
        // SAFETY: filled.
        got.then(|| unsafe { object[0].assume_init() })
    }

    #[inline(never)]
    fn get_one_without_cache(&self, object: &mut [MaybeUninit<Object>; 1]) -> bool {
        self.get_without_cache(object)
    }

    /// Takes one object back; see [`get_one`](Self::get_one).
    ///
    /// # Safety
    /// As for [`put_bulk`](Self::put_bulk).
    #[inline(always)]
    pub(crate) unsafe fn put_one(&self, object: Object) {
        match self.own_cache() {
            // SAFETY: this thread is the cache's lcore, and `put` calls nobody back.
            Some(cache) => unsafe { cache.put(&[object], &self.shared) },
            // SAFETY: passed on.
            None => unsafe { self.put_one_without_cache(object) },
        }
    }

    /// # Safety
    /// As for [`put_bulk`](Self::put_bulk).
    #[inline(never)]
    unsafe fn put_one_without_cache(&self, object: Object) {
        // SAFETY: passed on.
        unsafe { self.put_without_cache(&[object]) };
    }

    /// Takes objects back.
    ///
    /// # Safety
    /// They came from this pool, are no longer used, and each is given back once. (With cookies
    /// what breaks this is found, counted, logged and left out.)
    #[inline(always)]
    pub(crate) unsafe fn put_bulk(&self, objects: &[Object]) {
        match self.own_cache() {
            // SAFETY: this thread is the cache's lcore, and `put` calls nobody back.
            Some(cache) => unsafe { cache.put(objects, &self.shared) },
            // SAFETY: passed on.
            None => unsafe { self.put_without_cache(objects) },
        }
    }

    /// For a thread that has been at [`own_cache`](Self::own_cache) and got none.
    ///
    /// # Safety
    /// As for [`put_bulk`](Self::put_bulk).
    #[inline(always)]
    pub(super) unsafe fn put_without_cache(&self, objects: &[Object]) {
        match &self.checked {
            None => self.shared.put(objects),
            Some(checked) => self.put_checked(checked, objects),
        }
    }

    /// The calling lcore's cache; `None` for a thread that is no lcore, and for pools without
    /// caches or with cookies.
    #[inline(always)]
    fn own_cache(&self) -> Option<&Cache> {
        // SAFETY: those who get it call nothing of others' while they have it.
        self.caches.as_ref().and_then(|caches| unsafe { caches.own() })
    }

    /// The same, to be kept for a while.
    #[inline]
    pub(super) fn hold_cache(&self) -> Option<Own<'_, Cache>> {
        self.caches.as_ref().and_then(LcoreLocal::hold)
    }

    /// Where caches are refilled from.
    #[inline(always)]
    pub(super) fn shared(&self) -> &FreeList {
        &self.shared
    }

    #[cold]
    fn none_left(&self) -> bool {
        self.empty.fetch_add(1, Ordering::Relaxed);
        false
    }

    #[cold]
    #[inline(never)]
    fn get_checked(&self, checked: &Checked, out: &mut [MaybeUninit<Object>]) -> bool {
        // SAFETY: this thread is the cache's lcore, and `get` calls nobody back.
        let own = checked.caches.as_ref().and_then(|caches| unsafe { caches.own() });
        let got = match own {
            // SAFETY: as above.
            Some(cache) => unsafe { cache.get(out, &self.shared) },
            None => self.shared.get(out) || self.none_left(),
        };
        for object in out.iter().filter(|_| got) {
            // SAFETY: filled, with an object of this pool.
            let (object, marked) = unsafe {
                let object = object.assume_init();
                (object, checked.cookies.take(object))
            };
            if let Err(fault) = marked {
                self.report(object, fault);
            }
        }
        got
    }

    #[cold]
    #[inline(never)]
    fn put_checked(&self, checked: &Checked, objects: &[Object]) {
        let good = |object: Object| {
            let looked = match self.chunks.number_of(object.0) {
                // SAFETY: an object of this pool, as was just found.
                Some(_) => unsafe { checked.cookies.give(object) },
                None => Err(Fault::Foreign),
            };
            if let Err(fault) = looked {
                self.report(object, fault);
            }
            // Whoever wrote beyond it had it: it is free now all the same.
            matches!(looked, Ok(()) | Err(Fault::Overrun(_)))
        };
        // Runs of good ones go back together, as they would unchecked.
        let mut rest = objects;
        while !rest.is_empty() {
            let count = rest.iter().take_while(|object| good(**object)).count();
            let (run, others) = rest.split_at(count);
            // SAFETY: this thread is the cache's lcore, and `put` calls nobody back.
            match checked.caches.as_ref().and_then(|caches| unsafe { caches.own() }) {
                // SAFETY: as above.
                Some(cache) => unsafe { cache.put(run, &self.shared) },
                None => self.shared.put(run),
            }
            rest = others.get(1..).unwrap_or_default();
        }
    }

    fn report(&self, object: Object, fault: Fault) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let (name, address) = (&self.name, object.0.addr().get());
        match self.chunks.number_of(object.0) {
            Some(number) => {
                tracing::error!("mempool {name:?}: object {number} at {address:#x}: {fault}");
            }
            None => tracing::error!("mempool {name:?}: {address:#x}: {fault}"),
        }
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // Who uses objects must not let the pool go while some are out (MbufPool sees to it);
        // if it happens all the same, the memory must stay for whoever has them.
        if self.in_use() == 0 {
            // SAFETY: dropped here and never touched again; no object is out.
            unsafe { ManuallyDrop::drop(&mut self.chunks) };
        } else {
            // SAFETY: taken here and never touched again.
            let chunks = unsafe { ManuallyDrop::take(&mut self.chunks) };
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(chunks);
        }
    }
}
