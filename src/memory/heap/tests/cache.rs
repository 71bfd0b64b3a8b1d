//! What an lcore keeps of free blocks: counted as free, given up when needed, never lost.

use super::super::cache::MOST_BYTES;
use super::*;
use crate::sys::lcore_id::LcoreClaim;

/// Runs `work` as an lcore, on a thread of its own.
fn as_lcore<R: Send>(id: u32, work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let lcore = scope.spawn(|| {
            let _lcore = LcoreClaim::claim_when_free(id);
            work()
        });
        lcore.join().unwrap()
    })
}

/// Up to 1 MiB in extents of 64 KiB, with caches of 32 KiB.
fn cached() -> (Arc<Heap>, Arc<[std::sync::atomic::AtomicUsize; 4]>) {
    let config = HeapConfig::new("cached", 1 << 20).step_bytes(64 << 10).guarded(false);
    let source = Plain::new(&NONE, 1 << 20);
    let out_bytes = Arc::clone(&source.out_bytes);
    (Heap::with_source(Box::new(source), config.cache_bytes(32 << 10)).unwrap(), out_bytes)
}

fn counts(heap: &Heap, tag: Tag) -> TagCounts {
    heap.tags().iter().find(|stats| stats.tag == tag).map_or_else(TagCounts::default, |s| s.counts)
}

#[test]
fn a_cached_block_is_free_and_comes_back_for_another_purpose() {
    let (heap, _) = cached();
    let (one, two) = (Tag::new("cache one").unwrap(), Tag::new("cache two").unwrap());
    // An extent is there already, so that a batch can be cut from it.
    let first = heap.alloc(&Request::new(5000)).unwrap();
    heap.free(first).unwrap();
    as_lcore(110, || {
        let block = heap.alloc(&Request::new(100).tag(one)).unwrap();
        let stats = heap.stats();
        assert_eq!((stats.live_blocks, stats.live_bytes, stats.allocated), (1, 100, 2));
        assert!(stats.cached_bytes > 0, "the batch came with it: {stats:?}");
        assert_eq!(stats.free_bytes + 128, stats.total_bytes, "cached is free");
        let address = block.as_ptr();
        heap.free(block).unwrap();
        assert_eq!(heap.stats().free_bytes, heap.stats().total_bytes);
        assert_eq!(heap.check().unwrap().used_blocks, 0);
        let block = heap.alloc(&Request::new(70).tag(two)).unwrap();
        assert_eq!((block.as_ptr(), block.len_bytes(), block.tag()), (address, 70, two));
        assert_eq!(heap.iova_of(address.as_ptr()), Some(block.iova()));
        assert_eq!(counts(&heap, one), TagCounts { allocated: 1, ..TagCounts::default() });
        let live = TagCounts { allocated: 1, live_blocks: 1, live_bytes: 70 };
        assert_eq!(counts(&heap, two), live);
        // SAFETY: the first is forgotten.
        let again = unsafe { heap.block_from_raw(block.into_raw()) }.unwrap();
        assert_eq!((again.len_bytes(), again.tag()), (70, two));
        heap.check().unwrap();
        heap.free(again).unwrap();
    });
    let mut text = Vec::new();
    heap.dump_blocks(&mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("(free, cached)"));
}

#[test]
fn what_others_have_cached_is_joined_before_anything_fails() {
    let (heap, out_bytes) = cached();
    as_lcore(111, || {
        let blocks: Vec<_> = (0..200).map(|_| heap.alloc(&Request::new(128)).unwrap()).collect();
        blocks.into_iter().for_each(|block| heap.free(block).unwrap());
        let stats = heap.stats();
        assert!(stats.cached_bytes > 8 << 10, "{stats:?}");
        // This very lcore's cache, and then somebody else's, stands in the way.
        let whole = Request::new(1 << 20);
        let block = heap.alloc(&whole).unwrap();
        assert_eq!(heap.stats().cached_bytes, 0);
        heap.free(block).unwrap();
        let small = heap.alloc(&Request::new(128)).unwrap();
        heap.free(small).unwrap();
        let whole = std::thread::scope(|scope| scope.spawn(|| heap.alloc(&whole)).join().unwrap());
        let error = heap.alloc(&Request::new(1)).unwrap_err().to_string();
        assert!(error.contains("1 byte"), "{error}");
        heap.free(whole.unwrap()).unwrap();
        let small = heap.alloc(&Request::new(1)).unwrap();
        heap.free(small).unwrap();
        heap.check().unwrap();
    });
    assert!(out_bytes[0].load(Ordering::Relaxed) > 0);
    heap.trim();
    assert_eq!((out_bytes[0].load(Ordering::Relaxed), heap.total_bytes()), (0, 0));
}

#[test]
fn a_cache_holds_no_more_than_it_should_of_whatever_lengths() {
    let (heap, _) = cached();
    as_lcore(112, || {
        for len_bytes in [64, 100, 1000, 4096, 4200, 4250, 16 << 10, 64, MOST_BYTES] {
            let request = Request::new(len_bytes);
            let count = (200 << 10) / len_bytes;
            let blocks: Vec<_> = (0..count).map(|_| heap.alloc(&request).unwrap()).collect();
            heap.check().unwrap();
            blocks.into_iter().for_each(|block| heap.free(block).unwrap());
            let stats = heap.stats();
            assert!(stats.cached_bytes <= 32 << 10, "{len_bytes}: {stats:?}");
            assert_eq!((stats.live_blocks, stats.free_bytes), (0, stats.total_bytes));
            heap.check().unwrap();
        }
        // Two lengths that share a list, in turn.
        let mut blocks = Vec::new();
        for round in 0..100 {
            blocks.push(heap.alloc(&Request::new(4200 + round % 2 * 100)).unwrap());
            if round % 3 == 2 {
                heap.free(blocks.swap_remove(0)).unwrap();
            }
            heap.check().unwrap();
        }
        blocks.into_iter().for_each(|block| heap.free(block).unwrap());
    });
    heap.trim();
    assert_eq!(heap.total_bytes(), 0);
}

#[test]
fn a_cached_block_that_is_freed_again_is_named() {
    let (heap, _) = cached();
    let (other, _) = cached();
    let tag = Tag::new("cached twice").unwrap();
    as_lcore(113, || {
        let block = heap.alloc(&Request::new(77).tag(tag)).unwrap();
        let (second, third, fourth) = (twin(&block), twin(&block), twin(&block));
        says(other.free(fourth), &["is not in heap", "77 bytes (cached twice)"]);
        heap.free(block).unwrap();
        let address = second.as_ptr();
        says(heap.free(second), &["was freed already: 77 bytes (cached twice)"]);
        // SAFETY: nobody else has the block; it doesn't exist any more.
        let result = unsafe { heap.block_from_raw(address) };
        says(result, &["was freed already: 77 bytes (cached twice)"]);
        heap.check().unwrap();
        // The same when it has gone to the arena, and when its extent is gone.
        heap.trim();
        says(heap.free(third), &["is not in heap \"cached\": 77 bytes (cached twice)"]);
    });
}

#[test]
fn full_caches_go_with_their_heap() {
    let (heap, out_bytes) = cached();
    for id in [114, 115] {
        as_lcore(id, || {
            let blocks: Vec<_> = (0..50).map(|_| heap.alloc(&Request::new(200)).unwrap()).collect();
            blocks.into_iter().for_each(|block| heap.free(block).unwrap());
        });
    }
    assert!(heap.stats().cached_bytes > 0 && out_bytes[0].load(Ordering::Relaxed) > 0);
    heap.check().unwrap();
    drop(heap);
    assert_eq!(out_bytes[0].load(Ordering::Relaxed), 0);
}

#[test]
fn blocks_go_from_lcore_to_lcore_and_all_is_counted() {
    let (heap, _) = cached();
    let rounds: usize = if cfg!(miri) { 30 } else { 20_000 };
    let done = std::sync::atomic::AtomicUsize::new(0);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Block>(64);
    std::thread::scope(|scope| {
        let (heap, done) = (&heap, &done);
        scope.spawn(move || {
            let _lcore = LcoreClaim::claim_when_free(116);
            for round in 0..rounds {
                let block = heap.alloc(&Request::new(1 + round * 7 % 900)).unwrap();
                // SAFETY: the block is this thread's.
                unsafe { block.as_ptr().write_bytes(1, block.len_bytes()) };
                sender.send(block).unwrap();
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        scope.spawn(move || {
            let _lcore = LcoreClaim::claim_when_free(117);
            for block in receiver {
                // SAFETY: as above.
                unsafe { block.as_ptr().write_bytes(2, block.len_bytes()) };
                heap.free(block).unwrap();
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        // Somebody who looks, and takes away, all the time.
        while done.load(Ordering::Relaxed) < 2 {
            let report = heap.check().unwrap();
            assert!(report.used_blocks <= 66, "{report:?}");
            let stats = heap.stats();
            assert!(stats.live_blocks <= 66, "{stats:?}");
            heap.trim();
        }
    });
    let stats = heap.stats();
    assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0));
    assert_eq!((stats.allocated, stats.freed), (rounds as u64, rounds as u64));
    heap.check().unwrap();
    heap.trim();
    assert_eq!(heap.total_bytes(), 0);
}

#[test]
fn a_guarded_heap_and_one_that_wants_none_have_no_caches() {
    let source = || Box::new(Plain::new(&NONE, 1 << 20));
    let config = HeapConfig::new("without", 1 << 20);
    for config in [config.clone().guarded(true), config.guarded(false).cache_bytes(0)] {
        let heap = Heap::with_source(source(), config).unwrap();
        as_lcore(118, || {
            let block = heap.alloc(&Request::new(64)).unwrap();
            heap.free(block).unwrap();
            assert_eq!(heap.stats().cached_bytes, 0);
        });
    }
}

#[test]
fn the_check_finds_cached_blocks_that_no_cache_has() {
    let (heap, _) = cached();
    as_lcore(119, || {
        let block = heap.alloc(&Request::new(64)).unwrap();
        heap.free(block).unwrap();
    });
    heap.check().unwrap();
    heap.arenas[0].with_stocks(|stocks| stocks[0].forget_one());
    says(heap.check(), &["cached blocks that are in no cache", "please report"]);
    heap.arenas[0].with_stocks(|stocks| stocks[0].lie());
    says(heap.check(), &["a cache whose lists are not what they say"]);
}

#[test]
fn wholly_free_extents_are_kept_as_told() {
    let config = HeapConfig::new("keeps", 1 << 20).step_bytes(64 << 10).guarded(false);
    let source = Box::new(Plain::new(&NONE, 1 << 20));
    let heap = Heap::with_source(source, config.keep_bytes(256 << 10)).unwrap();
    let request = Request::new(64 << 10);
    for _ in 0..3 {
        let blocks: Vec<_> = (0..8).map(|_| heap.alloc(&request).unwrap()).collect();
        blocks.into_iter().for_each(|block| heap.free(block).unwrap());
        heap.check().unwrap();
        assert_eq!((heap.stats().extents, heap.total_bytes()), (4, 256 << 10));
    }
    assert_eq!(heap.stats().grown, 8 + 4 + 4);
    assert_eq!(heap.trim(), 256 << 10);
    assert_eq!(heap.total_bytes(), 0);
}
