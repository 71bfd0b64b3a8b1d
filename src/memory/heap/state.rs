//! What an arena's lock guards: its extents, their blocks and their counts.
#![expect(unsafe_code, reason = "addresses of blocks are computed; guarded ones are painted")]

use super::cache::Drained;
use super::config::{HeapConfig, Request};
use super::directory::Directory;
use super::guard::{self, FREED, RED};
use super::source::Extent;
use super::table::{GRANULE_BYTES, Place, Used};
use super::tag::Tag;
use super::tally::Tallies;
use super::tlsf::Tlsf;
use crate::memory::Iova;
use std::ptr::NonNull;
use std::sync::Arc;

/// An allocation, in numbers: four words. Not an owner: see [`Block`](super::Block).
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) address: NonNull<u8>,
    pub(super) len_bytes: usize,
    pub(super) iova: Iova,
    pub(super) heap: u32,
    pub(super) arena: u8,
    pub(super) tag: Tag,
    pub(super) slot: u16,
}

// SAFETY: an address and numbers. Nothing here goes through the address; whoever does answers for
// it.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

/// A request in the arena's units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) len_bytes: usize,
    pub(super) align_granules: u32,
    pub(super) used: Used,
}

impl Ask {
    /// `request` must have been checked: its length is at most `u32::MAX` granules less a few.
    #[inline]
    pub(super) fn new(request: &Request, guarded: bool) -> Self {
        let mut used = request.unguarded();
        if guarded {
            // Below 2 granules, so it fits.
            used.granules += 1;
            used.slack_bytes += GRANULE_BYTES as u8;
        }
        let align_granules = (request.align / GRANULE_BYTES).max(1) as u32;
        Self { len_bytes: request.len_bytes, align_granules, used }
    }
}

/// Why something can't be done with a block.
#[derive(Debug)]
pub(super) enum Refusal {
    /// In none of the extents.
    Outside,
    /// In a block in use, `offset` bytes from its start; or in a free one (`None`).
    Inside { offset: usize, block: Option<(usize, Tag)> },
    /// Free; what it was before, if known.
    Freed(Option<(usize, Tag)>),
    /// The red zone changed; offset of the first byte from the block's start.
    Overrun { offset: usize },
    /// There is no room to grow in place.
    NoRoom,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tlsf: Tlsf,
    /// By slot.
    pub(super) extents: Vec<Option<Held>>,
    /// First address, first address beyond, and slot of each extent; ascending.
    ranges: Vec<(usize, usize, u16)>,
    directory: Arc<Directory>,
    /// The wholly free extents, which aren't given back at once: at least one, so that a single
    /// allocation that comes and goes doesn't take and give pages each time, and as many as have
    /// `keep_bytes`.
    kept: Vec<u16>,
    kept_bytes: u64,
    keep_bytes: u64,
    /// Given up, and to be dropped by who comes out of the lock.
    leaving: Vec<Held>,
    pub(super) guarded: bool,
    pub(super) counts: Counts,
    pub(super) tallies: Box<Tallies>,
}

/// What has happened in an arena so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) total_bytes: u64,
    pub(super) grown: u64,
    pub(super) given_back: u64,
    pub(super) damaged: u64,
}

/// An extent in use. Its addresses stand here for speed.
#[derive(Debug)]
pub(super) struct Held {
    base: NonNull<u8>,
    iova: Iova,
    extent: Box<dyn Extent>,
    /// Where it stands among the kept ones, if it does.
    pub(super) kept_at: Option<usize>,
}

// SAFETY: the address is that of the extent, which is Send and stays where it is while this lives;
// it is only used by the arena's current holder.
unsafe impl Send for Held {}

impl Held {
    pub(super) fn len_bytes(&self) -> usize {
        self.extent.len_bytes()
    }

    pub(super) fn va(&self) -> usize {
        self.base.addr().get()
    }

    pub(super) fn iova(&self) -> Iova {
        self.iova
    }

    /// Address of a granule of this extent.
    #[inline]
    pub(super) fn address(&self, granule: u32) -> NonNull<u8> {
        // SAFETY: places come from the extent's table, which has an entry for each whole granule
        // of it and no more, so the result stays within the extent.
        unsafe { self.base.add(granule as usize * GRANULE_BYTES) }
    }
}

impl State {
    pub(super) fn new(config: &HeapConfig, directory: Arc<Directory>) -> Self {
        Self {
            tlsf: Tlsf::new(config.guarded),
            extents: Vec::new(),
            ranges: Vec::new(),
            directory,
            kept: Vec::new(),
            kept_bytes: 0,
            keep_bytes: config.keep_bytes,
            leaving: Vec::new(),
            guarded: config.guarded,
            counts: Counts::default(),
            tallies: Box::new(Tallies::new()),
        }
    }

    /// Takes a block, if there is room. `heap` and `arena` are noted in it.
    #[inline]
    pub(super) fn take(&mut self, ask: &Ask, heap: u32, arena: u8) -> Option<Part> {
        let taken = self.tlsf.take(ask.align_granules, ask.used)?;
        if taken.first_in_extent {
            self.unkeep(taken.place.slot);
        }
        Some(self.hand_out(taken.place, ask, heap, arena))
    }

    /// Takes a block for a cache, which counts what becomes of it.
    pub(super) fn take_whole(&mut self, whole: Used) -> Option<Place> {
        let taken = self.tlsf.take(1, whole)?;
        let place = taken.place;
        if !self.directory.has_room_for(place.slot) {
            // Back, as if nothing had been; a wholly free extent is kept already.
            self.tlsf.give(place, whole);
            return None;
        }
        if taken.first_in_extent {
            self.unkeep(place.slot);
        }
        Some(place)
    }

    /// Takes back what a cache had, and gives up the extents that aren't needed any more.
    pub(super) fn give_drained(&mut self, drained: &Drained) -> Vec<Held> {
        let used = Used { granules: drained.granules(), ..Used::NOTHING };
        for place in drained.places() {
            if self.tlsf.give(*place, used) {
                self.emptied(place.slot);
            }
        }
        self.take_leaving()
    }

    /// The extents that were given up: to be dropped outside the lock.
    pub(super) fn take_leaving(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.leaving)
    }

    /// Takes over an extent and a first block from it. Gives the extent back if it can't.
    pub(super) fn grow(
        &mut self,
        extent: Box<dyn Extent>,
        ask: &Ask,
        heap: u32,
        arena: u8,
    ) -> Result<Part, Box<dyn Extent>> {
        let (base, len_bytes) = (extent.as_ptr(), extent.len_bytes());
        let granules = len_bytes / GRANULE_BYTES;
        let Ok(granules) = u32::try_from(granules) else { return Err(extent) };
        let va = base.addr().get();
        let Some(slot) = self.tlsf.add(va, granules) else { return Err(extent) };
        let Some(taken) = self.tlsf.take_first(slot, ask.align_granules, ask.used) else {
            self.tlsf.remove(slot);
            return Err(extent);
        };
        if self.guarded {
            // SAFETY: the extent is this heap's alone (contract of `Extent`), and no block of it
            // has been handed out.
            unsafe { guard::paint(base, len_bytes, FREED) };
        }
        let held = Held { base, iova: extent.iova(), extent, kept_at: None };
        self.directory.set(slot, base, held.iova, self.tlsf.table(slot));
        let index = usize::from(slot);
        if self.extents.len() <= index {
            self.extents.resize_with(index + 1, || None);
        }
        self.extents[index] = Some(held);
        let range = (va, va + granules as usize * GRANULE_BYTES, slot);
        self.ranges.insert(self.ranges.partition_point(|known| *known < range), range);
        self.counts.grown += 1;
        self.counts.total_bytes += len_bytes as u64;
        Ok(self.hand_out(taken.place, ask, heap, arena))
    }

    #[inline]
    fn hand_out(&mut self, place: Place, ask: &Ask, heap: u32, arena: u8) -> Part {
        let held = self.held(place.slot);
        let address = held.address(place.granule);
        let iova = held.iova.offset(u64::from(place.granule) * GRANULE_BYTES as u64);
        let tag = ask.used.tag;
        self.tallies.allocated(tag, ask.len_bytes);
        if self.guarded {
            self.fence_new(address, place, ask);
        }
        Part { address, len_bytes: ask.len_bytes, iova, heap, arena, slot: place.slot, tag }
    }

    /// Looks whether anybody wrote into the new block while it was free, and paints its red zone.
    #[cold]
    fn fence_new(&mut self, address: NonNull<u8>, place: Place, ask: &Ask) {
        if let Some(offset) = self.first_write(address, ask.used.granules) {
            self.counts.damaged += 1;
            let before = self.tlsf.table(place.slot).remembered(place.granule);
            let before = before.map_or_else(
                || "nothing known".to_owned(),
                |(len, tag)| format!("a block of {len} bytes ({tag})"),
            );
            let address = address.addr().get() + offset;
            tracing::error!("heap: free memory at {address:#x} was written to; before: {before}");
        }
        // SAFETY: the block hasn't been handed out yet; the slack is its end.
        unsafe { self.paint_slack(address, ask.used) };
    }

    /// The first byte of free memory from `start` on that somebody has written to, as an offset.
    pub(super) fn first_write(&self, start: NonNull<u8>, granules: u32) -> Option<usize> {
        // SAFETY: the memory is free, or hasn't been handed out yet: the heap's alone, under the
        // lock.
        unsafe { guard::first_change(start, granules as usize * GRANULE_BYTES, FREED) }
    }

    /// # Safety
    /// `address` is that of the block `used`, whose slack no one but the heap touches.
    unsafe fn paint_slack(&self, address: NonNull<u8>, used: Used) {
        // SAFETY: the slack is the last bytes of the block.
        unsafe {
            guard::paint(address.add(used.len_bytes()), usize::from(used.slack_bytes), RED);
        }
    }

    /// Where a block is and what the table knows of it, if it is one.
    #[inline]
    fn find(&self, part: &Part) -> Result<(Place, Used), Refusal> {
        let held = self.extents.get(usize::from(part.slot)).and_then(Option::as_ref);
        let address = part.address.addr().get();
        let used = held.and_then(|held| {
            let offset = address.wrapping_sub(held.va());
            let granule = u32::try_from(offset / GRANULE_BYTES).ok()?;
            let place = Place { slot: part.slot, granule };
            Some((place, self.tlsf.used(place)?))
        });
        match used {
            Some((place, used)) if used.len_bytes() == part.len_bytes => Ok((place, used)),
            _ => Err(match self.look_up(address) {
                Ok(_) => Refusal::Freed(None),
                Err(refusal) => refusal,
            }),
        }
    }

    /// Takes a block back. Tells whether extents aren't needed any more: the caller fetches them with
    /// `take_leaving` and drops them when the lock is released.
    #[inline]
    pub(super) fn give(&mut self, part: &Part) -> Result<bool, Refusal> {
        let (place, used) = self.find(part)?;
        if self.guarded {
            self.unfence(part, used)?;
        }
        self.tallies.freed(used.tag, part.len_bytes);
        if self.tlsf.give(place, used) {
            self.emptied(place.slot);
        }
        Ok(!self.leaving.is_empty())
    }

    /// Looks at the red zone and poisons the block.
    #[cold]
    fn unfence(&mut self, part: &Part, used: Used) -> Result<(), Refusal> {
        self.intact(part.address, used)?;
        let whole_bytes = used.granules as usize * GRANULE_BYTES;
        // SAFETY: the block is being given back: its owner doesn't use it any more.
        unsafe { guard::paint(part.address, whole_bytes, FREED) };
        Ok(())
    }

    /// Whether the red zone of a block is as it was painted.
    pub(super) fn intact(&self, address: NonNull<u8>, used: Used) -> Result<(), Refusal> {
        let (len_bytes, slack) = (used.len_bytes(), usize::from(used.slack_bytes));
        // SAFETY: the slack is part of the block, and the heap's alone.
        let changed = unsafe { guard::first_change(address.add(len_bytes), slack, RED) };
        changed.map_or(Ok(()), |at| Err(Refusal::Overrun { offset: len_bytes + at }))
    }

    /// An extent has become wholly free. If that makes more than are to be kept, the shorter ones go.
    fn emptied(&mut self, slot: u16) {
        self.keep(slot);
        while self.kept.len() > 1 && self.kept_bytes > self.keep_bytes {
            let (first, last) = (self.kept[0], self.kept[self.kept.len() - 1]);
            let first_is_longer = self.held(first).len_bytes() >= self.held(last).len_bytes();
            self.detach(if first_is_longer { last } else { first });
        }
    }

    fn keep(&mut self, slot: u16) {
        let at = self.kept.len();
        self.kept.push(slot);
        if let Some(held) = &mut self.extents[usize::from(slot)] {
            held.kept_at = Some(at);
            self.kept_bytes += held.len_bytes() as u64;
        }
    }

    /// The extent isn't wholly free any more, or goes.
    fn unkeep(&mut self, slot: u16) {
        let Some(held) = &mut self.extents[usize::from(slot)] else { return };
        let Some(at) = held.kept_at.take() else { return };
        self.kept_bytes -= held.len_bytes() as u64;
        self.kept.swap_remove(at);
        let moved = self.kept.get(at).copied();
        if let Some(moved) = moved.and_then(|slot| self.extents[usize::from(slot)].as_mut()) {
            moved.kept_at = Some(at);
        }
    }

    /// Gives up all wholly free extents.
    pub(super) fn trim(&mut self) -> Vec<Held> {
        while let Some(slot) = self.kept.last().copied() {
            self.detach(slot);
        }
        self.take_leaving()
    }

    fn detach(&mut self, slot: u16) {
        self.unkeep(slot);
        self.directory.clear(slot);
        if !self.tlsf.remove(slot) {
            unreachable!("only wholly free extents are kept");
        }
        self.ranges.retain(|range| range.2 != slot);
        if let Some(held) = self.extents[usize::from(slot)].take() {
            self.counts.given_back += 1;
            self.counts.total_bytes -= held.len_bytes() as u64;
            self.leaving.push(held);
        }
    }

    /// Makes a block longer or shorter where it is.
    pub(super) fn resize(&mut self, part: &mut Part, ask: &Ask) -> Result<(), Refusal> {
        let (place, used) = self.find(part)?;
        if self.guarded {
            self.intact(part.address, used)?;
        }
        let granule = part.address.addr().get() / GRANULE_BYTES;
        let fits = granule.is_multiple_of(ask.align_granules as usize);
        let (granules, slack) = (ask.used.granules, ask.used.slack_bytes);
        if !fits || !self.tlsf.resize(place, used, granules, slack) {
            return Err(Refusal::NoRoom);
        }
        self.tallies.resized(used.tag, part.len_bytes, ask.len_bytes);
        part.len_bytes = ask.len_bytes;
        if self.guarded {
            let now = Used { granules, slack_bytes: slack, ..used };
            let cut_bytes = used.granules.saturating_sub(granules) as usize * GRANULE_BYTES;
            // SAFETY: the block's slack, and behind it what was the block's end and is free now:
            // both are within the extent and the heap's alone.
            unsafe {
                self.paint_slack(part.address, now);
                let end = part.address.add(granules as usize * GRANULE_BYTES);
                guard::paint(end, cut_bytes, FREED);
            }
        }
        Ok(())
    }

    /// The block in use that starts at `address`: where, what, and its two addresses.
    pub(super) fn look_up(&self, address: usize) -> Result<(Place, Used, NonNull<u8>), Refusal> {
        let (place, held) = self.locate(address).ok_or(Refusal::Outside)?;
        let table = self.tlsf.table(place.slot);
        let offset = (address - held.va()) % GRANULE_BYTES;
        if let Some(used) = table.used(place.granule).filter(|_| offset == 0) {
            return Ok((place, used, held.address(place.granule)));
        }
        if let Some(cached) = table.cached(place.granule).filter(|_| offset == 0) {
            return Err(Refusal::Freed(Some((cached.len_bytes(), cached.tag))));
        }
        let start = table.start_of(place.granule).unwrap_or(0);
        let offset = offset + (place.granule - start) as usize * GRANULE_BYTES;
        let block = table.used(start).map(|used| (used.len_bytes(), used.tag));
        let freed = table.remembered(place.granule);
        if block.is_none() && (offset == 0 || freed.is_some()) {
            return Err(Refusal::Freed(freed));
        }
        Err(Refusal::Inside { offset, block })
    }

    /// The granule that has `address`.
    fn locate(&self, address: usize) -> Option<(Place, &Held)> {
        let after = self.ranges.partition_point(|range| range.0 <= address);
        let (start, end, slot) = *self.ranges.get(after.checked_sub(1)?)?;
        let granule = ((address - start) / GRANULE_BYTES) as u32;
        (address < end).then(|| (Place { slot, granule }, self.held(slot)))
    }

    /// The device's address of `address`, if it is in an extent.
    pub(super) fn iova_of(&self, address: usize) -> Option<Iova> {
        let (_, held) = self.locate(address)?;
        Some(held.iova.offset((address - held.va()) as u64))
    }

    /// The extents, by slot.
    pub(super) fn extents(&self) -> impl Iterator<Item = (u16, &Held)> {
        let extents = self.extents.iter().enumerate();
        extents.filter_map(|(slot, held)| Some((slot as u16, held.as_ref()?)))
    }

    #[inline]
    fn held(&self, slot: u16) -> &Held {
        match &self.extents[usize::from(slot)] {
            Some(held) => held,
            None => unreachable!("a place in an extent that was given back"),
        }
    }
}
