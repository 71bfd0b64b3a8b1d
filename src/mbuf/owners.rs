//! How many own an mbuf's buffer, and how many segments its chain has: one word, so that one
//! compare answers the question that every free asks.

use crate::sys::sync::atomic::{AtomicU32, Ordering};

/// Owners in the lower half, segments in the upper.
///
/// Owners are the mbuf whose buffer it is, and those that were cloned from it. While there is one,
/// nobody else looks at the word, and it is written plainly; while there are more, each may count
/// itself in or out at any time, and the mbuf's own holder changes the segments by an atomic
/// addition. A header whose buffer is another's has no owners: [`Self::borrowed`].
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Owners(AtomicU32);

const SEGMENT: u32 = 1 << 16;
const OWNERS: u32 = SEGMENT - 1;
/// One segment, whose buffer is its own and nobody else's: how mbufs are in their pools.
const SINGLE: u32 = SEGMENT | 1;

impl Owners {
    /// The word of one owner and one segment in halves of 16 bits, the same in either byte order.
    #[cfg(not(loom))]
    pub(super) const SINGLE_HALVES: [u16; 2] =
        [OWNERS as u16 & SINGLE as u16, (SINGLE / SEGMENT) as u16];

    /// One owner, one segment.
    #[inline(always)]
    pub(super) fn single() -> Self {
        Self(AtomicU32::new(SINGLE))
    }

    /// One segment in another's buffer.
    pub(super) fn borrowed(segments: u16) -> Self {
        Self(AtomicU32::new(u32::from(segments) * SEGMENT))
    }

    /// Whether it is one segment with a buffer of its own that nobody shares.
    ///
    /// Acquire: whoever gave up a share last has done with the buffer.
    #[inline(always)]
    pub(super) fn is_single(&self) -> bool {
        self.0.load(Ordering::Acquire) == SINGLE
    }

    /// The bits in which it differs from [`Self::single`]: 0 if it is single.
    #[inline(always)]
    pub(super) fn unlike_single(&self) -> u32 {
        self.0.load(Ordering::Acquire) ^ SINGLE
    }

    /// Whether the buffer is its own and nobody shares it.
    #[inline(always)]
    pub(super) fn is_exclusive(&self) -> bool {
        self.0.load(Ordering::Acquire) & OWNERS == 1
    }

    /// Owners just now; 0: the buffer is another's.
    pub(super) fn count(&self) -> u16 {
        (self.0.load(Ordering::Relaxed) & OWNERS) as u16
    }

    #[inline(always)]
    pub(super) fn segments(&self) -> u16 {
        // Only the holder of the mbuf changes it, who is asking, or lends it to who is asking.
        (self.0.load(Ordering::Relaxed) / SEGMENT) as u16
    }

    /// For the mbuf's holder.
    #[inline]
    pub(super) fn set_segments(&self, segments: u16) {
        let word = self.0.load(Ordering::Relaxed);
        let new = u32::from(segments) * SEGMENT;
        if word & OWNERS <= 1 {
            // Who has the only share is asking; nobody can make another.
            self.0.store(new | word & OWNERS, Ordering::Relaxed);
        } else {
            // Wraps around in the upper half alone, whatever becomes of the lower meanwhile.
            let old = word & !OWNERS;
            self.0.fetch_add(new.wrapping_sub(old), Ordering::Relaxed);
        }
    }

    /// One owner more; false if no more can be counted. For somebody who has a share.
    pub(super) fn share(&self) -> bool {
        // Relaxed: whoever shares has seen the data already, and hands the share on.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (word & OWNERS != OWNERS).then_some(word + 1)
            })
            .is_ok()
    }

    /// One owner less: true if it was the last. For somebody who has a share, and uses it no more.
    pub(super) fn release(&self) -> bool {
        // With the last share nobody else can count. Acquire, here and below: what the others did
        // with the buffer comes before what is done with it next. Release: what was done with this
        // share comes before, too.
        self.is_exclusive() || self.0.fetch_sub(1, Ordering::AcqRel) & OWNERS == 1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn owners_and_segments_are_apart() {
        let owners = Owners::single();
        assert!(owners.is_single() && owners.is_exclusive());
        owners.set_segments(256);
        assert!(!owners.is_single() && owners.is_exclusive());
        assert!(owners.share());
        assert_eq!((owners.segments(), owners.count()), (256, 2));
        owners.set_segments(3);
        owners.set_segments(255);
        assert_eq!((owners.segments(), owners.count()), (255, 2));
        assert!(!owners.release());
        owners.set_segments(1);
        assert!(owners.is_single());
        assert!(owners.release());
    }

    #[test]
    fn no_more_than_can_be_counted() {
        let owners = Owners::single();
        owners.set_segments(7);
        for count in 2..=u16::MAX {
            assert!(owners.share());
            assert_eq!(owners.count(), count);
        }
        assert!(!owners.share(), "the next would be counted as a segment");
        assert_eq!((owners.count(), owners.segments()), (u16::MAX, 7));
        assert!(!owners.release() && owners.share());
    }
}
