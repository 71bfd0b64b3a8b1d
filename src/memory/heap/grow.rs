//! How a heap grows when its arenas have no room, and gives back what is wholly free.

use super::arena::Arena;
use super::config::Request;
use super::error::{Exhausted, HeapError};
use super::heap::Heap;
use super::state::{Ask, Held, Part, State};
use super::table::GRANULE_BYTES;
use crate::memory::{MemoryError, Size};
use std::sync::atomic::Ordering;

/// What is asked for when whole pages aren't to be had: a normal page.
const LEAST_PAGE_BYTES: usize = 4096;

impl Heap {
    /// Gives back what is cached, joined with its neighbours, and then the extents that are wholly
    /// free, also those that an arena keeps. Returns their length in bytes. Lcores that come to the
    /// heap wait meanwhile.
    pub fn trim(&self) -> u64 {
        self.make_room().1
    }

    /// As `trim`; tells also whether anything was cached.
    fn make_room(&self) -> (bool, u64) {
        let (mut any_cached, mut len_bytes) = (false, 0);
        for arena in &self.arenas {
            let (any, leaving) = arena.flush_all();
            any_cached |= any;
            len_bytes += self.give_back(leaving);
            len_bytes += self.give_back(arena.state.with(State::trim));
        }
        (any_cached, len_bytes)
    }

    /// Outside of the lock, since giving pages back may take long.
    #[cold]
    pub(super) fn give_back(&self, leaving: Vec<Held>) -> u64 {
        let mut sum_bytes = 0;
        for held in leaving {
            let len_bytes = held.len_bytes() as u64;
            drop(held);
            // Afterwards, so that limit and source agree on what is free.
            self.taken_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
            sum_bytes += len_bytes;
        }
        sum_bytes
    }

    /// A block for which no arena has room: of what caches have, or from the source.
    #[cold]
    pub(super) fn take_growing(&self, request: &Request, ask: &Ask) -> Result<Part, HeapError> {
        let matching = || self.arenas.iter().enumerate().filter(|(_, a)| request.accepts(a.node));
        if matching().next().is_none() {
            return Err(HeapError::Node {
                heap: self.config.name.clone(),
                node: request.node.unwrap_or_default(),
                found: self.arenas.iter().filter_map(|arena| arena.node).collect(),
                len_bytes: request.len_bytes,
                tag: request.tag,
            });
        }
        let mut source = None;
        for last in [false, true] {
            for (index, arena) in matching() {
                match self.grow(arena, index as u8, ask) {
                    Ok(part) => return Ok(part),
                    Err(error) => source = error,
                }
            }
            if last {
                break;
            }
            // What caches have may be enough, joined with what is around it; extents that are kept
            // for another size may stand in the way.
            let (any_cached, given_back_bytes) = self.make_room();
            if any_cached && let Some(part) = self.take_from_arenas(request, ask) {
                return Ok(part);
            }
            if given_back_bytes == 0 {
                break;
            }
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        Err(self.exhausted(request, source))
    }

    /// Takes an extent, and a block from it. If it can't, says why, unless it is the limit.
    fn grow(&self, arena: &Arena, index: u8, ask: &Ask) -> Result<Part, Option<MemoryError>> {
        let needed = ask.used.granules as usize * GRANULE_BYTES;
        let align = ask.align_granules as usize * GRANULE_BYTES;
        let page = self.source.page_len_bytes(arena.node).next_power_of_two();
        let mut reason = None;
        for (len, page) in [
            (needed.max(self.config.step_bytes), page),
            (needed, page),
            (needed, page.min(LEAST_PAGE_BYTES)),
        ] {
            let page = page.max(GRANULE_BYTES);
            let Some(len) = len.checked_next_multiple_of(page) else { continue };
            if !self.set_aside(len as u64) {
                continue;
            }
            let taken = self.source.take(arena.node, len, page.max(align));
            let extent = match taken {
                Ok(extent) => extent,
                Err(error) => {
                    self.taken_bytes.fetch_sub(len as u64, Ordering::Relaxed);
                    reason = Some(error);
                    continue;
                }
            };
            // The source may give more or less than it was asked for.
            let given = extent.len_bytes() as u64;
            self.taken_bytes.fetch_add(given.wrapping_sub(len as u64), Ordering::Relaxed);
            match arena.state.with(|state| state.grow(extent, ask, self.id, index)) {
                Ok(part) => return Ok(part),
                Err(extent) => {
                    drop(extent);
                    self.taken_bytes.fetch_sub(given, Ordering::Relaxed);
                }
            }
        }
        Err(reason)
    }

    /// Counts `len_bytes` as taken, unless that would be above the limit.
    fn set_aside(&self, len_bytes: u64) -> bool {
        let more = |taken: u64| {
            taken.checked_add(len_bytes).filter(|total| *total <= self.config.limit_bytes)
        };
        self.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn exhausted(&self, request: &Request, source: Option<MemoryError>) -> HeapError {
        let (mut total, mut free, mut largest) = (0, 0, 0);
        for arena in self.arenas.iter().filter(|arena| request.accepts(arena.node)) {
            arena.state.with(|state| {
                total += state.counts.total_bytes;
                free += state.tlsf.free_granules() * GRANULE_BYTES as u64;
                largest = largest.max(u64::from(state.tlsf.largest()) * GRANULE_BYTES as u64);
            });
        }
        HeapError::Exhausted(Box::new(Exhausted {
            heap: self.config.name.clone(),
            asked: Size(request.len_bytes as u64),
            align: request.align,
            node: request.node,
            tag: request.tag,
            total: Size(total),
            free: Size(free),
            largest: Size(largest),
            limit: Size(self.config.limit_bytes),
            source,
        }))
    }
}
