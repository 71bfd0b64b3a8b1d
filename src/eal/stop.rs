//! The flag that ends every loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says stop to whoever looks; clones are the same flag. Once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that isn't set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all to stop. May be called from a signal's thread.
    pub fn set(&self) {
        // Nothing is handed over with it: what lcores leave behind comes back when they are joined.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to stop. Costs a load from a cache line that nobody writes until the end.
    #[inline(always)]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
