//! What a pool has counted, for people.

use std::fmt;

/// How a pool's caches have done, summed over lcores. A moment's view while others work.
///
/// The counts are exact and cost the usual case nothing: hits are counted in the word that holds
/// the cache's length, which changes anyway, and the rest where a cache runs empty or full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MempoolStats {
    /// Objects in the pool.
    pub count: usize,
    /// Objects that nobody has.
    pub available: usize,
    /// Of these, those in caches of lcores.
    pub cached: usize,
    /// Times that a cache had all that was asked for.
    pub cache_hits: u64,
    /// Times that a cache had to ask the free list.
    pub cache_misses: u64,
    /// Times that a cache gave to the free list.
    pub cache_flushes: u64,
    /// Times that objects were asked for and there weren't enough.
    pub empty: u64,
    /// Faults that cookies have found: double puts, foreign objects, overruns.
    pub faults: u64,
}

/// `100 objects, 98 available (40 cached); hits 12, misses 3, flushes 2, empty 0, faults 0`.
impl fmt::Display for MempoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, available, cached, cache_hits, cache_misses, cache_flushes, .. } = self;
        write!(
            f,
            "{count} objects, {available} available ({cached} cached); hits {cache_hits}, \
             misses {cache_misses}, flushes {cache_flushes}, empty {}, faults {}",
            self.empty, self.faults
        )
    }
}
