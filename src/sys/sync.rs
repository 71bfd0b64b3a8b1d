//! Atomics, cells and spinning, either the real ones or loom's.
//!
//! Lock-free code takes its atomics from here, so that `RUSTFLAGS="--cfg loom"` puts every
//! interleaving of it under loom's eye without a second version of the code.

#![cfg_attr(loom, expect(unsafe_code, reason = "loom's unsynchronised load"))]

#[cfg(loom)]
pub(crate) use loom::{hint::spin_loop, sync::Arc, sync::atomic};
#[cfg(not(loom))]
pub(crate) use std::{hint::spin_loop, sync::Arc, sync::atomic};

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// [`std::cell::UnsafeCell`] with loom's interface, as far as it is used: the closure gets the raw
/// pointer.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Asks `ready` until it has an answer: for what another thread is about to do. Now and then it lets
/// others run, since that thread may need this very processor.
#[cold]
#[inline(never)]
pub(crate) fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    const SPINS: u32 = 64; // about a microsecond
    let mut spins = 0;
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        spin_loop();
        spins += 1;
        // Loom's `spin_loop` lets others run each time.
        if !cfg!(loom) && spins == SPINS {
            spins = 0;
            std::thread::yield_now();
        }
    }
}

/// Loads a word that no thread but the calling one stores to: its own last store.
///
/// Under loom that is checked. It also isn't an access that loom looks at when it searches for
/// other orders: it would see the thread's own load before its store, and not another's before that.
#[inline(always)]
pub(crate) fn load_own(word: &atomic::AtomicU32) -> u32 {
    #[cfg(not(loom))]
    let value = word.load(atomic::Ordering::Relaxed);
    // SAFETY: loom panics if a store of another thread isn't ordered before this.
    #[cfg(loom)]
    let value = unsafe { word.unsync_load() };
    value
}
