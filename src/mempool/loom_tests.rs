//! Every interleaving of the mempool's shared part, under loom: the ring of free objects, and
//! caches that flush into it and refill from it. Run with `scripts/test.sh loom`.
//!
//! An object is stood for by a cell that loom watches. Whoever has taken an object writes to its
//! cell: loom fails the test if two threads do so at once, and if one does so without having seen
//! the other's return of it (a missing Release or Acquire).
//!
//! What loom doesn't check: that a cache belongs to one thread (`sys::lcore_id` sees to it with
//! real thread locals, which loom doesn't know), more lcores and larger caches than here, and the
//! counts for statistics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![expect(unsafe_code, reason = "plays the lcore that a cache belongs to")]

use std::mem::MaybeUninit;
use std::num::NonZero;
use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::Object;
use super::cache::Cache;
use super::free_list::{Backend, FreeList};
use crate::sys::loom_model;

/// Explores with a bound on forced switches, as in the ring's models.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    loom_model::model(Some(preemptions), check);
}

/// A pool's free list and what stands for its objects' memory.
struct Pool {
    shared: FreeList,
    memory: Vec<UnsafeCell<u32>>,
}

impl Pool {
    fn new(count: usize, backend: Backend) -> Self {
        let shared = FreeList::plain(count, backend, u32::MAX);
        let memory = (0..count).map(|_| UnsafeCell::new(0)).collect();
        Self { shared, memory }
    }

    fn full(count: usize, backend: Backend) -> Arc<Self> {
        let pool = Self::new(count, backend);
        pool.shared.put(&pool.all());
        Arc::new(pool)
    }

    /// Every object: its address is its number, from 1 on.
    fn all(&self) -> Vec<Object> {
        let object = |id| Object(NonNull::without_provenance(NonZero::new(id).unwrap()));
        (1..=self.memory.len()).map(object).collect()
    }

    /// What the owner of objects does with them.
    fn use_all(&self, objects: &[Object]) {
        for object in objects {
            self.memory[object.0.addr().get() - 1].with_mut(|cell| {
                // SAFETY: the object is this thread's, as loom checks.
                unsafe { *cell += 1 };
            });
        }
    }

    fn take(&self, count: usize, held: &mut Vec<Object>) {
        let mut out = vec![MaybeUninit::uninit(); count];
        if self.shared.get(&mut out) {
            self.keep(&out, held);
        }
    }

    fn keep(&self, out: &[MaybeUninit<Object>], held: &mut Vec<Object>) {
        for object in out {
            // SAFETY: filled, as the pool said so.
            let object = unsafe { object.assume_init() };
            assert!(!held.contains(&object), "handed out twice: {object:?}");
            self.use_all(&[object]);
            held.push(object);
        }
    }

    fn give(&self, count: usize, held: &mut Vec<Object>) {
        let objects: Vec<_> = held.drain(..count.min(held.len())).collect();
        self.use_all(&objects);
        self.shared.put(&objects);
    }

    /// Each object is there once, in the free list or among `others`.
    fn check_complete(&self, mut others: Vec<Object>) {
        while others.len() < self.memory.len() && self.shared.len() > 0 {
            self.take(1, &mut others);
        }
        others.sort_by_key(|object| object.0.addr());
        assert_eq!(others, self.all(), "an object was lost");
    }
}

#[test]
fn loom_free_list_hands_out_each_object_once() {
    model(3, || take_and_give(Backend::Ring));
}

#[test]
fn loom_stack_hands_out_each_object_once() {
    model(3, || take_and_give(Backend::Stack));
}

#[test]
fn loom_hts_free_list_hands_out_each_object_once() {
    model(2, || take_and_give(Backend::HtsRing));
}

#[test]
fn loom_rts_free_list_hands_out_each_object_once() {
    model(2, || take_and_give(Backend::RtsRing));
}

fn take_and_give(backend: Backend) {
    let pool = Pool::full(3, backend);
    let worker = {
        let pool = pool.clone();
        thread::spawn(move || {
            let mut held = Vec::new();
            pool.take(2, &mut held);
            pool.give(1, &mut held);
            pool.take(1, &mut held);
            held
        })
    };
    let mut held = Vec::new();
    pool.take(1, &mut held);
    pool.take(1, &mut held);
    pool.give(2, &mut held);
    held.extend(worker.join().unwrap());
    pool.check_complete(held);
}

/// An lcore with its cache, and what it holds.
struct Lcore {
    cache: Cache,
    held: Vec<Object>,
}

impl Lcore {
    fn new(cache_size: usize) -> Self {
        Self { cache: Cache::new(cache_size), held: Vec::new() }
    }

    fn take(&mut self, count: usize, pool: &Pool) {
        let mut out = vec![MaybeUninit::uninit(); count];
        // SAFETY: the cache is this value's, and so one thread's at a time.
        if unsafe { self.cache.get(&mut out, &pool.shared) } {
            pool.keep(&out, &mut self.held);
        }
    }

    fn give(&mut self, count: usize, pool: &Pool) {
        let objects: Vec<_> = self.held.drain(..count.min(self.held.len())).collect();
        pool.use_all(&objects);
        // SAFETY: as for `take`.
        unsafe { self.cache.put(&objects, &pool.shared) };
    }

    /// What it holds and what its cache holds.
    fn empty(mut self, pool: &Pool) -> Vec<Object> {
        while self.cache.len() > 0 {
            self.take(1, pool);
        }
        self.held
    }
}

#[test]
fn loom_caches_refill_and_flush() {
    model(2, || refill_and_flush(Backend::Ring));
}

#[test]
fn loom_caches_refill_and_flush_a_stack() {
    model(2, || refill_and_flush(Backend::Stack));
}

fn refill_and_flush(backend: Backend) {
    let pool = Pool::full(5, backend);
    let worker = {
        let pool = pool.clone();
        thread::spawn(move || {
            let mut lcore = Lcore::new(2);
            lcore.take(1, &pool); // refills
            lcore.take(2, &pool); // larger than a refill
            lcore.give(3, &pool); // larger than the cache
            lcore
        })
    };
    let mut lcore = Lcore::new(2);
    lcore.take(2, &pool);
    lcore.take(1, &pool);
    lcore.give(1, &pool);
    lcore.give(1, &pool);
    lcore.give(1, &pool); // flushes
    let mut all = lcore.empty(&pool);
    all.extend(worker.join().unwrap().empty(&pool));
    pool.check_complete(all);
}

/// What the last handle of an mbuf pool relies on when it frees the pool: while objects are only
/// being returned, they are never counted too soon, and once all are counted, their last users
/// are done with them. Here the cache's own length is all that tells of the last return.
#[test]
fn loom_all_counted_means_nobody_uses_them() {
    model(3, || return_and_count(2, Backend::Ring));
}

/// The same while the cache flushes: an object on its way to the ring isn't counted twice.
#[test]
fn loom_a_flush_counts_nothing_twice() {
    model(3, || return_and_count(3, Backend::Ring));
}

#[test]
fn loom_a_flush_to_a_stack_counts_nothing_twice() {
    model(3, || return_and_count(3, Backend::Stack));
}

/// One thread returns `theirs` objects through a cache of 2; another returns one to the ring and
/// counts. The one that counts is the one that runs last in loom's first schedule: see the ring's
/// models for why.
fn return_and_count(theirs: usize, backend: Backend) {
    let pool = Arc::new(Pool::new(1 + theirs, backend));
    let all = pool.all();
    let (mine, theirs) = all.split_at(1);
    let cache = Arc::new(Cache::new(2));
    let counting = {
        let (pool, cache, all, mine) = (pool.clone(), cache.clone(), all.clone(), mine.to_vec());
        thread::spawn(move || {
            pool.use_all(&mine);
            pool.shared.put(&mine);
            // As Mempool::available does it: the ring first.
            let available = pool.shared.len() + cache.len();
            assert!(available <= all.len(), "{available} counted");
            if available == all.len() {
                pool.use_all(&all);
            }
        })
    };
    for object in theirs {
        pool.use_all(&[*object]);
        // SAFETY: the cache is this thread's; others read its length only.
        unsafe { cache.put(&[*object], &pool.shared) };
    }
    counting.join().unwrap();
    assert_eq!(pool.shared.len() + cache.len(), all.len());
}
