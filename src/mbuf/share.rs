//! Several frames over the same data.
//!
//! A *clone* has a header of its own, from any pool, and the buffer of another mbuf; DPDK calls it
//! an indirect mbuf. The buffer counts its owners and goes back to its pool with the last of them,
//! on whatever thread that happens. While there are several, all of them can read and none can
//! write: what changes data or room asks [`Mbuf::is_writable`] first, which for a frame that was
//! never shared is one compare in the first cache line.
#![expect(unsafe_code, reason = "headers point to buffers of other headers")]

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::builder::ChainBuilder;
use super::external::Owner;
use super::frame::{Mbuf, MbufError};
use super::free;
use super::header::{HEADROOM_BYTES, Header, Kind};
use super::owners::Owners;
use super::pool::MbufPool;

/// Whether the holder of `header` is the only owner of the buffer that it uses.
///
/// # Safety
/// The header is valid and the caller's.
#[inline(always)]
pub(super) unsafe fn is_writable(header: *const Header) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*header).owners.is_exclusive() || is_last_borrower(header) }
}

/// Whether the buffer is another's, and that other one has no owner but this.
///
/// # Safety
/// The header is valid and the caller's.
#[cold]
#[inline(never)]
unsafe fn is_last_borrower(header: *const Header) -> bool {
    // SAFETY: the caller's promise; `source` is what `kind` says, and lives as long as the share
    // in it.
    unsafe {
        let source = (*header).meta.source;
        match (*header).meta.kind {
            Kind::Own => false,
            Kind::Clone => (*source.cast::<Header>()).owners.is_exclusive(),
            Kind::External => {
                // The one way to ask an Arc that orders what others have done before.
                let owner = Arc::from_raw(source.cast_const().cast::<Owner>());
                Arc::get_mut(&mut ManuallyDrop::new(owner)).is_some()
            }
        }
    }
}

impl Mbuf {
    /// Whether the data of all segments is this frame's alone, and may be changed. A device that
    /// sends another frame over the same data reads it until that one is taken back, and counts.
    #[inline]
    #[must_use]
    pub fn is_writable(&self) -> bool {
        // SAFETY: the segments are this frame's.
        self.is_single() || self.headers().all(|header| unsafe { is_writable(header) })
    }

    /// A second frame over the same data, with headers from `pool`; what is noted of the frame is
    /// copied, fields registered by name included, the private area isn't. DPDK's
    /// `rte_pktmbuf_clone`.
    ///
    /// From now on, until one of the two is gone, neither can change the data: see
    /// [`Self::make_writable`].
    ///
    /// # Errors
    /// If the pool hasn't as many mbufs as the frame has segments, or a buffer has as many owners
    /// as can be counted (65,535).
    pub fn share(&self, pool: &MbufPool) -> Result<Self, MbufError> {
        let mut chain = ChainBuilder::new();
        let mut note = Some(());
        for header in self.headers() {
            let segment = pool.alloc().ok_or(MbufError::PoolEmpty {
                wanted: self.segment_count(),
                available: pool.objects().available() + chain.segment_count(),
            })?;
            // SAFETY: `header` is a segment of this frame.
            let segment = unsafe { segment.over(header) }?;
            let segment = match note.take() {
                Some(()) => segment.with_notes_of(self),
                None => segment,
            };
            // As long as this frame, so short enough.
            chain.push(segment).map_err(|(error, _)| error)?;
        }
        // A frame has a segment at least.
        chain.finish().ok_or(MbufError::PoolEmpty { wanted: 1, available: 0 })
    }

    /// Makes a new, empty mbuf one over the data of `header`.
    ///
    /// # Safety
    /// `header` is a segment of a frame that the caller has.
    pub(super) unsafe fn over(self, header: *const Header) -> Result<Self, MbufError> {
        let mine = self.as_header().as_ptr();
        // SAFETY: the caller's promise; `mine` is a new mbuf's. The share is counted before it is
        // noted, so that giving it up is right whenever it happens.
        unsafe {
            let (kind, source) = match (*header).meta.kind {
                Kind::Own => (Kind::Clone, header.cast_mut().cast()),
                kind => (kind, (*header).meta.source),
            };
            match kind {
                Kind::Own | Kind::Clone => {
                    if !(*source.cast::<Header>()).owners.share() {
                        return Err(MbufError::TooManyOwners);
                    }
                }
                Kind::External => {
                    Arc::increment_strong_count(source.cast_const().cast::<Owner>());
                }
            }
            let place = &(*header).place;
            (*mine).place.buf = place.buf;
            (*mine).place.buf_iova = place.buf_iova;
            (*mine).place.data_off = place.data_off;
            (&raw mut (*mine).owners).write(Owners::borrowed(1));
            let meta = &raw mut (*mine).meta;
            (*meta).buf_len = (*header).meta.buf_len;
            (*meta).data_len = (*header).meta.data_len;
            (*meta).packet_len = (*header).meta.data_len.into();
            (*meta).kind = kind;
            (*meta).source = source;
        }
        Ok(self)
    }

    /// Copies what is noted of a frame, apart from its data and segments.
    pub(super) fn with_notes_of(mut self, other: &Self) -> Self {
        self.set_port(other.port());
        let (to, from) = (self.meta_mut(), other.meta());
        to.flags = from.flags;
        to.packet_type = from.packet_type;
        to.vlan_tci = from.vlan_tci;
        to.vlan_tci_outer = from.vlan_tci_outer;
        to.rss_hash = from.rss_hash;
        to.mark = from.mark;
        to.tx_offload = from.tx_offload;
        to.dynamic = from.dynamic;
        self
    }

    /// Sees to it that the frame is the only owner of its data: segments that others share are
    /// replaced by copies in mbufs of `pool`.
    ///
    /// # Errors
    /// If the pool hasn't enough mbufs or the chain would become too long (a copied segment takes
    /// several where it is longer than the pool's buffers); the frame is as it was.
    pub fn make_writable(&mut self, pool: &MbufPool) -> Result<(), MbufError> {
        // Decided once: others may go while this is under way. One bit a segment.
        let mut shared = [0_u64; super::MAX_SEGMENTS / 64];
        let room = usize::from(pool.room_len_bytes());
        let (mut kept, mut wanted) = (0, 0);
        for (nth, (header, data)) in self.headers().zip(self.segments()).enumerate() {
            // SAFETY: the segments are this frame's, and borrowed.
            if unsafe { is_writable(header) } {
                kept += 1;
                continue;
            }
            if let Some(bits) = shared.get_mut(nth / 64) {
                *bits |= 1 << (nth % 64);
            }
            wanted += data.len().div_ceil(room).max(1);
        }
        if kept + wanted > super::MAX_SEGMENTS {
            let (segments, len_bytes) = (kept + wanted, self.len_bytes());
            return Err(MbufError::ChainTooLong { segments, len_bytes });
        }
        let is_shared =
            |nth: usize| shared.get(nth / 64).is_some_and(|bits| bits >> (nth % 64) & 1 == 1);
        let mut copies = ChainBuilder::new();
        for (_, data) in self.segments().enumerate().filter(|(nth, _)| is_shared(*nth)) {
            copies.push_copy_of(data, pool, wanted)?;
        }
        let Some(mut copies) = copies.finish() else { return Ok(()) };
        if is_shared(0) {
            copies = copies.with_notes_of(self);
            let len = usize::from(copies.meta().private_len.min(self.meta().private_len));
            if let (Some(to), Some(from)) =
                (copies.private_bytes_mut().get_mut(..len), self.private_bytes().get(..len))
            {
                to.copy_from_slice(from);
            }
        }
        // Nothing below fails or calls anybody until the frame is whole again.
        let mut copies = copies.into_segments();
        let (mut whole, mut old) = (ChainBuilder::new(), ChainBuilder::new());
        // SAFETY: what is read here is overwritten below, without being dropped.
        let frame = unsafe { std::ptr::read(self) };
        for (nth, segment) in frame.into_segments().enumerate() {
            if is_shared(nth) {
                let pieces = segment.len_bytes().div_ceil(room).max(1);
                for copy in copies.by_ref().take(pieces) {
                    let _ = whole.push(copy); // counted above
                }
                let _ = old.push(segment);
            } else {
                let _ = whole.push(segment);
            }
        }
        if let Some(whole) = whole.finish() {
            // SAFETY: the frame that was here was read above, and has gone into the chains.
            unsafe { std::ptr::write(self, whole) };
        }
        Ok(())
    }

    /// Gives up the data of others that the frame uses: it is an empty one in its own buffer then.
    /// False if its buffer is its own, or it is a chain; nothing happens then. DPDK's
    /// `rte_pktmbuf_detach`.
    pub fn detach(&mut self) -> bool {
        if self.segment_count() != 1 || self.meta().kind == Kind::Own {
            return false;
        }
        // SAFETY: the header is this frame's alone, and borrows its buffer.
        unsafe {
            free::detach(self.as_header().as_ptr());
        }
        self.place_mut().data_off = HEADROOM_BYTES;
        let meta = self.meta_mut();
        (meta.data_len, meta.packet_len) = (0, 0);
        true
    }
}
