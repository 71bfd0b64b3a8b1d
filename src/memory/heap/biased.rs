//! A lock that costs its owner next to nothing, and whoever else comes a system call.
//!
//! An owner that works on its value millions of times a second sets a flag, looks at another, works,
//! and clears the flag: no atomic exchange, no fence. Somebody who comes once in a while, to look or to
//! take things away, sets the other flag, makes all cores pass a barrier
//! ([`membarrier`](crate::sys::membarrier)), and waits until the owner's flag is clear. Between
//! the owner's store and its load the processor may swap the two; the barrier on its core sees to
//! it that one of the two notices the other (Dekker's algorithm with one side's fence moved to
//! the other: Dice, Huang, Yang: "Asymmetric Dekker Synchronization", 2001).
//!
//! Under loom and Miri, which know no such system call, both sides have a fence: the same protocol.
#![expect(unsafe_code, reason = "the lock hands out a reference to what it guards")]

use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::{UnsafeCell, wait_for};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A value with an owner.
#[derive(Debug)]
pub(super) struct Biased<T> {
    /// The owner is in there. Released when it leaves.
    busy: AtomicBool,
    /// Somebody else is in there, or about to be. Released when they leave.
    frozen: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a reference is given to one thread at a time: to the owner while `busy` and not `frozen`,
// to a visitor while `frozen` and not `busy`; each sees what the one before did. So sharing needs
// no more than that the value may move from thread to thread.
unsafe impl<T: Send> Sync for Biased<T> {}

/// Between setting the own flag and looking at the other, on the owner's side.
#[inline(always)]
fn light_barrier() {
    #[cfg(any(loom, miri))]
    crate::sys::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(any(loom, miri)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// The same on the visitor's side, for the owners' cores too.
fn heavy_barrier() {
    #[cfg(any(loom, miri))]
    crate::sys::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(any(loom, miri)))]
    if let Err(error) = crate::sys::membarrier::everywhere() {
        // `available` said that it can be had, and nobody takes that away but a filter of system
        // calls that is put on later. Going on would corrupt the heap.
        tracing::error!("membarrier, which was to be had at start, was refused: {error}");
        std::process::abort();
    }
}

/// Whether this kernel has what it takes.
pub(super) fn available() -> bool {
    cfg!(any(loom, miri)) || crate::sys::membarrier::register()
}

/// Clears the flag, also when a panic passes.
#[derive(Debug)]
struct Leave<'a>(&'a AtomicBool);

impl Drop for Leave<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The owner in there: its value, until this is dropped.
#[derive(Debug)]
pub(super) struct Entered<'a, T> {
    value: NonNull<T>,
    // Dropped after the last use of the value.
    _leave: Leave<'a>,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the value is this owner's alone while this lives (`enter`).
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; borrowed mutably.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Biased<T> {
    pub(super) fn new(value: T) -> Self {
        let (busy, frozen) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { busy, frozen, value: UnsafeCell::new(value) }
    }

    /// Lets the owner in, once no visitor is in there. A guard and no closure, since closures aren't
    /// always compiled in place.
    ///
    /// # Safety
    /// No two threads are the owner at a time, one comes after the other in the sense of the memory
    /// model, and the owner doesn't come here again while the guard lives.
    #[inline(always)]
    pub(super) unsafe fn enter(&self) -> Entered<'_, T> {
        self.busy.store(true, Ordering::Relaxed);
        light_barrier();
        if self.frozen.load(Ordering::Acquire) {
            self.wait();
        }
        // There is one owner, `busy` keeps visitors out, and `frozen` said that none is in there:
        // the barriers make one of the two notice the other.
        let value = self.value.with_mut(|value| value);
        // SAFETY: a cell's address isn't null.
        Entered { value: unsafe { NonNull::new_unchecked(value) }, _leave: Leave(&self.busy) }
    }

    /// Lets the visitor go first.
    #[cold]
    fn wait(&self) {
        loop {
            self.busy.store(false, Ordering::Release);
            wait_until_clear(&self.frozen);
            self.busy.store(true, Ordering::Relaxed);
            light_barrier();
            if !self.frozen.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Runs `work` with the values of all `those`, whose owners wait meanwhile.
    ///
    /// # Safety
    /// One visitor at a time comes to any of `those`, which are different ones; kernel support is
    /// [`available`]; the calling thread hasn't entered one of them.
    pub(super) unsafe fn visit<R>(those: &[&Self], work: impl FnOnce(&mut [&mut T]) -> R) -> R {
        for one in those {
            one.frozen.store(true, Ordering::Relaxed);
        }
        let _leave: Vec<Leave> = those.iter().map(|one| Leave(&one.frozen)).collect();
        heavy_barrier();
        let open = |one: &&Self| {
            wait_until_clear(&one.busy);
            // SAFETY: `frozen` keeps the owner out, `busy` said that it isn't in there, and there is
            // no other visitor; the reference doesn't outlive `_leave`.
            one.value.with_mut(|value| unsafe { &mut *value })
        };
        let mut values: Vec<&mut T> = those.iter().map(open).collect();
        work(&mut values)
    }
}

fn wait_until_clear(flag: &AtomicBool) {
    wait_for(|| (!flag.load(Ordering::Acquire)).then_some(()));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn owner_and_visitors_are_never_in_there_together() {
        let rounds: u32 = if cfg!(miri) { 20 } else { 20_000 };
        assert!(available());
        let (cell, other) = (Biased::new(0_u32), Biased::new(0_u32));
        let visits = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let mut done = 0;
                // As long as somebody visits, so that they meet.
                while done < rounds || visits.load(Ordering::Relaxed) < 50 {
                    // SAFETY: this thread is the one owner.
                    *unsafe { cell.enter() } += 1;
                    done += 1;
                }
                done
            });
            for _ in 0..50 {
                // SAFETY: this thread is the one visitor.
                let seen = unsafe {
                    Biased::visit(&[&other, &cell], |values| {
                        let seen = *values[1];
                        std::thread::yield_now();
                        assert_eq!(*values[1], seen, "the owner was in there");
                        *values[1] += 1_000_000;
                        seen
                    })
                };
                let seen = seen / 1_000_000;
                assert_eq!(seen, visits.fetch_add(1, Ordering::Relaxed));
            }
            let done = owner.join().unwrap();
            // SAFETY: the owner is gone.
            assert_eq!(*unsafe { cell.enter() }, 50_000_000 + done);
        });
    }
}
