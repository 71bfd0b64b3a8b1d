//! Every interleaving of threads that allocate and free, also each other's blocks, under loom.
//! Run with `scripts/test.sh loom`.
//!
//! What loom does not check: the system call that makes other cores pass a barrier (here it is a
//! fence on either side, see `biased`); the words of the blocks' tables, which are normal atomics
//! here (what orders them, locks and the caches' flags, is checked); more than two lcores; the yield of the lock's slow path; more
//! threads than here; the sum of bytes taken from the source (a counter that only has to add up); and
//! what happens within a critical section, which the property tests are for.
#![expect(unsafe_code, reason = "loom's threads say themselves which lcore they are")]

use super::arena::Stowed;
use super::state::Part;
use super::{Block, Heap, HeapConfig, Request};
use crate::memory::{Memory, MemoryConfig};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Forced switches in an interleaving.
const PREEMPTIONS: usize = 3;

fn heap(memory: &std::sync::Arc<Memory>) -> std::sync::Arc<Heap> {
    let config = HeapConfig::new("loom", 64 << 10).step_bytes(4096).guarded(false);
    Heap::new(memory, config).unwrap()
}

fn settled(heap: &Heap) {
    heap.check().unwrap();
    let stats = heap.stats();
    assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0));
    assert_eq!(stats.free_bytes, stats.total_bytes);
    assert!(stats.extents <= 1);
}

/// The model is walked through very many times: memory is reserved once.
fn model(check: impl Fn(&std::sync::Arc<Memory>) + Sync + Send + 'static) {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    crate::sys::loom_model::model(Some(PREEMPTIONS), move || check(&memory));
}

/// With caches, which see to it by themselves that only few of them are visited under loom.
fn cached(memory: &std::sync::Arc<Memory>) -> std::sync::Arc<Heap> {
    let config = HeapConfig::new("loom", 64 << 10).step_bytes(4096).guarded(false);
    Heap::new(memory, config.cache_bytes(1024)).unwrap()
}

/// Allocates as this lcore: loom's threads are none by themselves.
fn take(heap: &Heap, lcore: usize, len_bytes: usize) -> Part {
    let (arena, request) = (&heap.arenas[0], Request::new(len_bytes));
    let caches = arena.caches.as_ref().unwrap();
    // SAFETY: each of the tests' threads is one lcore.
    let mut own = unsafe { caches.as_lcore(lcore) }.unwrap();
    let part = arena.take_from(own.stock(), caches, &request, heap.id, 0);
    drop(own);
    part.unwrap_or_else(|| heap.take(&request).unwrap())
}

/// Frees as this lcore.
fn give(heap: &Heap, lcore: usize, part: &Part) {
    let arena = &heap.arenas[0];
    let caches = arena.caches.as_ref().unwrap();
    // SAFETY: as for `take`.
    let mut own = unsafe { caches.as_lcore(lcore) }.unwrap();
    let stowed = arena.give_to(own.stock(), caches, part);
    if stowed == Stowed::Full {
        drop(arena.flush_batch(own.stock()));
    }
    drop(own);
    if stowed == Stowed::No {
        heap.give(part).unwrap();
    }
}

#[test]
fn loom_heap_caches_of_two_lcores_and_blocks_that_change_hands() {
    model(|memory| {
        let heap = cached(memory);
        let first = take(&heap, 0, 64);
        let worker = {
            let heap = heap.clone();
            thread::spawn(move || {
                give(&heap, 1, &first);
                let own = take(&heap, 1, 64);
                let long = take(&heap, 1, 200);
                give(&heap, 1, &long);
                own
            })
        };
        let (one, two) = (take(&heap, 0, 64), take(&heap, 0, 100));
        give(&heap, 0, &one);
        let theirs = worker.join().unwrap();
        give(&heap, 0, &theirs);
        give(&heap, 0, &two);
        settled(&heap);
        heap.trim();
        assert_eq!(heap.total_bytes(), 0);
    });
}

#[test]
fn loom_heap_a_visitor_empties_a_cache_that_is_in_use() {
    model(|memory| {
        let heap = cached(memory);
        let first = take(&heap, 0, 64);
        let lcore = {
            let heap = heap.clone();
            thread::spawn(move || {
                give(&heap, 0, &first);
                let part = take(&heap, 0, 64);
                give(&heap, 0, &part);
            })
        };
        let stats = heap.stats();
        assert!(stats.live_blocks <= 1 && stats.allocated <= 2, "{stats:?}");
        heap.trim();
        lcore.join().unwrap();
        settled(&heap);
        heap.trim();
        assert_eq!(heap.total_bytes(), 0);
    });
}

#[test]
fn loom_heap_free_by_another_thread() {
    model(|memory| {
        let heap = heap(memory);
        let request = Request::new(100);
        let (ours, theirs) = (heap.alloc(&request).unwrap(), heap.alloc(&request).unwrap());
        assert_ne!(ours.as_ptr(), theirs.as_ptr());
        let worker = {
            let heap = heap.clone();
            thread::spawn(move || {
                heap.free(theirs).unwrap();
                let block = heap.alloc(&request).unwrap();
                heap.free(block).unwrap();
            })
        };
        let more = heap.alloc(&request).unwrap();
        heap.free(ours).unwrap();
        heap.free(more).unwrap();
        worker.join().unwrap();
        settled(&heap);
    });
}

#[test]
fn loom_heap_blocks_change_hands() {
    model(|memory| {
        let heap = heap(memory);
        let passed: Arc<Mutex<Vec<Block>>> = Arc::default();
        let worker = {
            let (heap, passed) = (heap.clone(), passed.clone());
            thread::spawn(move || {
                for len_bytes in [64, 200] {
                    let block = heap.alloc(&Request::new(len_bytes)).unwrap();
                    passed.lock().unwrap().push(block);
                }
                let last = passed.lock().unwrap().pop();
                last.map(|block| heap.free(block).unwrap());
            })
        };
        for _ in 0..2 {
            let block = passed.lock().unwrap().pop();
            block.map(|block| heap.free(block).unwrap());
        }
        let mine = heap.alloc(&Request::new(64)).unwrap();
        heap.free(mine).unwrap();
        worker.join().unwrap();
        let left: Vec<_> = std::mem::take(&mut *passed.lock().unwrap());
        for block in left {
            heap.free(block).unwrap();
        }
        settled(&heap);
    });
}

#[test]
fn loom_heap_grows_and_gives_back_in_two_threads() {
    model(|memory| {
        let heap = heap(memory);
        // Each block fills an extent, so that each allocation takes one and one of two goes.
        let request = Request::new(4096);
        let worker = {
            let heap = heap.clone();
            thread::spawn(move || {
                let block = heap.alloc(&request).unwrap();
                heap.free(block).unwrap();
                heap.trim();
            })
        };
        let block = heap.alloc(&request).unwrap();
        heap.check().unwrap();
        heap.free(block).unwrap();
        worker.join().unwrap();
        settled(&heap);
        heap.trim();
        assert_eq!(heap.total_bytes(), 0);
    });
}
