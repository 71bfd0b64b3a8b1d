//! A lock for a few dozen instructions.
#![expect(unsafe_code, reason = "a lock hands out a reference to what it guards")]

use crate::sys::sync::UnsafeCell;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
use crate::sys::sync::spin_loop;
#[cfg(not(loom))]
use crate::sys::sync::wait_for;

/// A spinning lock, for sections of a few dozen instructions: taken with one exchange, released
/// with one store, where a mutex that can put threads to sleep needs a second exchange.
///
/// Who waits for long (the holder was preempted) yields the processor, so that more threads than
/// cores get on. Threads of a real-time class shouldn't share a core and an arena: yielding does
/// not let a lower priority run.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    /// Acquire when taken, Release when given up: a holder sees all that the one before did.
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives a reference to one thread at a time, ordered by `held`; so sharing the lock
// needs no more than that the value may move from thread to thread.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` while no other thread is in here.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        if !self.try_take() {
            self.wait();
        }
        let _release = Release(&self.held);
        // SAFETY: `held` was false and is true by this thread, until `_release` goes at the end
        // of this function; no other thread is here meanwhile, and the reference doesn't leave
        // the closure. `work` can't come here again: the heap never calls itself while locked.
        self.value.with_mut(|value| work(unsafe { &mut *value }))
    }

    /// Compares, so that who fails doesn't write: loom takes no notice that an exchange follows
    /// the store that it read directly, and would find an exchange that comes after the release.
    #[inline]
    fn try_take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self) {
        loop {
            // Loom bounds how often a thread may look without getting on.
            #[cfg(loom)]
            spin_loop();
            #[cfg(not(loom))]
            wait_for(|| (!self.held.load(Ordering::Relaxed)).then_some(()));
            if self.try_take() {
                return;
            }
        }
    }
}

/// Releases the lock, also when `work` panics.
struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
