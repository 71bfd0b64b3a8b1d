//! Chains: a frame in several buffers.
#![expect(unsafe_code, reason = "follows and changes the links between segments that an Mbuf owns")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::builder::ChainBuilder;
use super::frame::{Mbuf, MbufError, segment_data};
use super::header::Header;
use super::pool::MbufPool;

/// The most segments that one frame can have.
pub const MAX_SEGMENTS: usize = 256;

impl Mbuf {
    /// Segments in the chain; 1 for most frames.
    #[inline(always)]
    #[must_use]
    pub fn segment_count(&self) -> usize {
        usize::from(self.header().owners.segments())
    }

    /// The data, segment by segment.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: self.header(), frame: PhantomData }
    }

    /// The data, segment by segment, to be changed; `None` if others share any of it.
    #[inline]
    pub fn segments_mut(&mut self) -> Option<SegmentsMut<'_>> {
        let next = self.as_header().as_ptr();
        self.is_writable().then_some(SegmentsMut { next, frame: PhantomData })
    }

    /// The headers of all segments.
    pub(super) fn headers(&self) -> impl Iterator<Item = *const Header> {
        let mut next: *const Header = self.header();
        std::iter::from_fn(move || {
            let header = next;
            // SAFETY: the frame's segments are valid as long as it is; the last `next` is null.
            next = unsafe { header.as_ref()? }.meta.next;
            Some(header)
        })
    }

    /// Hangs `tail` behind this frame. To add many, one after the other, use a [`ChainBuilder`].
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
        let tail = tail.into_header();
        // SAFETY: the last segment is ours, and so is the tail's first one now.
        unsafe {
            (*last).meta.next = tail.as_ptr();
            (*tail.as_ptr()).owners.set_segments(1); // only a first segment counts
        }
        self.header().owners.set_segments(segments as u16); // at most MAX_SEGMENTS, which fit
        self.meta_mut().packet_len = total;
        Ok(())
    }

    /// Cuts the frame in two: it keeps the first `offset` bytes, and the rest comes back, as a
    /// frame of the same port.
    ///
    /// Nothing is copied. Where the cut goes through a segment, its buffer is both frames' from
    /// then on ([`Self::share`]), so that neither can change what is in it; the header for the
    /// second part comes from `pool`.
    ///
    /// # Errors
    /// If the frame is shorter than `offset`, or there is no mbuf for the second part; the frame
    /// is whole then.
    pub fn split_off(&mut self, offset: usize, pool: &MbufPool) -> Result<Self, MbufError> {
        let len_bytes = self.len_bytes();
        if offset > len_bytes {
            return Err(MbufError::Range { offset, len: 0, len_bytes });
        }
        // The segment in which the cut is, and how much of it stays.
        let (mut at, mut keep, mut before) = (self.as_header().as_ptr(), offset, 1);
        // SAFETY: segments of this frame; `offset` isn't beyond the last one.
        unsafe {
            while keep > usize::from((*at).meta.data_len) && !(*at).meta.next.is_null() {
                keep -= usize::from((*at).meta.data_len);
                at = (*at).meta.next;
                before += 1;
            }
        }
        // SAFETY: as above.
        let cut = usize::from(unsafe { (*at).meta.data_len }) - keep;
        let segments = self.segment_count();
        let mut rest = ChainBuilder::new();
        // SAFETY: as above; whatever can fail does before anything is changed.
        let behind = unsafe {
            let next = NonNull::new((*at).meta.next);
            if cut > 0 || next.is_none() {
                let mut part =
                    pool.alloc().ok_or(MbufError::PoolEmpty { wanted: 1, available: 0 })?;
                if cut > 0 {
                    part = part.over(at)?;
                    part.adj(keep)?;
                }
                rest.push(part).map_err(|(error, _)| error)?;
            }
            (*at).meta.data_len = keep as u16;
            (*at).meta.next = std::ptr::null_mut();
            next
        };
        if let Some(first) = behind {
            // SAFETY: what hung behind the cut is nobody's just now: a chain of these segments.
            let behind = unsafe {
                (*first.as_ptr()).owners.set_segments((segments - before) as u16);
                (*first.as_ptr()).meta.packet_len = (len_bytes - offset - cut) as u32;
                Self::from_header(first)
            };
            // One segment more than there were, at most: the part that stays isn't in here.
            let _ = rest.push(behind);
        }
        self.header().owners.set_segments(before as u16);
        self.meta_mut().packet_len = offset as u32;
        let mut rest = rest.finish().ok_or(MbufError::PoolEmpty { wanted: 1, available: 0 })?;
        rest.set_port(self.port());
        Ok(rest)
    }

    /// Brings all data into the first segment, and frees the others. DPDK's
    /// `rte_pktmbuf_linearize`.
    ///
    /// # Errors
    /// If its tailroom is too short, or others share it; the frame is as it was.
    pub fn linearise(&mut self) -> Result<(), MbufError> {
        if self.segment_count() == 1 {
            return Ok(());
        }
        let wanted = self.len_bytes() - self.data().len();
        let first = self.as_header().as_ptr();
        // SAFETY: the first segment is this frame's.
        let room = unsafe { super::frame::tailroom(first) };
        if wanted > room {
            return Err(MbufError::Tailroom { wanted, room });
        }
        // SAFETY: as above.
        if !unsafe { super::share::is_writable(first) } {
            return Err(MbufError::Shared);
        }
        // SAFETY: the bytes behind the data are the buffer's, which is nobody else's; the other
        // segments' buffers are others, or it would be shared.
        unsafe {
            let start = (*first).place.buf.add(usize::from((*first).place.data_off));
            let mut end = start.add(usize::from((*first).meta.data_len));
            for segment in self.segments().skip(1) {
                end.copy_from_nonoverlapping(segment.as_ptr(), segment.len());
                end = end.add(segment.len());
            }
        }
        let rest = self.unhang();
        self.meta_mut().data_len += wanted as u16;
        self.meta_mut().packet_len = u32::from(self.meta().data_len);
        drop(rest);
        Ok(())
    }

    /// Takes what hangs behind the first segment off it; lengths of the whole aren't kept up.
    fn unhang(&mut self) -> Option<Self> {
        let behind =
            NonNull::new(std::mem::replace(&mut self.meta_mut().next, std::ptr::null_mut()))?;
        let segments = self.segment_count();
        self.header().owners.set_segments(1);
        let len = self.meta().packet_len - u32::from(self.meta().data_len);
        // SAFETY: the chain behind is nobody else's.
        unsafe {
            (*behind.as_ptr()).owners.set_segments((segments - 1) as u16);
            (*behind.as_ptr()).meta.packet_len = len;
        }
        Some(Self::from_header(behind))
    }

    /// Each segment as a frame of its own.
    pub(super) fn into_segments(self) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let mut first = rest.take()?;
            rest = first.unhang();
            let len = first.meta().data_len;
            first.meta_mut().packet_len = len.into();
            Some(first)
        })
    }

    /// `len` bytes from `offset` on: in place if they stand in one segment, otherwise copied into
    /// `spare`, which must have room for them then. `None` if there are fewer, or `spare` is too
    /// short. DPDK's `rte_pktmbuf_read`.
    #[inline]
    #[must_use]
    pub fn view_at<'a>(
        &'a self,
        offset: usize,
        len: usize,
        spare: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        match self.data().get(offset..).and_then(|data| data.get(..len)) {
            Some(data) => Some(data),
            None => self.view_behind(offset, len, spare),
        }
    }

    #[cold]
    fn view_behind<'a>(
        &'a self,
        offset: usize,
        len: usize,
        spare: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let end = offset.checked_add(len)?;
        if end > self.len_bytes() {
            return None;
        }
        let mut skip = offset;
        for segment in self.segments() {
            match segment.get(skip..) {
                Some(data) if len <= data.len() => return data.get(..len),
                Some([_, ..]) => break, // begins here, and ends in another
                _ => skip -= segment.len(),
            }
        }
        let spare = spare.get_mut(..len)?;
        (self.copy_to(offset, spare) == len).then_some(spare)
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

    /// A frame of its own with a copy of `len` bytes from `offset` on, in as many mbufs of `pool`
    /// as it takes, each as full as it gets; what is noted of the frame is copied, too. DPDK's
    /// `rte_pktmbuf_copy`.
    ///
    /// # Errors
    /// If there are fewer bytes, or the pool hasn't enough mbufs.
    pub fn copy(&self, offset: usize, len: usize, pool: &MbufPool) -> Result<Self, MbufError> {
        let len_bytes = self.len_bytes();
        if offset.checked_add(len).is_none_or(|end| end > len_bytes) {
            return Err(MbufError::Range { offset, len, len_bytes });
        }
        let mut chain = ChainBuilder::new();
        let (mut at, end) = (offset, offset + len);
        loop {
            let count = (end - at).min(pool.room_len_bytes().into());
            let mut mbuf = pool.alloc().ok_or_else(|| MbufError::PoolEmpty {
                wanted: len.div_ceil(pool.room_len_bytes().into()).max(1),
                available: chain.segment_count() + pool.objects().available(),
            })?;
            self.copy_to(at, mbuf.append(count)?);
            if chain.is_empty() {
                mbuf = mbuf.with_notes_of(self);
            }
            chain.push(mbuf).map_err(|(error, _)| error)?;
            at += count;
            if at == end {
                break;
            }
        }
        chain.finish().ok_or(MbufError::PoolEmpty { wanted: 1, available: 0 })
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
            self.next = (*segment).meta.next;
            Some(segment_data(segment))
        }
    }
}

/// Iterates over the segments of a frame that nobody shares.
#[derive(Debug)]
pub struct SegmentsMut<'a> {
    next: *mut Header,
    frame: PhantomData<&'a mut Mbuf>,
}

impl<'a> Iterator for SegmentsMut<'a> {
    type Item = &'a mut [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a mut [u8]> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the frame is borrowed mutably for 'a, and its segments with it, whose buffers
        // nobody else has; each is visited once.
        unsafe {
            let segment = self.next;
            self.next = (*segment).meta.next;
            let start = (*segment).place.buf.add(usize::from((*segment).place.data_off));
            Some(std::slice::from_raw_parts_mut(start, usize::from((*segment).meta.data_len)))
        }
    }
}
