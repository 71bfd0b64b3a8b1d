//! What can be asked of a pool, and why it may be refused.

use super::free_list::Backend;
use super::layout::ObjectLayout;
use crate::memory::{IovaMode, Memory, MemoryError, Segment};
use crate::ring::{MAX_CAPACITY, RingError};

/// The most objects that one lcore's cache may hold.
pub const MAX_CACHE_SIZE: usize = 512;

/// What a pool shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Unique name, at most 58 bytes; the zone of its objects has the same, that of its free list
    /// `.free` behind it.
    pub name: String,
    /// Number of objects, 1 to [`MAX_CAPACITY`].
    pub count: usize,
    /// Length of an element in bytes.
    pub element_len_bytes: usize,
    /// Free objects that each lcore may keep for itself; 0: none.
    pub cache_size: usize,
    /// NUMA node; `None`: any.
    pub node: Option<u32>,
    /// Where free objects wait that no cache has.
    pub backend: Backend,
    /// Marks around each element that find double puts and overruns. They cost 64 bytes an object
    /// and a few instructions for each put and get, so they are on in debug builds only, unless
    /// they are asked for.
    pub cookies: bool,
}

impl MempoolConfig {
    /// `count` objects of `element_len_bytes`, with caches of 256 (or less for a small pool).
    #[must_use]
    pub fn new(name: impl Into<String>, count: usize, element_len_bytes: usize) -> Self {
        Self {
            name: name.into(),
            count,
            element_len_bytes,
            cache_size: (count / 8).min(256),
            node: None,
            backend: Backend::default(),
            cookies: cfg!(debug_assertions),
        }
    }

    /// How an object is laid out; `None` for elements of no length, or an absurd one.
    #[must_use]
    pub fn layout(&self) -> Option<ObjectLayout> {
        ObjectLayout::new(self.element_len_bytes, self.cookies)
    }

    /// How many bytes of memory the pool takes: its objects, what is lost at page ends where the
    /// device sees single pages, and the free list. `None` if there is no such pool.
    #[must_use]
    pub fn memory_len_bytes(&self, memory: &Memory) -> Option<usize> {
        let objects = objects_len_bytes(memory, self.count, self.layout()?.len_bytes())?;
        objects.checked_add(self.free_list_len_bytes())
    }

    /// Bytes of memory that the free list takes.
    #[must_use]
    pub fn free_list_len_bytes(&self) -> usize {
        match self.backend {
            Backend::Stack => 0, // in normal memory
            _ => self.count.next_power_of_two().saturating_mul(8).saturating_add(1024),
        }
    }

    pub(super) fn check(&self, memory: &Memory) -> Result<ObjectLayout, MempoolError> {
        let Self { count, cache_size, element_len_bytes, .. } = *self;
        let name = || self.name.clone();
        if count == 0 || count > MAX_CAPACITY {
            return Err(MempoolError::Count { name: name(), count });
        }
        let most = (count * 2 / 3).min(MAX_CACHE_SIZE);
        if cache_size > most {
            return Err(MempoolError::CacheSize { name: name(), cache_size, count, most });
        }
        let page_len_bytes = smallest_page(memory);
        let paged = memory.iova_mode() == IovaMode::Pa;
        self.layout()
            .filter(|layout| !paged || layout.len_bytes() as u64 <= page_len_bytes)
            .filter(|layout| layout.len_bytes().checked_mul(count).is_some())
            .ok_or(MempoolError::ObjectLen { name: name(), element_len_bytes, page_len_bytes })
    }
}

/// Bytes of memory for `count` objects of `object_len_bytes`.
pub(super) fn objects_len_bytes(
    memory: &Memory,
    count: usize,
    object_len_bytes: usize,
) -> Option<usize> {
    if memory.iova_mode() == IovaMode::Va {
        return count.checked_mul(object_len_bytes);
    }
    let page = usize::try_from(smallest_page(memory)).ok()?;
    count.div_ceil((page / object_len_bytes).max(1)).checked_mul(page)
}

/// The smallest page that memory stands on, in bytes.
pub(super) fn smallest_page(memory: &Memory) -> u64 {
    memory.segments().iter().map(Segment::page_len_bytes).min().unwrap_or(4096)
}

/// Why a pool can't be made. Nothing is taken then.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// The number of objects is zero or beyond counting.
    #[error("mempool {name:?}: {count} objects were asked for; it can have 1 to {MAX_CAPACITY}")]
    Count {
        /// The pool's name.
        name: String,
        /// What was asked for.
        count: usize,
    },
    /// A cache larger than allowed, or so large that the pool could sit in one lcore's cache.
    #[error(
        "mempool {name:?}: a cache of {cache_size} objects per lcore was asked for; \
         the most for {count} objects is {most} (at most {MAX_CACHE_SIZE}, and 2/3 of the pool)"
    )]
    CacheSize {
        /// The pool's name.
        name: String,
        /// What was asked for.
        cache_size: usize,
        /// Objects in the pool.
        count: usize,
        /// The largest cache it may have.
        most: usize,
    },
    /// An element of no size, an absurd one, or one larger than a page where pages aren't
    /// contiguous for the device.
    #[error(
        "mempool {name:?}: elements of {element_len_bytes} bytes don't fit; they must have at \
         least one byte, and with --iova-mode=pa an object must fit into one page of \
         {page_len_bytes} bytes"
    )]
    ObjectLen {
        /// The pool's name.
        name: String,
        /// Bytes of an element.
        element_len_bytes: usize,
        /// The page size that limits it.
        page_len_bytes: u64,
    },
    /// There is no memory for the objects.
    #[error("mempool {name:?}: no memory for {count} objects of {object_len_bytes} bytes")]
    Memory {
        /// The pool's name.
        name: String,
        /// Objects asked for.
        count: usize,
        /// Bytes per object.
        object_len_bytes: usize,
        /// Why.
        #[source]
        source: MemoryError,
    },
    /// There is no memory for the list of free ones.
    #[error("mempool {name:?}: no memory for its list of {count} free objects")]
    FreeList {
        /// The pool's name.
        name: String,
        /// Objects asked for.
        count: usize,
        /// Why.
        #[source]
        source: Box<RingError>,
    },
}
