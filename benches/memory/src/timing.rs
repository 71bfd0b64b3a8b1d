//! The first table: cycles, round by round.

use std::time::{Duration, Instant};

use crate::side::{Side, SideError};

/// A round whose canary took longer than this, against the best, isn't kept.
const GOOD_CANARY: f64 = 1.08;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds to keep of each row; in each, ours runs twice and the peer once.
    pub(crate) rounds: usize,
    /// No row takes longer than this.
    pub(crate) at_most: Duration,
    /// Whatever the canary says: figures for nobody, but the same way through the code.
    pub(crate) any_canary: bool,
}

/// What was measured of one row, in its unit. Sorted when it is complete.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// In each round, ours once before and once after the peer, in turns.
    pub(crate) ours_a: Vec<f64>,
    pub(crate) ours_b: Vec<f64>,
    pub(crate) ours: Vec<f64>,
    pub(crate) peer: Vec<f64>,
    /// Rounds with a bad canary.
    pub(crate) rejected: usize,
}

impl Samples {
    /// Ours over the peer's, of medians.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(quantile(&self.ours, 0.5)? / quantile(&self.peer, 0.5)?)
    }

    /// Ours against itself: 1, if nothing disturbed.
    pub(crate) fn control(&self) -> Option<f64> {
        Some(quantile(&self.ours_a, 0.5)? / quantile(&self.ours_b, 0.5)?)
    }
}

/// Of sorted values, the one below which that share of them lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// Measures one row: both sides take turns on one core.
pub(crate) fn measure(
    ours: &mut Side,
    peer: &mut Side,
    row: &str,
    effort: Effort,
) -> Result<Samples, SideError> {
    let mut samples = Samples::default();
    let start = Instant::now();
    while samples.peer.len() < effort.rounds && start.elapsed() < effort.at_most {
        let before = ours.run(row)?;
        let between = peer.run(row)?;
        let after = ours.run(row)?;
        let worst = before.canary.max(between.canary).max(after.canary);
        if worst > GOOD_CANARY && !effort.any_canary {
            samples.rejected += 1;
            continue;
        }
        // In turns, so that drift is on neither side of the control.
        let (a, b) = match samples.peer.len() % 2 {
            0 => (before, after),
            _ => (after, before),
        };
        samples.ours_a.push(a.cycles);
        samples.ours_b.push(b.cycles);
        samples.peer.push(between.cycles);
    }
    samples.ours.extend(samples.ours_a.iter().chain(&samples.ours_b));
    for values in [&mut samples.ours, &mut samples.ours_a, &mut samples.ours_b, &mut samples.peer] {
        values.sort_by(f64::total_cmp);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_list() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.25), Some(7.0));
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 0.25), Some(2.0));
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 0.75), Some(4.0));
        assert_eq!(quantile(&values, 1.0), Some(5.0));
    }
}
