//! Chains that are built as their segments come in.
#![expect(unsafe_code, reason = "keeps the last segment of a chain at hand")]

use std::ptr::NonNull;

use super::chain::MAX_SEGMENTS;
use super::frame::{Mbuf, MbufError};
use super::header::Header;
use super::pool::MbufPool;

/// A frame that comes in several parts: it remembers where the last one ends, so that adding one
/// takes the same time however many there are. A receive queue keeps one for a frame whose
/// descriptors complete one by one.
///
/// ```
/// # use packetboat::memory::{Memory, MemoryConfig};
/// # use packetboat::mbuf::{ChainBuilder, MbufPool, MbufPoolConfig};
/// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// # let pool = MbufPool::new(&memory, &MbufPoolConfig::new("parts", 8))?;
/// let mut chain = ChainBuilder::new();
/// for part in [&b"a frame"[..], b" in ", b"parts"] {
///     let mut mbuf = pool.alloc().ok_or("none left")?;
///     mbuf.append(part.len())?.copy_from_slice(part);
///     chain.push(mbuf).map_err(|(error, _mbuf)| error)?;
/// }
/// let frame = chain.finish().ok_or("nothing came")?;
/// assert_eq!((frame.segment_count(), frame.len_bytes()), (3, 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct ChainBuilder {
    /// First and last segment. The first one's count and length aren't kept up to date.
    ends: Option<(NonNull<Header>, NonNull<Header>)>,
    segments: usize,
    len_bytes: u32,
}

// SAFETY: it owns its segments, as an Mbuf does.
unsafe impl Send for ChainBuilder {}

impl ChainBuilder {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { ends: None, segments: 0, len_bytes: 0 }
    }

    /// Whether nothing was added yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Segments so far.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments
    }

    /// Bytes so far.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes as usize
    }

    /// Adds a frame's segments at the end. What is noted of the whole frame (port, flags, type,
    /// hash, tags) is the first one's.
    ///
    /// # Errors
    /// If the chain would become too long; `mbuf` comes back unchanged.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), (MbufError, Mbuf)> {
        let segments = self.segments + mbuf.segment_count();
        let total = self.len_bytes.checked_add(mbuf.meta().packet_len);
        let Some(total) = total.filter(|_| segments <= MAX_SEGMENTS) else {
            let len_bytes = self.len_bytes() + mbuf.len_bytes();
            return Err((MbufError::ChainTooLong { segments, len_bytes }, mbuf));
        };
        // Never null.
        let last = NonNull::new(mbuf.last());
        let first = mbuf.into_header();
        let last = last.unwrap_or(first);
        match &mut self.ends {
            None => self.ends = Some((first, last)),
            Some((_, end)) => {
                // SAFETY: both are segments that this owns; only a first segment counts.
                unsafe {
                    (*end.as_ptr()).meta.next = first.as_ptr();
                    (*first.as_ptr()).owners.set_segments(1);
                }
                *end = last;
            }
        }
        (self.segments, self.len_bytes) = (segments, total);
        Ok(())
    }

    /// Adds a copy of `data` in mbufs of `pool`: one, or as many as it takes. The whole chain will
    /// want `wanted` of them, as an error says.
    pub(super) fn push_copy_of(
        &mut self,
        data: &[u8],
        pool: &MbufPool,
        wanted: usize,
    ) -> Result<(), MbufError> {
        let room = usize::from(pool.room_len_bytes());
        let mut rest = data;
        loop {
            let (part, others) = rest.split_at(rest.len().min(room));
            let mut mbuf = pool.alloc().ok_or_else(|| MbufError::PoolEmpty {
                wanted,
                available: self.segments + pool.objects().available(),
            })?;
            mbuf.append(part.len())?.copy_from_slice(part);
            self.push(mbuf).map_err(|(error, _)| error)?;
            rest = others;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// The frame, if anything was added; the builder is empty again.
    #[inline]
    pub fn finish(&mut self) -> Option<Mbuf> {
        let (first, _) = self.ends.take()?;
        // SAFETY: the chain is this builder's, and given up here; at most MAX_SEGMENTS, which fit.
        unsafe {
            (*first.as_ptr()).owners.set_segments(self.segments as u16);
            (*first.as_ptr()).meta.packet_len = self.len_bytes;
        }
        (self.segments, self.len_bytes) = (0, 0);
        Some(Mbuf::from_header(first))
    }
}

impl Drop for ChainBuilder {
    fn drop(&mut self) {
        drop(self.finish());
    }
}
