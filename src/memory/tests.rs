//! Segments and zones together, on normal pages.
#![expect(unsafe_code, reason = "tests write through the pointers that zones give out")]

mod growth;
mod model;
mod real_pages;

use super::iova::{Iova, IovaMode, IovaRun};
use super::place::map_low;
use super::reserve::SegmentFile;
use super::*;
use crate::sys::memfd;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A segment of normal pages that claims a node, and physical runs of the given numbers of pages.
fn segment(node: Option<u32>, run_pages: &[u64]) -> Segment {
    let page = crate::sys::mapping::page_len_bytes() as u64;
    let len = run_pages.iter().sum::<u64>() * page;
    let file = memfd::create("segment-test", None).unwrap();
    memfd::allocate(file.as_fd(), len).unwrap();
    let mapping = map_low(file.as_fd(), len, page, 4 << 30).unwrap();
    let mut va = mapping.as_ptr().addr().get() as u64;
    // Far from the virtual address, and never contiguous with the run before.
    let mut iova = 0x7_0000_0000;
    let mut runs = Vec::new();
    for pages in run_pages {
        runs.push(IovaRun { va, iova: Iova(iova), len_bytes: pages * page });
        va += pages * page;
        iova += (pages + 1) * page;
    }
    Segment::new(mapping, SegmentFile::Memfd(file), page, node, runs)
}

fn memory(segments: Vec<Segment>) -> Arc<Memory> {
    Arc::new(Memory::new(segments, IovaMode::Pa, MemoryConfig::default()))
}

fn bytes_of(zone: &Zone) -> &[u8] {
    // SAFETY: the zone's bytes are mapped and initialised while it lives, and no other thread or
    // mutable slice has them.
    unsafe { std::slice::from_raw_parts(zone.as_ptr().as_ptr(), zone.len_bytes()) }
}

fn fill(zone: &mut Zone, value: u8) {
    // SAFETY: as above; the zone is borrowed mutably.
    unsafe { zone.as_ptr().write_bytes(value, zone.len_bytes()) };
}

/// The request must fail, with each of `parts` in the message and nothing taken.
fn refused(memory: &Arc<Memory>, request: &ZoneRequest, parts: &[&str]) {
    let before = memory.free_blocks();
    let text = memory.zone(request).unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert_eq!(memory.free_blocks(), before);
}

#[test]
fn a_zone_is_found_by_name_and_gone_after_drop() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let zone = memory.zone(&ZoneRequest::new("rx ring 0", 5000).align(4096)).unwrap();
    let info = memory.lookup("rx ring 0").unwrap();
    assert_eq!(&info, zone.info());
    assert_eq!(info.va, zone.as_ptr().addr().get() as u64);
    assert_eq!((info.len_bytes, info.va % 4096, info.node), (5000, 0, None));
    assert_eq!(memory.zones(), [info]);
    assert_eq!(memory.free_len_bytes(), (2 << 20) - 5056);
    drop(zone);
    assert_eq!(memory.lookup("rx ring 0"), None);
    assert_eq!(memory.free_len_bytes(), 2 << 20);
}

#[test]
fn segments_stand_low_one_after_the_other_and_a_second_mapping_shows_the_same_bytes() {
    let one = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let two = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let segment = &one.segments()[0];
    assert!(segment.va() >= 4 << 30 && segment.va() < 1 << 46, "{segment}");
    assert_eq!(segment.va() % (2 << 20), 0);
    assert!(segment.va().abs_diff(two.segments()[0].va()) >= 2 << 20);
    let mut zone = one.zone(&ZoneRequest::new("shared", 64)).unwrap();
    fill(&mut zone, 0x5a);
    let file = std::fs::File::from(segment.file().try_clone_to_owned().unwrap());
    let mut seen = [0; 64];
    let offset = zone.info().va - segment.va();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut seen, offset).unwrap();
    assert_eq!(seen, [0x5a; 64]);
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
}

#[test]
fn a_zone_keeps_the_memory_alive_and_can_move_to_another_thread() {
    let mut zone = {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        memory.zone(&ZoneRequest::new("kept", 4096)).unwrap()
    };
    std::thread::spawn(move || {
        fill(&mut zone, 1);
        assert!(bytes_of(&zone).iter().all(|byte| *byte == 1));
    })
    .join()
    .unwrap();
}

#[test]
fn dropped_memory_is_unmapped() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let start = format!("{:x}-", memory.segments()[0].va());
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("unmap-me");
    drop(memory);
    let config = MemoryConfig { file_prefix: "unmap-me".to_owned(), ..MemoryConfig::no_huge(2) };
    let memory = Memory::reserve(&config).unwrap();
    assert!(mapped(), "{start}");
    drop(memory);
    assert!(!mapped(), "{start}");
}

#[test]
fn the_device_address_of_every_byte_is_that_of_its_run() {
    let memory = memory(vec![segment(Some(0), &[2, 1, 3])]);
    let page = memory.segments()[0].page_len_bytes();
    let zone = memory.zone(&ZoneRequest::new("all", 6 * page as usize)).unwrap();
    let runs = zone.iova_runs();
    assert_eq!(runs, memory.segments()[0].iova_runs());
    for run in runs {
        let offset = (run.va - zone.info().va) as usize;
        assert_eq!(zone.iova_at(offset), Some(run.iova));
        let last = run.len_bytes - 1;
        assert_eq!(zone.iova_at(offset + last as usize), Some(run.iova.offset(last)));
    }
    assert_eq!(zone.iova_at(zone.len_bytes()), None);
}

#[test]
fn a_contiguous_zone_stays_within_one_run() {
    let memory = memory(vec![segment(Some(0), &[2, 1, 3])]);
    let page = memory.segments()[0].page_len_bytes() as usize;
    let request = |name, pages| ZoneRequest::new(name, pages * page).iova_contiguous();
    let three = memory.zone(&request("three", 3)).unwrap();
    assert_eq!(three.iova_runs().len(), 1);
    assert_eq!(three.info().va, memory.segments()[0].va() + 3 * page as u64);
    let parts = ["contiguous for the device", "largest free block has 12 KiB"];
    refused(&memory, &request("more", 3), &parts);
    let scattered = memory.zone(&ZoneRequest::new("scattered", 3 * page)).unwrap();
    assert_eq!(scattered.iova_runs().len(), 2);
}

#[test]
fn a_node_is_served_from_its_own_segments() {
    let memory = memory(vec![segment(Some(0), &[4]), segment(Some(1), &[4])]);
    let request = |name| ZoneRequest::new(name, 64);
    assert_eq!(memory.zone(&request("one").on_node(Some(1))).unwrap().node(), Some(1));
    assert_eq!(memory.zone(&request("any")).unwrap().node(), Some(0));
    let parts = ["\"two\"", "NUMA node 2", "nodes 0-1", "--socket-mem"];
    refused(&memory, &request("two").on_node(Some(2)), &parts);
    let page = memory.segments()[0].page_len_bytes() as usize;
    let _all = memory.zone(&ZoneRequest::new("all of 1", 4 * page).on_node(Some(1))).unwrap();
    let parts = ["on NUMA node 1", "largest free block has 0 bytes", "together 0 bytes", "-m 1)"];
    refused(&memory, &request("more").on_node(Some(1)), &parts);
    // Memory that may be anywhere serves every node.
    let unbound = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    assert_eq!(unbound.zone(&request("x").on_node(Some(7))).unwrap().node(), None);
}

#[test]
fn bad_requests_are_refused() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let _first = memory.zone(&ZoneRequest::new("taken", 64)).unwrap();
    let refused = |request: ZoneRequest, parts: &[&str]| refused(&memory, &request, parts);
    refused(ZoneRequest::new("taken", 64), &["\"taken\" exists already (64 bytes at 0x"]);
    refused(ZoneRequest::new("", 64), &["0 bytes: wanted 1 to 63"]);
    refused(ZoneRequest::new("x".repeat(64), 64), &["64 bytes: wanted 1 to 63"]);
    refused(ZoneRequest::new("a", 0), &["length of 0 bytes", "1 to 2097152"]);
    refused(ZoneRequest::new("a", usize::MAX), &["length of 18446744073709551615 bytes"]);
    refused(ZoneRequest::new("a", 64).align(0), &["alignment 0"]);
    refused(ZoneRequest::new("a", 64).align(96), &["alignment 96", "power of two"]);
    let parts = ["\"a\": 2 MiB were asked", "free block has 2047.9 KiB", "-m 4)"];
    refused(ZoneRequest::new("a", 2 << 20), &parts);
    refused(ZoneRequest::new("a", 64).align(1 << 62), &["alignment 4611686018427387904"]);
    assert!(memory.zone(&ZoneRequest::new("x".repeat(63), 64)).is_ok());
}

#[test]
fn memory_that_was_used_is_zero_again() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let mut zone = memory.zone(&ZoneRequest::new("a", 10_000)).unwrap();
    let place = zone.as_ptr();
    fill(&mut zone, 0xff);
    drop(zone);
    let zone = memory.zone(&ZoneRequest::new("b", 20_000)).unwrap();
    assert_eq!(zone.as_ptr(), place);
    assert!(bytes_of(&zone).iter().all(|byte| *byte == 0));
}

#[test]
fn a_base_address_beyond_the_address_space_is_refused() {
    for base in [1 << 47, (1 << 47) - (1 << 20), u64::MAX] {
        let config = MemoryConfig { base_virtaddr: base, ..MemoryConfig::no_huge(2) };
        let text = Memory::reserve(&config).unwrap_err().to_string();
        for part in ["--base-virtaddr 0x", "no 2 MiB", "0x800000000000"] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
    let config = MemoryConfig { base_virtaddr: 1 << 40, ..MemoryConfig::no_huge(2) };
    assert!(Memory::reserve(&config).unwrap().segments()[0].va() >= 1 << 40);
    // At the very bottom null pointers must fault.
    let config = MemoryConfig { base_virtaddr: 0, ..MemoryConfig::no_huge(2) };
    assert!(Memory::reserve(&config).unwrap().segments()[0].va() >= 1 << 20);
}

#[test]
fn normal_pages_of_a_node_are_on_that_node() {
    let nodes = crate::sys::numa::online_nodes(&crate::sys::sysroot::SysRoot::default());
    let Some(&node) = nodes.last() else {
        eprintln!("this kernel has no NUMA nodes: nothing to bind to");
        return;
    };
    let mut socket_mib = vec![0; node as usize];
    socket_mib.push(2);
    let config = MemoryConfig { total_mib: None, socket_mib, ..MemoryConfig::no_huge(0) };
    let memory = Memory::reserve(&config).unwrap();
    assert_eq!(memory.segments()[0].node(), Some(node));
}
