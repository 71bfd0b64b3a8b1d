//! Chains: a frame in several buffers.
#![expect(unsafe_code, reason = "follows and changes the links between segments that an Mbuf owns")]

use std::marker::PhantomData;

use super::frame::{Mbuf, MbufError, segment_data};
use super::header::Header;

/// The most segments that one frame can have.
pub const MAX_SEGMENTS: usize = 256;

impl Mbuf {
    /// Segments in the chain; 1 for most frames.
    #[inline(always)]
    #[must_use]
    pub fn segment_count(&self) -> usize {
        usize::from(self.header().segments)
    }

    /// The data, segment by segment.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: self.header(), frame: PhantomData }
    }

    /// Hangs `tail` behind this frame.
    ///
    /// # Errors
    /// If the chain would become too long; `tail` comes back unchanged.
    pub fn chain(&mut self, tail: Mbuf) -> Result<(), (MbufError, Mbuf)> {
        let segments = self.segment_count() + tail.segment_count();
        let len_bytes = self.len_bytes() + tail.len_bytes();
        let total = u32::try_from(len_bytes).ok().filter(|_| segments <= MAX_SEGMENTS);
        let Some(total) = total else {
            return Err((MbufError::ChainTooLong { segments, len_bytes }, tail));
        };
        let last = self.last();
        let mut tail = tail.into_header();
        // SAFETY: the last segment is ours, and so is the tail's first one now; a segment count of
        // at most MAX_SEGMENTS fits.
        unsafe {
            (*last).next = tail.as_ptr();
            tail.as_mut().segments = 1; // only a first segment counts
        }
        let header = self.header_mut();
        header.segments = segments as u16;
        header.packet_len = total;
        Ok(())
    }

    /// Copies the frame's bytes from `offset` on into `out`; returns how many there were.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for segment in self.segments() {
            let from = skip.min(segment.len());
            skip -= from;
            let part = &segment[from..];
            let count = part.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&part[..count]);
            done += count;
        }
        done
    }
}

/// Iterates over a frame's segments.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    next: *const Header,
    frame: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the frame is borrowed for 'a, and its segments with it.
        unsafe {
            let segment = self.next;
            self.next = (*segment).next;
            Some(segment_data(segment))
        }
    }
}
