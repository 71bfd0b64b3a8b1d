//! What stands where in one extent: an entry of 16 bytes for each granule of 64.
//!
//! The table is apart from the memory that it describes. Whoever writes past the end of a block,
//! or a device that writes into one that was freed, spoils data but never the heap's own lists;
//! a block needs no header, so one of 4096 bytes at a multiple of 4096 takes 4096; and an address
//! that is no block's can be told at once. The table is normal memory that is zero from the
//! kernel: only the parts of it become resident that blocks start or end in.

use super::tag::Tag;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
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

/// A place in one word, as caches' lists have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u64);

impl Link {
    /// The end of a list.
    pub(super) const END: Self = Self::to(Place::NOWHERE);

    #[inline(always)]
    pub(super) const fn to(place: Place) -> Self {
        Self(place.granule as u64 | (place.slot as u64) << 32)
    }

    #[inline(always)]
    pub(super) const fn place(self) -> Place {
        Place { slot: (self.0 >> 32) as u16, granule: self.0 as u32 }
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
    /// No bytes, for nobody.
    pub(super) const NOTHING: Self = Self { granules: 0, tag: Tag::UNTAGGED, slack_bytes: 0 };

    /// The least that holds `len_bytes`, which is at most some granules less than `u32::MAX` of them.
    #[inline(always)]
    pub(super) fn of(len_bytes: usize, tag: Tag) -> Self {
        let granules = len_bytes.div_ceil(GRANULE_BYTES);
        // Less than a granule, so it fits.
        let slack_bytes = (granules * GRANULE_BYTES - len_bytes) as u8;
        Self { granules: granules as u32, tag, slack_bytes }
    }

    /// What was asked for, in bytes.
    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.granules as usize * GRANULE_BYTES - usize::from(self.slack_bytes)
    }
}

/// One granule: two words of 64 bits, each read and written whole.
///
/// A block in use belongs to whoever has it, and a cached one to its cache: they write its first
/// entry without the arena's lock, while somebody who has the lock may read the state and length
/// there (to see whether a neighbour is free). So the words are atomic; what must be ordered is,
/// by the lock, by the cache's owner, and by how a block goes from thread to thread.
#[derive(Debug, Default, FromZeros)]
#[repr(C)]
pub(super) struct Entry {
    /// Bits 31-30: the state; below: the block's granules (not for `Interior`). From bit 32 on:
    /// `Used`: the tag, from bit 48 on the slack (8 bits), and in bit 63 whether it is in a cache, that is free
    /// for everybody but the arena; tag and slack are those it had last. `Free`: granule of the
    /// next in the list.
    block: AtomicU64,
    /// `Free`: granule of the one before in the list; from bit 32 on slot of the next, from bit 48
    /// on that of the one before. Without meaning in the first of a list, so that taking the first
    /// doesn't touch the second. `Used`, in a cache: the next of the cache's list.
    links: AtomicU64,
}

const SIZE_MASK: u64 = (1 << 30) - 1;
const USED: u64 = 1;
const FREE: u64 = 2;
const FREE_END: u64 = 3;
const CACHED: u64 = 1 << 63;

const fn head(state: u64, size: u32) -> u64 {
    debug_assert!(size as u64 <= SIZE_MASK);
    state << 30 | size as u64
}

/// A block in use, as its first entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedWord(u64);

impl UsedWord {
    #[inline(always)]
    pub(super) fn new(used: Used) -> Self {
        let about = u64::from(used.tag.index()) | u64::from(used.slack_bytes) << 16;
        Self(head(USED, used.granules) | about << 32)
    }
}

impl Entry {
    #[inline]
    fn block(&self) -> u64 {
        self.block.load(Relaxed)
    }

    #[inline]
    fn set(&self, block: u64) {
        self.block.store(block, Relaxed);
    }

    #[inline]
    fn is(&self, state: u64) -> bool {
        self.block() >> 30 & 3 == state
    }

    #[inline]
    fn size(&self) -> u32 {
        (self.block() & SIZE_MASK) as u32
    }

    /// Whether this is the first of that very block, in use and in no cache.
    #[inline(always)]
    pub(super) fn holds(&self, word: UsedWord) -> bool {
        self.block() == word.0
    }

    /// The block is in use, out of any cache. Only for who has the block.
    #[inline(always)]
    pub(super) fn hand_out(&self, word: UsedWord) {
        self.set(word.0);
    }

    /// The block is in a cache, where `next` follows it. Only for who has the block.
    #[inline(always)]
    pub(super) fn stow(&self, word: UsedWord, next: Link) {
        self.set(word.0 | CACHED);
        self.links.store(next.0, Relaxed);
    }

    /// What follows a block in its cache. Only for the cache.
    #[inline(always)]
    pub(super) fn next_stowed(&self) -> Link {
        Link(self.links.load(Relaxed))
    }

    fn is_cached(&self) -> bool {
        self.is(USED) && self.block() & CACHED != 0
    }

    #[inline]
    fn as_used(&self) -> Used {
        let about = self.block() >> 32;
        let (tag, slack_bytes) = (Tag::from_index(about as u8), (about >> 16) as u8);
        Used { granules: self.size(), tag, slack_bytes }
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
    /// Never reached by `&mut`, and never moved: whoever has a block may be at its entry.
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
        match self.entries[granule as usize].block() >> 30 & 3 {
            USED => State::Used,
            FREE => State::Free,
            FREE_END => State::FreeEnd,
            _ => State::Interior,
        }
    }

    /// The entries, for whoever has a block of this extent. They stay where they are.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The block in use that starts at `granule`, if one does that is in no cache.
    #[inline]
    pub(super) fn used(&self, granule: u32) -> Option<Used> {
        let entry = self.entries.get(granule as usize)?;
        (entry.is(USED) && entry.block() & CACHED == 0).then(|| entry.as_used())
    }

    /// The block in a cache that starts at `granule`, if one does: with the length and tag that it
    /// had last.
    pub(super) fn cached(&self, granule: u32) -> Option<Used> {
        let entry = self.entries.get(granule as usize).filter(|entry| entry.is_cached())?;
        Some(entry.as_used())
    }

    /// Writes down a block in use. What was a free block's last granule is none any more.
    #[inline]
    pub(super) fn set_used(&mut self, granule: u32, used: Used) {
        if used.granules > 1 {
            self.set_interior(granule + used.granules - 1);
        }
        self.entries[granule as usize].hand_out(UsedWord::new(used));
    }

    /// Granules of the free block that starts at `granule`, if one does.
    #[inline]
    pub(super) fn free(&self, granule: u32) -> Option<u32> {
        self.entries.get(granule as usize).filter(|entry| entry.is(FREE)).map(Entry::size)
    }

    /// Granules of the free block that ends just before `granule`, if one does.
    #[inline]
    pub(super) fn free_before(&self, granule: u32) -> Option<u32> {
        let entry = &self.entries[granule.checked_sub(1)? as usize];
        (entry.is(FREE_END) || (entry.is(FREE) && entry.size() == 1)).then(|| entry.size())
    }

    /// Writes down a free block that `next` follows in its list. What comes before it there is for
    /// `set_prev`, unless it is the first.
    #[inline]
    pub(super) fn set_free(&mut self, granule: u32, size: u32, next: Place) {
        if size > 1 {
            self.entries[(granule + size - 1) as usize].set(head(FREE_END, size));
        }
        let entry = &self.entries[granule as usize];
        entry.set(head(FREE, size) | u64::from(next.granule) << 32);
        entry.links.store(u64::from(next.slot) << 32, Relaxed);
    }

    #[inline]
    pub(super) fn set_interior(&mut self, granule: u32) {
        self.entries[granule as usize].set(0);
    }

    /// What a free block's last granule says of its length; for `check`.
    pub(super) fn end_size(&self, granule: u32) -> u32 {
        self.entries[granule as usize].size()
    }

    /// The next in the list of the free block at `granule`.
    #[inline]
    pub(super) fn next(&self, granule: u32) -> Place {
        let entry = &self.entries[granule as usize];
        let slot = (entry.links.load(Relaxed) >> 32) as u16;
        Place { slot, granule: (entry.block() >> 32) as u32 }
    }

    /// The one before in the list of the free block at `granule`, if that isn't the first.
    #[inline]
    pub(super) fn prev(&self, granule: u32) -> Place {
        let links = self.entries[granule as usize].links.load(Relaxed);
        Place { slot: (links >> 48) as u16, granule: links as u32 }
    }

    #[inline]
    pub(super) fn set_next(&mut self, granule: u32, next: Place) {
        let entry = &self.entries[granule as usize];
        entry.set(entry.block() & 0xffff_ffff | u64::from(next.granule) << 32);
        let links = entry.links.load(Relaxed) & !(0xffff << 32);
        entry.links.store(links | u64::from(next.slot) << 32, Relaxed);
    }

    #[inline]
    pub(super) fn set_prev(&mut self, granule: u32, prev: Place) {
        let entry = &self.entries[granule as usize];
        let links = entry.links.load(Relaxed) & (0xffff << 32);
        entry.links.store(links | u64::from(prev.granule) | u64::from(prev.slot) << 48, Relaxed);
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
        Some((freed.len_bytes as usize, Tag::from_index(freed.tag as u8)))
    }

    /// The block that `granule` is part of: its first granule. Walks back, so for messages only.
    pub(super) fn start_of(&self, granule: u32) -> Option<u32> {
        (0..=granule).rev().find(|at| matches!(self.state(*at), State::Used | State::Free))
    }
}
