//! What an lcore keeps of small free blocks, so that it needn't ask the arena each time.
//!
//! A cached block stands in the arena's table as one in use that has the mark of a cache; for
//! everybody but the arena it is free. The blocks of one length are a list through their entries,
//! the one that was freed last first, so the cache has no memory of its own for them. It is
//! filled by batches that are cut from one free block, and emptied by batches, each under
//! one taking of the arena's lock; what it holds is bounded in bytes. Neighbours are joined when blocks
//! go back to the arena: when the cache is full, when an allocation would fail otherwise, and on
//! [`Heap::trim`](super::Heap::trim).
#![expect(unsafe_code, reason = "reaches per-lcore values, and tables without the arena's lock")]

use super::biased::{Biased, Entered};
use super::class::{COLUMNS, Class, ROWS};
use super::config::Request;
use super::directory::Directory;
use super::table::{GRANULE_BYTES, Link, Place, Used, UsedWord};
use super::tally::Tallies;
use crate::memory::Iova;
use crate::sys::lcore_local::LcoreLocal;
use crate::sys::lock::Lock;
use std::ptr::NonNull;

/// The longest block that is cached, in bytes.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// As many blocks are taken from and given to the arena at a time at most, …
const BATCH_BLOCKS: u32 = 32;

/// … and as many granules are taken (32 KiB), or [`BATCH_LONG`] blocks if that is more.
const BATCH_GRANULES: u32 = 512;
const BATCH_LONG: u32 = 4;

/// Lists for up to this many granules have one length each.
const EXACT: u32 = 64;

/// Rows of the classes that blocks of `MOST_BYTES` and less are in; see [`list_of`].
const LISTS: usize = EXACT as usize + 5 * COLUMNS;

/// The list for a length. Beyond `EXACT` several lengths share one.
#[inline(always)]
fn list_of(granules: u32) -> usize {
    if granules < EXACT {
        return granules as usize;
    }
    let class = Class::of(granules);
    // Row 3 starts at 64 granules: 16 to 31 are row 1.
    debug_assert!((3..ROWS).contains(&class.row));
    EXACT as usize + (class.row - 3) * COLUMNS + class.column
}

/// Free blocks of one length.
#[derive(Clone, Copy, Debug)]
struct List {
    /// A [`Place`] in one word, as entries have it.
    head: Link,
    len: u32,
    /// The blocks' length while there are any. Lists that several lengths share are those of
    /// whose came first.
    granules: u32,
}

/// An lcore's free blocks, and what it allocated and freed.
#[derive(Debug)]
pub(super) struct Stock {
    lists: [List; LISTS],
    pub(super) tallies: Tallies,
    /// Granules in all lists.
    granules: u32,
    /// The list that blocks are given back from next, when all together are too much.
    hand: usize,
}

/// What a free block's holder gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Popped {
    pub(super) place: Place,
    pub(super) address: NonNull<u8>,
    pub(super) iova: Iova,
}

/// Why a block can't be taken into a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotStowed {
    /// It isn't what it says; the arena knows what it is.
    Unknown,
    /// The list is one of blocks of another length.
    OtherLength,
}

impl Stock {
    fn new() -> Self {
        Self {
            lists: [List { head: Link::END, len: 0, granules: 0 }; LISTS],
            tallies: Tallies::new(),
            granules: 0,
            hand: 0,
        }
    }

    /// Granules in the cache.
    #[inline(always)]
    pub(super) fn granules(&self) -> u32 {
        self.granules
    }

    /// Takes a block of that length out, if there is one.
    #[inline(always)]
    pub(super) fn pop(&mut self, directory: &Directory, used: Used) -> Option<Popped> {
        let list = &mut self.lists[list_of(used.granules)];
        if list.head == Link::END || list.granules != used.granules {
            return None;
        }
        let place = list.head.place();
        // SAFETY: the block is in this cache.
        let view = unsafe { directory.view(place.slot) }?;
        let entry = view.entry(place.granule)?;
        list.head = entry.next_stowed();
        list.len -= 1;
        self.granules -= used.granules;
        entry.hand_out(UsedWord::new(used));
        let (address, iova) = view.addresses(place.granule);
        Some(Popped { place, address, iova })
    }

    /// Puts in the block at `address`.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        directory: &Directory,
        slot: u16,
        address: NonNull<u8>,
        used: Used,
    ) -> Result<(), NotStowed> {
        let list = &mut self.lists[list_of(used.granules)];
        // SAFETY: the caller has the block, until it is in the list here.
        let view = unsafe { directory.view(slot) }.ok_or(NotStowed::Unknown)?;
        let granule = view.granule_at(address);
        let entry = view.entry(granule).ok_or(NotStowed::Unknown)?;
        let word = UsedWord::new(used);
        if !entry.holds(word) {
            return Err(NotStowed::Unknown);
        }
        if list.granules != used.granules {
            if list.len > 0 {
                return Err(NotStowed::OtherLength);
            }
            list.granules = used.granules;
        }
        entry.stow(word, list.head);
        list.head = Link::to(Place { slot, granule });
        list.len += 1;
        self.granules += used.granules;
        Ok(())
    }

    /// How many blocks of that length shall be fetched at once, if the cache may hold `most`
    /// granules; 0 if the list is one of another length.
    pub(super) fn wanted(&self, granules: u32, most: u32) -> u32 {
        let list = &self.lists[list_of(granules)];
        if list.len > 0 && list.granules != granules {
            return 0;
        }
        let batch = BATCH_GRANULES.max(granules * BATCH_LONG);
        let room = most.saturating_sub(self.granules).min(batch);
        (room / granules).clamp(1, BATCH_BLOCKS)
    }

    /// Takes over `count` blocks of that length from `place` on, side by side, which the arena has
    /// handed out as one.
    pub(super) fn fill(&mut self, directory: &Directory, place: Place, granules: u32, count: u32) {
        let used = Used { granules, ..Used::NOTHING };
        // SAFETY: the caller has just got that memory from the arena.
        let Some(view) = (unsafe { directory.view(place.slot) }) else { return };
        let list = &mut self.lists[list_of(granules)];
        // From the end, so that the first comes out first.
        for index in (0..count).rev() {
            let place = place.after(index * granules);
            let Some(entry) = view.entry(place.granule) else { continue };
            entry.stow(UsedWord::new(used), list.head);
            list.head = Link::to(place);
            list.len += 1;
            self.granules += granules;
        }
        list.granules = granules;
    }

    /// Takes out some blocks to be given back to the arena: of one length, up to a batch. Nothing if there
    /// are none.
    pub(super) fn drain(&mut self, directory: &Directory) -> Drained {
        let mut drained =
            Drained { places: [Place::NOWHERE; BATCH_BLOCKS as usize], count: 0, granules: 0 };
        for _ in 0..LISTS {
            if self.lists[self.hand].len > 0 {
                break;
            }
            self.hand = (self.hand + 1) % LISTS;
        }
        let list = &mut self.lists[self.hand];
        drained.granules = list.granules;
        for place in &mut drained.places {
            if list.head == Link::END {
                break;
            }
            let (here, count) = (list.head.place(), &mut drained.count);
            // SAFETY: the block is in this cache.
            let view = unsafe { directory.view(here.slot) };
            let Some(entry) = view.and_then(|view| view.entry(here.granule)) else { break };
            list.head = entry.next_stowed();
            list.len -= 1;
            self.granules -= list.granules;
            (*place, *count) = (here, *count + 1);
        }
        self.hand = (self.hand + 1) % LISTS;
        drained
    }

    /// Loses a block of a list, for a test of the check.
    #[cfg(all(test, not(loom)))]
    pub(super) fn forget_one(&mut self) {
        for list in self.lists.iter_mut().filter(|list| list.len == 1 || list.granules == 1) {
            if list.len > 0 {
                self.granules -= list.len * list.granules;
                (list.head, list.len) = (Link::END, 0);
            }
        }
    }

    /// Has a count that is wrong, for a test of the check.
    #[cfg(all(test, not(loom)))]
    pub(super) fn lie(&mut self) {
        self.granules += 1;
    }

    /// The blocks of all lists with the length they should have, for the arena's check; at most
    /// as many as there should be.
    pub(super) fn blocks(&self, mut next: impl FnMut(Place, u32) -> Option<Link>) -> Option<u64> {
        let (mut count, mut granules) = (0, 0);
        for list in &self.lists {
            let mut link = list.head;
            for _ in 0..list.len {
                granules += list.granules;
                count += 1;
                link = next(link.place(), list.granules)?;
            }
            if link != Link::END {
                return None;
            }
        }
        (granules == self.granules).then_some(count)
    }
}

/// Blocks of one length on their way back to the arena.
#[derive(Debug)]
pub(super) struct Drained {
    places: [Place; BATCH_BLOCKS as usize],
    count: usize,
    granules: u32,
}

impl Drained {
    pub(super) fn places(&self) -> &[Place] {
        &self.places[..self.count]
    }

    pub(super) fn granules(&self) -> u32 {
        self.granules
    }
}

/// An arena's caches: one for each lcore that allocated or freed something small.
#[derive(Debug)]
pub(super) struct Caches {
    by_lcore: LcoreLocal<Biased<Option<Box<Stock>>>>,
    /// Held by who looks into all of them.
    visiting: Lock<()>,
    /// What each may hold, in granules.
    pub(super) most_granules: u32,
}

impl Caches {
    /// Each of at most `most_bytes`; `None` if that is nothing, or if the kernel lacks what is
    /// needed to look into them.
    pub(super) fn new(most_bytes: u64) -> Option<Self> {
        let most_granules =
            u32::try_from(most_bytes / GRANULE_BYTES as u64).unwrap_or(u32::MAX / 4);
        (most_granules > 0 && super::biased::available()).then(|| Self {
            by_lcore: LcoreLocal::new(|_| Biased::new(None)),
            visiting: Lock::new(()),
            most_granules: most_granules.min(u32::MAX / 4),
        })
    }

    /// The calling lcore's; `None` if the thread is no lcore.
    ///
    /// # Safety
    /// While the guard lives, the caller calls nothing but the arena: nothing that could drop the
    /// lcore's claim, or come here again.
    #[inline(always)]
    pub(super) unsafe fn own(&self) -> Option<Own<'_>> {
        // SAFETY: nobody drops the claim meanwhile, as the caller promises.
        let cache = unsafe { self.by_lcore.own() }?;
        // SAFETY: an lcore is one thread at a time, and claims change hands with Release and
        // Acquire; the caller doesn't come here again.
        Some(Own(unsafe { cache.enter() }))
    }

    /// Runs `work` with those of all lcores, which wait if they come meanwhile. Not for who has
    /// an [`Own`], nor for who has the arena's lock.
    pub(super) fn all<R>(&self, work: impl FnOnce(&mut [&mut Stock]) -> R) -> R {
        // SAFETY: what is reached here is a `Biased`, which is Sync.
        let caches = unsafe { self.by_lcore.each() };
        // Its threads are no more than that, and each one more multiplies what it has to try.
        #[cfg(loom)]
        let caches = caches.take(2);
        let caches: Vec<_> = caches.collect();
        self.visiting.with(|()| {
            let visit = |stocks: &mut [&mut Option<Box<Stock>>]| {
                let stocks = stocks.iter_mut().filter_map(|stock| stock.as_deref_mut());
                work(&mut stocks.collect::<Vec<_>>())
            };
            // SAFETY: `visiting` lets one visitor in at a time; there are caches only where
            // the kernel has what it takes (`new`); callers have no `Own`.
            unsafe { Biased::visit(&caches, visit) }
        })
    }

    /// For the tests under loom, whose threads aren't lcores.
    ///
    /// # Safety
    /// One thread at a time says that it is that lcore.
    #[cfg(all(test, loom))]
    pub(super) unsafe fn as_lcore(&self, id: usize) -> Option<Own<'_>> {
        // SAFETY: as in `all`.
        let cache = unsafe { self.by_lcore.each() }.nth(id)?;
        // SAFETY: the caller's promise.
        Some(Own(unsafe { cache.enter() }))
    }
}

/// An lcore's own cache, which nobody else looks into while this lives.
#[derive(Debug)]
pub(super) struct Own<'a>(Entered<'a, Option<Box<Stock>>>);

impl Own<'_> {
    #[inline(always)]
    pub(super) fn stock(&mut self) -> &mut Stock {
        match &mut *self.0 {
            Some(stock) => stock,
            none => first_stock(none),
        }
    }
}

/// Out of line: once for each lcore.
#[cold]
#[inline(never)]
fn first_stock(place: &mut Option<Box<Stock>>) -> &mut Stock {
    place.get_or_insert_with(|| Box::new(Stock::new()))
}

impl Request {
    /// What the table would say of it in a heap without guards.
    #[inline(always)]
    pub(super) fn unguarded(&self) -> Used {
        Used::of(self.len_bytes, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_up_to_the_most_has_a_list() {
        let most = (MOST_BYTES / GRANULE_BYTES) as u32;
        let lists: Vec<_> = (1..=most).map(list_of).collect();
        assert!(lists.is_sorted());
        assert!(lists.iter().all(|list| *list < LISTS));
        assert_eq!(list_of(most), LISTS - COLUMNS);
        assert!((1..EXACT).all(|granules| list_of(granules) == granules as usize));
    }
}
