//! Frames against a simple model: vectors of bytes, and which segments stand in which buffer.
//! The fuzz target includes this file, so it uses nothing but the public interface.

use super::{
    Burst, ExternalBuffer, HEADROOM_BYTES, Heap, HeapSlice, Mbuf, MbufError, MbufPool, Request,
    RxInfo, SegmentsMut,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HEADROOM: usize = HEADROOM_BYTES as usize;
const MOST_FRAMES: usize = 12;
const MOST_EXTERNALS: usize = 3;
const EXTERNAL_BYTES: usize = 700;

/// What can be done with frames. `frame` and `other` are taken modulo how many there are, `pool`
/// modulo the pools.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Alloc {
        pool: usize,
    },
    /// Received into a buffer that was lent.
    Receive {
        pool: usize,
        len: usize,
    },
    Free {
        frame: usize,
    },
    /// Several at once.
    FreeBurst {
        frame: usize,
        count: usize,
    },
    Prepend {
        frame: usize,
        len: usize,
    },
    Append {
        frame: usize,
        len: usize,
    },
    Adj {
        frame: usize,
        len: usize,
    },
    Trim {
        frame: usize,
        len: usize,
    },
    Chain {
        frame: usize,
        other: usize,
    },
    SplitOff {
        frame: usize,
        offset: usize,
        pool: usize,
    },
    Linearise {
        frame: usize,
    },
    ViewAt {
        frame: usize,
        offset: usize,
        len: usize,
    },
    Copy {
        frame: usize,
        offset: usize,
        len: usize,
        pool: usize,
    },
    Share {
        frame: usize,
        pool: usize,
    },
    MakeWritable {
        frame: usize,
        pool: usize,
    },
    Detach {
        frame: usize,
    },
    /// Changes all bytes, where that is allowed.
    Write {
        frame: usize,
    },
    LendAndBack {
        frame: usize,
    },
    NewExternal,
    DropExternal {
        other: usize,
    },
    Attach {
        other: usize,
        pool: usize,
        start: usize,
        len: usize,
    },
    CheckAll,
}

impl Step {
    /// Any bytes are a step: what, which frame, which other or pool, a length, an offset.
    pub(crate) fn from_bytes([what, frame, other, len, more, offset]: [u8; 6]) -> Self {
        let (frame, other) = (usize::from(frame), usize::from(other));
        let pool = other;
        // Mostly short ones.
        let len = if more < 200 { usize::from(len) / 2 } else { usize::from(len) * 3 };
        let offset = usize::from(offset) * (1 + other % 3);
        match what {
            0..38 => Self::Alloc { pool },
            38..60 => Self::Receive { pool, len },
            60..76 => Self::Free { frame },
            76..80 => Self::FreeBurst { frame, count: len },
            80..92 => Self::Prepend { frame, len },
            92..118 => Self::Append { frame, len },
            118..126 => Self::Adj { frame, len },
            126..134 => Self::Trim { frame, len },
            134..150 => Self::Chain { frame, other },
            150..162 => Self::SplitOff { frame, offset, pool },
            162..168 => Self::Linearise { frame },
            168..180 => Self::ViewAt { frame, offset, len },
            180..190 => Self::Copy { frame, offset, len, pool },
            190..206 => Self::Share { frame, pool },
            206..212 => Self::MakeWritable { frame, pool },
            212..218 => Self::Detach { frame },
            218..226 => Self::Write { frame },
            226..232 => Self::LendAndBack { frame },
            232..238 => Self::NewExternal,
            238..242 => Self::DropExternal { other },
            242..252 => Self::Attach { other, pool, start: offset, len },
            252.. => Self::CheckAll,
        }
    }
}

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

    fn prepend(&mut self, frame: usize, len: usize) {
        let at = self.at(frame);
        let mut bytes = vec![0; len.min(HEADROOM * 2)];
        self.fill(&mut bytes);
        let first = &self.frames[at].segments[0];
        let (room, writable) = (first.headroom, self.writable(first));
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        match mbuf.prepend(bytes.len()) {
            Ok(front) => {
                assert!(bytes.len() <= room && writable);
                front.copy_from_slice(&bytes);
                segments[0].headroom -= bytes.len();
                segments[0].data.splice(..0, bytes);
            }
            Err(MbufError::Shared) => assert!(!writable && bytes.len() <= room),
            Err(error) => {
                assert!(bytes.len() > room);
                assert_eq!(error, MbufError::Headroom { wanted: bytes.len(), room });
            }
        }
        self.check(at);
    }

    fn append(&mut self, frame: usize, len: usize) {
        let at = self.at(frame);
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        let last = self.frames[at].segments.last().unwrap();
        let (room, writable) = (last.tailroom, self.writable(last));
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        let last = segments.last_mut().unwrap();
        match mbuf.append(len) {
            Ok(behind) => {
                assert!(len <= room && writable);
                behind.copy_from_slice(&bytes);
                last.tailroom -= len;
                last.data.extend(bytes);
            }
            Err(MbufError::Shared) => assert!(!writable && len <= room),
            Err(error) => {
                assert!(len > room);
                assert_eq!(error, MbufError::Tailroom { wanted: len, room });
            }
        }
        self.check(at);
    }

    fn adj(&mut self, frame: usize, wanted: usize) {
        let at = self.at(frame);
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        let len = segments[0].data.len();
        if wanted <= len {
            mbuf.adj(wanted).unwrap();
            segments[0].data.drain(..wanted);
            segments[0].headroom += wanted;
        } else {
            assert_eq!(mbuf.adj(wanted), Err(MbufError::TooShort { wanted, len }));
        }
        self.check(at);
    }

    fn trim(&mut self, frame: usize, wanted: usize) {
        let at = self.at(frame);
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        let last = segments.last_mut().unwrap();
        let len = last.data.len();
        if wanted <= len {
            mbuf.trim(wanted).unwrap();
            last.data.truncate(len - wanted);
            last.tailroom += wanted;
        } else {
            assert_eq!(mbuf.trim(wanted), Err(MbufError::TooShort { wanted, len }));
        }
        self.check(at);
    }

    fn chain(&mut self, frame: usize, other: usize) {
        if self.frames.len() < 2 {
            return;
        }
        let tail = self.frames.swap_remove(other % self.frames.len());
        let at = self.at(frame);
        let head = &mut self.frames[at];
        head.mbuf.chain(tail.mbuf).unwrap();
        head.segments.extend(tail.segments);
        self.check(at);
    }

    fn split_off(&mut self, frame: usize, offset: usize, pool: usize) {
        let at = self.at(frame);
        let (len, available) = (self.frames[at].bytes().len(), self.available(pool));
        // Mostly somewhere inside.
        let offset = if offset.is_multiple_of(16) { offset } else { offset % (len + 1) };
        let result = self.frames[at].mbuf.split_off(offset, &self.pools[pool]);
        if offset > len {
            let error = MbufError::Range { offset, len: 0, len_bytes: len };
            assert_eq!(result.unwrap_err(), error);
            return self.check(at);
        }
        let (mut keep, mut nth) = (offset, 0);
        let segments = &self.frames[at].segments;
        while keep > segments[nth].data.len() {
            keep -= segments[nth].data.len();
            nth += 1;
        }
        let cut = keep < segments[nth].data.len();
        let new = cut || nth + 1 == segments.len();
        assert_eq!(result.is_ok(), !new || available > 0, "{result:?}");
        let Ok(rest) = result else { return self.check(at) };
        let mut behind = Vec::new();
        if new {
            let mut part = self.segment(pool, Vec::new());
            let segment = &mut self.frames[at].segments[nth];
            if cut {
                part.buffer = segment.buffer;
                part.data = segment.data.split_off(keep);
                part.headroom = segment.headroom + keep;
                part.tailroom = segment.tailroom;
                segment.tailroom += part.data.len();
            }
            behind.push(part);
        }
        let port = self.frames[at].port;
        behind.extend(self.frames[at].segments.drain(nth + 1..));
        self.check(at);
        self.push(rest, behind, port);
    }

    fn linearise(&mut self, frame: usize) {
        let at = self.at(frame);
        let first = &self.frames[at].segments[0];
        let wanted = self.frames[at].bytes().len() - first.data.len();
        let (single, room) = (self.frames[at].segments.len() == 1, first.tailroom);
        let writable = self.writable(first);
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        let result = mbuf.linearise();
        if single {
            assert_eq!(result, Ok(()));
        } else if wanted > room {
            assert_eq!(result, Err(MbufError::Tailroom { wanted, room }));
        } else if !writable {
            assert_eq!(result, Err(MbufError::Shared));
        } else {
            assert_eq!(result, Ok(()));
            let rest = segments.split_off(1);
            segments[0].data.extend(rest.into_iter().flat_map(|segment| segment.data));
            segments[0].tailroom -= wanted;
        }
        self.check(at);
    }

    fn view_at(&mut self, frame: usize, offset: usize, len: usize) {
        let at = self.at(frame);
        let bytes = self.frames[at].bytes();
        let (mut spare, mut out) = (vec![0; 300], vec![0; len]);
        let seen = self.frames[at].mbuf.view_at(offset, len, &mut spare);
        let expected = bytes.get(offset..).and_then(|bytes| bytes.get(..len));
        // Longer than `spare`: only if it is in one piece.
        assert!(seen == expected || len > 300 && seen.is_none(), "{offset} {len}");
        let from = bytes.get(offset..).unwrap_or_default();
        let count = self.frames[at].mbuf.copy_to(offset, &mut out);
        assert_eq!(out[..count], from[..len.min(from.len())]);
    }

    fn copy(&mut self, frame: usize, offset: usize, len: usize, pool: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let at = self.at(frame);
        let (bytes, port) = (self.frames[at].bytes(), self.frames[at].port);
        let result = self.frames[at].mbuf.copy(offset, len, &self.pools[pool]);
        let Some(expected) = bytes.get(offset..).and_then(|bytes| bytes.get(..len)) else {
            let error = MbufError::Range { offset, len, len_bytes: bytes.len() };
            assert_eq!(result.unwrap_err(), error);
            return;
        };
        let wanted = len.div_ceil(self.room(pool)).max(1);
        let available = self.available(pool);
        match result {
            Ok(copy) => {
                assert!(wanted <= available);
                let segments = self.copies(expected, pool);
                self.push(copy, segments, port);
            }
            Err(error) => {
                assert!(wanted > available);
                assert_eq!(error, MbufError::PoolEmpty { wanted, available });
            }
        }
    }

    /// What copies of `data` in mbufs of `pool` are.
    fn copies(&mut self, data: &[u8], pool: usize) -> Vec<Segment> {
        let room = self.room(pool);
        let parts: Vec<_> = data.chunks(room).map(<[u8]>::to_vec).collect();
        let parts = if parts.is_empty() { vec![Vec::new()] } else { parts };
        parts.into_iter().map(|part| self.segment(pool, part)).collect()
    }

    fn share(&mut self, frame: usize, pool: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let at = self.at(frame);
        let (wanted, available) = (self.frames[at].segments.len(), self.available(pool));
        match self.frames[at].mbuf.share(&self.pools[pool]) {
            Ok(clone) => {
                assert!(wanted <= available);
                let mut segments = self.frames[at].segments.clone();
                for segment in &mut segments {
                    segment.header = self.segment(pool, Vec::new()).header;
                }
                let port = self.frames[at].port;
                self.push(clone, segments, port);
            }
            Err(error) => {
                assert!(wanted > available);
                assert_eq!(error, MbufError::PoolEmpty { wanted, available });
            }
        }
    }

    fn make_writable(&mut self, frame: usize, pool: usize) {
        let at = self.at(frame);
        let room = self.room(pool);
        let segments = &self.frames[at].segments;
        let writable: Vec<_> = segments.iter().map(|segment| self.writable(segment)).collect();
        let pieces = |segment: &Segment| segment.data.len().div_ceil(room).max(1);
        let wanted: usize = segments
            .iter()
            .zip(&writable)
            .filter(|(_, writable)| !**writable)
            .map(|(segment, _)| pieces(segment))
            .sum();
        let fits = wanted <= self.available(pool);
        let result = self.frames[at].mbuf.make_writable(&self.pools[pool]);
        assert_eq!(result.is_ok(), fits, "{result:?}");
        if fits {
            let old = std::mem::take(&mut self.frames[at].segments);
            let mut new = Vec::new();
            for (segment, writable) in old.into_iter().zip(writable) {
                if writable {
                    new.push(segment);
                } else {
                    new.extend(self.copies(&segment.data, pool));
                }
            }
            self.frames[at].segments = new;
            assert!(self.frames[at].mbuf.is_writable());
        }
        self.check(at);
    }

    fn detach(&mut self, frame: usize) {
        let at = self.at(frame);
        let borrowed = match self.frames[at].segments.as_slice() {
            [only] => only.buffer != Buffer::Of(only.header),
            _ => false,
        };
        assert_eq!(self.frames[at].mbuf.detach(), borrowed);
        if borrowed {
            let room = self.room(self.frames[at].segments[0].header.pool);
            let segment = &mut self.frames[at].segments[0];
            segment.buffer = Buffer::Of(segment.header);
            (segment.headroom, segment.tailroom) = (HEADROOM, room);
            segment.data.clear();
        }
        self.check(at);
    }

    fn write(&mut self, frame: usize) {
        let at = self.at(frame);
        let segments = &self.frames[at].segments;
        let first = self.writable(&segments[0]);
        let all = segments.iter().all(|segment| self.writable(segment));
        let mut bytes = vec![0; self.frames[at].bytes().len()];
        self.fill(&mut bytes);
        let Frame { mbuf, segments, .. } = &mut self.frames[at];
        assert_eq!(mbuf.data_mut().is_some(), first);
        let parts: Option<SegmentsMut<'_>> = mbuf.segments_mut();
        assert_eq!(parts.is_some(), all);
        let mut rest = &bytes[..];
        for (part, segment) in parts.into_iter().flatten().zip(segments) {
            let (these, others) = rest.split_at(part.len());
            part.copy_from_slice(these);
            segment.data.copy_from_slice(these);
            rest = others;
        }
        self.check(at);
    }

    fn lend_and_back(&mut self, frame: usize) {
        let at = self.at(frame);
        let Frame { mbuf, segments, port } = self.frames.swap_remove(at);
        let addresses: Vec<_> =
            mbuf.segments().map(|data| (data.as_ptr().addr() as u64, data.len())).collect();
        let lent = mbuf.lend();
        assert_eq!(lent.segment_count(), segments.len());
        let told: Vec<_> = lent.segments().map(|(iova, len)| (iova.0, usize::from(len))).collect();
        assert_eq!(told, addresses, "IOVA mode va");
        self.push(lent.take_back(), segments, port);
    }

    fn new_external(&mut self) {
        if self.externals.len() == MOST_EXTERNALS {
            return;
        }
        let request = Request::new(1);
        let Ok(mut bytes) = HeapSlice::zeroed(&self.heap, request, EXTERNAL_BYTES) else { return };
        bytes.fill(self.external_numbers as u8);
        let freed = Arc::clone(&self.freed_externals);
        let buffer = ExternalBuffer::with_callback(bytes, move |bytes: HeapSlice<u8>| {
            assert_eq!(bytes.len(), EXTERNAL_BYTES);
            freed.fetch_add(1, Ordering::Relaxed);
        });
        self.externals.push((buffer.unwrap(), self.external_numbers));
        self.external_numbers += 1;
    }

    fn attach(&mut self, other: usize, pool: usize, start: usize, len: usize) {
        if self.externals.is_empty() || self.frames.len() == MOST_FRAMES {
            return;
        }
        let at = other % self.externals.len();
        let (buffer, number) = &self.externals[at];
        let number = *number;
        let end = start.saturating_add(len);
        let result = buffer.attach(&self.pools[pool], start..end);
        if end > EXTERNAL_BYTES {
            assert!(matches!(result, Err(MbufError::Range { .. })), "{result:?}");
            return;
        }
        assert_eq!(result.is_ok(), self.available(pool) > 0, "{result:?}");
        let Ok(mbuf) = result else { return };
        let mut segment = self.segment(pool, Vec::new());
        segment.buffer = Buffer::External(number);
        (segment.headroom, segment.tailroom) = (0, 0);
        // Others may have written there since it was new.
        segment.data = mbuf.data().to_vec();
        assert_eq!(segment.data.len(), len);
        self.push(mbuf, vec![segment], u16::MAX);
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
