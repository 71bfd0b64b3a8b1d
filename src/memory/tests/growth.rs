//! Segments that come and go, under the eyes of listeners that record, and fail where they are told.

use super::*;
use crate::memory::heap::{Block, Heap, HeapConfig, Request};
use crate::memory::{DmaListener, DmaRegion, ListenerError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, Weak};

/// What a device could reach, as type 1 version 2 has it: exact regions.
#[derive(Default)]
struct Fake {
    /// IOVA → virtual address and length.
    mapped: Mutex<BTreeMap<u64, (u64, u64)>>,
    /// Calls that fail, counted from the next one on.
    fail_map: Mutex<Option<usize>>,
    fail_unmap: Mutex<bool>,
}

impl Fake {
    fn listen(memory: &Memory) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        memory.add_dma_listener(fake.weak()).unwrap();
        fake
    }

    fn weak(self: &Arc<Self>) -> Weak<dyn DmaListener> {
        Arc::<Self>::downgrade(self)
    }

    fn mapped(&self) -> Vec<(u64, (u64, u64))> {
        self.mapped.lock().unwrap().iter().map(|(iova, place)| (*iova, *place)).collect()
    }
}

/// Whether the address is part of a mapping of this process.
fn is_mapped_here(va: u64) -> bool {
    file_at(va).is_some()
}

/// The number of the file that is mapped at an address. Other tests of this process map and unmap
/// meanwhile, so that an address may be somebody else's a moment later; a file is not.
fn file_at(va: u64) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let (start, end) = columns.next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let here = (number(start)..number(end)).contains(&va);
        here.then(|| columns.nth(3).unwrap().parse().unwrap())
    })
}

impl DmaListener for Fake {
    fn map(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        let mut fail = self.fail_map.lock().unwrap();
        if let Some(left) = fail.as_mut() {
            if *left == 0 {
                *fail = None;
                return Err("no more than 7 mappings (fake_limit)".into());
            }
            *left -= 1;
        }
        // What it is told is true: the file has the memory, here and by descriptor.
        assert!(is_mapped_here(region.va));
        let file = File::from(region.file.try_clone_to_owned().unwrap());
        let mut byte = [1];
        file.read_exact_at(&mut byte, region.file_offset + region.len_bytes - 1).unwrap();
        assert_eq!(byte, [0]);
        let mut mapped = self.mapped.lock().unwrap();
        let end = region.iova.0 + region.len_bytes;
        let before = mapped.range(..end).next_back();
        assert!(before.is_none_or(|(iova, (_, len))| iova + len <= region.iova.0), "overlap");
        mapped.insert(region.iova.0, (region.va, region.len_bytes));
        Ok(())
    }

    fn unmap(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        // The pages are still there.
        assert!(is_mapped_here(region.va));
        if *self.fail_unmap.lock().unwrap() {
            return Err("unmapped 0 bytes (fake)".into());
        }
        let known = self.mapped.lock().unwrap().remove(&region.iova.0);
        assert_eq!(known, Some((region.va, region.len_bytes)), "exactly what was mapped");
        Ok(())
    }
}

fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(2)).unwrap()
}

const M2: u64 = 2 << 20;

#[test]
fn a_segment_is_mapped_by_all_used_unmapped_and_gone() {
    let memory = memory();
    let (one, two) = (Fake::listen(&memory), Fake::listen(&memory));
    let added = memory.add_segment(None, M2 + 1, 64).unwrap();
    let segment = added.segment();
    let (va, len) = (segment.va(), segment.len_bytes() as u64);
    assert_eq!(len, M2 + 4096);
    assert!(va >= 4 << 30 && va % M2 == 0, "{va:#x}: low, where IOMMUs of 39 bits reach");
    // As low as what was there from the start. (Under the address sanitizer that isn't very low.)
    let low = |va: u64| va < 1 << 39;
    assert_eq!(low(va), low(memory.segments()[0].va()));
    assert_eq!(one.mapped(), [(va, (va, len))]);
    assert_eq!(two.mapped(), one.mapped());
    // One that comes later is told at once; one that is gone isn't missed.
    drop(two);
    let three = Fake::listen(&memory);
    assert_eq!(three.mapped(), one.mapped());
    let mut text = Vec::new();
    memory.dump(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("added: any node, 4 KiB pages, {va:#x}-")), "{text}");
    assert_eq!(memory.with_added(|added| added.len()), 1);
    let file = file_at(va);
    drop(added);
    assert!(one.mapped().is_empty() && three.mapped().is_empty());
    assert!(file.is_some() && file_at(va) != file);
    assert_eq!((memory.added_segments().len(), Arc::strong_count(&memory)), (0, 1));
}

#[test]
fn a_listener_that_cannot_map_undoes_all_and_its_reason_is_told() {
    let memory = memory();
    let (one, two) = (Fake::listen(&memory), Fake::listen(&memory));
    let kept = memory.add_segment(None, 4096, 64).unwrap();
    for failing in [&one, &two] {
        *failing.fail_map.lock().unwrap() = Some(0);
        let error = memory.add_segment(None, 4096, 64).unwrap_err().to_string();
        assert!(error.contains("fake_limit") && error.contains("4 KiB at 0x"), "{error}");
        assert_eq!((one.mapped().len(), two.mapped().len()), (1, 1));
        assert_eq!(memory.added_segments().len(), 1);
    }
    // One that comes later and can't map the second of two is not told any more.
    let more = memory.add_segment(None, 4096, 64).unwrap();
    let late = Arc::new(Fake::default());
    *late.fail_map.lock().unwrap() = Some(1);
    let error = memory.add_dma_listener(late.weak()).unwrap_err().to_string();
    assert!(error.contains("fake_limit"), "{error}");
    assert!(late.mapped().is_empty());
    drop((kept, more));
    assert!(one.mapped().is_empty() && two.mapped().is_empty());
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn pages_that_a_device_may_still_reach_are_kept_as_long_as_the_memory() {
    let memory = memory();
    let (one, two) = (Fake::listen(&memory), Fake::listen(&memory));
    let added = memory.add_segment(None, 4096, 64).unwrap();
    let va = added.segment().va();
    *one.fail_unmap.lock().unwrap() = true;
    drop(added);
    assert!(two.mapped().is_empty(), "the others unmap it all the same");
    assert!(is_mapped_here(va) && memory.added_segments().is_empty());
    // The same when it fails on the way back from another's failure.
    *two.fail_map.lock().unwrap() = Some(0);
    let error = memory.add_segment(None, 4096, 64).unwrap_err().to_string();
    assert!(error.contains("fake_limit"), "{error}");
    let stuck = one.mapped();
    assert_eq!(stuck.len(), 2);
    let files = || stuck.iter().map(|(_, (va, _))| file_at(*va)).collect::<Vec<_>>();
    let before = files();
    assert!(before.iter().all(Option::is_some));
    drop((one, two));
    drop(memory);
    assert!(files().iter().zip(&before).all(|(now, before)| now != before));
}

#[test]
fn more_than_there_is_or_fits_is_refused() {
    let memory = memory();
    let fake = Fake::listen(&memory);
    for len in [1 << 50, u64::MAX] {
        let error = memory.add_segment(None, len, 64).unwrap_err().to_string();
        assert!(error.contains("normal memory are wanted"), "{error}");
    }
    let error = memory.add_segment(Some(999), 4096, 64).unwrap_err().to_string();
    assert!(error.contains("on NUMA node 999 could not be had"), "{error}");
    let error = memory.add_segment(None, 4096, 1 << 48).unwrap_err().to_string();
    assert!(error.contains("--base-virtaddr"), "{error}");
    assert!(fake.mapped().is_empty() && memory.added_segments().is_empty());
}

fn growing_heap(memory: &Arc<Memory>, limit_bytes: u64, step_bytes: usize) -> Arc<Heap> {
    let config = HeapConfig::new("grows", limit_bytes).step_bytes(step_bytes);
    Heap::of_kernel_pages(memory, config).unwrap()
}

#[test]
fn a_heap_grows_by_pages_of_the_kernel_up_to_its_limit_and_gives_them_back() {
    let memory = memory();
    let fake = Fake::listen(&memory);
    let heap = growing_heap(&memory, 1 << 20, 128 << 10);
    assert_eq!(memory.added_segments().len(), 0);
    let blocks: Vec<_> = (0..7).map(|_| heap.alloc(&Request::new(100 << 10)).unwrap()).collect();
    assert_eq!((heap.stats().extents, fake.mapped().len()), (7, 7));
    for block in &blocks {
        let (address, iova) = (block.as_ptr().addr().get() as u64, block.iova().0);
        let reaches = |(start, (va, len)): &(u64, (u64, u64))| {
            (*start..start + len).contains(&iova) && address - va == iova - start
        };
        assert!(fake.mapped().iter().any(reaches));
    }
    let error = heap.alloc(&Request::new(200 << 10)).unwrap_err().to_string();
    assert!(error.contains("of at most 1 MiB") && error.contains("a limit of"), "{error}");
    // Another limit: what the listener takes. It stands in the heap's error.
    let other = growing_heap(&memory, 1 << 30, 4096);
    *fake.fail_map.lock().unwrap() = Some(0);
    let first = other.alloc(&Request::new(64));
    // With a step less than what is wanted it is tried again; the second time it is mapped.
    drop(first);
    let mut text = Vec::new();
    heap.dump(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap().matches("  extent ").count(), 7);
    blocks.into_iter().for_each(|block| heap.free(block).unwrap());
    assert_eq!(heap.stats().extents, 1);
    heap.trim();
    drop((heap, other));
    assert!(fake.mapped().is_empty());
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn hugepages_are_taken_while_the_program_runs_and_given_back() {
    let Some(_pages) = real_pages::Pages::get() else { return };
    let config = MemoryConfig { total_mib: Some(2), ..MemoryConfig::default() };
    let memory = Memory::reserve(&config).unwrap();
    let fake = Fake::listen(&memory);
    let free = real_pages::free_pages();
    let heap = growing_heap(&memory, 16 << 20, 2 << 20);
    let node = memory.segments()[0].node();
    let request = Request::new((2 << 20) - 4096).on_node(node);
    let blocks: Vec<Block> = (0..3).map(|_| heap.alloc(&request).unwrap()).collect();
    assert_eq!((free - real_pages::free_pages(), fake.mapped().len()), (3, 3));
    for segment in memory.added_segments() {
        assert_eq!((segment.page_len_bytes(), segment.node()), (M2, node));
    }
    blocks.into_iter().for_each(|block| heap.free(block).unwrap());
    heap.trim();
    assert_eq!((free, fake.mapped().len()), (real_pages::free_pages(), 0));
    // More than there are: said so, and nothing is held.
    let heap = growing_heap(&memory, 1 << 50, 2 << 20);
    let error = heap.alloc(&Request::new(40 << 30)).unwrap_err().to_string();
    for part in ["in pages of 2 MiB", "such pages are free", "hugepages.sh"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((free, heap.total_bytes()), (real_pages::free_pages(), 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Segments and listeners come and go, maps fail: each listener has exactly what is there.
    #[test]
    fn listeners_have_what_is_there(steps in prop::collection::vec((0_u8..6, any::<usize>()), 1..40)) {
        let memory = memory();
        let (mut listeners, mut added) = (vec![Fake::listen(&memory)], Vec::new());
        for (what, number) in steps {
            match what {
                0..2 => added.extend(memory.add_segment(None, (number % 5 * 4096) as u64, 64).ok()),
                2 if !added.is_empty() => drop(added.swap_remove(number % added.len())),
                3 if listeners.len() < 4 => listeners.push(Fake::listen(&memory)),
                4 if !listeners.is_empty() => drop(listeners.swap_remove(number % listeners.len())),
                5 if !listeners.is_empty() => {
                    let index = number % listeners.len();
                    *listeners[index].fail_map.lock().unwrap() = Some(0);
                    prop_assert!(memory.add_segment(None, 4096, 64).is_err());
                }
                _ => {}
            }
            let mut there: Vec<_> = memory.added_segments().iter()
                .map(|segment| (segment.va(), (segment.va(), segment.len_bytes() as u64)))
                .collect();
            there.sort_unstable();
            prop_assert_eq!(there.len(), added.len());
            for listener in &listeners {
                prop_assert_eq!(&listener.mapped(), &there);
            }
        }
        drop(added);
        prop_assert!(listeners.iter().all(|listener| listener.mapped().is_empty()));
        prop_assert_eq!(Arc::strong_count(&memory), 1);
    }
}
