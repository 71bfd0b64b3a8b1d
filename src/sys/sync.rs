//! Atomics, cells and spinning, either the real ones or loom's.
//!
//! Lock-free code takes its atomics from here, so that `RUSTFLAGS="--cfg loom"` puts every
//! interleaving of it under loom's eye without a second version of the code.

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
