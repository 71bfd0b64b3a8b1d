//! Several threads, one at a time (head-tail sync).
//!
//! Head and tail are one word. Unequal halves mean that a thread is between claim and finish, and
//! then nobody else claims; so a thread that has claimed may also give back what it doesn't need.

use super::sealed::Protocol;
use super::{Amount, Claim, available, pack, unpack, wait_for};
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// An end that threads share: `&self`, `Clone`. For sides whose threads may be preempted, and the
/// one shared mode with zero-copy access.
///
/// **A stall** between claim and finish makes the side's other threads wait before they claim
/// anything, until the stalled one has finished. None of them holds a claim meanwhile, so when it
/// runs again any of them can go on: stalls don't add up in the order of claims as they do with
/// [`Multi`](super::Multi). The price is that copies of one side never overlap.
///
/// A zero-copy guard on such an end keeps the side for itself while it lives. A thread that holds
/// one and uses another end of the same side waits for itself, for ever; so does everyone if a
/// guard is leaked (`std::mem::forget`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Hts;

/// A side with one thread at a time.
#[derive(Debug)]
pub struct HtsSide {
    /// Head (low half) and tail (high half). Made unequal by compare-and-swap, made equal again
    /// by a store of the thread that did so.
    head_tail: AtomicU64,
}

impl Protocol for Hts {
    type Shared = HtsSide;

    fn shared_at(index: u32, _capacity: u32) -> HtsSide {
        HtsSide { head_tail: AtomicU64::new(pack(index, index)) }
    }

    fn end_at(_index: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn tail(shared: &HtsSide) -> u32 {
        unpack(shared.head_tail.load(Ordering::Acquire)).1
    }

    #[inline(always)]
    fn claim(
        &mut self,
        own: &HtsSide,
        other_tail: impl Fn() -> u32,
        reach: u32,
        amount: Amount,
    ) -> Claim {
        let mut word = own.head_tail.load(Ordering::Acquire);
        loop {
            let (head, tail) = unpack(word);
            if head != tail {
                word = wait_for(|| {
                    let word = own.head_tail.load(Ordering::Acquire);
                    let (head, tail) = unpack(word);
                    (head == tail).then_some(word)
                });
                continue;
            }
            let claim =
                Claim { start: head, count: amount.of(available(head, other_tail(), reach)) };
            if claim.count == 0 {
                return claim;
            }
            // AcqRel, not only Release: between our load and this swap another thread may have
            // claimed and let go, which leaves the word as it was. What it did to the slots must
            // be seen by us, and through us by the other side.
            match own.head_tail.compare_exchange_weak(
                word,
                pack(claim.end(), tail),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return claim,
                Err(now) => word = now,
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, own: &HtsSide, claim: Claim) {
        // A plain store: nobody changes unequal halves but the thread that made them so.
        own.head_tail.store(pack(claim.end(), claim.end()), Ordering::Release);
    }
}
