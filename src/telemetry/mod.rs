//! Counters that cost the hot path one store, and can be read by anybody.

mod counter;
mod cycles;

pub use counter::Counter;
pub use cycles::{LoopClock, LoopCycles, LoopTicks};
