//! Which bytes of a segment are free: a map of blocks, first fit, neighbours merged.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free blocks of a range `0..len`. Positions are offsets; alignment is that of the addresses,
/// which start at `base`.
#[derive(Debug)]
pub(super) struct FreeList {
    base: usize,
    /// Offset of each free block → its length. No two blocks touch, none is empty.
    blocks: BTreeMap<usize, usize>,
}

impl FreeList {
    /// All of `len` bytes from address `base` on are free.
    pub(super) fn new(base: usize, len: usize) -> Self {
        let blocks = if len == 0 { BTreeMap::new() } else { BTreeMap::from([(0, len)]) };
        Self { base, blocks }
    }

    /// Takes the lowest `len` free bytes whose address is a multiple of `align` (a power of two)
    /// and that lie within one of `windows` (ascending). Returns their offset.
    pub(super) fn take(
        &mut self,
        len: usize,
        align: usize,
        windows: &[Range<usize>],
    ) -> Option<usize> {
        let offset = self.find(len, align, windows)?;
        let (&start, &block_len) = self.blocks.range(..=offset).next_back()?;
        self.blocks.remove(&start);
        if offset > start {
            self.blocks.insert(start, offset - start);
        }
        if start + block_len > offset + len {
            self.blocks.insert(offset + len, start + block_len - (offset + len));
        }
        Some(offset)
    }

    fn find(&self, len: usize, align: usize, windows: &[Range<usize>]) -> Option<usize> {
        let mut windows = windows.iter().peekable();
        for (&start, &block_len) in &self.blocks {
            let end = start + block_len;
            while windows.next_if(|window| window.end <= start).is_some() {}
            for window in windows.clone().take_while(|window| window.start < end) {
                let low = start.max(window.start);
                let aligned = self.base.checked_add(low)?.checked_next_multiple_of(align)?;
                let offset = aligned - self.base;
                if offset.checked_add(len).is_some_and(|last| last <= end.min(window.end)) {
                    return Some(offset);
                }
            }
        }
        None
    }

    /// Makes bytes free that were taken before.
    pub(super) fn give_back(&mut self, offset: usize, len: usize) {
        let (mut start, mut end) = (offset, offset + len);
        if let Some((&before, &before_len)) = self.blocks.range(..=offset).next_back() {
            debug_assert!(before + before_len <= offset, "bytes given back that were free");
            if before + before_len == offset {
                self.blocks.remove(&before);
                start = before;
            }
        }
        if let Some(after_len) = self.blocks.remove(&end) {
            end += after_len;
        }
        debug_assert!(self.blocks.range(start..end).next().is_none(), "free twice");
        self.blocks.insert(start, end - start);
    }

    /// Free bytes in all.
    pub(super) fn total(&self) -> usize {
        self.blocks.values().sum()
    }

    /// The longest free block, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.blocks.values().copied().max().unwrap_or(0)
    }

    /// Free blocks: offset and length.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.blocks.iter().map(|(&offset, &len)| (offset, len))
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one window is meant")]
mod tests {
    use super::*;

    #[test]
    fn first_fit_keeps_the_rest_and_merges_again() {
        let mut list = FreeList::new(0x1000, 1000);
        assert_eq!(list.take(100, 1, &[0..1000]), Some(0));
        assert_eq!(list.take(100, 256, &[0..1000]), Some(256));
        assert_eq!(list.take(100, 1, &[0..1000]), Some(100));
        assert_eq!(list.total(), 700);
        assert_eq!(list.largest(), 1000 - 356);
        list.give_back(0, 100);
        list.give_back(256, 100);
        list.give_back(100, 100);
        assert_eq!(list.blocks().collect::<Vec<_>>(), [(0, 1000)]);
    }

    #[test]
    fn a_block_stays_within_one_window() {
        let mut list = FreeList::new(0, 1000);
        let windows = [0..400, 400..1000];
        assert_eq!(list.take(300, 1, &windows), Some(0));
        assert_eq!(list.take(300, 1, &windows), Some(400));
        assert_eq!(list.take(100, 1, &windows), Some(300));
        assert_eq!(list.take(301, 1, &windows), None);
        assert_eq!(list.take(300, 1, &windows), Some(700));
        assert_eq!(list.total(), 0);
        assert_eq!(list.largest(), 0);
    }

    #[test]
    fn alignment_is_of_addresses_and_overflow_is_no_fit() {
        let mut list = FreeList::new(100, 1000);
        assert_eq!(list.take(10, 64, &[0..1000]), Some(28));
        assert_eq!(list.take(usize::MAX, 1, &[0..1000]), None);
        assert_eq!(list.take(1, 1 << 63, &[0..1000]), None);
    }
}
