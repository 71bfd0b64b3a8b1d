//! The heap's interface: what it refuses, what it detects, how it grows.
#![expect(unsafe_code, reason = "tests misuse the heap in ways that safe code can't")]

mod cache;
mod model;
mod owners;
mod plain;
mod properties;

use super::*;
use crate::memory::{Memory, MemoryConfig};
use plain::Plain;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const NONE: [Option<u32>; 1] = [None];

/// On plain memory of one node, up to 64 KiB in pages of 4 KiB.
fn heap(guarded: bool) -> Arc<Heap> {
    let config = HeapConfig::new("test", 64 << 10).step_bytes(4096).guarded(guarded);
    Heap::with_source(Box::new(Plain::new(&NONE, 1 << 20)), config).unwrap()
}

/// The error's text has all of `parts`.
fn says<T: std::fmt::Debug>(result: Result<T, HeapError>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// A second owner of a block, which only unsafe code can make.
fn twin(block: &Block) -> Block {
    // SAFETY: a Block is numbers; the tests that do this are about what the heap says then.
    unsafe { std::ptr::read(block) }
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let heap = heap(true);
    let kept = heap.alloc(&Request::new(10)).unwrap();
    let before = heap.stats();
    let refused = |request: Request, parts: &[&str]| says(heap.alloc(&request), parts);
    refused(Request::new(0), &["allocation of 0 bytes", "wanted 1 to 65536", "\"test\""]);
    refused(Request::new(65537), &["65537 bytes", "1 to 65536", "higher limit"]);
    refused(Request::new(usize::MAX), &["18446744073709551615 bytes", "1 to 65536"]);
    for align in [0, 3, 65, 1 << 31, usize::MAX] {
        refused(Request::new(8).align(align), &[&format!("multiple of {align} "), "power of two"]);
    }
    let tag = Tag::new("much").unwrap();
    refused(Request::new(65536).tag(tag), &["64 KiB (much", "of at most 64 KiB", "a limit of"]);
    let after = HeapStats { failures: 1, grown: before.grown, ..before };
    assert_eq!(heap.stats(), after);
    heap.free(kept).unwrap();
    heap.check().unwrap();
}

#[test]
fn bad_heaps_are_refused() {
    let make = |config| Heap::with_source(Box::new(Plain::new(&NONE, 1 << 20)), config);
    says(make(HeapConfig::new("", 1 << 20)), &["0 bytes: wanted 1 to 32"]);
    says(make(HeapConfig::new("x".repeat(33), 1 << 20)), &["33 bytes"]);
    says(make(HeapConfig::new("a", 63)), &["\"a\"", "limit of 63 bytes", "at least 64"]);
    says(make(HeapConfig::new("a", 1 << 20).step_bytes(0)), &["steps of 0"]);
}

#[test]
fn an_exhausted_heap_loses_nothing_and_serves_what_fits() {
    for guarded in [false, true] {
        let heap = heap(guarded);
        let request = Request::new(1000);
        let mut blocks = Vec::new();
        let error = loop {
            match heap.alloc(&request) {
                Ok(block) => blocks.push(block),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(heap.total_bytes(), 64 << 10);
        let per_page = if guarded { 3 } else { 4 };
        assert_eq!(blocks.len(), 16 * per_page);
        assert!(error.contains("1000 bytes (untagged"), "{error}");
        let smaller = heap.alloc(&Request::new(if guarded { 400 } else { 64 }));
        assert_eq!(
            smaller.is_ok(),
            guarded,
            "four blocks of 1024 fill a page, three guarded don't"
        );
        smaller.into_iter().for_each(|block| heap.free(block).unwrap());
        heap.free(blocks.swap_remove(5)).unwrap();
        blocks.push(heap.alloc(&Request::new(900)).unwrap());
        says(heap.alloc(&request), &["largest block"]);
        heap.check().unwrap();
        blocks.into_iter().for_each(|block| heap.free(block).unwrap());
        // Now all is one again, except for the pages' borders.
        let page = heap.alloc(&Request::new(if guarded { 4000 } else { 4096 })).unwrap();
        heap.free(page).unwrap();
        assert_eq!(heap.trim(), 4096);
        assert_eq!((heap.total_bytes(), heap.stats().given_back), (0, 16));
    }
}

#[test]
fn a_kept_extent_makes_way_for_a_longer_one() {
    let heap = heap(false);
    let block = heap.alloc(&Request::new(60 << 10)).unwrap();
    heap.free(block).unwrap();
    assert_eq!((heap.total_bytes(), heap.stats().extents), (60 << 10, 1));
    let block = heap.alloc(&Request::new(64 << 10)).unwrap();
    assert_eq!((heap.total_bytes(), heap.stats().given_back), (64 << 10, 1));
    heap.free(block).unwrap();
}

#[test]
fn one_block_that_comes_and_goes_takes_pages_once() {
    let heap = heap(false);
    for _ in 0..100 {
        for len_bytes in [64, 4096, 20_000] {
            let block = heap.alloc(&Request::new(len_bytes)).unwrap();
            heap.free(block).unwrap();
        }
    }
    let stats = heap.stats();
    assert!(stats.grown <= 3, "{stats:?}");
    // Several that go at once leave the longest.
    let blocks = [4096, 8192, 4096].map(|len| heap.alloc(&Request::new(len)).unwrap());
    blocks.into_iter().for_each(|block| heap.free(block).unwrap());
    assert_eq!(heap.stats().extents, 1);
    heap.check().unwrap();
}

#[test]
fn zones_are_taken_by_whole_pages_and_given_back() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(8)).unwrap();
    let heap = Heap::new(&memory, HeapConfig::new("zoned", 6 << 20)).unwrap();
    assert_eq!(memory.free_len_bytes(), 8 << 20);
    let small = heap.alloc(&Request::new(100)).unwrap();
    let large = heap.alloc(&Request::new(3 << 20).align(4096)).unwrap();
    let zones = memory.zones();
    let fence = if heap.is_guarded() { 4096 } else { 0 };
    let lens: Vec<_> = zones.iter().map(|zone| (zone.name.as_str(), zone.len_bytes)).collect();
    assert_eq!(lens, [("zoned.0", 2 << 20), ("zoned.1", (3 << 20) + fence)]);
    assert!(zones.iter().all(|zone| zone.va % 4096 == 0));
    assert_eq!(small.iova().0, small.as_ptr().addr().get() as u64, "IOVA mode va");
    // The rest of the limit is less than a step.
    let more = heap.alloc(&Request::new((1 << 20) - 8192)).unwrap();
    says(heap.alloc(&Request::new(2 << 20)), &["2 MiB (untagged", "of at most 6 MiB"]);
    for block in [small, large, more] {
        heap.free(block).unwrap();
    }
    assert_eq!(memory.zones().len(), 1);
    drop(heap);
    assert_eq!(memory.free_len_bytes(), 8 << 20);
    // Where the memory has less than the limit, its own error is part of the message.
    let heap = Heap::new(&memory, HeapConfig::new("zoned", 1 << 30)).unwrap();
    says(heap.alloc(&Request::new(9 << 20)), &["more could not be had", "zone \"zoned.", "9 MiB"]);
    assert_eq!((heap.total_bytes(), memory.zones().len()), (0, 0));
}

#[test]
fn a_node_is_served_from_its_own_memory() {
    let nodes = [Some(1), Some(0)];
    let config = HeapConfig::new("nodes", 64 << 10).step_bytes(4096).guarded(false);
    let source = Plain::new(&nodes, 8192);
    let out_bytes = Arc::clone(&source.out_bytes);
    let heap = Heap::with_source(Box::new(source), config).unwrap();
    let on = |node| Request::new(4096).on_node(node);
    let out = || [0, 1].map(|node| out_bytes[node].load(Ordering::Relaxed));
    let mut blocks = vec![heap.alloc(&on(Some(0))).unwrap()];
    assert_eq!(out(), [0, 4096]);
    blocks.push(heap.alloc(&on(None)).unwrap());
    assert_eq!(out(), [4096, 4096], "the first node is preferred");
    blocks.push(heap.alloc(&on(Some(0))).unwrap());
    says(heap.alloc(&on(Some(0))), &["node 0", "could not be had"]);
    says(heap.alloc(&on(Some(2))), &["on NUMA node 2", "[1, 0]", "--socket-mem"]);
    blocks.extend([heap.alloc(&on(None)).unwrap()]);
    says(heap.alloc(&on(None)), &["8 KiB", "could not be had"]);
    assert_eq!(heap.node_stats().iter().map(|(node, _)| *node).collect::<Vec<_>>(), nodes);
    blocks.into_iter().for_each(|block| heap.free(block).unwrap());
    heap.trim();
    assert_eq!(out(), [0, 0]);
}

#[test]
fn a_block_grows_and_shrinks_in_place_or_moves() {
    for guarded in [false, true] {
        let heap = heap(guarded);
        let tag = Tag::new("moved").unwrap();
        let mut block = heap.alloc(&Request::new(100).tag(tag)).unwrap();
        let first = block.as_ptr();
        // SAFETY: the block has 100 bytes.
        unsafe { first.write_bytes(7, 100) };
        heap.realloc(&mut block, 2000, 64).unwrap();
        assert_eq!((block.as_ptr(), block.len_bytes()), (first, 2000));
        heap.check().unwrap();
        heap.realloc(&mut block, 130, 64).unwrap();
        assert_eq!((block.as_ptr(), block.tag()), (first, tag));
        let fence = heap.alloc(&Request::new(1)).unwrap();
        heap.realloc(&mut block, 1000, 256).unwrap();
        assert_ne!(block.as_ptr(), first);
        assert_eq!(block.as_ptr().addr().get() % 256, 0);
        // SAFETY: 100 bytes were written before it was moved, and it is longer.
        let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr().as_ptr(), 100) };
        assert_eq!(bytes, [7; 100]);
        says(heap.realloc(&mut block, 0, 64), &["0 bytes (moved)"]);
        says(heap.realloc(&mut block, 65536, 64), &["64 KiB (moved"]);
        says(heap.realloc(&mut block, 10, 3), &["power of two"]);
        assert_eq!(block.len_bytes(), 1000);
        let stats = heap.stats();
        assert_eq!((stats.live_blocks, stats.live_bytes), (2, 1001));
        heap.free(block).unwrap();
        heap.free(fence).unwrap();
        heap.check().unwrap();
    }
}

#[test]
fn a_zeroed_block_is_zero_although_its_place_was_used() {
    let heap = heap(true);
    let block = heap.alloc(&Request::new(3000)).unwrap();
    let first = block.as_ptr();
    // SAFETY: the block has 3000 bytes.
    unsafe { first.write_bytes(0xff, 3000) };
    heap.free(block).unwrap();
    let block = heap.zeroed(&Request::new(3000)).unwrap();
    assert_eq!(block.as_ptr(), first);
    // SAFETY: as above.
    assert_eq!(unsafe { std::slice::from_raw_parts(first.as_ptr(), 3000) }, [0; 3000]);
    heap.free(block).unwrap();
}

#[test]
fn freeing_twice_names_tag_and_size() {
    let heap = heap(true);
    let tag = Tag::new("twice").unwrap();
    let before = heap.alloc(&Request::new(64)).unwrap();
    let block = heap.alloc(&Request::new(77).tag(tag)).unwrap();
    let (second, third) = (twin(&block), twin(&block));
    heap.free(block).unwrap();
    says(heap.free(second), &["was freed already: 77 bytes (twice)", "\"test\""]);
    // The same when it has been joined with the block before it.
    heap.free(before).unwrap();
    let address = third.as_ptr();
    says(heap.free(third), &["was freed already: 77 bytes (twice)"]);
    // SAFETY: nobody else has the block; it doesn't exist any more.
    let result = unsafe { heap.block_from_raw(address) };
    says(result, &["was freed already: 77 bytes (twice)"]);
    heap.check().unwrap();
}

#[test]
fn freeing_twice_is_seen_without_guards_too() {
    let heap = heap(false);
    let block = heap.alloc(&Request::new(77)).unwrap();
    let second = twin(&block);
    heap.free(block).unwrap();
    says(heap.free(second), &["was freed already: 77 bytes (untagged)"]);
    // And when the extent is gone.
    let block = heap.alloc(&Request::new(77)).unwrap();
    let second = twin(&block);
    heap.free(block).unwrap();
    heap.trim();
    says(heap.free(second), &["is not in heap \"test\": 77 bytes (untagged)"]);
}

#[test]
fn what_is_no_block_of_the_heap_is_refused() {
    let (ours, theirs) = (heap(true), heap(true));
    let tag = Tag::new("stray").unwrap();
    let block = theirs.alloc(&Request::new(50).tag(tag)).unwrap();
    let second = twin(&block);
    says(ours.free(block), &["is not in heap", ": 50 bytes (stray)"]);
    let mut second = second;
    says(ours.realloc(&mut second, 60, 64), &["is not in heap"]);
    assert_eq!(ours.iova_of(second.as_ptr().as_ptr()), None);
    theirs.free(second).unwrap();

    let block = ours.alloc(&Request::new(500).tag(tag)).unwrap();
    let at = |offset: usize| NonNull::new(block.as_ptr().as_ptr().wrapping_add(offset)).unwrap();
    // SAFETY: the blocks that come out are forgotten.
    let from_raw = |address| unsafe { ours.block_from_raw(address) };
    says(from_raw(at(8)), &["no block starts there", "8 bytes into a block of 500 bytes (stray)"]);
    says(from_raw(at(128)), &["128 bytes into a block of 500 bytes (stray)"]);
    says(from_raw(at(1024)), &["448 bytes into a free block"]);
    says(from_raw(at(usize::MAX / 2)), &["is not in heap"]);
    says(from_raw(NonNull::dangling()), &["0x1 is not in heap"]);
    let same = from_raw(at(0)).unwrap();
    assert_eq!((same.len_bytes(), same.tag(), same.iova()), (500, tag, block.iova()));
    assert_eq!(block.into_raw(), same.as_ptr());
    ours.free(same).unwrap();
}

#[test]
fn writing_beyond_a_block_is_seen_when_it_is_freed_and_by_the_check() {
    let heap = heap(true);
    let tag = Tag::new("long winded").unwrap();
    for (len, at) in [(100, 100), (64, 64), (65, 127), (1, 100)] {
        let mut block = heap.alloc(&Request::new(len).tag(tag)).unwrap();
        heap.check().unwrap();
        let beyond = block.as_ptr().as_ptr().wrapping_add(at);
        // SAFETY: within the heap's extent: behind the block is its red zone.
        unsafe { beyond.write(0) };
        let parts = [&*format!("block of {len} bytes (long winded)"), &*format!("offset {at},")];
        says(heap.check(), &parts);
        says(heap.realloc(&mut block, 3000, 64), &parts);
        let second = twin(&block);
        says(heap.free(block), &parts);
        // SAFETY: as above.
        unsafe { beyond.write(guard::RED) };
        heap.free(second).unwrap();
    }
    assert_eq!(heap.stats().live_blocks, 0);
}

#[test]
fn writing_into_a_freed_block_is_seen_by_the_check_and_the_next_owner() {
    let heap = heap(true);
    let tag = Tag::new("undead").unwrap();
    let block = heap.alloc(&Request::new(300).tag(tag)).unwrap();
    let address = block.as_ptr();
    heap.free(block).unwrap();
    heap.check().unwrap();
    // SAFETY: within the heap's extent, which is kept.
    unsafe { address.add(299).write(0) };
    says(heap.check(), &["was written to", "block of 300 bytes (undead)"]);
    let block = heap.alloc(&Request::new(300)).unwrap();
    assert_eq!((block.as_ptr(), heap.stats().damaged), (address, 1));
    heap.free(block).unwrap();
    heap.check().unwrap();
}

#[test]
fn the_dump_shows_extents_blocks_and_tags() {
    let heap = heap(false);
    let (rx, flows) = (Tag::new("dump rx").unwrap(), Tag::new("dump flows").unwrap());
    let first = heap.alloc(&Request::new(100).tag(rx)).unwrap();
    let second = heap.alloc(&Request::new(1024).tag(flows)).unwrap();
    heap.free(first).unwrap();
    let text = |blocks: bool| {
        let mut text = Vec::new();
        if blocks { heap.dump_blocks(&mut text) } else { heap.dump(&mut text) }.unwrap();
        String::from_utf8(text).unwrap()
    };
    let short = text(false);
    let lines: Vec<_> = short.lines().collect();
    assert_eq!(lines.len(), 6, "{short}");
    assert!(lines[0].starts_with("heap test: 4 KiB of at most 64 KiB, 3 KiB free"), "{short}");
    assert!(
        lines[0]
            .contains("largest block 2944 bytes; 0 bytes in caches), 1 blocks in use with 1 KiB"),
        "{short}"
    );
    assert_eq!(lines[2], "any node:");
    assert!(lines[3].starts_with("  extent 0: 0x"), "{short}");
    assert_eq!(lines[4], "tag dump rx: 0 blocks in use with 0 bytes, 1 so far");
    assert_eq!(lines[5], "tag dump flows: 1 blocks in use with 1 KiB, 1 so far");
    let long = text(true);
    let blocks: Vec<_> = long.lines().filter(|line| line.starts_with("    0x")).collect();
    let ends = [" 128  (free)", " 1024  dump flows", " 2944  (free)"];
    assert_eq!(blocks.len(), ends.len(), "{long}");
    assert!(blocks.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{long}");
    heap.free(second).unwrap();
}

#[test]
fn threads_free_each_others_blocks() {
    let threads: usize = 4;
    let rounds: usize = if cfg!(miri) { 50 } else { 5000 };
    let config = HeapConfig::new("threads", 1 << 20).step_bytes(16 << 10);
    let heap = Heap::with_source(Box::new(Plain::new(&NONE, 1 << 20)), config).unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| std::sync::mpsc::sync_channel::<Block>(16)).unzip();
    std::thread::scope(|scope| {
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (heap, next) = (&heap, senders[(index + 1) % threads].clone());
            scope.spawn(move || {
                for round in 0..rounds {
                    let block = heap.alloc(&Request::new(1 + round * 7 % 900)).unwrap();
                    // SAFETY: the block is this thread's.
                    unsafe { block.as_ptr().write_bytes(index as u8, block.len_bytes()) };
                    if let Err(back) = next.try_send(block) {
                        let (std::sync::mpsc::TrySendError::Full(block)
                        | std::sync::mpsc::TrySendError::Disconnected(block)) = back;
                        heap.free(block).unwrap();
                    }
                    receiver.try_iter().for_each(|block| heap.free(block).unwrap());
                }
                drop(next);
                receiver.iter().for_each(|block| heap.free(block).unwrap());
            });
        }
        drop(senders);
    });
    let stats = heap.stats();
    assert_eq!((stats.live_blocks, stats.damaged), (0, 0));
    assert_eq!(stats.allocated, (threads * rounds) as u64);
    heap.check().unwrap();
}
