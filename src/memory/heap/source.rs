//! Where a heap's pages come from, and where they go again: the one thing that a heap doesn't know.
#![expect(unsafe_code, reason = "whoever implements Extent answers for its memory")]

use crate::memory::{AddedSegment, Iova, Memory, MemoryError, Segment, Zone, ZoneRequest};
use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that a heap was given; dropping it gives it back.
///
/// # Safety
/// The `len_bytes()` bytes from `as_ptr()` on are mapped, initialised, may be read and written
/// from any thread, and are touched by nobody else, from when the extent is made until it is
/// dropped, wherever the extent itself is moved. All methods always give the same answer.
pub unsafe trait Extent: Send + Sync + Debug {
    /// First byte, at a multiple of 64.
    fn as_ptr(&self) -> NonNull<u8>;
    /// Length in bytes. What is left over of a multiple of 64 is not used.
    fn len_bytes(&self) -> usize;
    /// The device's address of the first byte. The device sees the extent in one piece.
    fn iova(&self) -> Iova;
}

/// Gives extents.
///
/// [`Zones`] takes them from memory that was reserved at start, [`KernelPages`] from the kernel.
pub trait ExtentSource: Send + Sync + Debug {
    /// The nodes that have memory, those to be preferred first; `None` stands for memory that may
    /// be anywhere.
    fn nodes(&self) -> Vec<Option<u32>>;

    /// Extents are asked for in multiples of this, in bytes, at multiples of it, while there are
    /// any: the page size. A power of two, at least 64.
    fn page_len_bytes(&self, node: Option<u32>) -> usize;

    /// `len_bytes` on `node`, in one piece for the device, at a multiple of `align`.
    ///
    /// # Errors
    /// Why there is none.
    fn take(
        &self,
        node: Option<u32>,
        len_bytes: usize,
        align: usize,
    ) -> Result<Box<dyn Extent>, MemoryError>;
}

/// Zones of a [`Memory`] as extents.
#[derive(Debug)]
pub struct Zones {
    memory: Arc<Memory>,
    prefix: String,
    /// Number of the next zone: names are unique, also when a number wraps (it doesn't in the
    /// lifetime of any machine).
    serial: AtomicU64,
}

/// Reserved pages are only lent, so a heap needn't take a whole one where pages have 1 GiB.
const MOST_PAGE_BYTES: u64 = 2 << 20;

impl Zones {
    /// Zones called `PREFIX.0`, `PREFIX.1`, ….
    #[must_use]
    pub fn new(memory: Arc<Memory>, prefix: &str) -> Self {
        Self { memory, prefix: prefix.to_owned(), serial: AtomicU64::new(0) }
    }
}

impl ExtentSource for Zones {
    fn nodes(&self) -> Vec<Option<u32>> {
        nodes(&self.memory)
    }

    fn page_len_bytes(&self, node: Option<u32>) -> usize {
        let segments = self.memory.segments().iter().filter(|segment| segment.node() == node);
        let page = segments.map(Segment::page_len_bytes).max().unwrap_or(MOST_PAGE_BYTES);
        page.min(MOST_PAGE_BYTES) as usize
    }

    fn take(
        &self,
        node: Option<u32>,
        len_bytes: usize,
        align: usize,
    ) -> Result<Box<dyn Extent>, MemoryError> {
        let name = format!("{}.{}", self.prefix, self.serial.fetch_add(1, Ordering::Relaxed));
        let request = ZoneRequest::new(name, len_bytes).align(align).on_node(node);
        Ok(Box::new(self.memory.zone(&request.iova_contiguous())?))
    }
}

/// Pages that the kernel gives while the program runs: mapped into every VFIO container, and whoever
/// else listens ([`DmaListener`](crate::memory::DmaListener)), when they come, and out before they go.
#[derive(Debug)]
pub struct KernelPages {
    memory: Arc<Memory>,
    page_len_bytes: usize,
}

impl KernelPages {
    /// Hugepages, or normal ones where `memory` has those; on the nodes where it has some.
    ///
    /// # Errors
    /// If the kernel's list of hugepages can't be read, or is empty.
    pub fn new(memory: Arc<Memory>) -> Result<Self, MemoryError> {
        let page_len_bytes = memory.added_page_len_bytes()? as usize;
        Ok(Self { memory, page_len_bytes })
    }
}

impl ExtentSource for KernelPages {
    fn nodes(&self) -> Vec<Option<u32>> {
        nodes(&self.memory)
    }

    fn page_len_bytes(&self, _: Option<u32>) -> usize {
        self.page_len_bytes
    }

    fn take(
        &self,
        node: Option<u32>,
        len_bytes: usize,
        align: usize,
    ) -> Result<Box<dyn Extent>, MemoryError> {
        Ok(Box::new(self.memory.add_segment(node, len_bytes as u64, align as u64)?))
    }
}

// SAFETY: an added segment is mapped, populated, initialised (zero) and nobody else's from when it
// is made until it is dropped. It starts at a multiple of its page size.
unsafe impl Extent for AddedSegment {
    fn as_ptr(&self) -> NonNull<u8> {
        self.segment().as_ptr()
    }

    fn len_bytes(&self) -> usize {
        self.segment().len_bytes()
    }

    fn iova(&self) -> Iova {
        // It has one run.
        self.segment().iova_runs().first().map_or(Iova(self.segment().va()), |run| run.iova)
    }
}

fn nodes(memory: &Memory) -> Vec<Option<u32>> {
    let mut nodes = Vec::new();
    for segment in memory.segments() {
        if !nodes.contains(&segment.node()) {
            nodes.push(segment.node());
        }
    }
    nodes
}

// SAFETY: a zone's bytes are mapped, populated and initialised (zero) while it lives, and are its
// alone: its methods only tell where they are. Whoever goes through that pointer while a heap has
// the zone answers for it. Zones start at a multiple of 64.
unsafe impl Extent for Zone {
    fn as_ptr(&self) -> NonNull<u8> {
        Zone::as_ptr(self)
    }

    fn len_bytes(&self) -> usize {
        Zone::len_bytes(self)
    }

    fn iova(&self) -> Iova {
        // A zone has at least one byte, so there is an address.
        self.iova_at(0).unwrap_or(Iova(self.info().va))
    }
}
