//! Several threads; the last to finish moves the tail for all (relaxed tail sync).
//!
//! Head and tail are words of a position and a count: the head's count is of claims made, the
//! tail's of claims finished. A thread that finishes adds one to the tail's count; if that makes
//! it equal to the head's, no claim is open, and the tail's position moves to the head's.
//!
//! Memory order, beyond what `core.rs` says of all modes: the tail is read with Acquire before
//! the head in `finish`. Who sees that another claim was finished then also sees that it was made,
//! so counts are equal only if the position read with them is that of finished claims.

use super::sealed::Protocol;
use super::{Amount, Claim, available, pack, unpack, wait_for};
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// An end that threads share: `&self`, `Clone`. For sides whose threads may be preempted. It costs
/// a second compare-and-swap per operation against [`Multi`](super::Multi).
///
/// **A stall** between claim and finish makes nobody of its side wait at first: others claim,
/// finish and return. But the other side sees none of it until the stalled thread has finished,
/// too. Once an eighth of the capacity (at least one element) has been claimed beyond the tail,
/// further claims of the side wait. The bound also keeps threads that overlap all the time from
/// holding back the tail for long: the other side waits for an eighth of the ring at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rts;

/// The distance of head and tail beyond which nobody claims: this share of the capacity.
const MOST_APART_SHARE: u32 = 8;

/// A side whose threads finish in any order.
#[derive(Debug)]
pub struct RtsSide {
    /// Claimed up to here (low half), in so many claims (high half). Moved by compare-and-swap.
    head: AtomicU64,
    /// Finished up to here (low half), and so many claims finished (high half), which may be
    /// ahead of the position. Moved by compare-and-swap, read by the other side.
    tail: AtomicU64,
    /// With head and tail further apart than this many elements, nobody claims.
    most_apart: u32,
}

impl Protocol for Rts {
    type Shared = RtsSide;

    fn shared_at(index: u32, capacity: u32) -> RtsSide {
        let word = || AtomicU64::new(pack(index, 0));
        let most_apart = (capacity / MOST_APART_SHARE).max(1);
        RtsSide { head: word(), tail: word(), most_apart }
    }

    fn end_at(_index: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn tail(shared: &RtsSide) -> u32 {
        unpack(shared.tail.load(Ordering::Acquire)).0
    }

    #[inline(always)]
    fn claim(
        &mut self,
        own: &RtsSide,
        other_tail: impl Fn() -> u32,
        reach: u32,
        amount: Amount,
    ) -> Claim {
        let mut word = own.head.load(Ordering::Acquire);
        let count = |head| amount.of(available(head, other_tail(), reach));
        // A tail newer than our head makes this difference enormous, which is as well: the head has
        // moved on, and must be read again.
        let far_ahead = |head: u32| head.wrapping_sub(Self::tail(own)) > own.most_apart;
        loop {
            let (head, claims) = unpack(word);
            let claim = Claim { start: head, count: count(head) };
            if claim.count == 0 {
                return claim;
            }
            if far_ahead(head) {
                word = wait_for(|| {
                    let word = own.head.load(Ordering::Acquire);
                    let (head, _) = unpack(word);
                    (count(head) == 0 || !far_ahead(head)).then_some(word)
                });
                continue;
            }
            match own.head.compare_exchange_weak(
                word,
                pack(claim.end(), claims.wrapping_add(1)),
                Ordering::Release,
                Ordering::Acquire,
            ) {
                Ok(_) => return claim,
                Err(now) => word = now,
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, own: &RtsSide, _claim: Claim) {
        let mut word = own.tail.load(Ordering::Acquire);
        loop {
            let (tail, finished) = unpack(word);
            let finished = finished.wrapping_add(1);
            let (head, claims) = unpack(own.head.load(Ordering::Relaxed));
            let tail = if finished == claims { head } else { tail };
            match own.tail.compare_exchange_weak(
                word,
                pack(tail, finished),
                Ordering::Release,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}
