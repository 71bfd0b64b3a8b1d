//! Whether the device still does its part: looked at now and then, off the hot path.

use std::sync::Arc;
use std::time::Duration;

use crate::bar::Bar;
use crate::clock::Instant;
use crate::registers::{CTRL_EXT, RDH, TDH, TDT};
use crate::start::DRIVER_LOADED;
use crate::{rx, tx};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// A queue that doesn't get on for so many looks has hung.
const PATIENCE: u32 = 8;

/// Notes on each queue of a running port.
#[derive(Debug)]
pub(crate) struct Watch {
    last: Instant,
    rx: Vec<RxNotes>,
    tx: Vec<TxNotes>,
    found: Option<String>,
}

#[derive(Debug)]
struct RxNotes {
    progress: Arc<rx::Progress>,
    size: u16,
    taken: u64,
    polls: u64,
    late: u32,
}

#[derive(Debug)]
struct TxNotes {
    progress: Arc<tx::Progress>,
    done: u64,
    refused: u64,
    head: u32,
    late: u32,
}

impl Watch {
    pub(crate) fn new(
        rx: impl IntoIterator<Item = (Arc<rx::Progress>, u16)>,
        tx: impl IntoIterator<Item = Arc<tx::Progress>>,
    ) -> Self {
        let rx = rx.into_iter().map(|(progress, size)| {
            let (taken, polls) = (progress.taken.get(), progress.polls.get());
            RxNotes { progress, size, taken, polls, late: 0 }
        });
        let tx = tx.into_iter().map(|progress| {
            let (done, refused) = (progress.done.get(), progress.refused.get());
            TxNotes { progress, done, refused, head: 0, late: 0 }
        });
        let (rx, tx) = (rx.collect(), tx.collect());
        Self { last: Instant::now(), rx, tx, found: None }
    }

    /// What is wrong, once it is. `can_send`: whether frames can leave at all.
    pub(crate) fn look(&mut self, bar: &Bar, can_send: impl Fn() -> bool) -> Option<String> {
        if self.found.is_none() && self.last.elapsed() >= PERIOD {
            self.last = Instant::now();
            self.found = self.find(bar, can_send());
        }
        self.found.clone()
    }

    fn find(&mut self, bar: &Bar, can_send: bool) -> Option<String> {
        let control = bar.read(CTRL_EXT);
        if control == u32::MAX {
            return Some("the device is gone: its registers read as all ones".to_owned());
        }
        if control & DRIVER_LOADED == 0 {
            return Some("the device was reset behind this program's back".to_owned());
        }
        for (queue, notes) in (0..).zip(&mut self.rx) {
            if notes.is_late(bar, queue) {
                return Some(format!(
                    "receive queue {queue} uses buffers and doesn't say that it is done with them"
                ));
            }
        }
        for (queue, notes) in (0..).zip(&mut self.tx) {
            if notes.is_late(bar, queue, can_send) {
                return Some(format!("transmit queue {queue} has stopped sending"));
            }
        }
        None
    }
}

impl RxNotes {
    /// The head has left what was taken back behind, though the queue was polled.
    fn is_late(&mut self, bar: &Bar, queue: u16) -> bool {
        let (taken, polls) = (self.progress.taken.get(), self.progress.polls.get());
        let behind = u64::from(bar.read_at(RDH, queue)) != taken % u64::from(self.size.max(1));
        let idle = taken == self.taken && polls != self.polls;
        (self.taken, self.polls) = (taken, polls);
        self.late = if behind && idle { self.late + 1 } else { 0 };
        self.late >= PATIENCE
    }
}

impl TxNotes {
    /// There is something to send and the head stands still; or all was sent, and the driver isn't
    /// told, so that it has to refuse frames.
    fn is_late(&mut self, bar: &Bar, queue: u16, can_send: bool) -> bool {
        let (done, refused) = (self.progress.done.get(), self.progress.refused.get());
        let (head, tail) = (bar.read_at(TDH, queue), bar.read_at(TDT, queue));
        let stuck = head != tail && head == self.head && done == self.done;
        let untold = refused != self.refused && done == self.done;
        (self.done, self.refused, self.head) = (done, refused, head);
        self.late = if can_send && (stuck || untold) { self.late + 1 } else { 0 };
        self.late >= PATIENCE
    }
}
