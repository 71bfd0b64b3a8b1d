//! A counter with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts; written by one thread (the lcore that owns the queue), read by any.
///
/// Adding is a load and a store, not an atomic addition: a queue's owner is alone in writing, and
/// a locked instruction per burst would be paid for nothing. Two writers would lose counts, never
/// more than that.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    #[inline(always)]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes back what was added too much: what was counted turned out to be nothing.
    pub fn take_back(&self, count: u64) {
        self.add(0_u64.wrapping_sub(count));
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
