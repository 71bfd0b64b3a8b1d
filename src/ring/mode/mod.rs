//! How the threads of one side of a ring agree: the modes.
//!
//! A mode owns its side's shared words and the steps on them: *claim* slots, *finish* the claim,
//! tell the *tail* that the other side may trust. Slots and values are `core.rs`' affair, so a
//! mode has no unsafe code, and any producers' mode works with any consumers' mode.

use std::fmt;
use std::hint::black_box;

use crate::sys::sync::wait_for;

mod hts;
mod multi;
mod rts;
mod single;

pub use hts::Hts;
pub use multi::Multi;
pub use rts::Rts;
pub use single::Single;

/// How the threads of one side agree: [`Single`], [`Multi`], [`Rts`] or [`Hts`]. The trait is
/// sealed, because values move on its word.
pub trait Mode: sealed::Protocol {}
impl<M: sealed::Protocol> Mode for M {}

/// A mode whose ends threads share: `&self`, `Clone`. All but [`Single`].
pub trait SharedMode: Mode + Copy + Default {}
impl SharedMode for Multi {}
impl SharedMode for Rts {}
impl SharedMode for Hts {}

/// A mode in which one thread at a time is between claim and finish, so that a claim can be
/// finished in part or not at all, and values be written and read where they stand: [`Single`]
/// and [`Hts`].
pub trait ZeroCopy: Mode {}
impl ZeroCopy for Single {}
impl ZeroCopy for Hts {}

/// How many elements an operation wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All of them or none.
    Bulk(u32),
    /// As many as there are, at most this many.
    Burst(u32),
}

impl Amount {
    #[inline(always)]
    fn wanted(self) -> u32 {
        match self {
            Self::Bulk(wanted) | Self::Burst(wanted) => wanted,
        }
    }

    /// The claim by another name, if it is all that was wanted: its length is then known to be
    /// what the caller said, which is often a constant.
    #[inline(always)]
    pub(super) fn whole(self, claim: Claim) -> Option<Claim> {
        match self {
            Self::Bulk(wanted) => Some(Claim { count: wanted, ..claim }), // or there'd be none
            Self::Burst(wanted) => {
                (claim.count == wanted).then_some(Claim { count: wanted, ..claim })
            }
        }
    }

    #[inline(always)]
    fn of(self, available: u32) -> u32 {
        match self {
            Self::Bulk(wanted) if wanted <= available => wanted,
            Self::Bulk(_) => 0,
            Self::Burst(wanted) if wanted <= available => wanted,
            Self::Burst(_) => fewer(available),
        }
    }
}

/// Out of line, so that there is a branch: the processor guesses that as many are there as are
/// wanted, and goes on. A minimum would have to wait for the other side's tail.
#[cold]
#[inline(never)]
fn fewer(available: u32) -> u32 {
    black_box(available) // or the compiler sees that this is the same as a minimum
}

/// A claim on `count` slots from index `start` on, to be finished by the thread that made it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub(super) start: u32,
    pub(super) count: u32,
}

impl Claim {
    #[inline(always)]
    fn end(self) -> u32 {
        self.start.wrapping_add(self.count)
    }
}

pub(super) mod sealed {
    use super::{Amount, Claim, fmt};

    /// What a mode does. The word of an implementation is trusted with memory:
    ///
    /// - [`claim`](Self::claim) gives every index of its side out exactly once, in ascending
    ///   order, and never beyond `other_tail() + reach`;
    /// - [`tail`](Self::tail) is never beyond an index whose claim isn't finished, and who reads
    ///   it sees all that was written before the finishes below it.
    pub trait Protocol: Sized + Send + Sync + fmt::Debug {
        /// The words that the side's threads and the other side see.
        type Shared: Send + Sync + fmt::Debug;

        /// The words of a side of a ring for `capacity` elements that stands at `index`.
        fn shared_at(index: u32, capacity: u32) -> Self::Shared;

        /// The end of a side that stands at `index`.
        fn end_at(index: u32) -> Self;

        /// How far the side has finished.
        fn tail(shared: &Self::Shared) -> u32;

        /// Claims slots. `other_tail` reads the other side's tail; `reach` is how far beyond it
        /// this side may go (producers: the capacity; consumers: not at all). A claim of no slots
        /// holds nothing and must not be finished.
        fn claim(
            &mut self,
            own: &Self::Shared,
            other_tail: impl Fn() -> u32,
            reach: u32,
            amount: Amount,
        ) -> Claim;

        /// Publishes the claim that this end made last. In a [`ZeroCopy`](super::ZeroCopy) mode
        /// `count` may have been made smaller: the rest counts as never claimed.
        fn finish(&mut self, own: &Self::Shared, claim: Claim);
    }
}

/// Slots that a side at `head` may claim.
#[inline(always)]
fn available(head: u32, other_tail: u32, reach: u32) -> u32 {
    reach.wrapping_add(other_tail).wrapping_sub(head)
}

/// Two 32-bit words that change together.
#[inline(always)]
fn pack(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn unpack(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
