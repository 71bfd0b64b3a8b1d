//! Steps that share buffers, copy out of them, or borrow memory from elsewhere.

use super::super::{ExternalBuffer, HeapSlice, MbufError, Request};
use super::{Buffer, EXTERNAL_BYTES, HEADROOM, MOST_EXTERNALS, MOST_FRAMES, Model, Segment};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Model {
    pub(super) fn split_off(&mut self, frame: usize, offset: usize, pool: usize) {
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

    pub(super) fn copy(&mut self, frame: usize, offset: usize, len: usize, pool: usize) {
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

    pub(super) fn share(&mut self, frame: usize, pool: usize) {
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

    pub(super) fn make_writable(&mut self, frame: usize, pool: usize) {
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
        let available = self.available(pool);
        let result = self.frames[at].mbuf.make_writable(&self.pools[pool]);
        if wanted > available {
            assert_eq!(result, Err(MbufError::PoolEmpty { wanted, available }));
        } else {
            assert_eq!(result, Ok(()));
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

    pub(super) fn detach(&mut self, frame: usize) {
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

    pub(super) fn new_external(&mut self) {
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

    pub(super) fn attach(&mut self, other: usize, pool: usize, start: usize, len: usize) {
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
}
