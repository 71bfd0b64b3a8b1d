//! Bursts: the handful of frames that pass from one queue to the next at a time.
#![expect(unsafe_code, reason = "an array that is filled from its end and emptied from its front")]

use std::fmt;
use std::mem::MaybeUninit;

use super::frame::Mbuf;

/// The most frames a burst can carry.
pub const MAX_BURST: usize = 128;

/// Up to [`MAX_BURST`] frames, in order. Filled at the end, taken from the front; what is left in
/// it when it is dropped goes back to its pools.
///
/// It begins with a cache line, as pools' caches do: copies between them cross none.
#[repr(C, align(64))]
pub struct Burst {
    /// `items[start..end]` hold frames.
    items: [MaybeUninit<Mbuf>; MAX_BURST],
    start: usize,
    end: usize,
    /// At most this many frames at a time, for those that fill it.
    limit: usize,
}

impl Burst {
    /// An empty burst of at most [`MAX_BURST`] frames.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limit(MAX_BURST)
    }

    /// An empty burst that takes at most `limit` frames (1 to [`MAX_BURST`]; others are brought
    /// into that range).
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        let limit = if limit == 0 { 1 } else { limit };
        let limit = if limit > MAX_BURST { MAX_BURST } else { limit };
        Self { items: [const { MaybeUninit::uninit() }; MAX_BURST], start: 0, end: 0, limit }
    }

    /// Frames in it.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is none.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many more frames it takes.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit - self.end
    }

    /// Adds a frame at the end, or gives it back when there is no room.
    #[inline(always)]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.items.get_mut(self.end) {
            Some(slot) if self.end < self.limit => {
                slot.write(mbuf);
                self.end += 1;
                Ok(())
            }
            _ => Err(mbuf),
        }
    }

    /// Takes the frame at the front.
    #[inline(always)]
    pub fn pop_front(&mut self) -> Option<Mbuf> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: `start < end <= MAX_BURST`, and slots between them are filled; moving `start`
        // on gives this one up.
        let mbuf = unsafe { self.items.get_unchecked(self.start).assume_init_read() };
        self.start += 1;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        Some(mbuf)
    }

    /// Puts a frame that was just taken from the front back there, or returns it when there is no
    /// room.
    #[inline]
    pub fn push_front(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.is_empty() {
            return self.push(mbuf);
        }
        match self.start.checked_sub(1).and_then(|before| self.items.get_mut(before)) {
            Some(slot) => {
                slot.write(mbuf);
                self.start -= 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// The frames as a slice.
    #[inline(always)]
    #[must_use]
    pub fn as_slice(&self) -> &[Mbuf] {
        // SAFETY: the slots between `start` and `end` are filled.
        unsafe {
            std::slice::from_raw_parts(self.items.as_ptr().add(self.start).cast(), self.len())
        }
    }

    /// The frames, to be changed in place.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Mbuf> {
        // SAFETY: as above, and `&mut self` makes the slice the only way to them.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.items.as_mut_ptr().add(self.start).cast::<Mbuf>(),
                self.len(),
            )
        }
        .iter_mut()
    }

    /// Adds up to `count` frames (as many as there is room for) that `next` gives, until it gives
    /// none; returns how many.
    #[inline(always)]
    pub fn fill(&mut self, count: usize, mut next: impl FnMut() -> Option<Mbuf>) -> usize {
        let count = count.min(self.room());
        let before = self.end;
        let items = self.items.as_mut_ptr();
        // The end is kept in a register, and written even if `next` unwinds.
        let mut filled = Moving { at: before, place: &mut self.end };
        while filled.at - before < count {
            let Some(mbuf) = next() else { break };
            // SAFETY: `at < before + room`, which is at most MAX_BURST; nothing stands there.
            unsafe { items.add(filled.at).write(MaybeUninit::new(mbuf)) };
            filled.at += 1;
        }
        filled.at - before
    }

    /// Gives frames from the front to `take`, at most `count` and as long as it takes them; one
    /// that it gives back stays in front. Returns how many it took.
    #[inline(always)]
    pub fn take_front(
        &mut self,
        count: usize,
        mut take: impl FnMut(Mbuf) -> Result<(), Mbuf>,
    ) -> usize {
        let count = count.min(self.len());
        let before = self.start;
        let items = self.items.as_mut_ptr();
        // The start is kept in a register, and written even if `take` unwinds.
        let mut taken = Moving { at: before, place: &mut self.start };
        while taken.at - before < count {
            let item = taken.at;
            // SAFETY: `item < end`, so the slot is filled; moving on gives it up.
            let mbuf = unsafe { items.add(item).read().assume_init() };
            taken.at = item + 1;
            if let Err(mbuf) = take(mbuf) {
                // SAFETY: the slot it was taken from.
                unsafe { items.add(item).write(MaybeUninit::new(mbuf)) };
                taken.at = item;
                break;
            }
        }
        let count = taken.at - before;
        drop(taken);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        count
    }

    /// Moves as many frames as fit from the front of `other` to the end of this one.
    pub fn append(&mut self, other: &mut Self) {
        let count = self.room().min(other.len());
        // SAFETY: `other` holds `count` frames from its start on, and this one has that many free
        // slots behind its end (`end <= limit <= MAX_BURST`); both counts move on before anything
        // can see the frames in both.
        unsafe {
            let source = other.items.as_ptr().add(other.start);
            let target = self.items.as_mut_ptr().add(self.end);
            std::ptr::copy_nonoverlapping(source, target, count);
        }
        self.end += count;
        other.start += count;
        if other.is_empty() {
            other.start = 0;
            other.end = 0;
        }
    }

    /// Gives all frames back to their pools, neighbours of one pool at once.
    #[inline]
    pub fn clear(&mut self) {
        if self.is_empty() {
            return;
        }
        let (start, len) = (self.start, self.len());
        self.start = 0;
        self.end = 0;
        // SAFETY: the filled slots; the burst is empty already, so each frame is given up once
        // even if this unwinds.
        unsafe { Mbuf::free_bulk(self.items.as_mut_ptr().add(start).cast::<Mbuf>(), len) };
    }

    /// The `count` slots behind the end, to be filled; `None` if there isn't that much room.
    #[inline(always)]
    pub(crate) fn spare(&mut self, count: usize) -> Option<&mut [MaybeUninit<Mbuf>]> {
        if count > self.room() {
            return None;
        }
        self.items.get_mut(self.end..self.end + count)
    }

    /// Takes over frames that were put behind the end.
    ///
    /// # Safety
    /// `count` slots from [`Self::spare`] were filled.
    #[inline(always)]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.end += count;
    }
}

/// A count that is written back when this is dropped.
struct Moving<'a> {
    at: usize,
    place: &'a mut usize,
}

impl Drop for Moving<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.place = self.at;
    }
}

impl Burst {
    /// Gives up the first `count` frames.
    ///
    /// # Safety
    /// There are that many, and somebody else has taken them over.
    #[inline(always)]
    pub(crate) unsafe fn give_up(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst").field("len", &self.len()).field("limit", &self.limit).finish()
    }
}
