//! The free objects that no cache has.
#![expect(unsafe_code, reason = "moves objects between slices and a ring by address")]

use std::mem::MaybeUninit;
use std::sync::Arc;

use super::pool::Object;
use super::stack::Stack;
use crate::memory::Memory;
use crate::ring::{Amount, Hold, Hts, Multi, RingError, Rts, SharedMode};
use crate::sys::sync::spin_loop;

/// Where free objects wait that no cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// A ring whose threads finish in order: the cheapest while each has a core of its own.
    #[default]
    Ring,
    /// A ring with relaxed tail sync: for more threads than cores.
    RtsRing,
    /// A ring with head-tail sync: for more threads than cores.
    HtsRing,
    /// A stack under a lock: what was used last is handed out first, still in a cache of the
    /// processor.
    Stack,
}

/// Threads of all lcores, and those of none, put and take.
#[derive(Debug)]
pub(crate) enum FreeList {
    Ring(Hold<Object, Multi, Multi>),
    Rts(Hold<Object, Rts, Rts>),
    Hts(Hold<Object, Hts, Hts>),
    Stack(Stack),
}

/// Runs the same on whichever it is: one match that always goes the same way for a pool.
macro_rules! each {
    ($list:expr, $ring:ident => $on_ring:expr, $stack:ident => $on_stack:expr) => {
        match $list {
            FreeList::Ring($ring) => $on_ring,
            FreeList::Rts($ring) => $on_ring,
            FreeList::Hts($ring) => $on_ring,
            FreeList::Stack($stack) => $on_stack,
        }
    };
}

impl FreeList {
    /// An empty one for `count` objects. A ring stands in a zone of its own, called `name`, on the
    /// pool's node.
    pub(super) fn in_zone(
        memory: &Arc<Memory>,
        name: &str,
        node: Option<u32>,
        count: usize,
        backend: Backend,
    ) -> Result<Self, RingError> {
        // All the slots that there are: see `put`.
        let slots = count.next_power_of_two();
        Ok(match backend {
            Backend::Ring => Self::Ring(Hold::in_zone(memory, name, node, slots)?),
            Backend::RtsRing => Self::Rts(Hold::in_zone(memory, name, node, slots)?),
            Backend::HtsRing => Self::Hts(Hold::in_zone(memory, name, node, slots)?),
            Backend::Stack => Self::Stack(Self::stack(count)?),
        })
    }

    fn stack(count: usize) -> Result<Stack, RingError> {
        let element_len_bytes = size_of::<Object>();
        Stack::new(count).ok_or(RingError::NoMemory {
            capacity: count,
            element_len_bytes,
            slots: count,
        })
    }

    /// One in plain memory whose ring's indexes start at `index`.
    #[cfg(all(test, loom))]
    pub(super) fn plain(count: usize, backend: Backend, index: u32) -> Self {
        use crate::ring::Core;
        match backend {
            Backend::Ring => Self::Ring(Hold::plain(Core::starting_at(count, index).unwrap())),
            Backend::RtsRing => Self::Rts(Hold::plain(Core::starting_at(count, index).unwrap())),
            Backend::HtsRing => Self::Hts(Hold::plain(Core::starting_at(count, index).unwrap())),
            Backend::Stack => Self::Stack(Stack::new(count).unwrap()),
        }
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Ring(_) => Backend::Ring,
            Self::Rts(_) => Backend::RtsRing,
            Self::Hts(_) => Backend::HtsRing,
            Self::Stack(_) => Backend::Stack,
        }
    }

    /// Objects in it: a moment's view.
    pub(super) fn len(&self) -> usize {
        each!(self, ring => ring.len(), stack => stack.len())
    }

    /// Fills `out`, or nothing of it.
    #[inline(always)]
    pub(super) fn get(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        match self {
            Self::Ring(ring) => take(ring, out),
            _ => self.get_otherwise(out),
        }
    }

    /// From all but the default, out of line.
    #[inline(never)]
    fn get_otherwise(&self, out: &mut [MaybeUninit<Object>]) -> bool {
        each!(self, ring => take(ring, out), stack => stack.get(out))
    }

    /// Puts all of `objects` in: there is room for every object of the pool.
    #[inline(always)]
    pub(super) fn put(&self, objects: &[Object]) {
        match self {
            Self::Ring(ring) => give(ring, objects),
            _ => self.put_otherwise(objects),
        }
    }

    #[inline(never)]
    fn put_otherwise(&self, objects: &[Object]) {
        each!(self, ring => give(ring, objects), stack => stack.put(objects));
    }
}

#[inline(always)]
fn take<P: SharedMode, C: SharedMode>(
    ring: &Hold<Object, P, C>,
    out: &mut [MaybeUninit<Object>],
) -> bool {
    let count = out.len() as u32; // a pool has at most 2^30 objects; more can't be had anyway
    // SAFETY: `out` has room for `count`; any thread may use a ring of these modes.
    unsafe { ring.dequeue(out.as_mut_ptr().cast(), Amount::Bulk(count)) == count }
}

/// In RTS mode the room of an object that was taken is seen only when all who were taking at the
/// same time have finished; until then a put may find the ring full, and waits. Slots beyond the
/// number of objects make that rare.
#[inline(always)]
fn give<P: SharedMode, C: SharedMode>(ring: &Hold<Object, P, C>, objects: &[Object]) {
    let count = objects.len() as u32;
    // SAFETY: the source holds that many plain values, which are taken all or none; any thread
    // may use this ring.
    while unsafe { ring.enqueue(objects.as_ptr(), Amount::Bulk(count)) } != count {
        wait();
    }
}

#[cold]
fn wait() {
    spin_loop();
    // Whom we wait for may need this core.
    #[cfg(not(loom))]
    std::thread::yield_now();
}
