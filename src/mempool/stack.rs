//! Free objects as a stack: the one that was used last is handed out first.

use std::mem::MaybeUninit;

use super::pool::Object;
use crate::sys::lock::Lock;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};

/// A stack under a lock. Against a ring, it hands out what is still in a cache of the processor,
/// and two threads can't work on it at once: the lock is held for one copy.
///
/// A lock-free list would have to follow a pointer in each object, which is the line that isn't in
/// the cache; an array under a lock touches the array only.
#[derive(Debug)]
pub(crate) struct Stack {
    objects: Lock<Vec<Object>>,
    /// Stored with Release under the lock, so that who counts needn't take it.
    len: AtomicUsize,
}

impl Stack {
    /// An empty one with room for `count`; `None` if there is no memory for it.
    pub(crate) fn new(count: usize) -> Option<Self> {
        let mut objects = Vec::new();
        objects.try_reserve_exact(count).ok()?;
        Some(Self { objects: Lock::new(objects), len: AtomicUsize::new(0) })
    }

    /// Objects in it: a moment's view.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Fills `out`, or nothing of it.
    #[inline]
    pub(crate) fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        self.objects.with(|objects| {
            let Some(rest) = objects.len().checked_sub(out.len()) else { return false };
            for (slot, object) in out.iter_mut().zip(objects.drain(rest..)) {
                slot.write(object);
            }
            self.len.store(rest, Ordering::Release);
            true
        })
    }

    /// Takes back. There is room, unless more come back than went out.
    #[inline]
    pub(crate) fn put(&self, back: &[Object]) {
        self.objects.with(|objects| {
            debug_assert!(objects.len() + back.len() <= objects.capacity());
            objects.extend_from_slice(back);
            self.len.store(objects.len(), Ordering::Release);
        });
    }
}
