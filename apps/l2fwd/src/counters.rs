//! What lcores count: written by one lcore, read by the control plane.

use packetboat::telemetry::Counter;

use crate::forward::Turn;

/// Counters of one lcore, on cache lines of their own (128 bytes: neighbouring lines are fetched
/// in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LcoreCounters {
    ticks: Counter,
    busy_ticks: Counter,
    polls: Counter,
    found: Counter,
    frames: Counter,
    /// Times that it slept, and microseconds; with --interrupt-mode.
    pub(crate) sleeps: Counter,
    pub(crate) slept_us: Counter,
}

/// What an lcore had counted at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LcoreTotals {
    /// Ticks of the time-stamp counter spent in the loop.
    pub(crate) ticks: u64,
    /// Those spent in turns that found frames.
    pub(crate) busy_ticks: u64,
    /// Polls of a receive queue.
    pub(crate) polls: u64,
    /// Those that found frames.
    pub(crate) found: u64,
    /// Frames received.
    pub(crate) frames: u64,
}

impl LcoreCounters {
    /// Adds one turn over all lanes, which took `ticks`.
    #[inline(always)]
    pub(crate) fn add(&self, turn: &Turn, ticks: u64) {
        self.ticks.add(ticks);
        self.polls.add(turn.polls);
        if turn.found != 0 {
            self.busy_ticks.add(ticks);
            self.found.add(turn.found);
            self.frames.add(turn.frames);
        }
    }

    /// As numbers.
    pub(crate) fn read(&self) -> LcoreTotals {
        LcoreTotals {
            busy_ticks: self.busy_ticks.get(),
            found: self.found.get(),
            frames: self.frames.get(),
            // Read last, so that no share exceeds the whole.
            ticks: self.ticks.get(),
            polls: self.polls.get(),
        }
    }
}

impl LcoreTotals {
    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(earlier.ticks),
            busy_ticks: self.busy_ticks.saturating_sub(earlier.busy_ticks),
            polls: self.polls.saturating_sub(earlier.polls),
            found: self.found.saturating_sub(earlier.found),
            frames: self.frames.saturating_sub(earlier.frames),
        }
    }

    /// The share of time that went into turns that moved frames, from 0 to 1.
    pub(crate) fn busy_share(&self) -> f64 {
        ratio(self.busy_ticks, self.ticks).min(1.0)
    }

    /// Frames per poll that found any; 0 if none did.
    pub(crate) fn packets_per_burst(&self) -> f64 {
        ratio(self.frames, self.found)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_turns_count_as_time_only() {
        let counters = LcoreCounters::default();
        counters.add(&Turn { polls: 2, found: 0, frames: 0 }, 300);
        assert_eq!((counters.read().busy_share(), counters.read().packets_per_burst()), (0.0, 0.0));
        let before = counters.read();
        counters.add(&Turn { polls: 2, found: 1, frames: 24 }, 100);
        let all = counters.read();
        assert_eq!((all.busy_share(), all.packets_per_burst(), all.polls), (0.25, 24.0, 4));
        assert_eq!(all.since(&before).busy_share(), 1.0);
        assert_eq!(LcoreTotals::default().busy_share(), 0.0);
    }
}
