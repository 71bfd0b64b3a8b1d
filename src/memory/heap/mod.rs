//! The heap: allocations of any size, by node, from memory that devices may reach.
//!
//! [`Heap::alloc`] and [`Heap::free`] take the same time whatever the size and however many blocks
//! there are: free blocks stand in lists by size, found through bit maps (two-level segregated fit;
//! see `class` and `tlsf`), and a block that is freed is joined with its free neighbours at once.
//! Every allocation is contiguous for the device, and knows the device's address of its first byte.
//! Addresses are multiples of 64 bytes, and no two blocks share a cache line.
//!
//! A heap takes extents of whole pages from an [`ExtentSource`] when it runs short, up to a limit,
//! and gives them back when they are wholly free. [`Zones`] takes them from a
//! [`Memory`](super::Memory), which reserves its pages at start: the heap grows and shrinks within
//! what was reserved, and all of that is mapped for devices already. [`KernelPages`] takes them
//! from the kernel while the program runs, and has them mapped into every VFIO container, and out of it
//! before they go.
//!
//! An lcore has a cache of short blocks in front of the arenas (see `cache`): it allocates and frees
//! them without a lock. What is cached counts as free, and is joined with its neighbours before an
//! allocation fails.
//!
//! What the heap knows of its blocks stands apart from them (see `table`): writes past the end of
//! a block, or by a device into a freed one, can't break the heap; an address that isn't a block's
//! is an error with the length and tag of what it is in. In debug builds heaps are *guarded*
//! ([`HeapConfig::guarded`]): red zones behind blocks and poison in free memory show who wrote
//! where nothing should be written.
//!
//! Reading order: `heap` is the interface, `grow` what it does when it runs short, [`owner`](HeapBox)
//! the typed interface; `arena` is the part on one node, `state` what its lock guards; `tlsf`, `class`
//! and `table` are the algorithm, without `unsafe`.

mod arena;
mod biased;
mod block;
mod cache;
mod check;
mod class;
mod config;
mod directory;
mod error;
mod grow;
mod guard;
#[expect(clippy::module_inception, reason = "the heap itself, among its parts")]
mod heap;
mod owner;
mod source;
mod state;
mod stats;
mod table;
mod tag;
mod tally;
mod tlsf;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use block::Block;
pub use config::{HeapConfig, Request};
pub use error::{Exhausted, HeapError};
pub use heap::Heap;
pub use owner::{HeapBox, HeapSlice};
pub use source::{Extent, ExtentSource, KernelPages, Zones};
pub use stats::{CheckReport, HeapStats, TagCounts, TagStats};
pub use table::GRANULE_BYTES;
pub use tag::{MAX_TAG_BYTES, MAX_TAGS, Tag};
