//! Where a loop's time goes: busy or idle.

use super::Counter;
use crate::sys::tsc;

/// Ticks of a loop, written by the thread that runs it, read by any. On cache lines of its own
/// (128 bytes: neighbouring lines are fetched in pairs), since it changes with each turn.
///
/// ```
/// use packetboat::telemetry::LoopCycles;
/// let cycles = LoopCycles::default();
/// let mut clock = cycles.start();
/// for found in [true, false, false] {
///     // … poll, and work on what was found …
///     clock.turn(found);
/// }
/// let read = cycles.read();
/// assert!(read.busy_ticks <= read.ticks);
/// ```
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCycles {
    ticks: Counter,
    busy_ticks: Counter,
}

/// What was counted up to one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LoopTicks {
    /// Ticks of the time-stamp counter spent in the loop.
    pub ticks: u64,
    /// Those spent in turns that found work.
    pub busy_ticks: u64,
}

/// A loop's clock: one reading of the time-stamp counter for each turn.
#[derive(Debug)]
pub struct LoopClock<'c> {
    cycles: &'c LoopCycles,
    now: u64,
}

impl LoopCycles {
    /// Before the first turn.
    #[must_use]
    pub fn start(&self) -> LoopClock<'_> {
        LoopClock { cycles: self, now: tsc::now() }
    }

    /// As numbers.
    #[must_use]
    pub fn read(&self) -> LoopTicks {
        let busy_ticks = self.busy_ticks.get();
        // Read last, so that a share never exceeds the whole.
        LoopTicks { ticks: self.ticks.get(), busy_ticks }
    }

    /// Counts a turn that took `ticks`.
    #[inline(always)]
    pub fn add(&self, ticks: u64, busy: bool) {
        self.ticks.add(ticks);
        if busy {
            self.busy_ticks.add(ticks);
        }
    }
}

impl LoopClock<'_> {
    /// When the last turn ended, in ticks.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// At the end of each turn: did it find work? Returns the turn's ticks.
    #[inline(always)]
    pub fn turn(&mut self, busy: bool) -> u64 {
        let before = std::mem::replace(&mut self.now, tsc::now());
        let ticks = self.now.wrapping_sub(before);
        self.cycles.add(ticks, busy);
        ticks
    }

    /// What has passed since the last turn is nobody's: the loop slept.
    pub fn skip(&mut self) {
        self.now = tsc::now();
    }
}

impl LoopTicks {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(earlier.ticks),
            busy_ticks: self.busy_ticks.saturating_sub(earlier.busy_ticks),
        }
    }

    /// Ticks of turns that found nothing.
    #[must_use]
    pub fn idle_ticks(&self) -> u64 {
        self.ticks.saturating_sub(self.busy_ticks)
    }

    /// The share of turns that found work in the loop's time, from 0 to 1; 0 of no time.
    #[must_use]
    pub fn busy_share(&self) -> f64 {
        if self.ticks == 0 { 0.0 } else { (self.busy_ticks as f64 / self.ticks as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_turns_count_as_time_only() {
        let cycles = LoopCycles::default();
        assert_eq!(cycles.read().busy_share(), 0.0);
        cycles.add(300, false);
        let before = cycles.read();
        assert_eq!((before.busy_share(), before.idle_ticks()), (0.0, 300));
        cycles.add(100, true);
        let all = cycles.read();
        assert_eq!((all.busy_share(), all.idle_ticks(), all.busy_ticks), (0.25, 300, 100));
        assert_eq!(all.since(&before), LoopTicks { ticks: 100, busy_ticks: 100 });
    }

    #[test]
    fn a_clock_counts_all_the_time_between_its_start_and_its_last_turn() {
        let cycles = LoopCycles::default();
        let mut clock = cycles.start();
        let start = clock.now();
        let sum: u64 = (0..100).map(|nth| clock.turn(nth % 2 == 0)).sum();
        let read = cycles.read();
        assert_eq!(read.ticks, clock.now() - start);
        assert_eq!(read.ticks, sum);
        clock.skip();
        assert!(clock.now() - start >= sum);
        assert_eq!(cycles.read(), read);
        assert!(read.busy_ticks > 0 && read.idle_ticks() > 0);
    }
}
