//! Ctrl-C and SIGTERM.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use packetboat::eal::StopFlag;

use crate::error::Error;

/// Reasons to stop, for one who sleeps meanwhile.
pub(crate) struct Wakeups {
    stop: StopFlag,
    signals: Receiver<()>,
}

impl Wakeups {
    /// Listens to signals from now on.
    ///
    /// # Errors
    /// If the handler can't be installed.
    pub(crate) fn on_signals() -> Result<Self, Error> {
        let (wakeups, stopper) = Self::new();
        ctrlc::set_handler(move || stopper.stop())?;
        Ok(wakeups)
    }

    /// The two ends: one who sleeps, one who ends it.
    pub(crate) fn new() -> (Self, Stopper) {
        let stop = StopFlag::new();
        let (sender, signals) = channel();
        (Self { stop: stop.clone(), signals }, Stopper { stop, sender })
    }

    /// Sleeps for `time`, or less if there is a reason to stop: true then, and from then on.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        if !self.stop.is_set() {
            match self.signals.recv_timeout(time) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(time),
            }
        }
        self.stop.is_set()
    }
}

/// Wakes the one who sleeps, for good.
pub(crate) struct Stopper {
    stop: StopFlag,
    sender: Sender<()>,
}

impl Stopper {
    /// Stop.
    pub(crate) fn stop(&self) {
        self.stop.set();
        let _ = self.sender.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reason_to_stop_ends_the_sleep_and_lasts() {
        let (wakeups, stopper) = Wakeups::new();
        assert!(!wakeups.wait(Duration::from_millis(1)));
        let began = Instant::now();
        let other = std::thread::spawn(move || stopper.stop());
        assert!(wakeups.wait(Duration::from_secs(60)));
        assert!(wakeups.wait(Duration::from_secs(60)));
        assert!(began.elapsed() < Duration::from_secs(30));
        other.join().unwrap();
    }
}
