//! Frames, bursts and lent frames: against simple models each in a file of its own, and here what
//! has one property to show.
//!
//! Lcore ids 40 to 49 are this file's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use super::*;
use crate::memory::heap::{Heap, HeapConfig, HeapSlice, Request};
use crate::memory::{Memory, MemoryConfig, ZoneRequest};
use crate::sys::lcore_id::LcoreClaim;

mod bursts;
mod chains;
mod frames;
mod model;
mod offload;
mod rooms;
mod shared;

/// Small buffers, so that their ends are met: 128 bytes of headroom, 192 behind it.
const DATA_ROOM_BYTES: u16 = HEADROOM_BYTES + 192;
const HEADROOM: usize = HEADROOM_BYTES as usize;

fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(2)).unwrap()
}

fn pool_in(memory: &Arc<Memory>, name: &str, count: usize) -> MbufPool {
    let config = MbufPoolConfig {
        data_room_bytes: DATA_ROOM_BYTES,
        cache_size: count / 4,
        ..MbufPoolConfig::new(name, count)
    };
    MbufPool::new(memory, &config).unwrap()
}

fn pool(count: usize) -> MbufPool {
    pool_in(&memory(), "mbufs", count)
}

#[test]
fn chains_end_where_a_header_can_count_no_more() {
    let pool = pool(MAX_SEGMENTS + 2);
    let mut frame = pool.alloc().unwrap();
    for _ in 1..MAX_SEGMENTS {
        frame.append(1).unwrap()[0] = 1;
        assert!(frame.chain(pool.alloc().unwrap()).is_ok());
    }
    let mut tail = pool.alloc().unwrap();
    tail.append(3).unwrap().copy_from_slice(b"abc");
    let (error, tail) = frame.chain(tail).unwrap_err();
    let (segments, len_bytes) = (MAX_SEGMENTS + 1, MAX_SEGMENTS - 1 + 3);
    assert_eq!(error, MbufError::ChainTooLong { segments, len_bytes });
    assert_eq!((tail.data(), tail.segment_count()), (&b"abc"[..], 1));
    assert_eq!((frame.segment_count(), frame.len_bytes()), (MAX_SEGMENTS, MAX_SEGMENTS - 1));
    drop((frame, tail));
    assert_eq!(pool.objects().in_use(), 0);
}

#[test]
fn a_chain_of_two_pools_goes_back_to_both() {
    let memory = memory();
    let (first, second) = (pool_in(&memory, "first", 90), pool_in(&memory, "second", 90));
    let mut frame = first.alloc().unwrap();
    for nth in 0..80 {
        let from = if nth % 7 < 3 { &second } else { &first };
        assert!(frame.chain(from.alloc().unwrap()).is_ok());
    }
    assert_eq!(first.objects().in_use() + second.objects().in_use(), 81);
    drop(frame);
    assert_eq!((first.objects().in_use(), second.objects().in_use()), (0, 0));
}

#[test]
fn frames_are_freed_from_any_lcore() {
    let pool = pool(64);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Mbuf>(8);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _lcore = LcoreClaim::claim_when_free(40);
            let sender = sender; // ends the receiver's loop
            let mut sent = 0u32;
            while sent < 5_000 {
                let Some(mut frame) = pool.alloc() else {
                    std::thread::yield_now();
                    continue;
                };
                frame.append(4).unwrap().copy_from_slice(&sent.to_ne_bytes());
                sender.send(frame).unwrap();
                sent += 1;
            }
        });
        scope.spawn(|| {
            let _lcore = LcoreClaim::claim_when_free(41);
            for (expected, frame) in (0u32..).zip(receiver) {
                assert_eq!(frame.data(), expected.to_ne_bytes());
            }
        });
    });
    assert_eq!((pool.objects().in_use(), pool.objects().available()), (0, 64));
    assert_eq!(pool.leaked(), 0);
}

#[test]
fn a_lent_frame_that_is_dropped_is_lost_and_counted() {
    let pool = pool(10);
    drop(pool.alloc().unwrap().lend());
    assert_eq!((pool.leaked(), pool.objects().in_use()), (1, 1));
    let mut chain = pool.alloc().unwrap();
    chain.chain(pool.alloc().unwrap()).unwrap();
    chain.chain(pool.alloc().unwrap()).unwrap();
    drop(chain.lend());
    assert_eq!((pool.leaked(), pool.objects().in_use()), (4, 4));
    let mut rest = Burst::new();
    assert!(!pool.alloc_bulk(&mut rest, 7), "never handed out again");
    assert!(pool.alloc_bulk(&mut rest, 6));
    let quiesced = Quiesced::after_reset();
    drop(rest.pop_front().unwrap().lend().reclaim(&quiesced));
    drop(rest);
    assert_eq!((pool.leaked(), pool.objects().in_use()), (4, 4));
}

/// The pool's memory and all that a frame points to stay for as long as there may be a frame.
#[test]
fn a_frame_outlives_its_pools_last_handle() {
    let memory = memory();
    let free = memory.free_len_bytes();
    let pool = pool_in(&memory, "robbed", 8);
    let second_handle = pool.clone();
    let mut frame = pool.alloc().unwrap();
    frame.append(3).unwrap().copy_from_slice(b"abc");
    drop(pool);
    drop(second_handle);
    assert!(memory.lookup("robbed").is_some());
    assert_eq!(frame.data(), b"abc");
    drop(frame);
    assert!(memory.free_len_bytes() < free, "kept for good, as it says");

    let complete = pool_in(&memory, "complete", 8);
    let before = complete.alloc().unwrap();
    let last_handle = complete.clone();
    drop(complete);
    drop(before);
    drop(last_handle);
    assert!(memory.lookup("complete").is_none());
}

#[test]
fn pools_without_room_for_data_are_refused() {
    let memory = memory();
    for data_room_bytes in [0, HEADROOM_BYTES] {
        let config = MbufPoolConfig { data_room_bytes, ..MbufPoolConfig::new("none", 4) };
        let error = MbufPool::new(&memory, &config).unwrap_err();
        assert!(matches!(error, MbufPoolError::DataRoom { .. }), "{error}");
    }
    let free = memory.free_len_bytes();
    let huge = MbufPoolConfig::new("huge", 1_000_000);
    let error = MbufPool::new(&memory, &huge).unwrap_err();
    assert!(matches!(error, MbufPoolError::Mempool(_)), "{error}");
    assert_eq!(memory.free_len_bytes(), free);
    let most = MbufPoolConfig { data_room_bytes: u16::MAX, ..MbufPoolConfig::new("most", 3) };
    let pool = MbufPool::new(&memory, &most).unwrap();
    let mut frame = pool.alloc().unwrap();
    let room = frame.tailroom_bytes();
    assert_eq!(room, usize::from(u16::MAX - HEADROOM_BYTES));
    frame.append(room).unwrap().fill(0xa5);
    frame.prepend(HEADROOM).unwrap().fill(0x5a);
    assert_eq!(frame.len_bytes(), usize::from(u16::MAX));
    assert!(frame.append(1).is_err() && frame.prepend(1).is_err());
}

#[test]
fn a_pool_that_was_kept_goes_once_its_mbufs_are_back() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let pool = MbufPool::new(&memory, &MbufPoolConfig::new("kept", 8)).unwrap();
    let late = pool.alloc().unwrap();
    drop(pool);
    assert!(memory.lookup("kept").is_some());
    drop(late);
    let other = MbufPool::new(&memory, &MbufPoolConfig::new("other", 8)).unwrap();
    assert!(memory.lookup("kept").is_none(), "making a pool looks through the kept ones");
    drop(other);
    assert!(memory.lookup("other").is_none());
}
