//! Extents of plain memory that claim to be on a node: for machines of several nodes, and for
//! Miri, which has no files without a name.

use super::{Extent, ExtentSource};
use crate::memory::{Iova, MemoryError, Size};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Gives each node up to `most_bytes` in pages of 4 KiB.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) nodes: Vec<Option<u32>>,
    pub(super) most_bytes: usize,
    /// By position in `nodes`.
    pub(super) out_bytes: Arc<[AtomicUsize; 4]>,
}

impl Plain {
    pub(super) fn new(nodes: &[Option<u32>], most_bytes: usize) -> Self {
        Self { nodes: nodes.to_vec(), most_bytes, out_bytes: Arc::default() }
    }
}

#[derive(Debug)]
struct PlainExtent {
    address: NonNull<u8>,
    layout: Layout,
    node: usize,
    out_bytes: Arc<[AtomicUsize; 4]>,
}

// SAFETY: an allocation that this owns; nobody else has its address.
unsafe impl Send for PlainExtent {}
// SAFETY: as above; no method goes through the address.
unsafe impl Sync for PlainExtent {}

// SAFETY: zeroed memory of the global allocator, this value's alone until it is dropped.
unsafe impl Extent for PlainExtent {
    fn as_ptr(&self) -> NonNull<u8> {
        self.address
    }

    fn len_bytes(&self) -> usize {
        self.layout.size()
    }

    fn iova(&self) -> Iova {
        Iova(self.address.addr().get() as u64).offset(0x1000_0000_0000)
    }
}

impl Drop for PlainExtent {
    fn drop(&mut self) {
        self.out_bytes[self.node].fetch_sub(self.layout.size(), Ordering::Relaxed);
        // SAFETY: allocated with this layout, and freed once.
        unsafe { std::alloc::dealloc(self.address.as_ptr(), self.layout) };
    }
}

impl ExtentSource for Plain {
    fn nodes(&self) -> Vec<Option<u32>> {
        self.nodes.clone()
    }

    fn page_len_bytes(&self, _: Option<u32>) -> usize {
        4096
    }

    fn take(
        &self,
        node: Option<u32>,
        len_bytes: usize,
        align: usize,
    ) -> Result<Box<dyn Extent>, MemoryError> {
        assert!(len_bytes.is_multiple_of(4096) && align >= 4096, "whole pages only");
        let node = self.nodes.iter().position(|known| *known == node).unwrap();
        let full = || MemoryError::NormalMemory {
            wanted: Size(len_bytes as u64),
            available: Size(self.most_bytes as u64),
        };
        let more = |out: usize| out.checked_add(len_bytes).filter(|out| *out <= self.most_bytes);
        let count = &self.out_bytes[node];
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| full())?;
        let layout = Layout::from_size_align(len_bytes, align).unwrap();
        // SAFETY: the length isn't 0.
        let address = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        Ok(Box::new(PlainExtent { address, layout, node, out_bytes: self.out_bytes.clone() }))
    }
}
