//! Time, as the driver waits for it.
//!
//! All waiting goes through here, so that fuzzing can do without: there the clock moves on whenever
//! somebody looks at it or sleeps, and nobody really waits.

pub(crate) use imp::{Instant, sleep};

use std::time::Duration;

/// Shorter than this is too short for a timer.
const SHORT: Duration = Duration::from_micros(100);

/// Waits, precisely if it is for a short time.
pub(crate) fn pause(time: Duration) {
    if time > SHORT {
        return sleep(time);
    }
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[cfg(not(fuzzing))]
mod imp {
    pub(crate) use std::thread::sleep;
    pub(crate) use std::time::Instant;
}

#[cfg(fuzzing)]
mod imp {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    static NOW_US: AtomicU64 = AtomicU64::new(0);

    /// How far a look moves the clock on: on this machine everything takes long.
    const LOOK_US: u64 = 10_000;

    fn pass(us: u64) -> u64 {
        NOW_US.fetch_add(us, Ordering::Relaxed) + us
    }

    /// As [`std::time::Instant`].
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Instant(u64);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(pass(LOOK_US))
        }

        pub(crate) fn elapsed(self) -> Duration {
            Duration::from_micros(pass(LOOK_US).saturating_sub(self.0))
        }
    }

    /// As [`std::thread::sleep`].
    pub(crate) fn sleep(time: Duration) {
        pass(time.as_micros() as u64);
    }
}
