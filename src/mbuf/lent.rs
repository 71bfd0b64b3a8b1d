//! Frames that a device has, to send them. Buffers that it has for receiving: [`super::LentRoom`].
#![expect(unsafe_code, reason = "walks the chain of a frame without making references to its data")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::frame::Mbuf;
use super::header::Header;
use crate::memory::Iova;

/// Proof that a device does no DMA: what was lent to it may be taken back.
///
/// Only the reset of a device makes one ([`crate::bus::Device::reset`]).
#[derive(Debug)]
pub struct Quiesced(());

impl Quiesced {
    /// The word of a device's implementation that its device is reset: no DMA is under way, and
    /// none starts until bus mastering is set again. Code other than such an implementation has
    /// no business calling it.
    #[must_use]
    pub fn after_reset() -> Self {
        Self(())
    }
}

/// A frame lent to a device: there are addresses to tell the device, and no way to the data until
/// the driver takes it back.
///
/// Taking it back says that the device is done with it: it completed the descriptor, or was reset.
/// The compiler can't check that; what it does check is that nobody reads or writes a frame that
/// wasn't taken back. One that is dropped instead is *leaked*, as the device may still write to
/// it: its pool counts it, and never hands it out again.
#[derive(Debug)]
#[repr(transparent)]
pub struct Lent(NonNull<Header>);

// SAFETY: as for Mbuf: whoever has it has the header to itself.
unsafe impl Send for Lent {}

impl Mbuf {
    /// Gives the frame to a device.
    #[inline(always)]
    #[must_use = "a frame that was lent and not kept is lost"]
    pub fn lend(self) -> Lent {
        Lent(self.into_header())
    }
}

impl Lent {
    #[inline(always)]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the header is this frame's alone; devices get the buffer's address, not its.
        unsafe { self.0.as_ref() }
    }

    /// Where a single-segment frame's data stands, for sending, and how long it is.
    #[inline(always)]
    #[must_use]
    pub fn data_iova(&self) -> (Iova, u16) {
        let header = self.header();
        (Iova(header.place.buf_iova + u64::from(header.place.data_off)), header.meta.data_len)
    }

    /// Segments in the chain.
    #[inline(always)]
    #[must_use]
    pub fn segment_count(&self) -> usize {
        usize::from(self.header().owners.segments())
    }

    /// Bytes of data in the whole chain.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.header().meta.packet_len as usize
    }

    /// Where each segment's data stands, for sending.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> LentSegments<'_> {
        LentSegments { next: self.0.as_ptr(), frame: PhantomData }
    }

    /// The device is done with a frame that it sent: it comes back as it was.
    #[inline(always)]
    #[must_use]
    pub fn take_back(self) -> Mbuf {
        let header = self.0;
        std::mem::forget(self);
        Mbuf::from_header(header)
    }

    /// The device was reset: whatever it had comes back, with undefined data.
    #[inline]
    #[must_use]
    pub fn reclaim(self, _reset: &Quiesced) -> Mbuf {
        self.take_back()
    }
}

impl Lent {
    /// Whether it is one segment, with a buffer of its own that nobody shares.
    #[inline(always)]
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.header().owners.is_single()
    }

    /// The device is done with `count` frames that stand side by side: they go back to their pools,
    /// those of one pool in one go.
    ///
    /// # Safety
    /// `frames` points to `count` frames that the caller gives up.
    #[inline(always)]
    pub(crate) unsafe fn free_bulk(frames: *mut Self, count: usize) {
        // SAFETY: a Lent is its header's address, as an Mbuf is; the rest is the caller's promise.
        unsafe { Mbuf::free_bulk(frames.cast::<Mbuf>(), count) };
    }
}

impl Drop for Lent {
    #[cold]
    fn drop(&mut self) {
        let header = self.header();
        // SAFETY: a pool's memory outlives every mbuf of it, leaked ones for ever.
        let leaked = unsafe { &(*header.meta.pool).leaked };
        leaked.fetch_add(u64::from(header.owners.segments()), Ordering::Relaxed);
    }
}

/// Iterates over the addresses of a lent frame's segments.
#[derive(Debug)]
pub struct LentSegments<'a> {
    next: *const Header,
    frame: PhantomData<&'a Lent>,
}

impl Iterator for LentSegments<'_> {
    type Item = (Iova, u16);

    #[inline]
    fn next(&mut self) -> Option<(Iova, u16)> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the frame is borrowed, and its segments' headers with it.
        let header = unsafe { &*self.next };
        self.next = header.meta.next;
        Some((Iova(header.place.buf_iova + u64::from(header.place.data_off)), header.meta.data_len))
    }
}
