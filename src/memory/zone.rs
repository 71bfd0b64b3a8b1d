//! Zones: named parts of a segment, each with one owner.
#![expect(unsafe_code, reason = "zeroes memory that is lent out again")]

use super::error::MemoryError;
use super::iova::{Iova, IovaRun};
use super::registry::Memory;
use super::segment::Segment;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a zone shall be like.
///
/// ```
/// use packetboat::memory::{Memory, MemoryConfig, ZoneRequest};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// let ring = memory.zone(&ZoneRequest::new("rx ring 0", 8192).align(4096).iova_contiguous())?;
/// assert_eq!(ring.iova_runs().len(), 1);
/// # Ok::<(), packetboat::memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRequest {
    /// Unique, 1 to [`MAX_NAME_BYTES`](Self::MAX_NAME_BYTES) bytes.
    pub name: String,
    /// Length in bytes.
    pub len_bytes: usize,
    /// Alignment of the first byte, virtual and for the device: a power of two. The device's
    /// address is aligned to at most the page size. At least 64 is given.
    pub align: usize,
    /// Only memory on this NUMA node; `None`: any. Where pages aren't bound to nodes
    /// (`--no-huge`, kernels without NUMA), every node is as good as any.
    pub node: Option<u32>,
    /// The device sees it in one piece.
    pub iova_contiguous: bool,
}

impl ZoneRequest {
    /// The longest name, in bytes.
    pub const MAX_NAME_BYTES: usize = 63;

    /// `len_bytes` on any node, aligned to 64 bytes, in as many pieces for the device as it takes.
    pub fn new(name: impl Into<String>, len_bytes: usize) -> Self {
        Self { name: name.into(), len_bytes, align: 64, node: None, iova_contiguous: false }
    }

    /// Aligned to `align` bytes, a power of two.
    #[must_use]
    pub fn align(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// On this node only, if there is one.
    #[must_use]
    pub fn on_node(self, node: Option<u32>) -> Self {
        Self { node, ..self }
    }

    /// In one piece for the device.
    #[must_use]
    pub fn iova_contiguous(self) -> Self {
        Self { iova_contiguous: true, ..self }
    }

    pub(super) fn accepts(&self, node: Option<u32>) -> bool {
        self.node.is_none() || node.is_none() || self.node == node
    }

    pub(super) fn check(&self, longest_bytes: usize) -> Result<(), MemoryError> {
        let name = || self.name.clone();
        if self.name.is_empty() || self.name.len() > Self::MAX_NAME_BYTES {
            return Err(MemoryError::ZoneName { name: name() });
        }
        if !self.align.is_power_of_two() {
            return Err(MemoryError::ZoneAlign { name: name(), align: self.align });
        }
        if self.len_bytes == 0 || self.len_bytes > longest_bytes {
            let (len_bytes, max_bytes) = (self.len_bytes, longest_bytes);
            return Err(MemoryError::ZoneLen { name: name(), len_bytes, max_bytes });
        }
        Ok(())
    }
}

/// What [`Memory::lookup`] tells of a zone: where it is, not how to touch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneInfo {
    /// Its name.
    pub name: String,
    /// Virtual address of the first byte.
    pub va: u64,
    /// Length in bytes.
    pub len_bytes: usize,
    /// NUMA node of its memory, if known.
    pub node: Option<u32>,
    /// Size of the pages it stands on, in bytes.
    pub page_len_bytes: u64,
}

/// Part of a segment, lent out: this is its one owner. The bytes were zero when it was made. It
/// gives out a raw pointer; the layers above (ring, mempool, dma) answer for what they do with it
/// while the zone lives.
#[derive(Debug)]
pub struct Zone {
    memory: Arc<Memory>,
    info: ZoneInfo,
    /// Index of the segment, offset in it and length there.
    place: (usize, usize, usize),
    address: NonNull<u8>,
}

// SAFETY: a zone owns a range of addresses in a segment that its Arc keeps mapped. Its methods
// only tell where the range is; whoever goes through the pointer answers for the access.
unsafe impl Send for Zone {}
// SAFETY: as above: no method reads or writes the bytes.
unsafe impl Sync for Zone {}

impl Zone {
    /// Takes over `padded` bytes at `offset` of segment `segment`, which the registry has just
    /// taken from its free list. The first `used_before` of them were lent out before.
    pub(super) fn new(
        memory: Arc<Memory>,
        info: ZoneInfo,
        segment: usize,
        offset: usize,
        padded: usize,
        used_before: usize,
    ) -> Self {
        let place = &memory.segments()[segment];
        debug_assert!(offset + padded <= place.len_bytes() && used_before <= padded);
        // SAFETY: the free list gives out only offsets for which `offset + padded` is within the
        // segment, so the result stays within the same mapping.
        let address = unsafe { place.as_ptr().add(offset) };
        // SAFETY: `used_before <= padded` bytes from `address` on are mapped, and the free list
        // has just given them to this zone alone; earlier owners gave theirs up with their drop.
        unsafe { address.write_bytes(0, used_before) };
        Self { memory, info, place: (segment, offset, padded), address }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// First byte.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.address
    }

    /// Length in bytes, as asked for.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.info.len_bytes
    }

    /// The device's address of the byte at `offset`; `None` beyond the end.
    pub fn iova_at(&self, offset: usize) -> Option<Iova> {
        if offset >= self.info.len_bytes {
            return None;
        }
        let va = self.info.va + offset as u64;
        let runs = self.segment().iova_runs();
        let run = runs.get(runs.partition_point(|run| run.va + run.len_bytes <= va))?;
        Some(run.iova.offset(va - run.va))
    }

    /// The pieces in which the device sees the zone, ascending by virtual address: together they
    /// are the whole zone.
    pub fn iova_runs(&self) -> Vec<IovaRun> {
        let (va, len_bytes) = (self.info.va, self.info.len_bytes as u64);
        self.segment().iova_runs().iter().filter_map(|run| run.part(va, len_bytes)).collect()
    }

    /// NUMA node of its memory, if known.
    pub fn node(&self) -> Option<u32> {
        self.info.node
    }

    /// What a look-up by name tells of it.
    pub fn info(&self) -> &ZoneInfo {
        &self.info
    }

    /// The memory that it is part of.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn segment(&self) -> &Segment {
        &self.memory.segments()[self.place.0]
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        let (segment, offset, padded) = self.place;
        self.memory.release(&self.info.name, segment, offset, padded);
    }
}
