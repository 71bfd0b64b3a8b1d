//! Descriptor rings that complete in order, with the record of what was lent beside them.
//!
//! Descriptors are two 64-bit words. Work is done in runs that don't cross the ring's end, so that
//! a frame costs no masks, and all counts stand in registers meanwhile.
#![expect(unsafe_code, reason = "runs of places and of burst slots, by pointer")]

use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};

use super::Array;
use super::batch::Descriptor;
use crate::mbuf::{Burst, Lent, LentRoom, MbufPool, RxInfo};
use crate::mmio::order_dma_reads;

/// What was moved in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Frames.
    pub frames: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A receive ring: descriptors, and the buffers that stand in them. Which buffer that is, and how
/// many there are, is the program's own record; a device can only say what it did with the oldest.
pub struct ReceiveRing {
    descriptors: Array<[u64; 2]>,
    /// As many places as descriptors. Those from `front` to `back` (masked) are filled.
    rooms: Box<[MaybeUninit<LentRoom>]>,
    /// Counts buffers taken back; wraps.
    front: usize,
    /// Counts buffers lent; at most a ring's length ahead of `front`.
    back: usize,
    /// Each of the rooms has so many bytes at least: the least of the pools that they came from.
    room_len_bytes: u16,
}

impl ReceiveRing {
    /// An empty ring.
    #[must_use]
    pub fn new(descriptors: Array<[u64; 2]>) -> Self {
        let rooms = (0..descriptors.count()).map(|_| MaybeUninit::uninit()).collect();
        Self { descriptors, rooms, front: 0, back: 0, room_len_bytes: u16::MAX }
    }

    /// Descriptors.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.rooms.len()
    }

    /// Buffers that the device has.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.back.wrapping_sub(self.front)
    }

    /// Whether the device has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The descriptor behind the last one lent: what a tail register is told.
    #[inline(always)]
    #[must_use]
    pub fn tail(&self) -> usize {
        self.back & (self.count() - 1)
    }

    /// Lends `count` buffers of `pool` (as many as there are descriptors for) or none; returns how
    /// many. Their addresses go into the lower words, 0 into the upper ones.
    #[inline(always)]
    pub fn lend(&mut self, pool: &MbufPool, count: usize) -> usize {
        self.room_len_bytes = self.room_len_bytes.min(pool.room_len_bytes());
        let mut left = count.min(self.count() - self.len());
        let mut done = 0;
        while left != 0 {
            let start = self.tail();
            let run = left.min(self.count() - start);
            let mut descriptors = self.descriptors.batch();
            let Some(descriptors) = descriptors.run(start, run) else { break };
            let Some(places) = self.rooms.get_mut(start..start + run) else { break };
            let lent = pool.lend_into(places, descriptors.iter(), |mut descriptor, iova| {
                descriptor.write([iova.0, 0]);
            });
            if !lent {
                break;
            }
            self.back = self.back.wrapping_add(run);
            (done, left) = (done + run, left - run);
        }
        done
    }

    /// Adds the oldest frames to `burst`, as long as `look` says of a descriptor's words that it is
    /// done, and holds a whole frame of so many bytes. A length below `shortest`, or one that doesn't
    /// fit the buffer, ends the run, too: that descriptor is the next one of [`Self::first`].
    #[inline(always)]
    pub fn take_run(
        &mut self,
        burst: &mut Burst,
        port: u16,
        shortest: u16,
        mut look: impl FnMut(u64, &Descriptor<'_>) -> Option<(u16, RxInfo)>,
    ) -> Moved {
        // Both bounds in one comparison, that needs nothing of the frame.
        let Some(span) = self.room_len_bytes.checked_sub(shortest) else {
            return Moved::default();
        };
        let start = self.front & (self.count() - 1);
        let run = self.len().min(burst.room()).min(self.count() - start);
        let mut descriptors = self.descriptors.batch();
        let (mut frames, mut bytes) = (0, 0);
        let Some(descriptors) = descriptors.run(start, run) else { return Moved::default() };
        let Some(slots) = burst.spare(run) else { return Moved::default() };
        let Some(rooms) = self.rooms.get(start..start + run) else { return Moved::default() };
        for ((descriptor, room), slot) in descriptors.iter().zip(rooms).zip(slots) {
            let upper = descriptor.upper();
            order_dma_reads();
            let Some((len, info)) = look(upper, &descriptor) else { break };
            if len.wrapping_sub(shortest) > span {
                break;
            }
            // SAFETY: places from `front` to `back` are filled. The copy that is made counts only
            // once `front` has moved on: were this to unwind, what stands in `slots` would be
            // forgotten, and the places would hold what they held. The length is at most
            // `shortest + span`, which each room has.
            slot.write(unsafe { room.assume_init_read().take_back_fitting(len, port, info) });
            frames += 1;
            bytes += u64::from(len);
        }
        self.front = self.front.wrapping_add(frames);
        // SAFETY: `frames` slots were filled, and the ring has given those frames up.
        unsafe { burst.grow(frames) };
        Moved { frames, bytes }
    }

    /// The words of the oldest buffer's descriptor, the upper one read first.
    #[must_use]
    pub fn first(&mut self) -> Option<[u64; 2]> {
        if self.is_empty() {
            return None;
        }
        let front = self.front;
        let descriptors = self.descriptors.batch();
        let upper = descriptors.read_part(front, 1);
        order_dma_reads();
        Some([descriptors.read_part(front, 0), upper])
    }

    /// Takes the oldest buffer, whatever its descriptor says.
    pub fn pop(&mut self) -> Option<LentRoom> {
        if self.is_empty() {
            return None;
        }
        let place = self.front & (self.count() - 1);
        self.front = self.front.wrapping_add(1);
        // SAFETY: the place was filled, and is given up by moving on.
        self.rooms.get(place).map(|room| unsafe { room.assume_init_read() })
    }

    /// The device has forgotten the ring: it starts at its first descriptor, with the same buffers.
    pub fn rewind(&mut self) {
        let mut rooms: Vec<LentRoom> = std::iter::from_fn(|| self.pop()).collect();
        (self.front, self.back) = (0, 0);
        for room in rooms.drain(..) {
            self.descriptors.write(self.back, [room.iova().0, 0]);
            if let Some(place) = self.rooms.get_mut(self.back) {
                place.write(room);
                self.back += 1;
            }
        }
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl fmt::Debug for ReceiveRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveRing")
            .field("len", &self.len())
            .field("count", &self.count())
            .finish()
    }
}

/// A transmit ring: descriptors, and the frames that the device was given, in order. A frame may
/// take several descriptors.
pub struct SendRing {
    descriptors: Array<[u64; 2]>,
    /// As many places as descriptors. Those from `front` to `back` (masked) are filled.
    frames: Box<[MaybeUninit<Lent>]>,
    front: usize,
    back: usize,
    /// Counts descriptors written; wraps.
    written: usize,
}

impl SendRing {
    /// An empty ring.
    #[must_use]
    pub fn new(descriptors: Array<[u64; 2]>) -> Self {
        let frames = (0..descriptors.count()).map(|_| MaybeUninit::uninit()).collect();
        Self { descriptors, frames, front: 0, back: 0, written: 0 }
    }

    /// Descriptors.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Descriptors written since it was made; wraps.
    #[inline(always)]
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Frames lent since it was made; wraps.
    #[inline(always)]
    #[must_use]
    pub fn lent(&self) -> usize {
        self.back
    }

    /// The descriptor behind the last one written: what a tail register is told.
    #[inline(always)]
    #[must_use]
    pub fn tail(&self) -> usize {
        self.written & (self.count() - 1)
    }

    /// The upper word of descriptor `number`, counted as [`Self::written`] is.
    #[inline(always)]
    #[must_use]
    pub fn upper(&mut self, number: usize) -> u64 {
        self.descriptors.batch().read_part(number, 1)
    }

    /// Changes bits of the upper word of descriptor `number`.
    #[inline(always)]
    pub fn set_upper_bits(&mut self, number: usize, bits: u64) {
        let [lower, upper] = self.descriptors.read(number);
        self.descriptors.write(number, [lower, upper | bits]);
    }

    /// Lends frames from the front of `burst`, one descriptor each, as long as `describe` has words
    /// for them, and at most `count`.
    #[inline(always)]
    pub fn lend_run(
        &mut self,
        burst: &mut Burst,
        count: usize,
        mut describe: impl FnMut(&Lent) -> Option<([u64; 2], u64)>,
    ) -> Moved {
        let mut sum = Moved::default();
        while sum.frames < count {
            let (at, place) = (self.tail(), self.back & (self.count() - 1));
            let run = (count - sum.frames)
                .min(burst.len())
                .min(self.count() - at.max(place))
                .min(self.count() - self.back.wrapping_sub(self.front));
            let mut descriptors = self.descriptors.batch();
            let mut frames = 0;
            let Some(descriptors) = descriptors.run(at, run) else { break };
            let Some(places) = self.frames.get_mut(place..place + run) else { break };
            let items = burst.as_slice().iter().zip(places);
            for (mut descriptor, (item, slot)) in descriptors.iter().zip(items) {
                // SAFETY: a copy of the frame, which counts only once the burst has given it up,
                // below; until then it is forgotten however this goes on.
                let lent = ManuallyDrop::new(unsafe { std::ptr::read(item) }.lend());
                let Some((words, bytes)) = describe(&lent) else { break };
                descriptor.write(words);
                slot.write(ManuallyDrop::into_inner(lent));
                frames += 1;
                sum.bytes += bytes;
            }
            self.back = self.back.wrapping_add(frames);
            self.written = self.written.wrapping_add(frames);
            // SAFETY: that many were moved into the ring's places.
            unsafe { burst.give_up(frames) };
            sum.frames += frames;
            if frames < run || run == 0 {
                break;
            }
        }
        sum
    }

    /// Writes a descriptor that belongs to the next frame that [`Self::keep`] is given.
    pub fn write(&mut self, words: [u64; 2]) {
        self.descriptors.write(self.written, words);
        self.written = self.written.wrapping_add(1);
    }

    /// Keeps a frame whose descriptors were written; it comes back if there is no place.
    pub fn keep(&mut self, frame: Lent) -> Result<(), Lent> {
        if self.back.wrapping_sub(self.front) == self.count() {
            return Err(frame);
        }
        let place = self.back & (self.count() - 1);
        if let Some(slot) = self.frames.get_mut(place) {
            slot.write(frame);
            self.back = self.back.wrapping_add(1);
        }
        Ok(())
    }

    /// The device is done with all frames up to number `lent` (counted as [`Self::lent`] is): they
    /// go back to their pools, neighbours of one pool at once.
    #[inline(always)]
    pub fn give_back(&mut self, lent: usize) {
        let all = self.back.wrapping_sub(self.front);
        let mut left = lent.wrapping_sub(self.front).min(all);
        while left != 0 {
            let start = self.front & (self.count() - 1);
            let run = left.min(self.count() - start);
            self.front = self.front.wrapping_add(run);
            left -= run;
            // SAFETY: the places from `start` on lie inside the ring and are filled; they were
            // given up by moving `front` on, so each frame is given up once even if this unwinds.
            unsafe { Lent::free_bulk(self.frames.as_mut_ptr().add(start).cast(), run) };
        }
    }

    /// Takes the oldest frame.
    pub fn pop(&mut self) -> Option<Lent> {
        if self.back == self.front {
            return None;
        }
        let place = self.front & (self.count() - 1);
        self.front = self.front.wrapping_add(1);
        // SAFETY: the place was filled, and is given up by moving on.
        self.frames.get(place).map(|frame| unsafe { frame.assume_init_read() })
    }

    /// The device has forgotten the ring, and all frames were given back: it starts at its first
    /// descriptor.
    pub fn rewind(&mut self) {
        self.written = 0;
    }
}

impl Drop for SendRing {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl fmt::Debug for SendRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendRing")
            .field("frames", &self.back.wrapping_sub(self.front))
            .field("count", &self.count())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
