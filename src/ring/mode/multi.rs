//! Several threads; claims are finished in the order in which they were made.

use super::sealed::Protocol;
use super::{Amount, Claim, available, wait_for};
use crate::sys::sync::atomic::{AtomicU32, Ordering};

/// An end that threads share: `&self`, `Clone`. The cheapest shared mode while each thread has a
/// core of its own.
///
/// **A stall** between claim and finish stops the whole side: threads that claimed later copy
/// their values and then spin until the stalled one runs again, each for the whole time, and the
/// other side sees nothing of theirs. On a core with several threads the one that runs may spin
/// away the time slice that the stalled one needs. Where threads can be preempted, take [`Rts`] or
/// [`Hts`].
///
/// [`Rts`]: super::Rts
/// [`Hts`]: super::Hts
#[derive(Debug, Clone, Copy, Default)]
pub struct Multi;

/// A side whose threads finish in order.
#[derive(Debug)]
pub struct MultiSide {
    /// Claimed up to here. Moved by compare-and-swap by the side's threads.
    head: AtomicU32,
    /// Finished up to here. Moved by the thread whose claim starts here, read by the other side.
    tail: AtomicU32,
}

impl Protocol for Multi {
    type Shared = MultiSide;

    fn shared_at(index: u32, _capacity: u32) -> MultiSide {
        MultiSide { head: AtomicU32::new(index), tail: AtomicU32::new(index) }
    }

    fn end_at(_index: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn tail(shared: &MultiSide) -> u32 {
        shared.tail.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn claim(
        &mut self,
        own: &MultiSide,
        other_tail: impl Fn() -> u32,
        reach: u32,
        amount: Amount,
    ) -> Claim {
        let mut head = own.head.load(Ordering::Acquire);
        loop {
            let claim =
                Claim { start: head, count: amount.of(available(head, other_tail(), reach)) };
            if claim.count == 0 {
                return claim;
            }
            match own.head.compare_exchange_weak(
                head,
                claim.end(),
                Ordering::Release,
                Ordering::Acquire,
            ) {
                Ok(_) => return claim,
                Err(now) => head = now,
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, own: &MultiSide, claim: Claim) {
        // Acquire, so that our Release store carries on what earlier claimants released: the
        // other side synchronises with the last tail it sees and must get all that lies below.
        let our_turn = || own.tail.load(Ordering::Acquire) == claim.start;
        if !our_turn() {
            wait_for(|| our_turn().then_some(()));
        }
        own.tail.store(claim.end(), Ordering::Release);
    }
}
