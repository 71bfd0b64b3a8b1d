//! A block that was allocated: one owner, no destructor.

use super::state::Part;
use super::tag::Tag;
use crate::memory::Iova;
use std::ptr::NonNull;

/// Bytes from a [`Heap`](super::Heap), for [`Heap::free`](super::Heap::free) to take back: as long
/// as nobody makes a second one with unsafe code, freeing twice doesn't compile. It isn't freed when
/// it is dropped, since it doesn't know its heap; [`HeapBox`](super::HeapBox) and
/// [`HeapSlice`](super::HeapSlice) are.
#[derive(Debug)]
#[must_use = "a block that isn't given to Heap::free is lost"]
pub struct Block(pub(super) Part);

impl Block {
    /// First byte. Who reads and writes through it answers for doing so while the block is in use.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.0.address
    }

    /// Length in bytes, as asked for.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }

    /// The device's address of the first byte; the rest follows without a gap.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.0.iova
    }

    /// What it is for.
    #[inline]
    pub fn tag(&self) -> Tag {
        self.0.tag
    }

    /// Its address alone, for a C interface or a device's cookie;
    /// [`Heap::block_from_raw`](super::Heap::block_from_raw) is the way back.
    pub fn into_raw(self) -> NonNull<u8> {
        self.0.address
    }
}
