//! Which extents an arena has, for those who don't hold its lock: a cache goes from a block's place
//! to its entry and its address without asking anybody.
#![expect(unsafe_code, reason = "a block's holder reaches the table of its extent without a lock")]

use super::table::{Entry, GRANULE_BYTES, Table};
use crate::memory::Iova;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// Slots that there is room for. Blocks of extents beyond are never cached.
const SLOTS: usize = 1024;

/// Extents by slot. Written under the arena's lock.
///
/// All accesses are relaxed: who has a block got it, on whatever way, after its extent was entered
/// here, and gives it back before the extent can leave.
#[derive(Debug)]
pub(super) struct Directory {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
#[repr(align(32))]
struct Slot {
    base: AtomicPtr<u8>,
    entries: AtomicPtr<Entry>,
    iova: AtomicU64,
    /// 0: no extent.
    granules: AtomicU32,
}

/// An extent, for as long as its reader has a block in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    base: NonNull<u8>,
    iova: Iova,
    entries: &'a [Entry],
}

impl Directory {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// Whether blocks of this extent can be cached.
    pub(super) fn has_room_for(&self, slot: u16) -> bool {
        usize::from(slot) < self.slots.len()
    }

    /// An extent is there from now on. The table stays where it is until `clear`.
    pub(super) fn set(&self, slot: u16, base: NonNull<u8>, iova: Iova, table: &Table) {
        let Some(place) = self.slots.get(usize::from(slot)) else { return };
        place.base.store(base.as_ptr(), Relaxed);
        place.entries.store(table.entries().as_ptr().cast_mut(), Relaxed);
        place.iova.store(iova.0, Relaxed);
        place.granules.store(table.granules(), Relaxed);
    }

    /// The extent goes: no block of it is in use or in a cache.
    pub(super) fn clear(&self, slot: u16) {
        if let Some(place) = self.slots.get(usize::from(slot)) {
            place.granules.store(0, Relaxed);
            place.entries.store(ptr::null_mut(), Relaxed);
        }
    }

    /// The extent in this slot.
    ///
    /// # Safety
    /// The caller has a block of it, in use or in its cache, for as long as the view is used. (If
    /// unsafe code made two of a block, an extent that is gone is noticed as long as nobody
    /// is just taking it away.)
    #[inline(always)]
    pub(super) unsafe fn view(&self, slot: u16) -> Option<View<'_>> {
        let place = self.slots.get(usize::from(slot))?;
        let granules = place.granules.load(Relaxed) as usize;
        if granules == 0 {
            return None;
        }
        let base = NonNull::new(place.base.load(Relaxed))?;
        // SAFETY: `set` stored the start of a table with as many entries, which stay where they
        // are as long as the caller's block keeps the extent; entries are atomics, so that
        // others may write them meanwhile.
        let entries = unsafe { std::slice::from_raw_parts(place.entries.load(Relaxed), granules) };
        Some(View { base, iova: Iova(place.iova.load(Relaxed)), entries })
    }
}

impl<'a> View<'a> {
    /// The entry of a granule, if there is one.
    #[inline(always)]
    pub(super) fn entry(&self, granule: u32) -> Option<&'a Entry> {
        self.entries.get(granule as usize)
    }

    /// Its granule that starts at `address`, if there is one.
    #[inline(always)]
    pub(super) fn granule_at(&self, address: NonNull<u8>) -> u32 {
        let offset = address.addr().get().wrapping_sub(self.base.addr().get());
        // Rotated, so that an offset that isn't a multiple becomes far too great.
        let granule = offset.rotate_right(GRANULE_BYTES.trailing_zeros());
        u32::try_from(granule).unwrap_or(u32::MAX)
    }

    /// Address of a granule that has an entry, here and for the device.
    #[inline(always)]
    pub(super) fn addresses(&self, granule: u32) -> (NonNull<u8>, Iova) {
        debug_assert!(self.entry(granule).is_some());
        let offset = granule as usize * GRANULE_BYTES;
        // SAFETY: there is an entry for each whole granule of the extent, so it lies in there.
        (unsafe { self.base.add(offset) }, self.iova.offset(offset as u64))
    }
}
