//! What a driver lent, in the order of its descriptors.
#![expect(
    unsafe_code,
    reason = "a ring of places of which those between front and back are filled"
)]

use std::fmt;
use std::mem::MaybeUninit;

use crate::mbuf::{Lent, Mbuf};

/// A power of two of places, filled at the back and emptied at the front: what a driver keeps
/// beside a descriptor ring that completes in order, out of the device's reach. Its indexes are
/// the driver's own; a device can't name a place of it.
pub struct Fifo<T> {
    /// Those from `front` to `back` (masked) are filled.
    places: Box<[MaybeUninit<T>]>,
    /// Counts values taken out; wraps.
    front: usize,
    /// Counts values put in; at most a ring's length ahead of `front`.
    back: usize,
}

impl<T> Fifo<T> {
    /// `count` empty places, rounded up to a power of two.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.max(1).next_power_of_two();
        Self { places: (0..count).map(|_| MaybeUninit::uninit()).collect(), front: 0, back: 0 }
    }

    /// Values in it.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.back.wrapping_sub(self.front)
    }

    /// Whether there is none.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.front == self.back
    }

    /// How many more there is room for.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        self.places.len() - self.len()
    }

    /// How many there are room for in all: a power of two.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    #[inline(always)]
    fn place(&mut self, index: usize) -> &mut MaybeUninit<T> {
        let masked = index & (self.places.len() - 1);
        // SAFETY: the length is a power of two and not zero, so the masked index is below it.
        unsafe { self.places.get_unchecked_mut(masked) }
    }

    /// Adds a value at the back, or gives it back if there is no room.
    #[inline(always)]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(value);
        }
        let back = self.back;
        self.place(back).write(value);
        self.back = back.wrapping_add(1);
        Ok(())
    }

    /// Takes the value at the front.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let front = self.front;
        self.front = front.wrapping_add(1);
        // SAFETY: `front != back`, so the place is filled; moving `front` on gives it up.
        Some(unsafe { self.place(front).assume_init_read() })
    }

    /// The value at the front.
    #[inline(always)]
    #[must_use]
    pub fn first(&self) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        let masked = self.front & (self.places.len() - 1);
        // SAFETY: masked as in `place`; filled, as the fifo isn't empty.
        Some(unsafe { self.places.get_unchecked(masked).assume_init_ref() })
    }
}

/// A fifo for the length of a batch that fills it: its counts stay in registers, and reach the
/// fifo when this is dropped.
#[derive(Debug)]
pub struct Filling<'a, T> {
    places: *mut MaybeUninit<T>,
    mask: usize,
    back: usize,
    left: usize,
    fifo_back: &'a mut usize,
}

/// A fifo for the length of a batch that empties it; as [`Filling`].
#[derive(Debug)]
pub struct Emptying<'a, T> {
    places: *mut MaybeUninit<T>,
    mask: usize,
    front: usize,
    left: usize,
    fifo_front: &'a mut usize,
}

impl<T> Fifo<T> {
    /// The fifo, to be filled by a batch.
    #[inline(always)]
    pub fn filling(&mut self) -> Filling<'_, T> {
        let (left, mask) = (self.room(), self.places.len() - 1);
        let places = self.places.as_mut_ptr();
        Filling { places, mask, back: self.back, left, fifo_back: &mut self.back }
    }

    /// The fifo, to be emptied by a batch.
    #[inline(always)]
    pub fn emptying(&mut self) -> Emptying<'_, T> {
        let (left, mask) = (self.len(), self.places.len() - 1);
        let places = self.places.as_mut_ptr();
        // Were the batch forgotten, what it has not taken would be lost, and nothing taken twice.
        let front = std::mem::replace(&mut self.front, self.back);
        Emptying { places, mask, front, left, fifo_front: &mut self.front }
    }
}

impl<T> Filling<'_, T> {
    /// As [`Fifo::push`].
    #[inline(always)]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let Some(left) = self.left.checked_sub(1) else { return Err(value) };
        // SAFETY: the masked index lies inside the places, which are borrowed with the fifo; there
        // is room, so nothing stands there.
        unsafe { self.places.add(self.back & self.mask).write(MaybeUninit::new(value)) };
        self.back = self.back.wrapping_add(1);
        self.left = left;
        Ok(())
    }
}

impl<T> Emptying<'_, T> {
    /// As [`Fifo::pop`].
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let front = self.front;
        self.front = front.wrapping_add(1);
        // SAFETY: the masked index lies inside the places, which are borrowed with the fifo; it is
        // filled, and given up by moving on.
        Some(unsafe { self.places.add(front & self.mask).read().assume_init() })
    }
}

impl<T> Drop for Filling<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.fifo_back = self.back;
    }
}

impl<T> Drop for Emptying<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.fifo_front = self.front;
    }
}

impl Fifo<Lent> {
    /// The device is done with the `count` oldest frames (or all, if there are fewer): they go back
    /// to their pools, neighbours of one pool at once.
    #[inline(always)]
    pub fn give_back(&mut self, count: usize) {
        let mut left = count.min(self.len());
        while left != 0 {
            let start = self.front & (self.places.len() - 1);
            let run = left.min(self.places.len() - start);
            self.front = self.front.wrapping_add(run);
            left -= run;
            // SAFETY: the places from `start` on lie inside the ring and are filled; they were
            // given up by moving `front` on, so each frame is given up once even if this unwinds.
            // A Lent is its header's address, as an Mbuf is.
            unsafe { Mbuf::free_bulk(self.places.as_mut_ptr().add(start).cast::<Mbuf>(), run) };
        }
    }
}

impl<T> Drop for Fifo<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Fifo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fifo").field("len", &self.len()).field("count", &self.count()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::mbuf::{MbufPool, MbufPoolConfig};
    use crate::memory::{Memory, MemoryConfig};

    proptest! {
        #[test]
        fn it_is_a_queue_with_a_limit(
            count in 1_usize..9, steps in prop::collection::vec(any::<bool>(), 0..100),
            start in any::<usize>(),
        ) {
            let mut fifo = Fifo::new(count);
            (fifo.front, fifo.back) = (start, start);
            let mut model = VecDeque::new();
            let token = Rc::new(());
            for (number, push) in steps.into_iter().enumerate() {
                // Singly and by batches of one, which are to do the same.
                if number % 3 == 0 {
                    let fits = model.len() < count.next_power_of_two();
                    prop_assert_eq!(fifo.filling().push((number, token.clone())).is_ok(), fits);
                    if fits {
                        model.push_back(number);
                    }
                    if push {
                        let popped = fifo.emptying().pop().map(|(number, _)| number);
                        prop_assert_eq!(popped, model.pop_front());
                    }
                } else if push {
                    let fits = model.len() < count.next_power_of_two();
                    prop_assert_eq!(fifo.push((number, token.clone())).is_ok(), fits);
                    if fits {
                        model.push_back(number);
                    }
                } else {
                    prop_assert_eq!(fifo.first().map(|(number, _)| *number), model.front().copied());
                    prop_assert_eq!(fifo.pop().map(|(number, _)| number), model.pop_front());
                }
                prop_assert_eq!((fifo.len(), fifo.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(Rc::strong_count(&token), 1 + model.len());
            }
            drop(fifo);
            prop_assert_eq!(Rc::strong_count(&token), 1);
        }
    }

    #[test]
    fn a_batch_that_is_forgotten_gives_nothing_twice() {
        let token = Rc::new(());
        let mut fifo = Fifo::new(4);
        (0..3).for_each(|_| fifo.push(token.clone()).unwrap());
        let mut batch = fifo.emptying();
        let first = batch.pop();
        std::mem::forget(batch);
        assert!(first.is_some() && fifo.is_empty());
        std::mem::forget(fifo.filling());
        assert_eq!((fifo.len(), fifo.room()), (0, 4));
    }

    #[test]
    fn frames_go_back_across_the_end_of_the_ring() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("fifo", 16)).unwrap();
        let mut fifo = Fifo::new(8);
        for (push, give) in [(8, 5), (5, 3), (3, 8), (2, 9), (0, 1)] {
            for _ in 0..push {
                fifo.push(pool.alloc().unwrap().lend()).unwrap();
            }
            fifo.give_back(give);
            assert_eq!(pool.objects().in_use(), fifo.len());
        }
        assert!(fifo.is_empty());
        assert_eq!(pool.leaked(), 0);
    }
}
