//! Counters that cost the hot path one store, and can be read by anybody.

mod counter;

pub use counter::Counter;
