//! A frame: its data, its room, its way back to the pool.
#![expect(unsafe_code, reason = "reads and writes the header and buffer that an Mbuf owns")]

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADROOM_BYTES, Header};
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
        let mut header = object.0.cast::<Header>();
        // SAFETY: the caller's promise. `refcnt`, `segments` and `next` have their values in the
        // pool; the rest of the RX line is reset.
        unsafe {
            let header = header.as_mut();
            header.data_off = HEADROOM_BYTES;
            header.port = u16::MAX;
            header.flags = 0;
            header.packet_type = 0;
            header.packet_len = 0;
            header.data_len = 0;
        }
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
    pub(super) fn header(&self) -> &Header {
        // SAFETY: an Mbuf's header is valid and its own for as long as it lives.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(super) fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as above, and `&mut self` makes it the only reference.
        unsafe { self.0.as_mut() }
    }

    /// Whether it is one segment, whose data is its own and nobody else's.
    #[inline(always)]
    pub(super) fn is_single(&self) -> bool {
        let header = self.header();
        header.segments == 1 && header.refcnt.load(Ordering::Acquire) == 1
    }

    /// Bytes of data in the whole chain.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.header().packet_len as usize
    }

    /// The first segment's data: all of it, unless the frame is a chain.
    #[inline(always)]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `data_off + data_len <= buf_len` always, and the buffer's bytes are initialised
        // (zeroed by the zone, written by the program or the device since).
        unsafe { segment_data(self.0.as_ptr()) }
    }

    /// The first segment's data, to be changed.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let header = self.header();
        let (start, len) = (usize::from(header.data_off), usize::from(header.data_len));
        // SAFETY: as for `data`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(header.buf.add(start), len) }
    }

    /// The headers at the front of the data, to be changed in place: `None` if the first segment
    /// is shorter than they are.
    #[inline(always)]
    pub fn view_mut<T>(&mut self) -> Option<&mut T>
    where
        T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
    {
        T::mut_from_prefix(self.data_mut()).ok().map(|(view, _)| view)
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
        let start = header.data_off.checked_sub(count)?;
        // SAFETY: inside the headroom, which is part of the buffer; initialised as `data` is.
        Some(unsafe {
            std::slice::from_raw_parts(header.buf.add(usize::from(start)), usize::from(count))
        })
    }

    /// Free bytes in front of the data.
    #[inline(always)]
    #[must_use]
    pub fn headroom_bytes(&self) -> usize {
        usize::from(self.header().data_off)
    }

    /// Free bytes behind the data of the last segment.
    #[must_use]
    pub fn tailroom_bytes(&self) -> usize {
        // SAFETY: the last segment is this frame's.
        let last = unsafe { &*self.last() };
        usize::from(last.buf_len) - usize::from(last.data_off) - usize::from(last.data_len)
    }

    /// The port it was received on; `u16::MAX` if on none.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.header().port
    }

    /// Notes the port it was received on.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.header_mut().port = port;
    }

    /// Makes room for `count` bytes in front and returns them; what they hold is undefined, not
    /// uninitialised.
    ///
    /// # Errors
    /// If the headroom has fewer.
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        let room = self.headroom_bytes();
        let len = u16::try_from(count)
            .ok()
            .filter(|_| count <= room)
            .ok_or(MbufError::Headroom { wanted: count, room })?;
        let header = self.header_mut();
        let total = header
            .packet_len
            .checked_add(u32::from(len))
            .ok_or(MbufError::Headroom { wanted: count, room })?;
        header.data_off -= len;
        header.data_len += len;
        header.packet_len = total;
        self.data_mut().get_mut(..count).ok_or(MbufError::Headroom { wanted: count, room })
    }

    /// Makes room for `count` bytes behind the last segment's data and returns them; what they
    /// hold is undefined, not uninitialised.
    ///
    /// # Errors
    /// If the tailroom has fewer.
    pub fn append(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        let room = self.tailroom_bytes();
        let len = u16::try_from(count)
            .ok()
            .filter(|_| count <= room)
            .ok_or(MbufError::Tailroom { wanted: count, room })?;
        let total = self
            .header()
            .packet_len
            .checked_add(u32::from(len))
            .ok_or(MbufError::Tailroom { wanted: count, room })?;
        self.header_mut().packet_len = total;
        // SAFETY: the last segment is this frame's; the tailroom was checked, so `data_off +
        // data_len <= buf_len` still holds.
        unsafe {
            let last = &mut *self.last();
            let start = usize::from(last.data_off) + usize::from(last.data_len);
            last.data_len += len;
            Ok(std::slice::from_raw_parts_mut(last.buf.add(start), count))
        }
    }

    /// Cuts `count` bytes off the front of the first segment.
    ///
    /// # Errors
    /// If the first segment holds fewer.
    pub fn adj(&mut self, count: usize) -> Result<(), MbufError> {
        let header = self.header_mut();
        let len = usize::from(header.data_len);
        let cut = u16::try_from(count)
            .ok()
            .filter(|_| count <= len)
            .ok_or(MbufError::TooShort { wanted: count, len })?;
        header.data_off += cut;
        header.data_len -= cut;
        header.packet_len -= u32::from(cut);
        Ok(())
    }

    /// Cuts `count` bytes off the end of the last segment.
    ///
    /// # Errors
    /// If the last segment holds fewer.
    pub fn trim(&mut self, count: usize) -> Result<(), MbufError> {
        // SAFETY: the last segment is this frame's.
        let last = unsafe { &mut *self.last() };
        let len = usize::from(last.data_len);
        let cut = u16::try_from(count)
            .ok()
            .filter(|_| count <= len)
            .ok_or(MbufError::TooShort { wanted: count, len })?;
        last.data_len -= cut;
        self.header_mut().packet_len -= u32::from(cut);
        Ok(())
    }

    /// Frees `count` frames that stand side by side, those of one pool in one go.
    ///
    /// # Safety
    /// `frames` points to `count` frames that the caller gives up.
    #[inline]
    pub(super) unsafe fn free_bulk(frames: *mut Self, count: usize) {
        let mut from = 0;
        while from < count {
            // SAFETY: `from < count`; headers of frames are valid.
            let (first, pool) = unsafe {
                let first = frames.add(from);
                (first, (*first).header().pool)
            };
            let mut to = from;
            while to < count {
                // SAFETY: as above.
                let header = unsafe { (*frames.add(to)).header() };
                // A chain isn't just put back, so it ends the run.
                if header.pool != pool || header.segments != 1 {
                    break;
                }
                to += 1;
            }
            if to == from {
                // SAFETY: a chain: dropped where it stands, once.
                unsafe { first.drop_in_place() };
                from += 1;
                continue;
            }
            // SAFETY: an Mbuf is its header's address, as an Object is; these are single segments
            // of one pool, given up by the caller, in the state that the pool wants them in.
            unsafe {
                let objects = std::slice::from_raw_parts(first.cast::<Object>(), to - from);
                (*pool).objects.put_bulk(objects);
            }
            from = to;
        }
    }

    /// Frees a chain segment by segment, in batches of one pool.
    #[cold]
    fn free_chain(&mut self) {
        const BATCH: usize = 32;
        let mut batch = [const { MaybeUninit::<Object>::uninit() }; BATCH];
        let mut filled = 0;
        let mut next = self.0.as_ptr();
        let mut pool = self.header().pool;
        // SAFETY: every segment of the chain is this frame's; each is reset to how its pool wants
        // it, and put back once. `filled` entries of the batch are initialised.
        unsafe {
            while let Some(mut header) = NonNull::new(next) {
                let segment = header.as_mut();
                next = segment.next;
                segment.next = std::ptr::null_mut();
                segment.segments = 1;
                if filled == BATCH || segment.pool != pool {
                    (*pool)
                        .objects
                        .put_bulk(std::slice::from_raw_parts(batch.as_ptr().cast(), filled));
                    filled = 0;
                    pool = segment.pool;
                }
                if let Some(slot) = batch.get_mut(filled) {
                    slot.write(Object(header.cast()));
                    filled += 1;
                }
            }
            (*pool).objects.put_bulk(std::slice::from_raw_parts(batch.as_ptr().cast(), filled));
        }
    }

    /// The last segment's header.
    pub(super) fn last(&self) -> *mut Header {
        let mut at = self.0.as_ptr();
        // SAFETY: a chain's segments are valid, and the last one's `next` is null.
        unsafe {
            if (*at).segments > 1 {
                while !(*at).next.is_null() {
                    at = (*at).next;
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
            header.buf.add(usize::from(header.data_off)),
            usize::from(header.data_len),
        )
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let header = self.header();
        debug_assert_eq!(header.refcnt.load(Ordering::Relaxed), 1);
        if header.segments > 1 {
            return self.free_chain();
        }
        // SAFETY: a single segment, ours, in the state its pool wants it in; the pool's memory
        // outlives every mbuf of it.
        unsafe { (*header.pool).objects.put_bulk(&[Object(self.0.cast())]) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        f.debug_struct("Mbuf")
            .field("len_bytes", &header.packet_len)
            .field("segments", &header.segments)
            .field("port", &header.port)
            .field("headroom_bytes", &header.data_off)
            .finish()
    }
}
