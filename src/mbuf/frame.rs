//! A frame: its data, its room, its way back to the pool.
#![expect(unsafe_code, reason = "reads and writes the header and buffer that an Mbuf owns")]

use std::fmt;
use std::ptr::NonNull;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADROOM_BYTES, Header, Meta, Place};
use super::offload::RxInfo;
use super::share::is_writable;
use crate::mempool::Object;

/// What an mbuf can't do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MbufError {
    /// More bytes in front than the headroom has.
    #[error("{wanted} bytes don't fit in front of the data: the headroom has {room}")]
    Headroom {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes there are.
        room: usize,
    },
    /// More bytes behind than the last segment's tailroom has.
    #[error("{wanted} bytes don't fit behind the data: the last segment's tailroom has {room}")]
    Tailroom {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes there are.
        room: usize,
    },
    /// The data is shared with other frames, so nobody may change it.
    #[error("the data is shared with other frames; make_writable gives the frame its own copy")]
    Shared,
    /// A buffer has as many owners as can be counted.
    #[error("a buffer can't have more than {} owners", u16::MAX)]
    TooManyOwners,
    /// A pool that should have given mbufs for this hasn't as many.
    #[error("{wanted} mbufs are needed, and the pool has {available}")]
    PoolEmpty {
        /// Mbufs that it takes.
        wanted: usize,
        /// Mbufs there are.
        available: usize,
    },
    /// A range that isn't inside the frame, or the memory.
    #[error("{len} bytes from {offset} on are asked for, and there are {len_bytes}")]
    Range {
        /// Where it begins.
        offset: usize,
        /// How long it is.
        len: usize,
        /// Bytes there are.
        len_bytes: usize,
    },
    /// More bytes to be cut off than the segment holds.
    #[error("{wanted} bytes can't be cut off: the segment holds {len}")]
    TooShort {
        /// Bytes to be cut off.
        wanted: usize,
        /// Bytes there are.
        len: usize,
    },
    /// A chain of more segments, or more bytes, than its header can count.
    #[error("a chain of {segments} segments and {len_bytes} bytes is more than an mbuf can be")]
    ChainTooLong {
        /// Segments that the chain would have.
        segments: usize,
        /// Bytes that it would have.
        len_bytes: usize,
    },
}

/// The one owner of a frame: a buffer with its metadata, or a chain of them.
///
/// Dropped, it goes back to its pool: into the cache of the lcore that drops it.
#[repr(transparent)]
pub struct Mbuf(NonNull<Header>);

// SAFETY: an Mbuf owns its header and buffer; nobody else reads or writes them, so they may change
// threads with it. The pool it points to is Sync.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Makes an object that was just taken from its pool an empty mbuf.
    ///
    /// # Safety
    /// The object is the header of an mbuf pool's object, and the caller's alone.
    #[inline(always)]
    pub(super) unsafe fn from_pool(object: Object) -> Self {
        let header = object.0.cast::<Header>();
        // SAFETY: the caller's promise. What else an mbuf needs is as it was in the pool.
        unsafe { Header::receive(header.as_ptr(), HEADROOM_BYTES, 0, u16::MAX, RxInfo::NONE) };
        Self(header)
    }

    #[inline(always)]
    pub(super) fn from_header(header: NonNull<Header>) -> Self {
        Self(header)
    }

    /// Gives the header up without freeing it.
    #[inline(always)]
    pub(super) fn into_header(self) -> NonNull<Header> {
        let header = self.0;
        std::mem::forget(self);
        header
    }

    #[inline(always)]
    pub(super) fn as_header(&self) -> NonNull<Header> {
        self.0
    }

    #[inline(always)]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: an Mbuf's header is valid and its own for as long as it lives; what others may
        // change of it meanwhile is atomic.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(super) fn meta(&self) -> &Meta {
        &self.header().meta
    }

    #[inline(always)]
    pub(super) fn meta_mut(&mut self) -> &mut Meta {
        // SAFETY: as above, and `&mut self` makes it the only reference to this part, which other
        // owners of the buffer don't look at.
        unsafe { &mut (*self.0.as_ptr()).meta }
    }

    #[inline(always)]
    pub(super) fn place_mut(&mut self) -> &mut Place {
        // SAFETY: as for `meta_mut`.
        unsafe { &mut (*self.0.as_ptr()).place }
    }

    /// Whether it is one segment, whose data is its own and nobody else's.
    #[inline(always)]
    pub(super) fn is_single(&self) -> bool {
        self.header().owners.is_single()
    }

    /// Bytes of data in the whole chain.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.meta().packet_len as usize
    }

    /// The first segment's data: all of it, unless the frame is a chain.
    #[inline(always)]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `data_off + data_len <= buf_len` always, and the buffer's bytes are initialised
        // (zeroed by the zone, written by the program or the device since).
        unsafe { segment_data(self.0.as_ptr()) }
    }

    /// The first segment's data, to be changed; `None` if others share it.
    #[inline(always)]
    pub fn data_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the header is this frame's; as for `data`, and there is nobody else who has the
        // buffer, and `&mut self` makes the slice the only way to it. A pool's buffers are memory that
        // it has, so none is at 0; unless told so, each caller compares the pointer with that `None`.
        unsafe {
            let header = self.0.as_ptr();
            is_writable(header).then(|| {
                let place = (*header).place;
                let len = usize::from((*header).meta.data_len);
                std::hint::assert_unchecked(!place.buf.is_null());
                std::slice::from_raw_parts_mut(place.buf.add(usize::from(place.data_off)), len)
            })
        }
    }

    /// The headers at the front of the data, to be changed in place: `None` if the first segment
    /// is shorter than they are, or others share it.
    #[inline(always)]
    pub fn view_mut<T>(&mut self) -> Option<&mut T>
    where
        T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
    {
        T::mut_from_prefix(self.data_mut()?).ok().map(|(view, _)| view)
    }

    /// The headers at the front of the data.
    #[inline(always)]
    #[must_use]
    pub fn view<T>(&self) -> Option<&T>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_prefix(self.data()).ok().map(|(view, _)| view)
    }

    /// The `count` bytes right in front of the data, where devices put their own headers; `None`
    /// if the headroom has fewer.
    #[inline(always)]
    #[must_use]
    pub fn prefix(&self, count: u16) -> Option<&[u8]> {
        let header = self.header();
        let start = header.place.data_off.checked_sub(count)?;
        // SAFETY: inside the headroom, which is part of the buffer; initialised as `data` is.
        Some(unsafe {
            std::slice::from_raw_parts(header.place.buf.add(usize::from(start)), usize::from(count))
        })
    }

    /// Free bytes in front of the data.
    #[inline(always)]
    #[must_use]
    pub fn headroom_bytes(&self) -> usize {
        usize::from(self.header().place.data_off)
    }

    /// Free bytes behind the data of the last segment.
    #[must_use]
    pub fn tailroom_bytes(&self) -> usize {
        // SAFETY: the last segment is this frame's.
        unsafe { tailroom(self.last()) }
    }

    /// The port it was received on; `u16::MAX` if on none.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.header().place.port
    }

    /// Notes the port it was received on.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.place_mut().port = port;
    }

    /// Makes room for `count` bytes in front and returns them; what they hold is undefined, not
    /// uninitialised.
    ///
    /// # Errors
    /// If the headroom has fewer, or others share the buffer.
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        let room = self.headroom_bytes();
        let len = u16::try_from(count)
            .ok()
            .filter(|_| count <= room)
            .ok_or(MbufError::Headroom { wanted: count, room })?;
        let total = self
            .meta()
            .packet_len
            .checked_add(u32::from(len))
            .ok_or(MbufError::Headroom { wanted: count, room })?;
        // SAFETY: the header is this frame's.
        if !unsafe { is_writable(self.0.as_ptr()) } {
            return Err(MbufError::Shared);
        }
        self.place_mut().data_off -= len;
        let meta = self.meta_mut();
        meta.data_len += len;
        meta.packet_len = total;
        // SAFETY: `data_off >= 0` still holds, so this is inside the buffer, which nobody else has.
        unsafe {
            let place = &self.header().place;
            let start = place.buf.add(usize::from(place.data_off));
            Ok(std::slice::from_raw_parts_mut(start, count))
        }
    }

    /// Makes room for `count` bytes behind the last segment's data and returns them; what they
    /// hold is undefined, not uninitialised.
    ///
    /// # Errors
    /// If the tailroom has fewer, or others share the last buffer.
    pub fn append(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        let last = self.last();
        // SAFETY: the last segment is this frame's.
        let room = unsafe { tailroom(last) };
        let len = u16::try_from(count)
            .ok()
            .filter(|_| count <= room)
            .ok_or(MbufError::Tailroom { wanted: count, room })?;
        let total = self
            .meta()
            .packet_len
            .checked_add(u32::from(len))
            .ok_or(MbufError::Tailroom { wanted: count, room })?;
        // SAFETY: the last segment is this frame's.
        if !unsafe { is_writable(last) } {
            return Err(MbufError::Shared);
        }
        self.meta_mut().packet_len = total;
        // SAFETY: the last segment is this frame's, and its buffer nobody else's; the tailroom was
        // checked, so `data_off + data_len <= buf_len` still holds.
        unsafe {
            let (place, meta) = (&(*last).place, &raw mut (*last).meta);
            let start = usize::from(place.data_off) + usize::from((*meta).data_len);
            (*meta).data_len += len;
            Ok(std::slice::from_raw_parts_mut(place.buf.add(start), count))
        }
    }

    /// Cuts `count` bytes off the front of the first segment. The data isn't touched, so others
    /// may share it.
    ///
    /// # Errors
    /// If the first segment holds fewer.
    pub fn adj(&mut self, count: usize) -> Result<(), MbufError> {
        let len = usize::from(self.meta().data_len);
        let cut = u16::try_from(count)
            .ok()
            .filter(|_| count <= len)
            .ok_or(MbufError::TooShort { wanted: count, len })?;
        self.place_mut().data_off += cut;
        let meta = self.meta_mut();
        meta.data_len -= cut;
        meta.packet_len -= u32::from(cut);
        Ok(())
    }

    /// Cuts `count` bytes off the end of the last segment. The data isn't touched, so others may
    /// share it.
    ///
    /// # Errors
    /// If the last segment holds fewer.
    pub fn trim(&mut self, count: usize) -> Result<(), MbufError> {
        // SAFETY: the last segment is this frame's; nobody else looks at this part of its header.
        let last = unsafe { &raw mut (*self.last()).meta };
        // SAFETY: as above.
        let len = usize::from(unsafe { (*last).data_len });
        let cut = u16::try_from(count)
            .ok()
            .filter(|_| count <= len)
            .ok_or(MbufError::TooShort { wanted: count, len })?;
        // SAFETY: as above.
        unsafe { (*last).data_len -= cut };
        self.meta_mut().packet_len -= u32::from(cut);
        Ok(())
    }

    /// The last segment's header.
    pub(super) fn last(&self) -> *mut Header {
        let mut at = self.0.as_ptr();
        // SAFETY: a chain's segments are valid, and the last one's `next` is null.
        unsafe {
            if (*at).owners.segments() > 1 {
                while !(*at).meta.next.is_null() {
                    at = (*at).meta.next;
                }
            }
        }
        at
    }
}

/// A segment's data.
///
/// # Safety
/// `header` is valid for `'a`, and nobody changes it or its buffer meanwhile.
#[inline(always)]
pub(super) unsafe fn segment_data<'a>(header: *const Header) -> &'a [u8] {
    // SAFETY: the caller's promise, and `data_off + data_len <= buf_len`.
    unsafe {
        let header = &*header;
        std::slice::from_raw_parts(
            header.place.buf.add(usize::from(header.place.data_off)),
            usize::from(header.meta.data_len),
        )
    }
}

/// Free bytes behind a segment's data.
///
/// # Safety
/// `header` is valid, and nobody changes it meanwhile.
#[inline(always)]
pub(super) unsafe fn tailroom(header: *const Header) -> usize {
    // SAFETY: the caller's promise.
    let header = unsafe { &*header };
    usize::from(header.meta.buf_len)
        - usize::from(header.place.data_off)
        - usize::from(header.meta.data_len)
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        f.debug_struct("Mbuf")
            .field("len_bytes", &header.meta.packet_len)
            .field("segments", &header.owners.segments())
            .field("port", &header.place.port)
            .field("headroom_bytes", &header.place.data_off)
            .finish()
    }
}
