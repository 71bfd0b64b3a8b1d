//! A heap against a simple model: a list of what is in use, and a map of which addresses.
//! The fuzz target includes this file, so it uses nothing but the heap's interface.

use super::{Block, Heap, HeapError, Request, Tag};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be done with a heap. Numbers of blocks are taken modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Alloc { len_bytes: usize, align: usize, node: Option<u32>, zeroed: bool, tag: u8 },
    Free(usize),
    Realloc { index: usize, len_bytes: usize, align: usize },
    Trim,
    Check,
}

pub(crate) struct Model {
    pub(crate) heap: Arc<Heap>,
    tags: [Tag; 4],
    live: Vec<Live>,
    /// Start → end of all blocks in use.
    ranges: BTreeMap<usize, usize>,
    live_bytes: usize,
    serial: u8,
    pub(crate) refused: u64,
}

struct Live {
    block: Block,
    mark: u8,
}

/// How many bytes at either end of a block are marked: all, if it is short.
const MARKED_BYTES: usize = 128;

impl Model {
    pub(crate) fn new(heap: Arc<Heap>) -> Self {
        let tag = |name| Tag::new(name).unwrap();
        let tags = [tag("model 0"), tag("model 1"), tag("model 2"), Tag::UNTAGGED];
        let (live, ranges) = (Vec::new(), BTreeMap::new());
        Self { heap, tags, live, ranges, live_bytes: 0, serial: 0, refused: 0 }
    }

    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Alloc { len_bytes, align, node, zeroed, tag } => {
                let tag = self.tags[usize::from(tag) % self.tags.len()];
                let request = Request::new(len_bytes).align(align).on_node(node).tag(tag);
                self.alloc(&request, zeroed);
            }
            Step::Realloc { index, len_bytes, align } => self.realloc(index, len_bytes, align),
            Step::Free(index) => self.free(index),
            Step::Trim => {
                self.heap.trim();
            }
            Step::Check => self.check(),
        }
    }

    fn alloc(&mut self, request: &Request, zeroed: bool) {
        let had = self.room_for(request);
        let result = if zeroed { self.heap.zeroed(request) } else { self.heap.alloc(request) };
        let block = match result {
            Ok(block) => block,
            Err(error) => return self.refusal(&error, request, had),
        };
        assert!(request.len_bytes > 0 && request.align.is_power_of_two());
        if zeroed {
            // SAFETY: the block is the model's and as long as it says.
            let bytes =
                unsafe { std::slice::from_raw_parts(block.as_ptr().as_ptr(), block.len_bytes()) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{block:?} isn't zero");
        }
        self.insert(block, request);
    }

    /// The address is new and as asked for; it is marked and noted.
    fn insert(&mut self, mut block: Block, request: &Request) {
        let start = block.as_ptr().addr().get();
        let end = start + block.len_bytes();
        assert_eq!(block.len_bytes(), request.len_bytes);
        assert_eq!(block.tag(), request.tag);
        assert_eq!(start % request.align.max(64), 0, "{block:?}");
        let before = self.ranges.range(..end).next_back();
        assert!(before.is_none_or(|(_, other)| *other <= start), "{block:?} overlaps {before:x?}");
        assert_eq!(self.heap.iova_of(block.as_ptr().as_ptr()), Some(block.iova()));
        let last = block.as_ptr().as_ptr().wrapping_add(block.len_bytes() - 1);
        let last_iova = block.iova().offset(block.len_bytes() as u64 - 1);
        assert_eq!(self.heap.iova_of(last), Some(last_iova));
        self.serial = self.serial.wrapping_add(1);
        for range in marked(block.len_bytes()) {
            marks(&mut block)[range].fill(self.serial);
        }
        self.ranges.insert(start, end);
        self.live_bytes += block.len_bytes();
        self.live.push(Live { block, mark: self.serial });
    }

    /// Takes a block out of the lists, its marks being untouched.
    fn take(&mut self, index: usize) -> Option<Live> {
        if self.live.is_empty() {
            return None;
        }
        let index = index % self.live.len();
        let mut live = self.live.swap_remove(index);
        for range in marked(live.block.len_bytes()) {
            let bytes = &marks(&mut live.block)[range];
            assert!(bytes.iter().all(|byte| *byte == live.mark), "{:?} changed", live.block);
        }
        let known = self.ranges.remove(&live.block.as_ptr().addr().get());
        assert!(known.is_some());
        self.live_bytes -= live.block.len_bytes();
        Some(live)
    }

    fn free(&mut self, index: usize) {
        if let Some(live) = self.take(index) {
            self.heap.free(live.block).unwrap();
        }
    }

    fn realloc(&mut self, index: usize, len_bytes: usize, align: usize) {
        let Some(mut live) = self.take(index) else { return };
        let old = (live.block.as_ptr(), live.block.len_bytes());
        let request = Request::new(len_bytes).align(align).tag(live.block.tag());
        let had = self.room_for(&request);
        match self.heap.realloc(&mut live.block, len_bytes, align) {
            Ok(()) => {
                let kept = old.1.min(len_bytes).min(MARKED_BYTES);
                let bytes = &marks(&mut live.block)[..kept];
                assert!(bytes.iter().all(|byte| *byte == live.mark), "{:?}", live.block);
                self.insert(live.block, &request);
            }
            Err(error) => {
                assert_eq!((live.block.as_ptr(), live.block.len_bytes()), old);
                let old_request = Request::new(old.1).tag(live.block.tag());
                for range in marked(old.1) {
                    assert!(marks(&mut live.block)[range].iter().all(|byte| *byte == live.mark));
                }
                self.insert(live.block, &old_request);
                self.refusal(&error, &request, had);
            }
        }
    }

    /// Whether a free block is surely long enough, however it is aligned.
    fn room_for(&self, request: &Request) -> bool {
        let fence = if self.heap.is_guarded() { 64 } else { 0 };
        let rounded =
            request.len_bytes.checked_add(fence).and_then(|l| l.checked_next_multiple_of(64));
        let worst = rounded.and_then(|len| len.checked_add(request.align.max(64) - 64));
        let worst = worst.and_then(|len| len.checked_add(len / 16));
        let nodes = self.heap.node_stats();
        let mut nodes = nodes
            .iter()
            .filter(|(node, _)| request.node.is_none() || node.is_none() || request.node == *node);
        worst.is_some_and(|worst| nodes.any(|(_, s)| s.largest_free_bytes >= worst as u64))
    }

    fn refusal(&mut self, error: &HeapError, request: &Request, had_room: bool) {
        self.refused += 1;
        match error {
            HeapError::Exhausted(_) => {
                assert!(!had_room, "{error}, although there was room for {request:?}");
            }
            HeapError::Len { max_bytes, .. } => {
                let len = request.len_bytes as u64;
                assert!(len == 0 || len > *max_bytes, "{error}");
            }
            HeapError::Align { .. } => {
                assert!(!request.align.is_power_of_two() || request.align > Request::MAX_ALIGN);
            }
            HeapError::Node { .. } => assert!(request.node.is_some()),
            _ => panic!("{error}"),
        }
    }

    /// Everything the heap says of itself agrees with the model.
    pub(crate) fn check(&self) {
        let report = self.heap.check().unwrap();
        assert_eq!(report.used_blocks as usize, self.live.len());
        self.check_counts();
    }

    pub(crate) fn check_counts(&self) {
        let stats = self.heap.stats();
        assert_eq!(stats.live_blocks as usize, self.live.len());
        assert_eq!(stats.live_bytes as usize, self.live_bytes);
        assert_eq!(stats.damaged, 0);
        assert!(stats.free_bytes + stats.live_bytes <= stats.total_bytes);
        assert_eq!(stats.total_bytes, self.heap.total_bytes());
        let tagged: u64 = self.heap.tags().iter().map(|tag| tag.counts.live_bytes).sum();
        assert_eq!(tagged as usize, self.live_bytes);
    }

    /// Frees all; nothing may be left.
    pub(crate) fn finish(mut self) {
        while !self.live.is_empty() {
            self.free(self.live.len() / 2);
        }
        self.check();
        self.heap.trim();
        assert_eq!((self.heap.total_bytes(), self.heap.stats().extents), (0, 0));
    }
}

/// The ranges of a block that are marked.
fn marked(len_bytes: usize) -> [std::ops::Range<usize>; 2] {
    let head = len_bytes.min(MARKED_BYTES);
    [0..head, head.max(len_bytes.saturating_sub(MARKED_BYTES))..len_bytes]
}

fn marks(block: &mut Block) -> &mut [u8] {
    // SAFETY: the block is the model's alone, borrowed mutably, and its bytes are initialised.
    unsafe { std::slice::from_raw_parts_mut(block.as_ptr().as_ptr(), block.len_bytes()) }
}
