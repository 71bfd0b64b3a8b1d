//! Frames against a simple model: vectors of bytes, and which segments stand in which buffer.
//! The fuzz target includes this file, so it uses nothing but the public interface.

mod data;
mod sharing;
mod step;

use super::{Burst, ExternalBuffer, HEADROOM_BYTES, Heap, Mbuf, MbufPool, RxInfo};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use step::Step;

const HEADROOM: usize = HEADROOM_BYTES as usize;
const MOST_FRAMES: usize = 12;
const MOST_EXTERNALS: usize = 3;
const EXTERNAL_BYTES: usize = 700;

/// A buffer: that of a header of a pool, or external memory. Numbers aren't used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Buffer {
    Of(Header),
    External(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Header {
    number: usize,
    pool: usize,
}

#[derive(Clone, Debug)]
struct Segment {
    header: Header,
    buffer: Buffer,
    headroom: usize,
    tailroom: usize,
    data: Vec<u8>,
}

struct Frame {
    mbuf: Mbuf,
    segments: Vec<Segment>,
    port: u16,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        self.segments.iter().flat_map(|segment| &segment.data).copied().collect()
    }
}

pub(crate) struct Model {
    heap: Arc<Heap>,
    pools: Vec<MbufPool>,
    frames: Vec<Frame>,
    /// Handles that are kept, by number.
    externals: Vec<(ExternalBuffer, usize)>,
    freed_externals: Arc<AtomicUsize>,
    numbers: usize,
    external_numbers: usize,
    byte: u8,
}

impl Model {
    pub(crate) fn new(heap: Arc<Heap>, pools: Vec<MbufPool>) -> Self {
        Self {
            heap,
            pools,
            frames: Vec::new(),
            externals: Vec::new(),
            freed_externals: Arc::default(),
            numbers: 0,
            external_numbers: 0,
            byte: 0,
        }
    }

    fn fill(&mut self, target: &mut [u8]) {
        for byte in target {
            self.byte = self.byte.wrapping_mul(5).wrapping_add(17);
            *byte = self.byte;
        }
    }

    fn room(&self, pool: usize) -> usize {
        self.pools[pool].room_len_bytes().into()
    }

    fn segment(&mut self, pool: usize, data: Vec<u8>) -> Segment {
        self.numbers += 1;
        let header = Header { number: self.numbers, pool };
        let tailroom = self.room(pool) - data.len();
        Segment { header, buffer: Buffer::Of(header), headroom: HEADROOM, tailroom, data }
    }

    fn all(&self) -> impl Iterator<Item = &Segment> {
        self.frames.iter().flat_map(|frame| &frame.segments)
    }

    /// Mbufs of a pool that are out: headers in use, and those whose buffer is.
    fn out(&self, pool: usize) -> usize {
        let mut out = HashSet::new();
        for segment in self.all() {
            out.insert(segment.header);
            if let Buffer::Of(owner) = segment.buffer {
                out.insert(owner);
            }
        }
        out.iter().filter(|header| header.pool == pool).count()
    }

    fn available(&self, pool: usize) -> usize {
        self.pools[pool].objects().count() - self.out(pool)
    }

    fn owners(&self, buffer: Buffer) -> usize {
        let handle = |&&(_, number): &&(ExternalBuffer, usize)| buffer == Buffer::External(number);
        self.all().filter(|segment| segment.buffer == buffer).count()
            + self.externals.iter().filter(handle).count()
        // The mbuf itself may be gone, or in use for another's data: it counts as an owner
        // only while its header stands for its own buffer, which `all` has counted.
    }

    fn writable(&self, segment: &Segment) -> bool {
        self.owners(segment.buffer) == 1
    }

    pub(crate) fn apply(&mut self, step: Step) {
        let pool_of = |pool: usize| pool % self.pools.len();
        match step {
            Step::Alloc { pool } => self.alloc(pool_of(pool)),
            Step::Receive { pool, len } => self.receive(pool_of(pool), len),
            Step::NewExternal => self.new_external(),
            Step::DropExternal { other } => {
                if !self.externals.is_empty() {
                    let at = other % self.externals.len();
                    drop(self.externals.swap_remove(at));
                }
            }
            Step::Attach { other, pool, start, len } => {
                self.attach(other, pool_of(pool), start, len);
            }
            Step::CheckAll => self.check_all(),
            _ if self.frames.is_empty() => {}
            Step::Free { frame } => {
                let at = frame % self.frames.len();
                drop(self.frames.swap_remove(at));
            }
            Step::FreeBurst { frame, count } => self.free_burst(frame, count),
            Step::Chain { frame, other } => self.chain(frame, other),
            Step::LendAndBack { frame } => self.lend_and_back(frame),
            Step::SplitOff { frame, offset, pool } => {
                let pool = pool_of(pool);
                self.split_off(frame, offset, pool);
            }
            Step::Copy { frame, offset, len, pool } => {
                let pool = pool_of(pool);
                self.copy(frame, offset, len, pool);
            }
            Step::Share { frame, pool } => {
                let pool = pool_of(pool);
                self.share(frame, pool);
            }
            Step::MakeWritable { frame, pool } => {
                let pool = pool_of(pool);
                self.make_writable(frame, pool);
            }
            Step::Prepend { frame, len } => self.prepend(frame, len),
            Step::Append { frame, len } => self.append(frame, len),
            Step::Adj { frame, len } => self.adj(frame, len),
            Step::Trim { frame, len } => self.trim(frame, len),
            Step::Linearise { frame } => self.linearise(frame),
            Step::ViewAt { frame, offset, len } => self.view_at(frame, offset, len),
            Step::Detach { frame } => self.detach(frame),
            Step::Write { frame } => self.write(frame),
        }
    }

    fn at(&self, frame: usize) -> usize {
        frame % self.frames.len()
    }

    fn push(&mut self, mbuf: Mbuf, segments: Vec<Segment>, port: u16) {
        self.frames.push(Frame { mbuf, segments, port });
        self.check(self.frames.len() - 1);
    }

    fn alloc(&mut self, pool: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let mbuf = self.pools[pool].alloc();
        assert_eq!(mbuf.is_some(), self.available(pool) > 0);
        let Some(mut mbuf) = mbuf else { return };
        assert_eq!((mbuf.port(), mbuf.requests_any()), (u16::MAX, false));
        let port = self.numbers as u16;
        mbuf.set_port(port);
        let segment = self.segment(pool, Vec::new());
        self.push(mbuf, vec![segment], port);
    }

    fn receive(&mut self, pool: usize, len: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let mut lent = None;
        let count = self.pools[pool].lend_bulk(1, |room, _| lent = Some(room));
        assert_eq!(count, self.available(pool).min(1));
        let Some(lent) = lent else { return };
        let taken = lent.take_back_filled(len as u32, 9, RxInfo::NONE);
        assert_eq!(taken.is_ok(), len <= self.room(pool));
        let Ok(mut mbuf) = taken else { return };
        let mut data = vec![0; len];
        self.fill(&mut data);
        mbuf.data_mut().unwrap().copy_from_slice(&data);
        let segment = self.segment(pool, data);
        self.push(mbuf, vec![segment], 9);
    }

    fn free_burst(&mut self, frame: usize, count: usize) {
        let mut burst = Burst::new();
        for _ in 0..count % MOST_FRAMES {
            if self.frames.is_empty() {
                break;
            }
            let at = self.at(frame);
            burst.push(self.frames.swap_remove(at).mbuf).unwrap();
        }
        burst.clear();
    }

    fn check(&self, at: usize) {
        let Frame { mbuf, segments, port } = &self.frames[at];
        mbuf.check().unwrap();
        let parts: Vec<&[u8]> = mbuf.segments().collect();
        let expected: Vec<&[u8]> = segments.iter().map(|segment| &segment.data[..]).collect();
        assert_eq!(parts, expected);
        assert_eq!(mbuf.len_bytes(), expected.iter().map(|part| part.len()).sum::<usize>());
        assert_eq!(mbuf.segment_count(), segments.len());
        assert_eq!(mbuf.data(), expected[0]);
        assert_eq!(mbuf.headroom_bytes(), segments[0].headroom);
        assert_eq!(mbuf.tailroom_bytes(), segments.last().unwrap().tailroom);
        assert_eq!(mbuf.port(), *port);
    }

    /// All frames, who may write, and what the pools say.
    pub(crate) fn check_all(&self) {
        for (at, frame) in self.frames.iter().enumerate() {
            self.check(at);
            let writable = frame.segments.iter().all(|segment| self.writable(segment));
            assert_eq!(frame.mbuf.is_writable(), writable, "{}", frame.mbuf.dump(0));
        }
        for (nth, pool) in self.pools.iter().enumerate() {
            assert_eq!((pool.objects().in_use(), pool.leaked()), (self.out(nth), 0));
        }
        let gone = (0..self.external_numbers)
            .filter(|number| self.owners(Buffer::External(*number)) == 0)
            .count();
        assert_eq!(self.freed_externals.load(Ordering::Relaxed), gone);
    }

    /// Lets everything go; nothing may be left.
    pub(crate) fn finish(mut self) {
        self.check_all();
        self.externals.clear();
        while !self.frames.is_empty() {
            self.free_burst(3, 3);
            self.frames.pop();
        }
        self.check_all();
        for pool in &self.pools {
            assert_eq!(pool.objects().in_use(), 0);
            let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
            assert_eq!(all.len(), pool.objects().count());
            for mbuf in all {
                mbuf.check().unwrap();
                assert_eq!((mbuf.segment_count(), mbuf.len_bytes()), (1, 0));
                assert_eq!(mbuf.tailroom_bytes(), usize::from(pool.room_len_bytes()));
            }
            pool.objects().audit().unwrap();
        }
    }
}
