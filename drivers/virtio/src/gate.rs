//! The gate between a port and its queues: closed while there is no device to work with.
//!
//! A vhost-user back end may go away and come back. The port notices, closes the gate, and waits
//! until each queue has parked: its owner, who polls it, puts the ring back to its beginning. When a
//! new back end is there and knows the rings, the port opens the gate. So the rings have one owner
//! all the time, there is no lock, and an open gate costs one load and one comparison a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The port's side.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Even: open. Counts openings and closings.
    epoch: AtomicU32,
    /// Queues that have parked since it was closed.
    parked: AtomicU32,
}

impl Gate {
    /// Closes it, if it is open.
    pub(crate) fn close(&self) {
        if self.is_open() {
            self.parked.store(0, Ordering::Relaxed);
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Opens it, if it is closed. All queues must have parked.
    pub(crate) fn open(&self) {
        if !self.is_open() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.epoch.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Queues that have parked: what they wrote is seen after this.
    pub(crate) fn parked(&self) -> u32 {
        self.parked.load(Ordering::Acquire)
    }
}

/// A queue's side.
#[derive(Debug)]
pub(crate) struct Passage {
    gate: Arc<Gate>,
    /// The epoch that this queue works in, or [`NONE`].
    epoch: u32,
    /// The epoch that it worked in last.
    last: u32,
    /// The closed epoch in which it has parked last.
    parked_in: Option<u32>,
}

/// No gate gets so far.
const NONE: u32 = u32::MAX;

/// What a queue finds that can't pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is open again.
    Open,
    /// It was closed: put the ring back, and [`Passage::park`].
    Closed,
    /// Nothing to be done.
    Wait,
}

impl Passage {
    /// Of a gate that is open.
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        let epoch = gate.epoch.load(Ordering::Acquire);
        Self { gate: gate.clone(), epoch, last: epoch, parked_in: None }
    }

    /// Whether the queue may work.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.gate.epoch.load(Ordering::Acquire) == self.epoch
    }

    /// Stops this queue alone: until the gate was closed and opened.
    pub(crate) fn block(&mut self) {
        self.epoch = NONE;
    }

    /// Why it isn't open.
    pub(crate) fn look(&mut self) -> Found {
        let epoch = self.gate.epoch.load(Ordering::Acquire);
        if epoch.is_multiple_of(2) {
            if epoch == self.last {
                return Found::Wait; // blocked
            }
            (self.epoch, self.last) = (epoch, epoch);
            return Found::Open;
        }
        if self.parked_in == Some(epoch) { Found::Wait } else { Found::Closed }
    }

    /// The ring is as new.
    pub(crate) fn park(&mut self) {
        let epoch = self.gate.epoch.load(Ordering::Acquire);
        self.parked_in = Some(epoch);
        self.gate.parked.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_parks_once_each_time_and_goes_on_when_it_is_open_again() {
        let gate = Arc::new(Gate::default());
        let mut passage = Passage::new(&gate);
        for _ in 0..3 {
            assert!(passage.is_open());
            gate.close();
            gate.close();
            assert!(!passage.is_open() && gate.parked() == 0);
            assert_eq!(passage.look(), Found::Closed);
            passage.park();
            assert_eq!((passage.look(), gate.parked()), (Found::Wait, 1));
            gate.open();
            assert!(!passage.is_open());
            assert_eq!(passage.look(), Found::Open);
        }
    }

    #[test]
    fn a_blocked_queue_waits_for_the_gate_to_be_closed_and_opened() {
        let gate = Arc::new(Gate::default());
        let mut passage = Passage::new(&gate);
        passage.block();
        assert!(!passage.is_open());
        assert_eq!(passage.look(), Found::Wait);
        gate.close();
        assert!(!passage.is_open());
        assert_eq!(passage.look(), Found::Closed);
        passage.park();
        assert!(!passage.is_open());
        gate.open();
        assert_eq!(passage.look(), Found::Open);
        assert!(passage.is_open());
    }
}
