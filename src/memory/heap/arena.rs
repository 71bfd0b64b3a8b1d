//! The part of a heap on one node: its lcores' caches, and behind them what one lock guards.
#![expect(unsafe_code, reason = "vouches for who comes to the caches")]

use super::cache::{Caches, NotStowed, Popped, Stock};
use super::config::{HeapConfig, Request};
use super::directory::Directory;
use super::state::{Held, Part, State};
use super::table::Used;
use crate::sys::lock::Lock;
use std::sync::Arc;

/// One node's part of a heap.
#[derive(Debug)]
pub(super) struct Arena {
    /// `None`: its memory may be anywhere.
    pub(super) node: Option<u32>,
    pub(super) state: Lock<State>,
    /// `None` in a guarded heap, and where the kernel lacks what they need.
    pub(super) caches: Option<Caches>,
    directory: Arc<Directory>,
}

/// What became of a block that was offered to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stowed {
    Yes,
    /// Yes, and the cache holds more than it should.
    Full,
    /// The thread is no lcore, the cache has no list for it, or it isn't what it says: ask the arena.
    No,
}

impl Arena {
    pub(super) fn new(node: Option<u32>, config: &HeapConfig) -> Self {
        let directory = Arc::new(Directory::new());
        let state = State::new(config, Arc::clone(&directory));
        let caches = Caches::new(config.cache_most_bytes());
        Self { node, state: Lock::new(state), caches, directory }
    }

    /// A block from the calling lcore's cache, which is filled if it has none of that length. `None` if
    /// it can't be, or if the thread is no lcore.
    #[inline(always)]
    pub(super) fn take_cached(&self, request: &Request, heap: u32, arena: u8) -> Option<Part> {
        let caches = self.caches.as_ref()?;
        // SAFETY: only this arena is called before it goes.
        let mut own = unsafe { caches.own() }?;
        self.take_from(own.stock(), caches, request, heap, arena)
    }

    #[inline(always)]
    pub(super) fn take_from(
        &self,
        stock: &mut Stock,
        caches: &Caches,
        request: &Request,
        heap: u32,
        arena: u8,
    ) -> Option<Part> {
        let used = request.unguarded();
        let popped = match stock.pop(&self.directory, used) {
            Some(popped) => popped,
            None => self.refill(stock, caches, used)?,
        };
        let (len_bytes, tag) = (request.len_bytes, request.tag);
        stock.tallies.allocated(tag, len_bytes);
        let Popped { place, address, iova } = popped;
        Some(Part { address, len_bytes, iova, heap, arena, slot: place.slot, tag })
    }

    /// Cuts a batch of blocks out of a free one.
    #[cold]
    #[inline(never)]
    fn refill(&self, stock: &mut Stock, caches: &Caches, used: Used) -> Option<Popped> {
        let mut count = stock.wanted(used.granules, caches.most_granules);
        while count > 0 {
            let whole = Used { granules: used.granules * count, ..Used::NOTHING };
            if let Some(place) = self.state.with(|state| state.take_whole(whole)) {
                stock.fill(&self.directory, place, used.granules, count);
                return stock.pop(&self.directory, used);
            }
            count /= 2;
        }
        None
    }

    /// Puts a block into the calling lcore's cache.
    #[inline(always)]
    pub(super) fn give_cached(&self, part: &Part) -> Stowed {
        let Some(caches) = &self.caches else { return Stowed::No };
        // SAFETY: only this arena is called before it goes.
        let Some(mut own) = (unsafe { caches.own() }) else { return Stowed::No };
        self.give_to(own.stock(), caches, part)
    }

    #[inline(always)]
    pub(super) fn give_to(&self, stock: &mut Stock, caches: &Caches, part: &Part) -> Stowed {
        let used = Used::of(part.len_bytes, part.tag);
        match stock.push(&self.directory, part.slot, part.address, used) {
            Ok(()) => {
                stock.tallies.freed(part.tag, part.len_bytes);
                if stock.granules() > caches.most_granules { Stowed::Full } else { Stowed::Yes }
            }
            Err(NotStowed::Unknown | NotStowed::OtherLength) => Stowed::No,
        }
    }

    /// Gives a batch of the calling lcore's cache back to the arena, and what the arena doesn't need then
    /// to the caller, to be dropped.
    #[cold]
    pub(super) fn flush_own(&self) -> Vec<Held> {
        let Some(caches) = &self.caches else { return Vec::new() };
        // SAFETY: only this arena is called before it goes.
        let Some(mut own) = (unsafe { caches.own() }) else { return Vec::new() };
        self.flush_batch(own.stock())
    }

    pub(super) fn flush_batch(&self, stock: &mut Stock) -> Vec<Held> {
        let drained = stock.drain(&self.directory);
        self.state.with(|state| state.give_drained(&drained))
    }

    /// Gives back what all caches have. Tells whether that was anything, and what the arena doesn't
    /// need any more.
    pub(super) fn flush_all(&self) -> (bool, Vec<Held>) {
        let (mut any, mut leaving) = (false, Vec::new());
        self.with_stocks(|stocks| {
            for stock in stocks {
                while stock.granules() > 0 {
                    any = true;
                    leaving.append(&mut self.flush_batch(stock));
                }
            }
        });
        (any, leaving)
    }

    /// Runs `work` with all caches, which stand still meanwhile.
    pub(super) fn with_stocks<R>(&self, work: impl FnOnce(&mut [&mut Stock]) -> R) -> R {
        match &self.caches {
            Some(caches) => caches.all(work),
            None => work(&mut []),
        }
    }
}
