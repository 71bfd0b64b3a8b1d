//! Steps on a frame's own bytes and segments.

use super::super::{MbufError, SegmentsMut};
use super::{Frame, HEADROOM, Model};

impl Model {
    pub(super) fn prepend(&mut self, frame: usize, len: usize) {
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

    pub(super) fn append(&mut self, frame: usize, len: usize) {
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

    pub(super) fn adj(&mut self, frame: usize, wanted: usize) {
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

    pub(super) fn trim(&mut self, frame: usize, wanted: usize) {
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

    pub(super) fn chain(&mut self, frame: usize, other: usize) {
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

    pub(super) fn linearise(&mut self, frame: usize) {
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

    pub(super) fn view_at(&mut self, frame: usize, offset: usize, len: usize) {
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

    pub(super) fn write(&mut self, frame: usize) {
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

    pub(super) fn lend_and_back(&mut self, frame: usize) {
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
}
