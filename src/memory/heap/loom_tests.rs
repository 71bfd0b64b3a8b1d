//! Every interleaving of threads that allocate and free, also each other's blocks, under loom.
//! Run with `scripts/test.sh loom`.
//!
//! What loom does not check: the yield of the lock's slow path, more threads than here, the sum of
//! bytes taken from the source (a counter that only has to add up), and what happens within a
//! critical section, which the property tests are for.

use super::{Block, Heap, HeapConfig, Request};
use crate::memory::{Memory, MemoryConfig};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::sync::atomic::{AtomicU64, Ordering};

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
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.max_branches = 20_000;
    let runs = std::sync::Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        check(&memory);
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{runs} interleavings");
    assert!(runs > 10, "loom saw only {runs} interleavings");
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
