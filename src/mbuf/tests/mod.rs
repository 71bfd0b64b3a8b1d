//! Frames, bursts and lent frames against simple models, and the pool's account of them.
//!
//! Lcore ids 40 to 49 are this file's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::memory::heap::{Heap, HeapConfig, HeapSlice, Request};
use crate::memory::{Memory, MemoryConfig, ZoneRequest};
use crate::sys::lcore_id::LcoreClaim;

mod chains;
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

// ---- a frame against vectors ----------------------------------------------------------------

#[derive(Debug, Clone)]
enum FrameOp {
    Alloc,
    Free(usize),
    Prepend(usize, usize),
    Append(usize, usize),
    Adj(usize, usize),
    Trim(usize, usize),
    /// Hangs one frame behind another.
    Chain(usize, usize),
    CopyTo(usize, usize, usize),
    /// Lends a frame and takes it back as it was.
    LendAndBack(usize),
}

fn frame_ops() -> impl Strategy<Value = Vec<FrameOp>> {
    use FrameOp::*;
    let (frame, len) = (0..8usize, 0..230usize);
    let op = prop_oneof![
        4 => Just(Alloc),
        1 => frame.clone().prop_map(Free),
        4 => (frame.clone(), 0..140usize).prop_map(|(f, n)| Prepend(f, n)),
        6 => (frame.clone(), len.clone()).prop_map(|(f, n)| Append(f, n)),
        2 => (frame.clone(), 0..60usize).prop_map(|(f, n)| Adj(f, n)),
        2 => (frame.clone(), 0..60usize).prop_map(|(f, n)| Trim(f, n)),
        3 => (frame.clone(), frame.clone()).prop_map(|(f, g)| Chain(f, g)),
        3 => (frame.clone(), 0..600usize, 0..600usize).prop_map(|(f, o, n)| CopyTo(f, o, n)),
        1 => frame.prop_map(LendAndBack),
    ];
    proptest::collection::vec(op, 100..300)
}

/// What a segment is: its data, and the free bytes in front.
#[derive(Debug, Clone)]
struct Segment {
    headroom: usize,
    data: Vec<u8>,
}

impl Segment {
    fn tailroom(&self) -> usize {
        usize::from(DATA_ROOM_BYTES) - self.headroom - self.data.len()
    }
}

/// A frame and its model.
struct Pair(Mbuf, Vec<Segment>);

impl Pair {
    fn check(&self) -> Result<(), TestCaseError> {
        let Self(frame, segments) = self;
        let whole: Vec<u8> = segments.iter().flat_map(|segment| &segment.data).copied().collect();
        prop_assert_eq!(frame.segment_count(), segments.len());
        prop_assert_eq!(frame.len_bytes(), whole.len());
        prop_assert_eq!(frame.headroom_bytes(), segments[0].headroom);
        prop_assert_eq!(frame.tailroom_bytes(), segments.last().unwrap().tailroom());
        prop_assert_eq!(frame.data(), &segments[0].data[..]);
        let parts: Vec<&[u8]> = frame.segments().collect();
        let expected: Vec<&[u8]> = segments.iter().map(|segment| &segment.data[..]).collect();
        prop_assert_eq!(parts, expected);
        Ok(())
    }
}

proptest! {
    #[test]
    fn frames_behave_as_vectors(ops in frame_ops()) {
        const COUNT: usize = 24;
        let pool = pool(COUNT);
        let mut frames: Vec<Pair> = Vec::new();
        let mut next = 0u8;
        let mut fill = |target: &mut [u8]| {
            for byte in target {
                next = next.wrapping_mul(5).wrapping_add(17);
                *byte = next;
            }
        };
        for op in ops {
            let count = frames.len();
            match op {
                FrameOp::Alloc => {
                    let out: usize = frames.iter().map(|pair| pair.1.len()).sum();
                    let frame = if count < 8 { pool.alloc() } else { None };
                    prop_assert_eq!(frame.is_some(), count < 8 && out < COUNT);
                    if let Some(frame) = frame {
                        prop_assert_eq!(frame.port(), u16::MAX);
                        frames.push(Pair(frame, vec![Segment { headroom: HEADROOM, data: vec![] }]));
                    }
                }
                _ if count == 0 => {}
                FrameOp::Free(at) => drop(frames.swap_remove(at % count)),
                FrameOp::Prepend(at, len) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let room = segments[0].headroom;
                    match frame.prepend(len) {
                        Ok(front) => {
                            prop_assert!(len <= room);
                            prop_assert_eq!(front.len(), len);
                            fill(front);
                            segments[0].headroom -= len;
                            segments[0].data.splice(..0, front.iter().copied());
                        }
                        Err(error) => {
                            prop_assert!(len > room);
                            prop_assert_eq!(error, MbufError::Headroom { wanted: len, room });
                        }
                    }
                }
                FrameOp::Append(at, len) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let last = segments.last_mut().unwrap();
                    let room = last.tailroom();
                    match frame.append(len) {
                        Ok(behind) => {
                            prop_assert!(len <= room);
                            prop_assert_eq!(behind.len(), len);
                            fill(behind);
                            last.data.extend_from_slice(behind);
                        }
                        Err(error) => {
                            prop_assert!(len > room);
                            prop_assert_eq!(error, MbufError::Tailroom { wanted: len, room });
                        }
                    }
                }
                FrameOp::Adj(at, wanted) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let len = segments[0].data.len();
                    if wanted <= len {
                        prop_assert_eq!(frame.adj(wanted), Ok(()));
                        segments[0].data.drain(..wanted);
                        segments[0].headroom += wanted;
                    } else {
                        let error = MbufError::TooShort { wanted, len };
                        prop_assert_eq!(frame.adj(wanted), Err(error));
                    }
                }
                FrameOp::Trim(at, wanted) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let last = segments.last_mut().unwrap();
                    let len = last.data.len();
                    if wanted <= len {
                        prop_assert_eq!(frame.trim(wanted), Ok(()));
                        last.data.truncate(len - wanted);
                    } else {
                        let error = MbufError::TooShort { wanted, len };
                        prop_assert_eq!(frame.trim(wanted), Err(error));
                    }
                }
                FrameOp::Chain(at, tail) => {
                    if count > 1 {
                        let Pair(frame, segments) = frames.swap_remove(tail % count);
                        let head = &mut frames[at % (count - 1)];
                        prop_assert!(head.0.chain(frame).is_ok());
                        head.1.extend(segments);
                    }
                }
                FrameOp::CopyTo(at, offset, len) => {
                    let Pair(frame, segments) = &frames[at % count];
                    let whole: Vec<u8> =
                        segments.iter().flat_map(|segment| &segment.data).copied().collect();
                    let from = offset.min(whole.len());
                    let expected = &whole[from..whole.len().min(from + len)];
                    let mut out = vec![0; len];
                    let copied = frame.copy_to(offset, &mut out);
                    prop_assert_eq!(&out[..copied], expected);
                    prop_assert!(out[copied..].iter().all(|&byte| byte == 0));
                }
                FrameOp::LendAndBack(at) => {
                    let Pair(frame, segments) = frames.swap_remove(at % count);
                    let addresses: Vec<(u64, usize)> = frame
                        .segments()
                        .map(|data| (data.as_ptr().addr() as u64, data.len()))
                        .collect();
                    let lent = frame.lend();
                    prop_assert_eq!(lent.segment_count(), segments.len());
                    let told: Vec<(u64, usize)> =
                        lent.segments().map(|(iova, len)| (iova.0, usize::from(len))).collect();
                    prop_assert_eq!(told, addresses, "IOVA mode va");
                    frames.push(Pair(lent.take_back(), segments));
                }
            }
            for pair in &frames {
                pair.check()?;
            }
            let out: usize = frames.iter().map(|pair| pair.1.len()).sum();
            prop_assert_eq!(pool.objects().in_use(), out);
        }
        drop(frames);
        prop_assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
        // What came back from chains is whole again.
        let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        prop_assert_eq!(all.len(), COUNT);
        for frame in &all {
            prop_assert_eq!((frame.segment_count(), frame.len_bytes()), (1, 0));
        }
    }
}

// ---- a burst against a queue ----------------------------------------------------------------

#[derive(Debug, Clone)]
enum BurstOp {
    Push,
    PopAndFree,
    AllocBulk(usize),
    Append,
    AppendBack,
    Clear,
    PushChain(usize),
    PushForeign,
    Mark,
}

fn burst_ops() -> impl Strategy<Value = Vec<BurstOp>> {
    use BurstOp::*;
    let op = prop_oneof![
        4 => Just(Push),
        4 => Just(PopAndFree),
        3 => (0..50usize).prop_map(AllocBulk),
        2 => Just(Append),
        2 => Just(AppendBack),
        1 => Just(Clear),
        1 => (2..5usize).prop_map(PushChain),
        2 => Just(PushForeign),
        1 => Just(Mark),
    ];
    proptest::collection::vec(op, 100..400)
}

/// What a burst holds: each frame's mark and segments. Room comes back when it runs empty.
struct BurstModel {
    frames: VecDeque<(u16, usize)>,
    end: usize,
    limit: usize,
}

impl BurstModel {
    fn new(limit: usize) -> Self {
        Self { frames: VecDeque::new(), end: 0, limit: limit.clamp(1, MAX_BURST) }
    }

    fn room(&self) -> usize {
        self.limit - self.end
    }

    fn push(&mut self, frame: (u16, usize)) {
        self.frames.push_back(frame);
        self.end += 1;
    }

    fn pop(&mut self) -> Option<(u16, usize)> {
        let frame = self.frames.pop_front();
        if self.frames.is_empty() {
            self.end = 0;
        }
        frame
    }

    fn append(&mut self, other: &mut Self) {
        while self.room() > 0 {
            let Some(frame) = other.pop() else { return };
            self.push(frame);
        }
    }

    fn check(&self, burst: &Burst) -> Result<(), TestCaseError> {
        prop_assert_eq!(burst.len(), self.frames.len());
        prop_assert_eq!(burst.is_empty(), self.frames.is_empty());
        prop_assert_eq!(burst.room(), self.room());
        let marks: Vec<_> =
            burst.as_slice().iter().map(|frame| (frame.port(), frame.segment_count())).collect();
        prop_assert_eq!(marks, self.frames.iter().copied().collect::<Vec<_>>());
        Ok(())
    }

    fn segments(&self) -> usize {
        self.frames.iter().map(|(_, segments)| segments).sum()
    }
}

proptest! {
    #[test]
    fn bursts_behave_as_queues(limit in 0..140usize, other_limit in 1..40usize, ops in burst_ops()) {
        let memory = memory();
        let pool = pool_in(&memory, "own", 200);
        let foreign = pool_in(&memory, "foreign", 200);
        let (mut burst, mut model) = (Burst::with_limit(limit), BurstModel::new(limit));
        let (mut other, mut other_model) =
            (Burst::with_limit(other_limit), BurstModel::new(other_limit));
        let mut mark = 0;
        for op in ops {
            let free = pool.objects().available();
            match op {
                BurstOp::Push | BurstOp::PushForeign | BurstOp::PushChain(_) => {
                    let from = if matches!(op, BurstOp::PushForeign) { &foreign } else { &pool };
                    let segments = if let BurstOp::PushChain(count) = op { count } else { 1 };
                    let Some(mut frame) = from.alloc() else { continue };
                    let mut complete = true;
                    for _ in 1..segments {
                        match from.alloc() {
                            Some(tail) => prop_assert!(frame.chain(tail).is_ok()),
                            None => complete = false,
                        }
                    }
                    if !complete {
                        continue;
                    }
                    mark += 1;
                    frame.set_port(mark);
                    let room = model.room();
                    match burst.push(frame) {
                        Ok(()) => {
                            prop_assert!(room > 0);
                            model.push((mark, segments));
                        }
                        Err(frame) => {
                            prop_assert_eq!(room, 0);
                            prop_assert_eq!(frame.port(), mark);
                        }
                    }
                }
                BurstOp::PopAndFree => {
                    let popped = burst.pop_front().map(|frame| (frame.port(), frame.segment_count()));
                    prop_assert_eq!(popped, model.pop());
                }
                BurstOp::AllocBulk(count) => {
                    let fits = count <= model.room() && count <= free;
                    prop_assert_eq!(pool.alloc_bulk(&mut burst, count), fits);
                    for _ in 0..if fits { count } else { 0 } {
                        model.push((u16::MAX, 1));
                    }
                }
                BurstOp::Append => {
                    other.append(&mut burst);
                    other_model.append(&mut model);
                }
                BurstOp::AppendBack => {
                    burst.append(&mut other);
                    model.append(&mut other_model);
                }
                BurstOp::Clear => {
                    burst.clear();
                    (model.frames, model.end) = (VecDeque::new(), 0);
                }
                BurstOp::Mark => {
                    for frame in burst.iter_mut() {
                        frame.set_port(7);
                    }
                    model.frames.iter_mut().for_each(|frame| frame.0 = 7);
                }
            }
            model.check(&burst)?;
            other_model.check(&other)?;
            let out = pool.objects().in_use() + foreign.objects().in_use();
            prop_assert_eq!(out, model.segments() + other_model.segments());
        }
        drop((burst, other));
        prop_assert_eq!((pool.objects().in_use(), foreign.objects().in_use()), (0, 0));
    }
}

// ---- one property each ----------------------------------------------------------------------

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
            let _lcore = LcoreClaim::claim(40).unwrap();
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
            let _lcore = LcoreClaim::claim(41).unwrap();
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
