//! What a driver lent, in the order of its descriptors.
#![expect(
    unsafe_code,
    reason = "a ring of places of which those between front and back are filled"
)]

use std::fmt;
use std::mem::MaybeUninit;

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
                if push {
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
}
