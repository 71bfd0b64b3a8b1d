//! What lcores count: written by one lcore, read by the control plane.

use packetboat::telemetry::{Counter, LoopCycles, LoopTicks};

/// What one turn over all lanes found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Turn {
    /// Polls of a receive queue.
    pub(crate) polls: u64,
    /// Those that found frames.
    pub(crate) found: u64,
    /// The frames.
    pub(crate) frames: u64,
}

impl Turn {
    /// Adds a poll of one queue, which found so many.
    #[inline(always)]
    pub(crate) fn polled(&mut self, frames: usize) {
        self.polls += 1;
        self.found += u64::from(frames != 0);
        self.frames += frames as u64;
    }
}

/// Counters of one lcore, on cache lines of their own (128 bytes: neighbouring lines are fetched
/// in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LcoreCounters {
    /// Turns that found frames are busy.
    pub(crate) cycles: LoopCycles,
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
    /// Time in the loop; busy are turns that found frames.
    pub(crate) time: LoopTicks,
    /// Polls of a receive queue.
    pub(crate) polls: u64,
    /// Those that found frames.
    pub(crate) found: u64,
    /// Frames received.
    pub(crate) frames: u64,
}

impl LcoreCounters {
    /// Adds one turn over all lanes. Its time is the clock's to count.
    #[inline(always)]
    pub(crate) fn add(&self, turn: &Turn) {
        self.polls.add(turn.polls);
        if turn.found != 0 {
            self.found.add(turn.found);
            self.frames.add(turn.frames);
        }
    }

    /// As numbers.
    pub(crate) fn read(&self) -> LcoreTotals {
        LcoreTotals {
            time: self.cycles.read(),
            found: self.found.get(),
            frames: self.frames.get(),
            // Read last, so that no share exceeds the whole.
            polls: self.polls.get(),
        }
    }
}

impl LcoreTotals {
    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            time: self.time.since(&earlier.time),
            polls: self.polls.saturating_sub(earlier.polls),
            found: self.found.saturating_sub(earlier.found),
            frames: self.frames.saturating_sub(earlier.frames),
        }
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
    fn turns_add_up() {
        let counters = LcoreCounters::default();
        counters.add(&Turn { polls: 2, found: 0, frames: 0 });
        assert_eq!(counters.read().packets_per_burst(), 0.0);
        let before = counters.read();
        counters.add(&Turn { polls: 2, found: 1, frames: 24 });
        let all = counters.read();
        assert_eq!((all.packets_per_burst(), all.polls), (24.0, 4));
        assert_eq!((all.since(&before).polls, all.since(&before).found), (2, 1));
    }
}
