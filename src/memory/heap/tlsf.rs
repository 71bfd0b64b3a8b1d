//! Two-level segregated fit over the tables of an arena's extents.
//!
//! [`take`](Tlsf::take) finds a list whose blocks are all large enough by two look-ups in bit
//! maps, takes its first block and puts back what is too much; [`give`](Tlsf::give) joins a block
//! with its free neighbours and puts the whole at the head of its list. Neither has a loop that
//! depends on the number of blocks. Masmano et al. (see `class`) are followed with three changes:
//! sizes are counted in granules of 64 bytes; the blocks' headers and links stand in a table apart
//! (see `table`); and when the list that is sure to fit is empty, up to [`TRIES`] blocks of the
//! lists that may fit are looked at, so that the last block of just the right size is found too.

use super::class::{COLUMNS, Class, Occupied, ROWS, SIZE_END};
use super::table::{GRANULE_BYTES, Link, Place, State, Table, Used};

/// Blocks that are looked at in each list that isn't sure to fit.
const TRIES: usize = 8;

/// The free blocks of all extents of an arena, and who has the others.
#[derive(Debug)]
pub(super) struct Tlsf {
    /// By slot; without entries where there is no extent.
    tables: Vec<Table>,
    occupied: Occupied,
    heads: [[Place; COLUMNS]; ROWS],
    free_granules: u64,
    guarded: bool,
}

/// What was taken: where, and from an extent that was wholly free?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) first_in_extent: bool,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Used(Used),
    /// In a cache, with the length and tag that it had last.
    Cached(Used),
    Free,
}

/// A fault of the lists or the tables themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) what: &'static str,
}

impl Tlsf {
    pub(super) fn new(guarded: bool) -> Self {
        Self {
            tables: Vec::new(),
            occupied: Occupied::default(),
            heads: [[Place::NOWHERE; COLUMNS]; ROWS],
            free_granules: 0,
            guarded,
        }
    }

    /// Takes over an extent of `granules` from address `va` on, all free. `None` if it is longer
    /// than sizes go, there are 65,535 already, or there is no memory for its table.
    pub(super) fn add(&mut self, va: usize, granules: u32) -> Option<u16> {
        if granules == 0 || granules >= SIZE_END {
            return None;
        }
        let known = self.tables.iter().position(Table::is_vacant).unwrap_or(self.tables.len());
        let slot = u16::try_from(known).ok().filter(|slot| *slot != Place::NOWHERE.slot)?;
        let table = Table::new((va / GRANULE_BYTES) as u64, granules, self.guarded)?;
        match self.tables.get_mut(known) {
            Some(place) => *place = table,
            None => self.tables.push(table),
        }
        self.free_granules += u64::from(granules);
        self.link(Place { slot, granule: 0 }, granules);
        Some(slot)
    }

    /// Gives up an extent if all of it is free.
    pub(super) fn remove(&mut self, slot: u16) -> bool {
        let whole = Place { slot, granule: 0 };
        let Some(granules) = self.wholly_free(slot) else { return false };
        self.unlink(whole, granules);
        self.free_granules -= u64::from(granules);
        self.tables[usize::from(slot)] = Table::default();
        true
    }

    /// The extent's length, if all of it is free.
    pub(super) fn wholly_free(&self, slot: u16) -> Option<u32> {
        let table = self.tables.get(usize::from(slot))?;
        table.free(0).filter(|size| *size == table.granules())
    }

    /// Takes `used.granules` (at least 1) at an address that is a multiple of `align` granules (a power
    /// of two).
    #[inline]
    pub(super) fn take(&mut self, align: u32, used: Used) -> Option<Taken> {
        let worst = used.granules.checked_add(align - 1)?;
        let class = Class::at_least(worst).and_then(|class| self.occupied.first_from(class));
        let (place, size, gap) = match class {
            Some(class) => {
                let place = self.heads[class.row][class.column];
                let table = self.table(place.slot);
                let (size, next) = (table.free(place.granule)?, table.next(place.granule));
                let gap = table.gap(place.granule, align);
                self.pop(class, next);
                (place, size, gap)
            }
            None => {
                let found = self.find_closely(used.granules, align)?;
                self.unlink(found.0, found.1);
                found
            }
        };
        Some(self.carve(place, size, gap, used))
    }

    /// As [`take`](Self::take), from this extent, all of which is free.
    pub(super) fn take_first(&mut self, slot: u16, align: u32, used: Used) -> Option<Taken> {
        let size = self.wholly_free(slot)?;
        let gap = self.table(slot).gap(0, align);
        gap.checked_add(used.granules).filter(|total| *total <= size)?;
        let place = Place { slot, granule: 0 };
        self.unlink(place, size);
        Some(self.carve(place, size, gap, used))
    }

    /// Takes a block out of the free one of `size` at `place`, after `gap` granules. The free one
    /// is in no list any more.
    #[inline]
    fn carve(&mut self, place: Place, size: u32, gap: u32, used: Used) -> Taken {
        let granules = used.granules;
        let first_in_extent = place.granule == 0 && size == self.table(place.slot).granules();
        if gap > 0 {
            self.link(place, gap);
        }
        let place = place.after(gap);
        let rest = size - gap - granules;
        if rest > 0 {
            self.link(place.after(granules), rest);
        }
        self.free_granules -= u64::from(granules);
        self.table_mut(place.slot).set_used(place.granule, used);
        Taken { place, first_in_extent }
    }

    /// The block in use that starts at `place`, if one does.
    #[inline]
    pub(super) fn used(&self, place: Place) -> Option<Used> {
        self.tables.get(usize::from(place.slot))?.used(place.granule)
    }

    /// Takes back a block in use. Tells whether its extent is wholly free now.
    #[inline]
    pub(super) fn give(&mut self, place: Place, used: Used) -> bool {
        let table = self.table_mut(place.slot);
        table.remember(place.granule, used.len_bytes(), used.tag);
        self.free_granules += u64::from(used.granules);
        self.release(place, used.granules)
    }

    /// Makes a block in use longer or shorter where it is. Fails, without a change, if what
    /// follows isn't free or too short.
    pub(super) fn resize(&mut self, place: Place, used: Used, granules: u32, slack: u8) -> bool {
        let (old, after) = (used.granules, place.after(used.granules));
        if granules > old {
            let missing = granules - old;
            let Some(size) = self.table(place.slot).free(after.granule) else { return false };
            let Some(rest) = size.checked_sub(missing) else { return false };
            self.unlink(after, size);
            self.table_mut(place.slot).set_interior(after.granule);
            if rest > 0 {
                self.link(place.after(granules), rest);
            }
            self.free_granules -= u64::from(missing);
        }
        let resized = Used { granules, slack_bytes: slack, ..used };
        self.table_mut(place.slot).set_used(place.granule, resized);
        if granules < old {
            self.free_granules += u64::from(old - granules);
            self.release(place.after(granules), old - granules);
        }
        true
    }

    /// Joins `size` granules at `place`, which are in no list, with their free neighbours, and
    /// puts the whole in its list. Tells whether that is the whole extent.
    #[inline]
    fn release(&mut self, mut place: Place, mut size: u32) -> bool {
        let table = self.table(place.slot);
        let (after, before) = (table.free(place.granule + size), table.free_before(place.granule));
        if let Some(next) = after {
            let start = place.after(size);
            self.unlink(start, next);
            self.table_mut(place.slot).set_interior(start.granule);
            size += next;
        }
        if let Some(prev) = before {
            let start = Place { granule: place.granule - prev, ..place };
            self.unlink(start, prev);
            let table = self.table_mut(place.slot);
            table.set_interior(place.granule - 1);
            table.set_interior(place.granule);
            place = start;
            size += prev;
        }
        self.link(place, size);
        place.granule == 0 && size == self.table(place.slot).granules()
    }

    /// Looks at the first blocks of the lists that may fit: that of the size itself, and the first
    /// that is sure to fit if the alignment happens to. Tells where the block is, its length, and
    /// what to skip at its start.
    #[cold]
    fn find_closely(&self, granules: u32, align: u32) -> Option<(Place, u32, u32)> {
        let own = (granules < SIZE_END).then(|| Class::of(granules));
        let larger = Class::at_least(granules).and_then(|class| self.occupied.first_from(class));
        let lists = own.into_iter().chain(larger.filter(|_| align > 1));
        lists.filter(|class| self.occupied.has(*class)).find_map(|class| {
            self.list(class).take(TRIES).find_map(|(place, size)| {
                let gap = self.table(place.slot).gap(place.granule, align);
                let fits = gap.checked_add(granules).is_some_and(|total| total <= size);
                fits.then_some((place, size, gap))
            })
        })
    }

    /// Blocks of a list, with their lengths.
    fn list(&self, class: Class) -> impl Iterator<Item = (Place, u32)> + '_ {
        let mut place = self.heads[class.row][class.column];
        std::iter::from_fn(move || {
            if place == Place::NOWHERE {
                return None;
            }
            let (here, table) = (place, self.tables.get(usize::from(place.slot))?);
            let size = table.free(here.granule)?;
            place = table.next(here.granule);
            Some((here, size))
        })
    }

    /// Writes down a free block and puts it at the head of its list.
    #[inline]
    fn link(&mut self, place: Place, size: u32) {
        let class = Class::of(size);
        let head = std::mem::replace(&mut self.heads[class.row][class.column], place);
        self.table_mut(place.slot).set_free(place.granule, size, head);
        if head == Place::NOWHERE {
            self.occupied.set(class);
        } else {
            self.table_mut(head.slot).set_prev(head.granule, place);
        }
    }

    /// Takes a free block out of its list. Its entries stay as they are.
    #[inline]
    fn unlink(&mut self, place: Place, size: u32) {
        let class = Class::of(size);
        let next = self.table(place.slot).next(place.granule);
        if self.heads[class.row][class.column] == place {
            return self.pop(class, next);
        }
        let prev = self.table(place.slot).prev(place.granule);
        self.table_mut(prev.slot).set_next(prev.granule, next);
        if next != Place::NOWHERE {
            self.table_mut(next.slot).set_prev(next.granule, prev);
        }
    }

    /// `next` is the first of its list now.
    #[inline]
    fn pop(&mut self, class: Class, next: Place) {
        self.heads[class.row][class.column] = next;
        if next == Place::NOWHERE {
            self.occupied.clear(class);
        }
    }

    #[inline]
    pub(super) fn table(&self, slot: u16) -> &Table {
        &self.tables[usize::from(slot)]
    }

    #[inline]
    fn table_mut(&mut self, slot: u16) -> &mut Table {
        &mut self.tables[usize::from(slot)]
    }

    /// Free granules in all extents.
    pub(super) fn free_granules(&self) -> u64 {
        self.free_granules
    }

    /// The longest free block, in granules. Walks the list of the largest.
    pub(super) fn largest(&self) -> u32 {
        let sizes = self.occupied.last().map(|class| self.list(class).map(|(_, size)| size));
        sizes.and_then(Iterator::max).unwrap_or(0)
    }

    /// The slots that have an extent.
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        let slots = self.tables.iter().enumerate().filter(|(_, table)| !table.is_vacant());
        slots.map(|(slot, _)| slot as u16)
    }

    /// What follows the block at `place` in its cache, if it is a cached one of that length.
    pub(super) fn next_cached(&self, place: Place, granules: u32) -> Option<Link> {
        let table = self.tables.get(usize::from(place.slot))?;
        table.cached(place.granule).filter(|used| used.granules == granules)?;
        Some(table.entries().get(place.granule as usize)?.next_stowed())
    }

    /// Blocks of an extent in the order of their addresses: place, granules, and what they are.
    /// Ends early where the table makes no sense, which [`check`](Self::check) reports.
    pub(super) fn blocks(&self, slot: u16) -> impl Iterator<Item = (Place, u32, Kind)> {
        let table = self.tables.get(usize::from(slot));
        let mut granule = 0;
        std::iter::from_fn(move || {
            let table = table?;
            let used = table.used(granule).map(Kind::Used);
            let kind = used.or_else(|| table.cached(granule).map(Kind::Cached));
            let (size, kind) = match kind {
                Some(Kind::Used(used) | Kind::Cached(used)) => (used.granules, kind?),
                _ => (table.free(granule)?, Kind::Free),
            };
            let place = Place { slot, granule };
            granule = granule.checked_add(size)?;
            Some((place, size, kind))
        })
    }

    /// Walks all tables and lists: every granule is part of one block, no two free blocks touch,
    /// each free block is in the list of its size and no other, and the sums agree.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let fault = |place, what| Err(Fault { place, what });
        let (mut free, mut free_blocks) = (0, 0);
        for slot in self.slots() {
            let table = self.table(slot);
            let (mut end, mut free_before) = (0, false);
            for (place, size, kind) in self.blocks(slot) {
                let is_free = kind == Kind::Free;
                end = place.granule.saturating_add(size);
                if size == 0 || end > table.granules() {
                    return fault(place, "a block of no length, or beyond its extent");
                }
                for granule in place.granule + 1..end {
                    let last_of_free = granule + 1 == end && is_free;
                    let expected = if last_of_free { State::FreeEnd } else { State::Interior };
                    let here = Place { granule, ..place };
                    if table.state(granule) != expected {
                        return fault(here, "a granule within a block that says it isn't");
                    }
                    if last_of_free && table.end_size(granule) != size {
                        return fault(here, "a free block whose end has another length");
                    }
                }
                if is_free {
                    if free_before {
                        return fault(place, "two free blocks side by side");
                    }
                    free += u64::from(size);
                    free_blocks += 1;
                }
                free_before = is_free;
            }
            if end != table.granules() {
                let place = Place { slot, granule: end };
                return fault(place, "a granule that is part of no block");
            }
        }
        if free != self.free_granules {
            return fault(Place::NOWHERE, "the count of free granules is wrong");
        }
        self.check_lists(free_blocks)
    }

    fn check_lists(&self, mut blocks_left: u64) -> Result<(), Fault> {
        let fault = |place, what| Err(Fault { place, what });
        for (row, heads) in self.heads.iter().enumerate() {
            for (column, head) in heads.iter().enumerate() {
                let class = Class { row, column };
                if self.occupied.has(class) != (*head != Place::NOWHERE) {
                    return fault(*head, "a bit map that disagrees with its list");
                }
                let (mut before, mut place) = (Place::NOWHERE, *head);
                while place != Place::NOWHERE {
                    let table = self.tables.get(usize::from(place.slot));
                    let free = table.and_then(|table| Some((table, table.free(place.granule)?)));
                    let Some((table, size)) = free else {
                        return fault(place, "a block in a list that isn't free");
                    };
                    if Class::of(size) != class {
                        return fault(place, "a free block in the list of another size");
                    }
                    if before != Place::NOWHERE && table.prev(place.granule) != before {
                        return fault(place, "a free block whose link back is wrong");
                    }
                    let Some(left) = blocks_left.checked_sub(1) else {
                        return fault(place, "more blocks in lists than there are");
                    };
                    blocks_left = left;
                    (before, place) = (place, table.next(place.granule));
                }
            }
        }
        match blocks_left {
            0 => Ok(()),
            _ => fault(Place::NOWHERE, "free blocks that are in no list"),
        }
    }
}

#[cfg(test)]
mod tests;
