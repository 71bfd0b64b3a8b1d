//! Which lcore the calling thread is.
//!
//! Per-lcore storage (a mempool's caches) is reached without locks, because no two threads are
//! the same lcore at a time: an id is claimed by one thread, and is that thread's until the
//! claim is dropped.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lcore ids run from 0 to `MAX_LCORES - 1`.
pub const MAX_LCORES: usize = 128;

const NONE: u32 = u32::MAX;

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(NONE) };
    /// How many [`Held`] there are of this thread's id.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
}

static CLAIMED: [AtomicBool; MAX_LCORES] = [const { AtomicBool::new(false) }; MAX_LCORES];

/// Why a thread can't be the lcore that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The id is beyond what per-lcore storage has room for.
    #[error("lcore {0} is out of range: ids 0 to {last} exist", last = MAX_LCORES - 1)]
    OutOfRange(u32),
    /// Another thread is that lcore.
    #[error("lcore {0} is already taken by another thread of this process")]
    Taken(u32),
    /// The calling thread is an lcore already.
    #[error("this thread is lcore {0} already and can't be a second one")]
    ThreadHasOne(u32),
}

/// The calling thread is an lcore for as long as this lives. Not `Send`: it speaks of one thread.
#[derive(Debug)]
pub struct LcoreClaim {
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl LcoreClaim {
    /// Makes the calling thread lcore `id`.
    pub fn claim(id: u32) -> Result<Self, ClaimError> {
        let slot = CLAIMED.get(id as usize).ok_or(ClaimError::OutOfRange(id))?;
        if let Some(mine) = current() {
            return Err(ClaimError::ThreadHasOne(mine));
        }
        // Acquire pairs with the release in drop: what the former owner left in per-lcore
        // storage is complete before this thread sees it.
        if slot.swap(true, Ordering::Acquire) {
            return Err(ClaimError::Taken(id));
        }
        CURRENT.set(id);
        Ok(Self { id, not_send: PhantomData })
    }

    /// As [`Self::claim`]; waits while another thread is that lcore. Tests run side by side in one
    /// process, and have fewer ids than they are.
    #[cfg(all(test, not(loom)))]
    #[expect(clippy::unwrap_used, reason = "a helper of tests")]
    pub(crate) fn claim_when_free(id: u32) -> Self {
        let start = std::time::Instant::now();
        loop {
            match Self::claim(id) {
                Err(ClaimError::Taken(_)) if start.elapsed().as_secs() < 120 => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                claimed => return claimed.unwrap(),
            }
        }
    }

    /// The claimed id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for LcoreClaim {
    fn drop(&mut self) {
        // A claim that outlives its thread's locals is dropped by nobody else: it isn't Send.
        let _ = CURRENT.try_with(|current| current.set(NONE));
        if HOLDS.try_with(Cell::get).unwrap_or(0) > 0 {
            let id = self.id;
            tracing::error!("lcore {id} was given up while its storage was in use; it stays taken");
            return;
        }
        if let Some(slot) = CLAIMED.get(self.id as usize) {
            slot.store(false, Ordering::Release);
        }
    }
}

/// The calling thread's lcore id, if it is one. Always below [`MAX_LCORES`], and no other thread
/// gets the same answer until this thread's claim has been dropped.
#[inline(always)]
#[must_use]
pub fn current() -> Option<u32> {
    // A plain read: the variable is const-initialised and has no destructor.
    let id = CURRENT.get();
    if id == NONE { None } else { Some(id) }
}

/// The calling thread's id as an index; beyond [`MAX_LCORES`] if it has none.
#[inline(always)]
pub(super) fn index() -> usize {
    CURRENT.get() as usize
}

/// While this lives, nobody else becomes this thread's lcore. Not `Send`.
#[derive(Debug)]
pub(super) struct Held {
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl Held {
    #[inline(always)]
    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

/// Keeps the calling thread's id from changing hands; `None` if it has none.
#[inline(always)]
pub(super) fn hold() -> Option<Held> {
    let id = current()?;
    HOLDS.set(HOLDS.get() + 1);
    Some(Held { id, not_send: PhantomData })
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whose ids are whose, where claims don't wait: 90 to 92 lcore_local, 93 to 98 eal::lcore, 100 and 101
    // here, 102 to 106 eal::start, 107 mempool's that stays taken, 123 to 127 eal::service. Others are for
    // claims that wait.

    #[test]
    fn one_thread_an_id_and_one_id_a_thread() {
        let first = LcoreClaim::claim(100).unwrap();
        assert_eq!(current(), Some(100));
        assert_eq!(LcoreClaim::claim(101).unwrap_err(), ClaimError::ThreadHasOne(100));
        std::thread::spawn(|| {
            assert_eq!(current(), None);
            assert_eq!(LcoreClaim::claim(100).unwrap_err(), ClaimError::Taken(100));
        })
        .join()
        .unwrap();
        drop(first);
        assert_eq!(current(), None);
        std::thread::spawn(|| assert_eq!(LcoreClaim::claim(100).unwrap().id(), 100))
            .join()
            .unwrap();
        assert_eq!(LcoreClaim::claim(9999).unwrap_err(), ClaimError::OutOfRange(9999));
    }
}
