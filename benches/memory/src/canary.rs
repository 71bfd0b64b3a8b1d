//! Is the core ours alone just now?

use packetboat::sys::tsc;
use std::hint::black_box;

/// A loop that keeps all of a core's adders busy: it takes longer whenever something else runs on
/// the core's other hardware thread. A round counts only beside a good one.
pub(crate) struct Canary {
    best: u64,
}

impl Canary {
    pub(crate) fn calibrated() -> Self {
        let best = (0..20_000).map(|_| chirp()).min().unwrap_or(u64::MAX);
        Self { best }
    }

    /// How long it takes now, against the best so far: 1 is good.
    pub(crate) fn ratio(&mut self) -> f64 {
        let now = chirp();
        self.best = self.best.min(now);
        now as f64 / self.best as f64
    }
}

/// Four chains of shifts and exclusive ors that don't wait for each other. Each shifts by other
/// amounts, so that they can't be done in one vector.
fn chirp() -> u64 {
    let start = tsc::now();
    let (mut a, mut b, mut c, mut d) = black_box((1_u64, 2_u64, 3_u64, 4_u64));
    for _ in 0..250 {
        a ^= a << 13;
        b ^= b << 11;
        c ^= c << 9;
        d ^= d << 7;
        a ^= a >> 7;
        b ^= b >> 5;
        c ^= c >> 3;
        d ^= d >> 9;
    }
    black_box((a, b, c, d));
    tsc::now() - start
}
