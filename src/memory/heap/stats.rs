//! What a heap has, and for what: numbers, a dump for people, and a check of everything.

use super::arena::Arena;
use super::cache::Stock;
use super::check::Damage;
use super::error::HeapError;
use super::heap::Heap;
use super::state::State;
use super::table::GRANULE_BYTES;
use super::tag::Tag;
use super::tally::{Tallies, Tally};
use super::tlsf::Kind;
use crate::memory::Size;
use std::io::{self, Write};
use std::sync::atomic::Ordering;

/// A heap's state, or that of its part on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// Bytes taken from the source.
    pub total_bytes: u64,
    /// Bytes of free blocks, those in caches included.
    pub free_bytes: u64,
    /// Bytes of the free blocks in lcores' caches.
    pub cached_bytes: u64,
    /// Bytes of the longest free block outside of caches.
    pub largest_free_bytes: u64,
    /// Bytes of blocks in use, as asked for. What is missing from `total_bytes` is rounding up to
    /// 64 bytes, and red zones.
    pub live_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Extents that these bytes are in.
    pub extents: u64,
    /// Blocks allocated so far; those that `realloc` made included.
    pub allocated: u64,
    /// Blocks freed so far.
    pub freed: u64,
    /// Requests refused for want of memory so far; a block that should move counts for its own
    /// node and again for the others. Known of the whole heap only, otherwise 0.
    pub failures: u64,
    /// Extents taken so far.
    pub grown: u64,
    /// Extents given back so far.
    pub given_back: u64,
    /// Blocks that were found to have been written to while they were free (guarded heaps).
    pub damaged: u64,
}

/// What there is of one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagCounts {
    /// Blocks allocated so far.
    pub allocated: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Bytes in use, as asked for.
    pub live_bytes: u64,
}

/// A tag and what there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagStats {
    /// The tag.
    pub tag: Tag,
    /// Its counts, over all nodes.
    pub counts: TagCounts,
}

/// What [`Heap::check`] went over and found in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Extents.
    pub extents: u64,
    /// Blocks in use.
    pub used_blocks: u64,
    /// Free blocks, those in caches included.
    pub free_blocks: u64,
}

impl State {
    /// With all caches standing still.
    fn stats(&self, stocks: &[&mut Stock]) -> HeapStats {
        let counts = self.counts;
        let total = self.tallies_with(stocks).total();
        let live = total.counts();
        let cached: u64 = stocks.iter().map(|stock| u64::from(stock.granules())).sum();
        HeapStats {
            total_bytes: counts.total_bytes,
            free_bytes: (self.tlsf.free_granules() + cached) * GRANULE_BYTES as u64,
            cached_bytes: cached * GRANULE_BYTES as u64,
            largest_free_bytes: u64::from(self.tlsf.largest()) * GRANULE_BYTES as u64,
            live_bytes: live.live_bytes,
            live_blocks: live.live_blocks,
            extents: self.extents().count() as u64,
            allocated: live.allocated,
            freed: total.freed_blocks(),
            failures: 0,
            grown: counts.grown,
            given_back: counts.given_back,
            damaged: counts.damaged,
        }
    }

    fn tallies_with(&self, stocks: &[&mut Stock]) -> Tallies {
        let mut sum = (*self.tallies).clone();
        stocks.iter().for_each(|stock| sum.add(&stock.tallies));
        sum
    }
}

impl Arena {
    /// Runs `work` with the caches and the state, all of which stand still meanwhile: one moment's
    /// numbers, and those of all.
    fn at_rest<R>(&self, work: impl FnOnce(&State, &[&mut Stock]) -> R) -> R {
        self.with_stocks(|stocks| self.state.with(|state| work(state, stocks)))
    }
}

impl HeapStats {
    fn add(&mut self, other: &Self) {
        self.total_bytes += other.total_bytes;
        self.free_bytes += other.free_bytes;
        self.cached_bytes += other.cached_bytes;
        self.largest_free_bytes = self.largest_free_bytes.max(other.largest_free_bytes);
        self.live_bytes += other.live_bytes;
        self.live_blocks += other.live_blocks;
        self.extents += other.extents;
        self.allocated += other.allocated;
        self.freed += other.freed;
        self.grown += other.grown;
        self.given_back += other.given_back;
        self.damaged += other.damaged;
    }
}

impl Heap {
    /// The state of the whole heap. Nodes are looked at one after the other, each at one moment: lcores
    /// that come to the heap just then wait some microseconds.
    pub fn stats(&self) -> HeapStats {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut sum = HeapStats { failures, ..HeapStats::default() };
        for (_, stats) in self.node_stats() {
            sum.add(&stats);
        }
        sum
    }

    /// The state by node; `None` stands for memory that may be anywhere.
    pub fn node_stats(&self) -> Vec<(Option<u32>, HeapStats)> {
        let stats = |arena: &Arena| arena.at_rest(State::stats);
        self.arenas.iter().map(|arena| (arena.node, stats(arena))).collect()
    }

    /// The tags that blocks were ever allocated for.
    pub fn tags(&self) -> Vec<TagStats> {
        let mut sum = Tallies::new();
        for arena in &self.arenas {
            sum.add(&arena.at_rest(State::tallies_with));
        }
        let tags = sum.by_tag().map(Tally::counts).enumerate();
        let tags = tags.filter(|(_, counts)| counts.allocated > 0);
        let stats = |(index, counts)| TagStats { tag: Tag::from_index(index as u8), counts };
        tags.map(stats).collect()
    }

    /// Writes sums, nodes, extents and tags, one a line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump(&self, out: &mut dyn Write) -> io::Result<()> {
        self.dump_lines(out, false)
    }

    /// As [`dump`](Self::dump), and each block below its extent. An arena is locked while its
    /// blocks are listed.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump_blocks(&self, out: &mut dyn Write) -> io::Result<()> {
        self.dump_lines(out, true)
    }

    fn dump_lines(&self, out: &mut dyn Write, with_blocks: bool) -> io::Result<()> {
        let stats = self.stats();
        writeln!(
            out,
            "heap {}: {} of at most {}, {} free (largest block {}; {} in caches), {} blocks in use \
             with {}{}",
            self.name(),
            Size(stats.total_bytes),
            Size(self.config.limit_bytes),
            Size(stats.free_bytes),
            Size(stats.largest_free_bytes),
            Size(stats.cached_bytes),
            stats.live_blocks,
            Size(stats.live_bytes),
            if self.is_guarded() { ", guarded" } else { "" },
        )?;
        writeln!(
            out,
            "  {} allocated, {} freed, {} refused; {} extents taken, {} given back; {} damaged",
            stats.allocated,
            stats.freed,
            stats.failures,
            stats.grown,
            stats.given_back,
            stats.damaged,
        )?;
        for arena in &self.arenas {
            let mut text = Vec::new();
            arena.at_rest(|state, _| dump_arena(&mut text, state, with_blocks))?;
            match arena.node {
                Some(node) => writeln!(out, "node {node}:")?,
                None => writeln!(out, "any node:")?,
            }
            out.write_all(&text)?;
        }
        for TagStats { tag, counts } in self.tags() {
            let TagCounts { allocated, live_blocks, live_bytes } = counts;
            let size = Size(live_bytes);
            writeln!(
                out,
                "tag {tag}: {live_blocks} blocks in use with {size}, {allocated} so far"
            )?;
        }
        Ok(())
    }

    /// Walks every extent and every list, and looks at every red zone and every free byte of a
    /// guarded heap. Takes time in proportion to the heap's size, and locks an arena meanwhile.
    ///
    /// # Errors
    /// What is wrong first: [`HeapError::Corrupt`], [`HeapError::Overrun`] or
    /// [`HeapError::WrittenAfterFree`].
    pub fn check(&self) -> Result<CheckReport, HeapError> {
        let mut report = CheckReport::default();
        for arena in &self.arenas {
            let seen = arena.at_rest(State::check);
            let seen = seen.map_err(|damage| self.damage(damage))?;
            report.extents += seen.extents;
            report.used_blocks += seen.used_blocks;
            report.free_blocks += seen.free_blocks;
        }
        Ok(report)
    }

    fn damage(&self, damage: Damage) -> HeapError {
        let heap = self.config.name.clone();
        match damage {
            Damage::Fault { address, what } => HeapError::Corrupt { heap, what, address },
            Damage::Overrun { address, used, offset } => {
                let (len_bytes, tag) = (used.len_bytes(), used.tag);
                HeapError::Overrun { heap, address, len_bytes, tag, offset }
            }
            Damage::WrittenAfterFree { address, block } => {
                HeapError::WrittenAfterFree { heap, address, block }
            }
        }
    }
}

fn dump_arena(out: &mut Vec<u8>, state: &State, with_blocks: bool) -> io::Result<()> {
    for (slot, held) in state.extents() {
        let (va, len, iova) = (held.va(), Size(held.len_bytes() as u64), held.iova());
        writeln!(out, "  extent {slot}: {va:#x}, {len}, iova {iova}")?;
        if !with_blocks {
            continue;
        }
        for (place, granules, kind) in state.tlsf.blocks(slot) {
            let address = va + place.granule as usize * GRANULE_BYTES;
            let len = granules as usize * GRANULE_BYTES;
            match kind {
                Kind::Used(used) => {
                    writeln!(out, "    {address:#x}  {:>12}  {}", used.len_bytes(), used.tag)?;
                }
                Kind::Cached(_) => writeln!(out, "    {address:#x}  {len:>12}  (free, cached)")?,
                Kind::Free => writeln!(out, "    {address:#x}  {len:>12}  (free)")?,
            }
        }
    }
    Ok(())
}
