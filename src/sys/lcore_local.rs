//! Storage by lcore, without locks: each lcore has a value of its own and reaches no other's.
#![expect(unsafe_code, reason = "an lcore's own value is shared with nobody, which the id proves")]

use std::fmt;
use std::ops::Deref;

use crossbeam_utils::CachePadded;

use super::lcore_id::{self, MAX_LCORES};

/// A value for each lcore that there may be, on cache lines of its own.
///
/// [`with`](Self::with) gives the calling lcore its value and needs no lock, since no two threads
/// are the same lcore at a time. `T` is `Send`, because another thread may be the lcore later,
/// and need not be `Sync`: use a `Cell` or a `RefCell` for what changes.
///
/// ```
/// use std::cell::Cell;
/// use packetboat::sys::{lcore_id::LcoreClaim, lcore_local::LcoreLocal};
/// let seen = LcoreLocal::new(|_id| Cell::new(0));
/// assert_eq!(seen.with(|count| count.get()), None); // this thread is no lcore
/// let _lcore = LcoreClaim::claim(5)?;
/// seen.with(|count| count.set(count.get() + 1));
/// assert_eq!(seen.with(Cell::get), Some(1));
/// # Ok::<(), packetboat::sys::lcore_id::ClaimError>(())
/// ```
pub struct LcoreLocal<T> {
    /// By lcore id: as many as there may be, so that one comparison tells whether a thread has one.
    values: Box<[CachePadded<T>; MAX_LCORES]>,
}

// SAFETY: through `&LcoreLocal` a value is reached by the thread that is its lcore only
// (`lcore_id::current` gives no other thread the same answer, and an id changes hands with
// Release and Acquire); `T: Send` lets it go from one such thread to the next.
unsafe impl<T: Send> Sync for LcoreLocal<T> {}

impl<T> LcoreLocal<T> {
    /// Makes all values; `make` is called with each lcore id.
    pub fn new(mut make: impl FnMut(u32) -> T) -> Self {
        let mut values = Vec::with_capacity(MAX_LCORES);
        values.extend((0..MAX_LCORES as u32).map(|id| CachePadded::new(make(id))));
        // SAFETY: as many values as the array has, side by side.
        let values = unsafe { Box::from_raw(Box::into_raw(values.into_boxed_slice()).cast()) };
        Self { values }
    }

    /// The calling lcore's value, for as long as the thread wants it: for loops, which then look
    /// for it once. `None` if the thread is no lcore.
    ///
    /// The thread stays that lcore meanwhile, as for [`with`](Self::with).
    #[inline]
    pub fn hold(&self) -> Option<Own<'_, T>> {
        let held = lcore_id::hold()?;
        Some(Own { value: self.values.get(held.id() as usize)?, _held: held })
    }

    /// Runs `work` with the calling lcore's value; `None` if the thread is no lcore.
    ///
    /// If `work` gives up the thread's [`LcoreClaim`](lcore_id::LcoreClaim), the id stays taken
    /// for the rest of the process: nobody else may get at the value meanwhile.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&T) -> R) -> Option<R> {
        self.hold().map(|own| work(&own))
    }

    /// The calling lcore's value, for code that is sure to keep the claim.
    ///
    /// # Safety
    /// The thread's claim isn't dropped while the reference is in use: nothing that could drop it
    /// (code of others, above all) is called meanwhile.
    #[inline(always)]
    #[must_use]
    pub unsafe fn own(&self) -> Option<&T> {
        self.values.get(lcore_id::index()).map(|value| &**value)
    }

    /// All values, by lcore id.
    ///
    /// # Safety
    /// Of values that may belong to other lcores just now, only what is `Sync` is touched
    /// (counters, for instance).
    pub unsafe fn each(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }

    /// All values, with nobody else about.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().map(|value| &mut **value)
    }
}

/// The calling lcore's value. It stays with its thread: neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct Own<'a, T> {
    value: &'a T,
    _held: lcore_id::Held,
}

impl<T> Deref for Own<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> fmt::Debug for LcoreLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values are their lcores' alone.
        f.debug_struct("LcoreLocal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::lcore_id::{ClaimError, LcoreClaim};
    use super::*;

    #[test]
    fn each_lcore_has_its_own() {
        let mut local = LcoreLocal::new(|id| Cell::new(u64::from(id)));
        assert_eq!(local.with(Cell::get), None);
        std::thread::scope(|scope| {
            for id in [90, 91] {
                let local = &local;
                scope.spawn(move || {
                    let _lcore = LcoreClaim::claim(id).unwrap();
                    for _ in 0..1000 {
                        local.with(|value| value.set(value.get() + 1)).unwrap();
                    }
                });
            }
        });
        let values: Vec<u64> = local.iter_mut().map(|value| value.get()).collect();
        assert_eq!(values.len(), MAX_LCORES);
        assert_eq!((values[89], values[90], values[91]), (89, 1090, 1091));
    }

    #[test]
    fn a_claim_given_up_while_a_value_is_in_use_is_never_claimed_again() {
        let local = LcoreLocal::new(|_| Cell::new(0));
        let claim = LcoreClaim::claim(92).unwrap();
        local.with(|value| {
            drop(claim);
            value.set(1); // still nobody else's
            std::thread::scope(|scope| {
                let other = scope.spawn(|| LcoreClaim::claim(92).unwrap_err());
                assert_eq!(other.join().unwrap(), ClaimError::Taken(92));
            });
        });
        assert_eq!(LcoreClaim::claim(92).unwrap_err(), ClaimError::Taken(92));
        assert_eq!(local.with(Cell::get), None);
    }
}
