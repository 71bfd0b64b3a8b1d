//! One lcore's stock of free objects.
#![expect(unsafe_code, reason = "objects are copied between arrays without bounds checks")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use super::pool::Object;
use crate::ring::{Amount, Core, Multi};
use crate::sys::sync::atomic::{AtomicUsize, Ordering};

/// The free objects that no cache has. Threads of all lcores, and those of none, put and take.
pub(crate) type FreeRing = Core<Object, Multi, Multi>;

/// Free objects of one lcore, the warmest on top. Only that lcore's thread calls `get` and `put`
/// (they are `unsafe` for that); others may read `len`.
#[derive(Debug)]
pub(crate) struct Cache {
    /// How many of `objects` are filled. Stored with Release as the last step of a `put`, so that
    /// whoever counts all objects as returned may free the pool.
    len: AtomicUsize,
    objects: Box<[UnsafeCell<MaybeUninit<Object>>]>,
}

impl Cache {
    pub(crate) fn new(size: usize) -> Self {
        let objects = (0..size).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        Self { len: AtomicUsize::new(0), objects }
    }

    /// Objects in the cache: exact for its own lcore, a moment's view for others.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn own_len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Release);
    }

    /// Where the objects stand. Reading and writing through it is for the cache's lcore alone.
    #[inline(always)]
    fn base(&self) -> *mut MaybeUninit<Object> {
        self.objects.as_ptr().cast_mut().cast()
    }

    /// Fills `out` or nothing of it.
    ///
    /// # Safety
    /// The calling thread is the lcore whose cache this is.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, out: &mut [MaybeUninit<Object>], shared: &FreeRing) -> bool {
        let len = self.own_len();
        if out.len() <= len {
            // SAFETY: the caller's promise, and there are enough.
            unsafe { self.pop(out) };
            return true;
        }
        // SAFETY: the caller's promise.
        unsafe { self.get_refilling(out, shared) }
    }

    /// # Safety
    /// As for `get`.
    #[cold]
    unsafe fn get_refilling(&self, out: &mut [MaybeUninit<Object>], shared: &FreeRing) -> bool {
        let half = self.objects.len() / 2;
        if out.len() > half {
            // Larger than a refill: a cache can't help, so leave it as it is, unless the ring
            // can't give the whole and the two together can.
            // SAFETY: the caller's promise.
            return get_shared(out, shared) || unsafe { self.get_from_both(out, shared) };
        }
        let len = self.own_len();
        // SAFETY: `len < out.len() <= half`, so the range lies inside the array; this lcore alone
        // touches it.
        let room = unsafe { std::slice::from_raw_parts_mut(self.base().add(len), half) };
        if get_shared(room, shared) {
            self.set_len(len + half);
            // SAFETY: the caller's promise, and there are enough now.
            unsafe { self.pop(out) };
            return true;
        }
        // SAFETY: the caller's promise.
        unsafe { self.get_from_both(out, shared) }
    }

    /// The last resort when the ring runs low: exactly what is missing comes from the ring.
    ///
    /// # Safety
    /// As for `get`.
    unsafe fn get_from_both(&self, out: &mut [MaybeUninit<Object>], shared: &FreeRing) -> bool {
        let len = self.own_len().min(out.len());
        let (mine, missing) = out.split_at_mut(len);
        if !get_shared(missing, shared) {
            return false;
        }
        // SAFETY: the caller's promise; `mine` is as long as the cache at most.
        unsafe { self.pop(mine) };
        true
    }

    /// Takes the warmest objects.
    ///
    /// # Safety
    /// As for `get`; and `out.len()` is at most `len`.
    #[inline(always)]
    unsafe fn pop(&self, out: &mut [MaybeUninit<Object>]) {
        let len = self.own_len();
        debug_assert!(out.len() <= len && len <= self.objects.len());
        let rest = len - out.len();
        // SAFETY: `out.len() <= len <= objects.len()`: the source range is inside the array, and
        // initialised; `out` is somebody else's array.
        unsafe {
            let source = self.base().add(rest).cast_const();
            std::ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len());
        }
        self.set_len(rest);
    }

    /// Takes all of `objects` back.
    ///
    /// # Safety
    /// The calling thread is the lcore whose cache this is.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, objects: &[Object], shared: &FreeRing) {
        let len = self.own_len();
        if len + objects.len() > self.objects.len() {
            // SAFETY: the caller's promise.
            return unsafe { self.put_flushing(objects, shared) };
        }
        // SAFETY: the caller's promise, and there is room.
        unsafe { self.push(objects) };
    }

    /// # Safety
    /// As for `put`.
    #[cold]
    unsafe fn put_flushing(&self, objects: &[Object], shared: &FreeRing) {
        let half = self.objects.len() / 2;
        if objects.len() > half {
            put_shared(objects, shared);
            return;
        }
        // More than half full, or we wouldn't be here: flush half a cache, the coldest.
        let len = self.own_len();
        let flush = half.max(1).min(len);
        self.set_len(len - flush);
        // SAFETY: the first `flush <= len` entries are initialised, and Object has the layout of
        // MaybeUninit<Object>; this lcore alone touches them, and the slice ends before they move.
        unsafe {
            put_shared(std::slice::from_raw_parts(self.base().cast::<Object>(), flush), shared);
            std::ptr::copy(self.base().add(flush), self.base(), len - flush);
        }
        // SAFETY: half a cache is free now, and `objects` is at most that.
        unsafe { self.push(objects) };
    }

    /// Adds on top.
    ///
    /// # Safety
    /// As for `put`; and there is room for `objects`.
    #[inline(always)]
    unsafe fn push(&self, objects: &[Object]) {
        let len = self.own_len();
        debug_assert!(len + objects.len() <= self.objects.len());
        // SAFETY: the caller's promise: the range is inside the array, and nobody else's.
        unsafe {
            let target = self.base().add(len).cast::<Object>();
            std::ptr::copy_nonoverlapping(objects.as_ptr(), target, objects.len());
        }
        self.set_len(len + objects.len());
    }
}

/// Fills `out` from the shared ring, or nothing of it.
pub(crate) fn get_shared(out: &mut [MaybeUninit<Object>], shared: &FreeRing) -> bool {
    let count = out.len() as u32; // a pool has at most 2^30 objects; more can't be had anyway
    // SAFETY: `out` has room for `count`; any thread may use this ring.
    unsafe { shared.dequeue(out.as_mut_ptr().cast::<Object>(), Amount::Bulk(count)) == count }
}

/// Puts all of `objects` into the shared ring, which has room for every object of the pool.
pub(crate) fn put_shared(objects: &[Object], shared: &FreeRing) {
    // SAFETY: the source holds that many plain values; any thread may use this ring.
    let put = unsafe { shared.enqueue(objects.as_ptr(), Amount::Bulk(objects.len() as u32)) };
    debug_assert_eq!(put as usize, objects.len(), "more objects came back than went out");
}
