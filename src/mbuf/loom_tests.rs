//! Every interleaving of owners that come and go, under loom: the counts in [`Owners`]. Run with
//! `scripts/test.sh loom`.
//!
//! The buffer is stood for by a cell that loom watches, and going back to the pool by a write to
//! it: loom fails the test if somebody still reads it then, or if the one that writes hasn't seen
//! the others' last read (a missing Release or Acquire).
//!
//! What loom doesn't check: the way of headers through pools (the mempool's models do), the links
//! of chains, external buffers (which are counted by `std`'s `Arc`), more owners than here.
#![expect(unsafe_code, reason = "reads and writes what the counts guard")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::owners::Owners;
use crate::sys::loom_model;

/// An mbuf as far as its owners are concerned.
struct Buffer {
    owners: Owners,
    data: UnsafeCell<u32>,
    /// How often it went back to its pool; Relaxed, so that it orders nothing.
    freed: AtomicUsize,
}

/// A share in a buffer: the mbuf itself, or a clone.
struct Share(Arc<Buffer>);

impl Share {
    fn first() -> Self {
        let (owners, freed) = (Owners::single(), AtomicUsize::new(0));
        Self(Arc::new(Buffer { owners, data: UnsafeCell::new(0), freed }))
    }

    fn share(&self) -> Self {
        assert!(self.0.owners.share());
        Self(Arc::clone(&self.0))
    }

    fn read(&self) -> u32 {
        // SAFETY: shared data is read only, as loom checks.
        self.0.data.with(|data| unsafe { *data })
    }

    /// Writes if that is allowed.
    fn try_write(&self) -> bool {
        let alone = self.0.owners.is_exclusive();
        if alone {
            // SAFETY: the only owner, as loom checks.
            self.0.data.with_mut(|data| unsafe { *data += 1 });
        }
        alone
    }

    /// What freeing a segment does.
    fn free(self) {
        self.0.owners.set_segments(1);
        if self.0.owners.release() {
            // SAFETY: the last owner; whoever takes it from the pool next writes to it.
            self.0.data.with_mut(|data| unsafe { *data = u32::MAX });
            self.0.freed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A clone goes: its header was never the buffer's, so the segments there aren't its own.
    fn free_clone(self) {
        if self.0.owners.release() {
            // SAFETY: as above.
            self.0.data.with_mut(|data| unsafe { *data = u32::MAX });
            self.0.freed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Three owners on three threads read, share, and go: exactly one is the last.
#[test]
fn loom_the_last_owner_alone_gives_the_buffer_back() {
    loom_model::model(Some(3), || {
        let first = Share::first();
        let buffer = Arc::clone(&first.0);
        let clones = [first.share(), first.share()];
        let threads = clones.map(|clone| {
            thread::spawn(move || {
                let other = clone.share();
                assert_eq!(clone.read(), 0);
                clone.free_clone();
                assert_eq!(other.read(), 0);
                other.free_clone();
            })
        });
        assert_eq!(first.read(), 0);
        first.free();
        for thread in threads {
            thread.join().expect("the thread's own checks hold");
        }
        assert_eq!(buffer.freed.load(Ordering::Relaxed), 1);
    });
}

/// Whoever finds itself alone may write, and has seen all that the others did; nobody is alone
/// while another is about to read.
#[test]
fn loom_only_who_is_alone_writes() {
    loom_model::model(None, || {
        let first = Share::first();
        let clone = first.share();
        let buffer = Arc::clone(&first.0);
        let thread = thread::spawn(move || {
            let before = clone.read();
            let wrote = clone.try_write();
            assert_eq!(clone.read(), before + u32::from(wrote));
            clone.free_clone();
            wrote
        });
        let wrote = first.try_write();
        let seen = first.read();
        assert!(seen <= 1 && (!wrote || seen == 1));
        first.free();
        let other_wrote = thread.join().expect("the thread's own checks hold");
        assert!(!(wrote && other_wrote), "one goes before the other is alone");
        assert_eq!(buffer.freed.load(Ordering::Relaxed), 1);
    });
}

/// The mbuf's holder changes the number of its segments while clones count themselves in and out.
#[test]
fn loom_segments_are_not_lost_in_the_counting() {
    loom_model::model(Some(3), || {
        let first = Share::first();
        first.0.owners.set_segments(5);
        let clones = [first.share(), first.share()];
        let threads = clones.map(|clone| {
            thread::spawn(move || {
                let other = clone.share();
                clone.free_clone();
                other.free_clone();
            })
        });
        first.0.owners.set_segments(256);
        assert_eq!(first.0.owners.segments(), 256);
        first.0.owners.set_segments(3);
        for thread in threads {
            thread.join().expect("the thread's own checks hold");
        }
        assert_eq!((first.0.owners.segments(), first.0.owners.count()), (3, 1));
        first.0.owners.set_segments(1);
        assert!(first.0.owners.is_single());
    });
}
