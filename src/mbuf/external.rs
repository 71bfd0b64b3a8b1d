//! Frames over memory that is no pool's.
#![expect(unsafe_code, reason = "makes frames of memory by its address")]

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::frame::{Mbuf, MbufError};
use super::header::Kind;
use super::owners::Owners;
use super::pool::MbufPool;
use crate::memory::heap::HeapSlice;
use crate::memory::{Iova, Zone};

/// Memory that frames can be made of: DMA memory which its owner alone has.
///
/// # Safety
/// From when it is given to an [`ExternalBuffer`] until it is dropped, wherever it is moved, the
/// `len_bytes` bytes from `address` on are readable, writable, initialised, and used by nobody
/// else; if `iova` says something, devices see them there in one piece.
pub unsafe trait ExternalMemory: Send + 'static {
    /// Its first byte.
    fn address(&self) -> NonNull<u8>;
    /// How many there are.
    fn len_bytes(&self) -> usize;
    /// What devices call the first byte; `None` if they don't see the whole in one piece.
    fn iova(&self) -> Option<Iova>;
}

// SAFETY: a zone is the one owner of its bytes, which were zeroed; its pointer stays where it is.
unsafe impl ExternalMemory for Zone {
    fn address(&self) -> NonNull<u8> {
        self.as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes()
    }

    fn iova(&self) -> Option<Iova> {
        match self.iova_runs().as_slice() {
            [run] => Some(run.iova),
            _ => None,
        }
    }
}

// SAFETY: a heap's slice owns its bytes, which stay where they are when it moves; an allocation is
// contiguous for devices.
unsafe impl ExternalMemory for HeapSlice<u8> {
    fn address(&self) -> NonNull<u8> {
        NonNull::from(&**self).cast()
    }

    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn iova(&self) -> Option<Iova> {
        Some(HeapSlice::iova(self))
    }
}

/// What the headers of frames over external memory point to.
pub(super) struct Owner {
    address: NonNull<u8>,
    iova: Iova,
    len_bytes: usize,
    /// Drops the memory, or hands it on.
    free: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: it holds addresses, and a closure that is Send and touched by whoever drops it alone.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            free();
        }
    }
}

/// Memory that isn't a pool's, for frames to be made of without a copy: this handle and all frames
/// over it, and their clones, are its owners, and the last one to go gives it back, on whatever
/// thread that is.
///
/// ```
/// # use packetboat::memory::{Memory, MemoryConfig, ZoneRequest};
/// # use packetboat::mbuf::{ExternalBuffer, MbufPool, MbufPoolConfig};
/// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// # let pool = MbufPool::new(&memory, &MbufPoolConfig::new("headers", 8))?;
/// let zone = memory.zone(&ZoneRequest::new("pictures", 4096).iova_contiguous())?;
/// let buffer = ExternalBuffer::new(zone)?;
/// let frame = buffer.attach(&pool, 0..1500)?;
/// drop(buffer); // the frame has the zone now
/// assert_eq!(frame.data().len(), 1500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ExternalBuffer(Arc<Owner>);

/// Memory that no device could send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{len_bytes} bytes of external memory aren't contiguous for devices; ask for a zone with \
     iova_contiguous, or take them from a heap"
)]
pub struct NotContiguous {
    /// How long it is.
    pub len_bytes: usize,
}

impl ExternalBuffer {
    /// Takes memory over; it is dropped when its last owner goes.
    ///
    /// # Errors
    /// If devices don't see it in one piece. It is dropped then.
    pub fn new<M: ExternalMemory>(memory: M) -> Result<Self, NotContiguous> {
        Self::with_callback(memory, drop)
    }

    /// Takes memory over; when its last owner goes, it is given to `free`, on the thread where that
    /// happens.
    ///
    /// # Errors
    /// If devices don't see it in one piece. It is given to `free` then.
    pub fn with_callback<M: ExternalMemory>(
        memory: M,
        free: impl FnOnce(M) + Send + 'static,
    ) -> Result<Self, NotContiguous> {
        let (address, len_bytes) = (memory.address(), memory.len_bytes());
        let Some(iova) = memory.iova() else {
            free(memory);
            return Err(NotContiguous { len_bytes });
        };
        let free: Box<dyn FnOnce() + Send> = Box::new(move || free(memory));
        Ok(Self(Arc::new(Owner { address, iova, len_bytes, free: Some(free) })))
    }

    /// Bytes that there are.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }

    /// A frame whose data is `range` of the memory, with a header from `pool`. It has neither
    /// headroom nor tailroom; cut some of the data off for that. It can be written to while there
    /// is no other owner: no other frame, and no handle.
    ///
    /// # Errors
    /// If the range isn't in the memory or longer than a segment can be (65,535 bytes), or the
    /// pool is empty.
    pub fn attach(&self, pool: &MbufPool, range: Range<usize>) -> Result<Mbuf, MbufError> {
        let Range { start, end } = range;
        let inside = start <= end && end <= self.0.len_bytes;
        let len = u16::try_from(end.wrapping_sub(start)).ok().filter(|_| inside).ok_or(
            MbufError::Range {
                offset: start,
                len: end.saturating_sub(start),
                len_bytes: self.0.len_bytes.min(u16::MAX.into()),
            },
        )?;
        let mut mbuf = pool.alloc().ok_or(MbufError::PoolEmpty { wanted: 1, available: 0 })?;
        let source = Arc::into_raw(Arc::clone(&self.0));
        // SAFETY: the range is inside the memory, as was just found.
        mbuf.place_mut().buf = unsafe { self.0.address.add(start).as_ptr() };
        mbuf.place_mut().buf_iova = self.0.iova.0 + start as u64;
        mbuf.place_mut().data_off = 0;
        // SAFETY: the header is the new mbuf's alone.
        unsafe { (&raw mut (*mbuf.as_header().as_ptr()).owners).write(Owners::borrowed(1)) };
        let meta = mbuf.meta_mut();
        (meta.buf_len, meta.data_len, meta.packet_len) = (len, len, len.into());
        (meta.kind, meta.source) = (Kind::External, source.cast_mut().cast());
        Ok(mbuf)
    }
}

impl fmt::Debug for ExternalBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalBuffer")
            .field("len_bytes", &self.0.len_bytes)
            .field("owners", &Arc::strong_count(&self.0))
            .finish()
    }
}
