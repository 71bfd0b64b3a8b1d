//! What stands where in one extent: an entry of 16 bytes for each granule of 64.
//!
//! The table is apart from the memory that it describes. Whoever writes past the end of a block,
//! or a device that writes into one that was freed, spoils data but never the heap's own lists;
//! a block needs no header, so one of 4096 bytes at a multiple of 4096 takes 4096; and an address
//! that is no block's can be told at once. The table is normal memory that is zero from the
//! kernel: only the parts of it become resident that blocks start or end in.

use super::tag::Tag;
use zerocopy::{FromBytes, FromZeros, IntoBytes, KnownLayout};

/// Bytes in a granule, the unit of the heap: a cache line, so that no two blocks share one.
pub const GRANULE_BYTES: usize = 64;

/// Where a block starts: the number of its extent, and the granule in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) slot: u16,
    pub(super) granule: u32,
}

impl Place {
    /// The end of a list.
    pub(super) const NOWHERE: Self = Self { slot: u16::MAX, granule: 0 };

    #[inline]
    pub(super) fn after(self, granules: u32) -> Self {
        Self { granule: self.granule + granules, ..self }
    }
}

/// What a granule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Neither the first granule of a block, nor the last of a free one.
    Interior,
    /// First of a block in use.
    Used,
    /// First of a free block.
    Free,
    /// Last of a free block of more than one granule: says how far back it starts.
    FreeEnd,
}

/// A block in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) granules: u32,
    pub(super) tag: Tag,
    /// Bytes from what was asked for to the block's end.
    pub(super) slack_bytes: u8,
}

impl Used {
    /// What was asked for, in bytes.
    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.granules as usize * GRANULE_BYTES - usize::from(self.slack_bytes)
    }
}

/// One granule. The meaning of the last three fields depends on the state.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Entry {
    /// Bits 31-30: the state. Below: the block's granules (not for `Interior`).
    head: u32,
    /// `Used`: the tag, and from bit 16 on the slack. `Free`: granule of the next in the list.
    next: u32,
    /// `Free`: granule of the one before in the list. Without meaning in the first of a list, so
    /// that taking the first doesn't touch the second.
    prev: u32,
    /// `Free`: slot of the next, and from bit 16 on that of the one before.
    slots: u32,
}

const SIZE_MASK: u32 = (1 << 30) - 1;
const USED: u32 = 1;
const FREE: u32 = 2;
const FREE_END: u32 = 3;

impl Entry {
    #[inline]
    fn new(state: u32, size: u32) -> Self {
        debug_assert!(size <= SIZE_MASK);
        Self { head: state << 30 | size, ..Self::default() }
    }

    #[inline]
    fn is(&self, state: u32) -> bool {
        self.head >> 30 == state
    }

    #[inline]
    fn size(&self) -> u32 {
        self.head & SIZE_MASK
    }
}

/// Last block that was freed at a granule: length in bytes, and tag.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Freed {
    len_bytes: u64,
    tag: u64,
}

/// The entries of an extent.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Address of the first granule, divided by the size of one.
    base: u64,
    /// An entry for each granule in a guarded heap, otherwise none.
    freed: Vec<Freed>,
}

impl Table {
    /// For `granules` from the address `base * GRANULE_BYTES` on; all of them interior. `None` if
    /// there is no memory for it.
    pub(super) fn new(base: u64, granules: u32, guarded: bool) -> Option<Self> {
        // Zeroed by the allocator, so that the kernel's zero pages are taken as they are.
        let entries = Entry::new_vec_zeroed(granules as usize).ok()?;
        let remembered = if guarded { granules as usize } else { 0 };
        Some(Self { entries, base, freed: Freed::new_vec_zeroed(remembered).ok()? })
    }

    /// Granules in the extent.
    #[inline]
    pub(super) fn granules(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether this stands for no extent.
    pub(super) fn is_vacant(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many granules after `granule` the first one stands whose address is a multiple of
    /// `align` granules (a power of two).
    #[inline]
    pub(super) fn gap(&self, granule: u32, align: u32) -> u32 {
        let address = self.base + u64::from(granule);
        (address.wrapping_neg() & u64::from(align - 1)) as u32
    }

    #[inline]
    pub(super) fn state(&self, granule: u32) -> State {
        match self.entries[granule as usize].head >> 30 {
            USED => State::Used,
            FREE => State::Free,
            FREE_END => State::FreeEnd,
            _ => State::Interior,
        }
    }

    /// The block in use that starts at `granule`, if one does.
    #[inline]
    pub(super) fn used(&self, granule: u32) -> Option<Used> {
        let entry = self.entries.get(granule as usize).filter(|entry| entry.is(USED))?;
        let (tag, slack_bytes) = (Tag::from_index(entry.next as u16), (entry.next >> 16) as u8);
        Some(Used { granules: entry.size(), tag, slack_bytes })
    }

    /// Writes down a block in use. What was a free block's last granule is none any more.
    #[inline]
    pub(super) fn set_used(&mut self, granule: u32, used: Used) {
        if used.granules > 1 {
            self.set_interior(granule + used.granules - 1);
        }
        let next = u32::from(used.tag.index()) | u32::from(used.slack_bytes) << 16;
        self.entries[granule as usize] = Entry { next, ..Entry::new(USED, used.granules) };
    }

    /// Granules of the free block that starts at `granule`, if one does.
    #[inline]
    pub(super) fn free(&self, granule: u32) -> Option<u32> {
        self.entries.get(granule as usize).filter(|entry| entry.is(FREE)).map(Entry::size)
    }

    /// Granules of the free block that ends just before `granule`, if one does.
    #[inline]
    pub(super) fn free_before(&self, granule: u32) -> Option<u32> {
        let entry = self.entries[granule.checked_sub(1)? as usize];
        (entry.is(FREE_END) || (entry.is(FREE) && entry.size() == 1)).then(|| entry.size())
    }

    /// Writes down a free block that `next` follows in its list. What comes before it there is for
    /// `set_prev`, unless it is the first.
    #[inline]
    pub(super) fn set_free(&mut self, granule: u32, size: u32, next: Place) {
        if size > 1 {
            self.entries[(granule + size - 1) as usize] = Entry::new(FREE_END, size);
        }
        let (next, slots) = (next.granule, u32::from(next.slot));
        self.entries[granule as usize] = Entry { next, slots, ..Entry::new(FREE, size) };
    }

    #[inline]
    pub(super) fn set_interior(&mut self, granule: u32) {
        self.entries[granule as usize] = Entry::default();
    }

    /// What a free block's last granule says of its length; for `check`.
    pub(super) fn end_size(&self, granule: u32) -> u32 {
        self.entries[granule as usize].size()
    }

    /// The next in the list of the free block at `granule`.
    #[inline]
    pub(super) fn next(&self, granule: u32) -> Place {
        let entry = &self.entries[granule as usize];
        Place { slot: entry.slots as u16, granule: entry.next }
    }

    /// The one before in the list of the free block at `granule`, if that isn't the first.
    #[inline]
    pub(super) fn prev(&self, granule: u32) -> Place {
        let entry = &self.entries[granule as usize];
        Place { slot: (entry.slots >> 16) as u16, granule: entry.prev }
    }

    #[inline]
    pub(super) fn set_next(&mut self, granule: u32, next: Place) {
        let entry = &mut self.entries[granule as usize];
        entry.next = next.granule;
        entry.slots = entry.slots & 0xffff_0000 | u32::from(next.slot);
    }

    #[inline]
    pub(super) fn set_prev(&mut self, granule: u32, prev: Place) {
        let entry = &mut self.entries[granule as usize];
        entry.prev = prev.granule;
        entry.slots = entry.slots & 0x0000_ffff | u32::from(prev.slot) << 16;
    }

    /// Remembers what was freed here, in a guarded heap.
    pub(super) fn remember(&mut self, granule: u32, len_bytes: usize, tag: Tag) {
        if let Some(freed) = self.freed.get_mut(granule as usize) {
            *freed = Freed { len_bytes: len_bytes as u64, tag: u64::from(tag.index()) };
        }
    }

    /// Length in bytes and tag of the last block that was freed here, in a guarded heap.
    pub(super) fn remembered(&self, granule: u32) -> Option<(usize, Tag)> {
        let freed = self.freed.get(granule as usize).filter(|freed| freed.len_bytes > 0)?;
        Some((freed.len_bytes as usize, Tag::from_index(freed.tag as u16)))
    }

    /// The block that `granule` is part of: its first granule. Walks back, so for messages only.
    pub(super) fn start_of(&self, granule: u32) -> Option<u32> {
        (0..=granule).rev().find(|at| matches!(self.state(*at), State::Used | State::Free))
    }
}
