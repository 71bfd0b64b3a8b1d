//! The walk over all that an arena's lock guards, which looks for damage.

use super::cache::Stock;
use super::state::{Refusal, State};
use super::table::{GRANULE_BYTES, Place, Used};
use super::tag::Tag;
use super::tlsf::{Fault, Kind};
use std::ptr::NonNull;

/// What `check` went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) extents: u64,
    pub(super) used_blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) live_bytes: u64,
}

/// What `check` found.
#[derive(Debug)]
pub(super) enum Damage {
    Fault { address: usize, what: &'static str },
    Overrun { address: usize, used: Used, offset: usize },
    WrittenAfterFree { address: usize, block: Option<(usize, Tag)> },
}

impl State {
    /// Walks everything, with all caches standing still; see [`Heap::check`](super::Heap::check).
    pub(super) fn check(&self, stocks: &[&mut Stock]) -> Result<Checked, Damage> {
        let fault = |Fault { place, what }| self.fault(place, what);
        self.tlsf.check().map_err(fault)?;
        let (mut seen, mut cached_blocks) = (Checked::default(), 0);
        for (slot, held) in self.extents() {
            seen.extents += 1;
            if self.tlsf.wholly_free(slot).is_some() != held.kept_at.is_some() {
                let what = "a wholly free extent that was neither kept nor given back";
                return Err(Damage::Fault { address: held.va(), what });
            }
            for (place, granules, kind) in self.tlsf.blocks(slot) {
                let address = held.address(place.granule);
                match kind {
                    Kind::Used(used) => {
                        seen.used_blocks += 1;
                        seen.live_bytes += used.len_bytes() as u64;
                        if let Err(Refusal::Overrun { offset }) = self.guarded_intact(address, used)
                        {
                            let address = address.addr().get();
                            return Err(Damage::Overrun { address, used, offset });
                        }
                    }
                    Kind::Cached(_) => cached_blocks += 1,
                    Kind::Free => {
                        seen.free_blocks += 1;
                        self.check_poison(address, granules, place)?;
                    }
                }
            }
        }
        self.check_sums(&seen, cached_blocks, stocks)?;
        seen.free_blocks += cached_blocks;
        Ok(seen)
    }

    /// Each cached block is in a list of one cache, and all counts agree with what was seen.
    fn check_sums(
        &self,
        seen: &Checked,
        cached_blocks: u64,
        stocks: &[&mut Stock],
    ) -> Result<(), Damage> {
        let (mut left, mut sum) = (cached_blocks, (*self.tallies).clone());
        for stock in stocks {
            let next = |place: Place, granules| self.tlsf.next_cached(place, granules);
            let Some(count) = stock.blocks(next) else {
                return Err(self.fault(Place::NOWHERE, "a cache whose lists are not what they say"));
            };
            left = left.wrapping_sub(count);
            sum.add(&stock.tallies);
        }
        if left != 0 {
            return Err(self.fault(Place::NOWHERE, "cached blocks that are in no cache"));
        }
        let live = sum.total().counts();
        if (live.live_blocks, live.live_bytes) != (seen.used_blocks, seen.live_bytes) {
            return Err(self.fault(Place::NOWHERE, "the counts of live blocks are wrong"));
        }
        Ok(())
    }

    fn fault(&self, place: Place, what: &'static str) -> Damage {
        let held = self.extents.get(usize::from(place.slot)).and_then(Option::as_ref);
        let offset = place.granule as usize * GRANULE_BYTES;
        Damage::Fault { address: held.map_or(0, |held| held.va() + offset), what }
    }

    fn guarded_intact(&self, address: NonNull<u8>, used: Used) -> Result<(), Refusal> {
        if self.guarded { self.intact(address, used) } else { Ok(()) }
    }

    fn check_poison(&self, start: NonNull<u8>, granules: u32, place: Place) -> Result<(), Damage> {
        if !self.guarded {
            return Ok(());
        }
        let Some(offset) = self.first_write(start, granules) else { return Ok(()) };
        let block = self.tlsf.table(place.slot).remembered(place.granule);
        Err(Damage::WrittenAfterFree { address: start.addr().get() + offset, block })
    }
}
