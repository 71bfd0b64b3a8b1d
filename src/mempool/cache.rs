//! One lcore's stock of free objects.
#![expect(unsafe_code, reason = "objects are copied between arrays without bounds checks")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use super::free_list::FreeList;
use super::pool::Object;
use crate::sys::copy::copy_few;
use crate::sys::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::telemetry::Counter;

/// Free objects of one lcore, the warmest on top. Only that lcore's thread calls `get` and `put`
/// (they are `unsafe` for that); others may read `len` and the counts.
#[derive(Debug)]
pub(crate) struct Cache {
    /// How many of `objects` are filled, in the lower bits ([`LEN_BITS`]); above them, how often
    /// `get` was served from here. One word for both, since both change at the same time: counting
    /// costs nothing. Stored with Release as the last step of a `put`, so that whoever counts all
    /// objects as returned may free the pool.
    word: AtomicU64,
    objects: Box<[Line]>,
    /// How many objects it may hold: all that there is room for, or none while [`Self::take_each`]
    /// hands out those that are in it. Then length and capacity are 0, so that whoever comes in
    /// between goes to the free list. For the cache's lcore alone.
    capacity: AtomicUsize,
    /// Refills from the free list.
    pub(super) misses: Counter,
    /// Times that half the cache, or more than half a cache at once, went to the free list.
    pub(super) flushes: Counter,
    /// Times that neither cache nor free list had enough.
    pub(super) empty: Counter,
}

/// Objects that share a cache line.
const LINE_OBJECTS: usize = 64 / size_of::<Object>();

/// A cache line of places. They come in lines so that copies of several objects cross none.
#[derive(Debug)]
#[repr(align(64))]
struct Line(
    #[expect(dead_code, reason = "used by address")]
    [UnsafeCell<MaybeUninit<Object>>; LINE_OBJECTS],
);

const LEN_BITS: u32 = 16;
const LEN_MASK: u64 = (1 << LEN_BITS) - 1;
/// Added to the word for a `get` that was served.
const ONE_HIT: u64 = 1 << LEN_BITS;

impl Cache {
    /// `size` is at most [`super::MAX_CACHE_SIZE`], and so fits the word's lower bits.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            word: AtomicU64::new(0),
            objects: (0..size.div_ceil(LINE_OBJECTS))
                .map(|_| Line([const { UnsafeCell::new(MaybeUninit::uninit()) }; LINE_OBJECTS]))
                .collect(),
            capacity: AtomicUsize::new(size),
            misses: Counter::default(),
            flushes: Counter::default(),
            empty: Counter::default(),
        }
    }

    /// Objects in the cache: exact for its own lcore, a moment's view for others.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        (self.word.load(Ordering::Acquire) & LEN_MASK) as usize
    }

    /// Times that `get` found all it wanted in the cache.
    pub(super) fn hits(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> LEN_BITS
    }

    #[inline(always)]
    fn own_word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn own_len(&self) -> usize {
        (self.own_word() & LEN_MASK) as usize
    }

    #[inline(always)]
    fn set_word(&self, word: u64) {
        self.word.store(word, Ordering::Release);
    }

    #[inline(always)]
    fn set_len(&self, len: usize) {
        self.set_word(self.own_word() & !LEN_MASK | len as u64);
    }

    #[inline(always)]
    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
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
    pub(crate) unsafe fn get(&self, out: &mut [MaybeUninit<Object>], shared: &FreeList) -> bool {
        let word = self.own_word();
        if out.len() <= (word & LEN_MASK) as usize {
            // SAFETY: the caller's promise, and there are enough.
            unsafe { self.pop(out, word + ONE_HIT) };
            return true;
        }
        // SAFETY: the caller's promise.
        unsafe { self.get_refilling(out, shared) }
    }

    /// # Safety
    /// As for `get`.
    #[cold]
    unsafe fn get_refilling(&self, out: &mut [MaybeUninit<Object>], shared: &FreeList) -> bool {
        let half = self.capacity() / 2;
        self.misses.add(1);
        if out.len() > half {
            // Larger than a refill: a cache can't help, so leave it as it is, unless the free list
            // can't give the whole and the two together can.
            // SAFETY: the caller's promise.
            return shared.get(out) || unsafe { self.get_from_both(out, shared) };
        }
        let len = self.own_len();
        // SAFETY: `len < out.len() <= half`, so the range lies inside the array; this lcore alone
        // touches it.
        let room = unsafe { std::slice::from_raw_parts_mut(self.base().add(len), half) };
        if shared.get(room) {
            self.set_len(len + half);
            // SAFETY: the caller's promise, and there are enough now.
            unsafe { self.pop(out, self.own_word()) };
            return true;
        }
        // SAFETY: the caller's promise.
        unsafe { self.get_from_both(out, shared) }
    }

    /// The last resort when the free list runs low: exactly what is missing comes from it.
    ///
    /// # Safety
    /// As for `get`.
    unsafe fn get_from_both(&self, out: &mut [MaybeUninit<Object>], shared: &FreeList) -> bool {
        let len = self.own_len().min(out.len());
        let (mine, missing) = out.split_at_mut(len);
        if !shared.get(missing) {
            self.empty.add(1);
            return false;
        }
        // SAFETY: the caller's promise; `mine` is as long as the cache at most.
        unsafe { self.pop(mine, self.own_word()) };
        true
    }

    /// Takes the warmest objects. `word` is the cache's, perhaps with a hit more.
    ///
    /// # Safety
    /// As for `get`; and `out.len()` is at most the length in `word`.
    #[inline(always)]
    unsafe fn pop(&self, out: &mut [MaybeUninit<Object>], word: u64) {
        let len = (word & LEN_MASK) as usize;
        debug_assert!(out.len() <= len && len <= self.objects.len() * LINE_OBJECTS);
        // SAFETY: `out.len() <= len`, for which there are places: the source range is inside the array, and
        // initialised; `out` is somebody else's array.
        unsafe {
            let source = self.base().add(len - out.len()).cast_const();
            copy_few(source, out.as_mut_ptr(), out.len());
        }
        self.set_word(word - out.len() as u64);
    }

    /// Hands `count` objects to `take`, the warmest first, from where they stand: no copy is made of
    /// them. All or none: false if the cache hasn't that many, and can't have.
    ///
    /// `take` may use the pool. If it panics, what it was handed until then is its own.
    ///
    /// # Safety
    /// The calling thread is the lcore whose cache this is, and stays it until this returns.
    #[inline(always)]
    pub(crate) unsafe fn take_each(
        &self,
        count: usize,
        shared: &FreeList,
        mut take: impl FnMut(Object),
    ) -> bool {
        // SAFETY: the caller's promise.
        if self.own_len() < count && !unsafe { self.refill(count, shared) } {
            return false;
        }
        let mut out = HandedOut { capacity: self.capacity(), word: self.own_word(), cache: self };
        self.capacity.store(0, Ordering::Relaxed);
        self.set_len(0);
        for _ in 0..count {
            out.word -= 1;
            // SAFETY: there were `count` at least, and nobody has touched them since: with a capacity
            // of 0 neither `get` nor `put` does. The one at the new end is given up by that.
            take(unsafe { self.base().add(out.len()).read().assume_init() });
        }
        out.word += ONE_HIT;
        true
    }

    /// Half a cache more from the free list; whether there are `count` then.
    ///
    /// # Safety
    /// As for `get`.
    #[cold]
    #[inline(never)]
    unsafe fn refill(&self, count: usize, shared: &FreeList) -> bool {
        let (len, half) = (self.own_len(), self.capacity() / 2);
        if count > half {
            return false;
        }
        self.misses.add(1);
        // SAFETY: `len < count <= half`, so the range lies inside the array; this lcore alone
        // touches it.
        let room = unsafe { std::slice::from_raw_parts_mut(self.base().add(len), half) };
        let filled = shared.get(room);
        if filled {
            self.set_len(len + half);
        }
        filled
    }

    /// Takes all of `objects` back.
    ///
    /// # Safety
    /// The calling thread is the lcore whose cache this is.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, objects: &[Object], shared: &FreeList) {
        let word = self.own_word();
        if (word & LEN_MASK) as usize + objects.len() > self.capacity() {
            // SAFETY: the caller's promise.
            return unsafe { self.put_flushing(objects, shared) };
        }
        // SAFETY: the caller's promise, and there is room.
        unsafe { self.push(objects, word) };
    }

    /// # Safety
    /// As for `put`.
    #[cold]
    unsafe fn put_flushing(&self, objects: &[Object], shared: &FreeList) {
        let half = self.capacity() / 2;
        self.flushes.add(1);
        if objects.len() > half {
            shared.put(objects);
            return;
        }
        // More than half full, or we wouldn't be here: flush half a cache, the coldest.
        let len = self.own_len();
        let flush = half.max(1).min(len);
        self.set_len(len - flush);
        // SAFETY: the first `flush <= len` entries are initialised, and Object has the layout of
        // MaybeUninit<Object>; this lcore alone touches them, and the slice ends before they move.
        unsafe {
            shared.put(std::slice::from_raw_parts(self.base().cast::<Object>(), flush));
            std::ptr::copy(self.base().add(flush), self.base(), len - flush);
        }
        // SAFETY: half a cache is free now, and `objects` is at most that.
        unsafe { self.push(objects, self.own_word()) };
    }

    /// Adds on top. `word` is the cache's.
    ///
    /// # Safety
    /// As for `put`; and there is room for `objects`.
    #[inline(always)]
    unsafe fn push(&self, objects: &[Object], word: u64) {
        let len = (word & LEN_MASK) as usize;
        debug_assert!(len + objects.len() <= self.objects.len() * LINE_OBJECTS);
        // SAFETY: the caller's promise: the range is inside the array, and nobody else's.
        unsafe {
            let target = self.base().add(len).cast::<Object>();
            copy_few(objects.as_ptr(), target, objects.len());
        }
        self.set_word(word + objects.len() as u64);
    }
}

/// A cache whose objects are being handed out; whole again when this is dropped.
struct HandedOut<'a> {
    cache: &'a Cache,
    capacity: usize,
    /// What the cache's word will be.
    word: u64,
}

impl HandedOut<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        (self.word & LEN_MASK) as usize
    }
}

impl Drop for HandedOut<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cache.capacity.store(self.capacity, Ordering::Relaxed);
        self.cache.set_word(self.word);
    }
}
