//! What can be asked: of a heap when it is made, and of it later.

use super::error::HeapError;
use super::table::GRANULE_BYTES;
use super::tag::Tag;

/// What a heap shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapConfig {
    /// Its name, 1 to [`MAX_NAME_BYTES`](Self::MAX_NAME_BYTES) bytes; the zones it takes are
    /// called `NAME.0`, `NAME.1`, ….
    pub name: String,
    /// The most it takes from its source, on all nodes together, in bytes.
    pub limit_bytes: u64,
    /// How much it takes at a time, in bytes, if no more is needed; rounded up to whole pages.
    pub step_bytes: usize,
    /// How much of wholly free extents is kept for the next allocations, in bytes by node, instead of
    /// being given back to the source. One extent a node is kept in any case.
    pub keep_bytes: u64,
    /// The most that the cache of each lcore holds by node, in bytes, and no more than an eighth of
    /// `limit_bytes`. Blocks up to 64 KiB are cached, so that an lcore needs no lock for them; what
    /// is cached counts as free, and is there for others when nothing else is. 0: no caches. A
    /// guarded heap has none.
    pub cache_bytes: u64,
    /// Red zones behind every block, poison in free ones, and memory of what was freed where.
    /// Costs 64 bytes a block and time in proportion to its length, so it is on in debug builds
    /// only, unless it is asked for.
    pub guarded: bool,
}

impl HeapConfig {
    /// The longest name, in bytes.
    pub const MAX_NAME_BYTES: usize = 32;

    /// Up to `limit_bytes`, in steps of 2 MiB, with caches of 2 MiB, guarded in debug builds.
    pub fn new(name: impl Into<String>, limit_bytes: u64) -> Self {
        Self {
            name: name.into(),
            limit_bytes,
            step_bytes: 2 << 20,
            keep_bytes: 0,
            cache_bytes: 2 << 20,
            guarded: cfg!(debug_assertions),
        }
    }

    /// Takes `step_bytes` at a time.
    #[must_use]
    pub fn step_bytes(self, step_bytes: usize) -> Self {
        Self { step_bytes, ..self }
    }

    /// Keeps `keep_bytes` of wholly free extents.
    #[must_use]
    pub fn keep_bytes(self, keep_bytes: u64) -> Self {
        Self { keep_bytes, ..self }
    }

    /// With caches of at most `cache_bytes`.
    #[must_use]
    pub fn cache_bytes(self, cache_bytes: u64) -> Self {
        Self { cache_bytes, ..self }
    }

    /// With or without guards, whatever the build.
    #[must_use]
    pub fn guarded(self, guarded: bool) -> Self {
        Self { guarded, ..self }
    }

    /// What a cache may hold; 0 if there shall be none.
    pub(super) fn cache_most_bytes(&self) -> u64 {
        if self.guarded { 0 } else { self.cache_bytes.min(self.limit_bytes / 8) }
    }

    pub(super) fn check(&self) -> Result<(), HeapError> {
        if self.name.is_empty() || self.name.len() > Self::MAX_NAME_BYTES {
            return Err(HeapError::Name { name: self.name.clone() });
        }
        if self.limit_bytes < GRANULE_BYTES as u64 || self.step_bytes == 0 {
            return Err(HeapError::Limit {
                name: self.name.clone(),
                limit_bytes: self.limit_bytes,
                step_bytes: self.step_bytes,
            });
        }
        Ok(())
    }
}

/// What an allocation shall be like.
///
/// ```
/// use packetboat::memory::heap::{Request, Tag};
/// let request = Request::new(4096).align(4096).on_node(Some(0)).tag(Tag::new("flow table")?);
/// # Ok::<(), packetboat::memory::heap::HeapError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Length in bytes, at least 1.
    pub len_bytes: usize,
    /// Alignment of the address, in bytes: a power of two up to [`MAX_ALIGN`](Self::MAX_ALIGN). At
    /// least 64 is given. The device's address is aligned to at most the page size.
    pub align: usize,
    /// Only memory on this NUMA node; `None`: any, those of the lcores first. Where pages aren't
    /// bound to nodes, every node is as good as any.
    pub node: Option<u32>,
    /// What it is for.
    pub tag: Tag,
}

impl Request {
    /// The greatest alignment, in bytes: 1 GiB.
    pub const MAX_ALIGN: usize = 1 << 30;

    /// `len_bytes` on any node, aligned to a cache line, without a tag.
    #[must_use]
    pub fn new(len_bytes: usize) -> Self {
        Self { len_bytes, align: GRANULE_BYTES, node: None, tag: Tag::UNTAGGED }
    }

    /// At a multiple of `align` bytes, a power of two.
    #[must_use]
    pub fn align(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// On this node only, if there is one.
    #[must_use]
    pub fn on_node(self, node: Option<u32>) -> Self {
        Self { node, ..self }
    }

    /// For this.
    #[must_use]
    pub fn tag(self, tag: Tag) -> Self {
        Self { tag, ..self }
    }

    #[inline]
    pub(super) fn accepts(&self, node: Option<u32>) -> bool {
        self.node.is_none() || node.is_none() || self.node == node
    }
}
