//! What can go wrong with a heap. Each message says what was wanted, what was found, and what
//! mends it.

use super::config::{HeapConfig, Request};
use super::tag::{MAX_TAG_BYTES, MAX_TAGS, Tag};
use crate::memory::{MemoryError, Size};

/// An error of a [`Heap`](super::Heap) or of a [`Tag`].
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// A heap's name is empty or too long.
    #[error("heap name {name:?} has {} bytes: wanted 1 to {}", .name.len(), HeapConfig::MAX_NAME_BYTES)]
    Name {
        /// As given.
        name: String,
    },

    /// A heap that could never hold anything.
    #[error(
        "heap {name:?}: a limit of {limit_bytes} bytes and steps of {step_bytes} were asked for; \
         wanted a limit of at least 64 bytes (better: 2 MiB or more) and steps of at least 1"
    )]
    Limit {
        /// The heap.
        name: String,
        /// As given.
        limit_bytes: u64,
        /// As given.
        step_bytes: usize,
    },

    /// Nothing that a heap could grow from.
    #[error("heap {name:?} has nothing to grow from: {source}")]
    Source {
        /// The heap.
        name: String,
        /// Why.
        source: MemoryError,
    },

    /// A tag's name is empty or too long.
    #[error("tag {name:?} has {} bytes: wanted 1 to {MAX_TAG_BYTES}", .name.len())]
    TagName {
        /// As given.
        name: String,
    },

    /// All tags are taken.
    #[error(
        "tag {name:?}: this process has {MAX_TAGS} tags already, the most there can be: use one \
         tag for each kind of thing, not for each thing"
    )]
    TooManyTags {
        /// As given.
        name: String,
    },

    /// No bytes, or more than a heap can hold.
    #[error(
        "an allocation of {len_bytes} bytes ({tag}) was asked for: wanted 1 to {max_bytes}, the \
         limit of heap {heap:?}{}", if *.len_bytes == 0 { "" } else { "; give it a higher limit" }
    )]
    Len {
        /// The heap.
        heap: String,
        /// As asked for; `usize::MAX` if it is beyond counting.
        len_bytes: usize,
        /// What it is for.
        tag: Tag,
        /// The most there can be.
        max_bytes: u64,
    },

    /// An alignment that isn't a power of two, or is too large.
    #[error(
        "an allocation of {len_bytes} bytes ({tag}) at a multiple of {align} bytes was asked for: \
         wanted a power of two from 1 to {}",
        Request::MAX_ALIGN
    )]
    Align {
        /// As asked for.
        align: usize,
        /// As asked for.
        len_bytes: usize,
        /// What it is for.
        tag: Tag,
    },

    /// No memory of the node that was asked for.
    #[error(
        "an allocation of {len_bytes} bytes ({tag}) on NUMA node {node} was asked for, heap \
         {heap:?} has memory on {found:?}: reserve some there with --socket-mem, or ask for any node"
    )]
    Node {
        /// The heap.
        heap: String,
        /// As asked for.
        node: u32,
        /// What there is.
        found: Vec<u32>,
        /// As asked for.
        len_bytes: usize,
        /// What it is for.
        tag: Tag,
    },

    /// The heap is full, and can't grow.
    #[error(transparent)]
    Exhausted(Box<Exhausted>),

    /// Not an address of this heap, or a block of another.
    #[error("{address:#x} is not in heap {heap:?}{}", described(.block))]
    Foreign {
        /// The heap that was asked.
        heap: String,
        /// What it was asked about.
        address: usize,
        /// Length and tag, if it is another heap's block.
        block: Option<(usize, Tag)>,
    },

    /// An address of this heap where no block starts.
    #[error(
        "{address:#x} is in heap {heap:?}, but no block starts there: it is {offset} bytes into \
         {}", inside(.block)
    )]
    NotABlock {
        /// The heap.
        heap: String,
        /// What it was asked about.
        address: usize,
        /// How far it is from the start of the block that it is in.
        offset: usize,
        /// Length and tag of that block if it is in use.
        block: Option<(usize, Tag)>,
    },

    /// A block that was freed already. Length and tag are known in a guarded heap (debug builds).
    #[error("the block at {address:#x} in heap {heap:?} was freed already{}", described(.block))]
    FreedTwice {
        /// The heap.
        heap: String,
        /// Where the block was.
        address: usize,
        /// Length and tag, if they are known.
        block: Option<(usize, Tag)>,
    },

    /// Somebody wrote behind the end of a block. It stays in use, so that it can be looked at.
    #[error(
        "the block of {len_bytes} bytes ({tag}) at {address:#x} in heap {heap:?} was written beyond \
         its end, first at offset {offset}, by its owner or from the block that follows"
    )]
    Overrun {
        /// The heap.
        heap: String,
        /// Where the block is.
        address: usize,
        /// Its length.
        len_bytes: usize,
        /// What it is for.
        tag: Tag,
        /// Offset of the first byte that changed, from the start of the block.
        offset: usize,
    },

    /// Somebody wrote into a block after it was freed.
    #[error(
        "free memory at {address:#x} in heap {heap:?} was written to{}",
        .block.map_or_else(String::new, |(len, tag)| {
            format!(": it belonged to a block of {len} bytes ({tag}) before")
        })
    )]
    WrittenAfterFree {
        /// The heap.
        heap: String,
        /// The first byte that changed.
        address: usize,
        /// Length and tag of the last block that started where the free one does, if known.
        block: Option<(usize, Tag)>,
    },

    /// The heap's own tables contradict each other: a fault of the heap, or of code that wrote
    /// where it mustn't.
    #[error("heap {heap:?}: {what}, at {address:#x}: please report this")]
    Corrupt {
        /// The heap.
        heap: String,
        /// What is wrong.
        what: &'static str,
        /// Where, or 0.
        address: usize,
    },
}

/// A heap that is full and can't grow, in numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "an allocation of {asked} ({tag}, alignment {align}{}) doesn't fit into heap {heap:?}: it has \
     {total} of at most {limit}, of which {free} are free, the largest block {largest}; {}",
    on_node(.node), why(.source, *.asked, *.limit)
)]
pub struct Exhausted {
    /// The heap.
    pub heap: String,
    /// As asked for.
    pub asked: Size,
    /// As asked for, in bytes.
    pub align: usize,
    /// As asked for.
    pub node: Option<u32>,
    /// What it is for.
    pub tag: Tag,
    /// What the heap has, on the nodes that would do.
    pub total: Size,
    /// What of it is free.
    pub free: Size,
    /// Longest free block.
    pub largest: Size,
    /// What the heap may have on all nodes.
    pub limit: Size,
    /// Why it can't grow, if it isn't the limit.
    pub source: Option<MemoryError>,
}

/// `, node 1`, or nothing.
fn on_node(node: &Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(", node {node}"))
}

/// `: 100 bytes (rx queue)`, or nothing.
fn described(block: &Option<(usize, Tag)>) -> String {
    block.map_or_else(String::new, |(len, tag)| format!(": {len} bytes ({tag})"))
}

fn inside(block: &Option<(usize, Tag)>) -> String {
    let used = |(len, tag)| format!("a block of {len} bytes ({tag})");
    block.map_or_else(|| "a free block".to_owned(), used)
}

fn why(source: &Option<MemoryError>, asked: Size, limit: Size) -> String {
    match source {
        Some(error) => format!("more could not be had: {error}"),
        None => format!("give it a limit of {} or more", Size(limit.0.saturating_add(asked.0))),
    }
}
