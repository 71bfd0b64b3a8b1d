//! Time at the price of one instruction.

use super::arch;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Now, in ticks. Rising, the same on all cores of a machine with an invariant counter (every
/// server processor of the last 15 years).
#[inline]
pub fn now() -> u64 {
    arch::timestamp()
}

/// Ticks in a second. The first call measures it against the monotonic clock and takes
/// 20 ms; later ones are a load.
pub fn hz() -> u64 {
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| measure(Duration::from_millis(20)))
}

/// `us` microseconds in ticks, rounded down; the greatest number there is if they don't fit.
pub fn ticks_from_us(us: u64) -> u64 {
    let ticks = u128::from(us) * u128::from(hz()) / 1_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// `ticks` as a duration.
pub fn duration(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(hz());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Counts ticks over at least `span`.
fn measure(span: Duration) -> u64 {
    let (start, first) = pair();
    std::thread::sleep(span);
    let (end, last) = pair();
    let nanos = end.duration_since(start).as_nanos().max(1);
    let hz = u128::from(last.wrapping_sub(first)) * 1_000_000_000 / nanos;
    u64::try_from(hz).unwrap_or(u64::MAX).max(1)
}

/// Both clocks at one moment: of several tries the one in which the monotonic clock was read
/// fastest, so that a pre-empted thread doesn't spoil the result.
fn pair() -> (Instant, u64) {
    let mut best = (Instant::now(), now());
    let mut best_width = u64::MAX;
    for _ in 0..16 {
        let before = now();
        let instant = Instant::now();
        let width = now().wrapping_sub(before);
        if width < best_width {
            best_width = width;
            best = (instant, before.wrapping_add(width / 2));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_within_a_thousandth() {
        let other = measure(Duration::from_millis(50));
        let difference = hz().abs_diff(other);
        assert!(difference * 1000 < hz(), "{} Hz and {other} Hz", hz());
    }

    #[test]
    fn ticks_and_time_turn_into_each_other() {
        assert_eq!(duration(hz()), Duration::from_secs(1));
        assert_eq!(ticks_from_us(1_000_000), hz());
        assert_eq!(ticks_from_us(u64::MAX), u64::MAX);
        let before = now();
        assert!(now() >= before);
    }
}
