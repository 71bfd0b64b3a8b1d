//! One thread: no agreement needed.

use super::sealed::Protocol;
use super::{Amount, Claim, available};
use crate::sys::sync::atomic::{AtomicU32, Ordering};
use crate::sys::sync::load_own;

/// An end that one thread has: `&mut self`, not `Clone`. It remembers what it last saw of the
/// other side, so most operations touch only their own cache line and the slots.
///
/// **A stall** of its thread holds up nobody on its side, for nobody else is there. The other side
/// goes on until the ring is empty or full.
#[derive(Debug, Default)]
pub struct Single {
    /// The other side's tail, when it was last looked at.
    seen: u32,
}

/// A side with one thread. Its head is its tail: what is claimed is finished, or was never claimed.
#[derive(Debug)]
pub struct SingleSide {
    /// Finished up to here. Written by the one thread, read by the other side.
    tail: AtomicU32,
}

impl Protocol for Single {
    type Shared = SingleSide;

    fn shared_at(index: u32, _capacity: u32) -> SingleSide {
        SingleSide { tail: AtomicU32::new(index) }
    }

    fn end_at(index: u32) -> Self {
        Self { seen: index }
    }

    #[inline(always)]
    fn tail(shared: &SingleSide) -> u32 {
        shared.tail.load(Ordering::Acquire)
    }

    /// Moves nothing: a claim that is never finished, because its guard was leaked, was never made.
    #[inline(always)]
    fn claim(
        &mut self,
        own: &SingleSide,
        other_tail: impl Fn() -> u32,
        reach: u32,
        amount: Amount,
    ) -> Claim {
        let head = load_own(&own.tail);
        let mut room = available(head, self.seen, reach);
        if room < amount.wanted() {
            self.seen = other_tail();
            room = available(head, self.seen, reach);
        }
        Claim { start: head, count: amount.of(room) }
    }

    #[inline(always)]
    fn finish(&mut self, own: &SingleSide, claim: Claim) {
        own.tail.store(claim.end(), Ordering::Release);
    }
}
