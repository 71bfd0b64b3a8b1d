//! The gate between a port and its queues: closed while there is no device to work with.
//!
//! A vhost-user back end may go away and come back. The port notices, closes the gate, and waits
//! until each queue has parked: its owner, who polls it, puts the ring back to its beginning. When a
//! new back end is there and knows the rings, the port opens the gate. So the rings have one owner
//! all the time, there is no lock, and an open gate costs one load and one comparison a burst.
//!
//! It is also how the port hands a queue a frame of its own to send: the gate is said to have been closed
//! and opened, so that the queue looks up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use packetboat::mbuf::Mbuf;

/// The port's side.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Even: open. Counts openings and closings.
    epoch: AtomicU32,
    /// Queues that have parked since it was closed.
    parked: AtomicU32,
    /// What one who comes through shall send.
    frame: Mutex<Option<Mbuf>>,
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

    /// Has a queue send `frame`: as soon as it is polled, if the gate is open, or else once it is. One that
    /// waits since earlier is dropped.
    pub(crate) fn hand_in(&self, frame: Mbuf) {
        self.put(frame);
        if self.is_open() {
            self.epoch.fetch_add(2, Ordering::Release);
        }
    }

    fn put(&self, frame: Mbuf) {
        let before = self.frame.lock().unwrap_or_else(PoisonError::into_inner).replace(frame);
        drop(before);
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
    /// Until it has parked.
    blocked: bool,
    /// The closed epoch in which it has parked last.
    parked_in: Option<u32>,
}

impl Passage {
    /// What the port has handed in, if it has.
    pub(crate) fn take_frame(&self) -> Option<Mbuf> {
        self.gate.frame.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// There was no room for it: looks up once more at the next call.
    pub(crate) fn put_back(&mut self, frame: Mbuf) {
        self.gate.put(frame);
        self.epoch = NONE;
    }
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
        Self { gate: gate.clone(), epoch, blocked: false, parked_in: None }
    }

    /// Whether the queue may work.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.gate.epoch.load(Ordering::Acquire) == self.epoch
    }

    /// Stops this queue alone: until the gate was closed and opened.
    pub(crate) fn block(&mut self) {
        self.epoch = NONE;
        self.blocked = true;
    }

    /// Why it isn't open.
    pub(crate) fn look(&mut self) -> Found {
        let epoch = self.gate.epoch.load(Ordering::Acquire);
        if epoch.is_multiple_of(2) {
            if self.blocked {
                return Found::Wait;
            }
            self.epoch = epoch;
            return Found::Open;
        }
        if self.parked_in == Some(epoch) { Found::Wait } else { Found::Closed }
    }

    /// The ring is as new.
    pub(crate) fn park(&mut self) {
        let epoch = self.gate.epoch.load(Ordering::Acquire);
        self.parked_in = Some(epoch);
        self.blocked = false;
        self.gate.parked.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packetboat::mbuf::{MbufPool, MbufPoolConfig};
    use packetboat::memory::{Memory, MemoryConfig};

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

    #[test]
    fn a_frame_is_taken_once_and_moves_no_blocked_queue() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("frames", 8)).unwrap();
        let gate = Arc::new(Gate::default());
        let mut passage = Passage::new(&gate);
        gate.hand_in(pool.alloc().unwrap());
        gate.hand_in(pool.alloc().unwrap());
        assert!(!passage.is_open());
        assert_eq!(passage.look(), Found::Open);
        let frame = passage.take_frame().unwrap();
        assert!(passage.is_open() && passage.take_frame().is_none());
        passage.put_back(frame);
        assert!(!passage.is_open());
        assert_eq!(passage.look(), Found::Open);
        drop(passage.take_frame().unwrap());
        assert_eq!(pool.objects().in_use(), 0);

        passage.block();
        gate.hand_in(pool.alloc().unwrap());
        assert_eq!(passage.look(), Found::Wait);
        gate.close();
        assert_eq!(passage.look(), Found::Closed);
        passage.park();
        gate.hand_in(pool.alloc().unwrap());
        assert_eq!(passage.look(), Found::Wait);
        gate.open();
        assert_eq!(passage.look(), Found::Open);
        assert!(passage.take_frame().is_some());
    }
}
