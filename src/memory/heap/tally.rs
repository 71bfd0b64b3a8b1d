//! Counts by tag, kept apart by whoever counts: an arena, and each lcore's cache.

use super::stats::TagCounts;
use super::tag::{MAX_TAGS, Tag};

/// What one counter has seen of a tag. Differences wrap: who frees may be another than who
/// allocated, and only the sum over all counters is a number of blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    allocated: u64,
    freed: u64,
    live_bytes: u64,
}

/// A tally for each tag.
#[derive(Clone, Debug)]
pub(super) struct Tallies([Tally; MAX_TAGS]);

impl Tallies {
    pub(super) fn new() -> Self {
        Self([Tally::default(); MAX_TAGS])
    }

    #[inline(always)]
    fn of(&mut self, tag: Tag) -> &mut Tally {
        &mut self.0[usize::from(tag.index())]
    }

    #[inline(always)]
    pub(super) fn allocated(&mut self, tag: Tag, len_bytes: usize) {
        let tally = self.of(tag);
        tally.allocated += 1;
        tally.live_bytes = tally.live_bytes.wrapping_add(len_bytes as u64);
    }

    #[inline(always)]
    pub(super) fn freed(&mut self, tag: Tag, len_bytes: usize) {
        let tally = self.of(tag);
        tally.freed += 1;
        tally.live_bytes = tally.live_bytes.wrapping_sub(len_bytes as u64);
    }

    pub(super) fn resized(&mut self, tag: Tag, from_bytes: usize, to_bytes: usize) {
        let live = &mut self.of(tag).live_bytes;
        *live = live.wrapping_sub(from_bytes as u64).wrapping_add(to_bytes as u64);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            sum.add(more);
        }
    }

    /// Over all tags.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.0.iter().for_each(|tally| total.add(tally));
        total
    }

    pub(super) fn by_tag(&self) -> impl Iterator<Item = &Tally> {
        self.0.iter()
    }
}

impl Tally {
    fn add(&mut self, more: &Self) {
        self.allocated = self.allocated.wrapping_add(more.allocated);
        self.freed = self.freed.wrapping_add(more.freed);
        self.live_bytes = self.live_bytes.wrapping_add(more.live_bytes);
    }

    pub(super) fn freed_blocks(&self) -> u64 {
        self.freed
    }

    /// Only of a sum over all counters.
    pub(super) fn counts(&self) -> TagCounts {
        TagCounts {
            allocated: self.allocated,
            live_blocks: self.allocated.wrapping_sub(self.freed),
            live_bytes: self.live_bytes,
        }
    }
}
