//! The driver's own record of what it lent, by descriptor.
#![expect(unsafe_code, reason = "a masked index needs no bounds check")]

/// A power of two of places, reached by masked indexes: what a driver keeps beside a descriptor
/// ring, out of the device's reach. A device that names a descriptor it was never given finds the
/// place empty.
#[derive(Debug)]
pub struct Slots<T> {
    places: Box<[Option<T>]>,
}

impl<T> Slots<T> {
    /// `count` empty places, rounded up to a power of two.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { places: (0..count.max(1).next_power_of_two()).map(|_| None).collect() }
    }

    #[inline(always)]
    fn place(&mut self, index: usize) -> &mut Option<T> {
        let masked = index & (self.places.len() - 1);
        // SAFETY: the length is a power of two and not zero, so the masked index is below it.
        unsafe { self.places.get_unchecked_mut(masked) }
    }

    /// Puts `value` into place `index`; what stood there comes back.
    #[inline(always)]
    pub fn put(&mut self, index: usize, value: T) -> Option<T> {
        self.place(index).replace(value)
    }

    /// Puts `value` into place `index`, which is empty. (What stood there would be forgotten: never
    /// dropped. Finding that out is what this saves.)
    #[inline(always)]
    pub fn fill(&mut self, index: usize, value: T) {
        let place = self.place(index);
        debug_assert!(place.is_none(), "place {index} isn't empty");
        std::mem::forget(place.replace(value));
    }

    /// Takes what stands in place `index`.
    #[inline(always)]
    pub fn take(&mut self, index: usize) -> Option<T> {
        self.place(index).take()
    }

    /// Places `first` to `first + count`; fewer if they end before that. Side by side, so that
    /// walking over them needs no mask.
    #[inline(always)]
    pub fn run(&mut self, first: usize, count: usize) -> std::slice::IterMut<'_, Option<T>> {
        let first = first.min(self.places.len());
        let end = first.saturating_add(count).min(self.places.len());
        self.places.get_mut(first..end).unwrap_or_default().iter_mut()
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.places.iter_mut().filter_map(Option::take)
    }

    /// How many places there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }
}

/// A power of two of small values, reached by masked indexes: a driver's private notes on its
/// descriptors, out of the device's reach.
#[derive(Debug)]
pub struct Table<T> {
    values: Box<[T]>,
}

impl<T: Copy> Table<T> {
    /// `count` values (rounded up to a power of two), each made from its index.
    #[must_use]
    pub fn new(count: usize, value: impl Fn(usize) -> T) -> Self {
        Self { values: (0..count.max(1).next_power_of_two()).map(value).collect() }
    }

    /// Value `index`.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: usize) -> T {
        let masked = index & (self.values.len() - 1);
        // SAFETY: the length is a power of two and not zero, so the masked index is below it.
        unsafe { *self.values.get_unchecked(masked) }
    }

    /// Sets value `index`.
    #[inline(always)]
    pub fn set(&mut self, index: usize, value: T) {
        let masked = index & (self.values.len() - 1);
        // SAFETY: as above.
        unsafe { *self.values.get_unchecked_mut(masked) = value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_masked() {
        let mut slots = Slots::new(3);
        assert_eq!(slots.count(), 4);
        assert_eq!(slots.put(6, "a"), None);
        assert_eq!(slots.put(2, "b"), Some("a"));
        assert_eq!(slots.take(10), Some("b"));
        assert_eq!(slots.take(2), None);
        slots.put(0, "c");
        slots.fill(3, "d");
        assert_eq!(slots.run(2, 9).map(Option::take).collect::<Vec<_>>(), [None, Some("d")]);
        assert_eq!((slots.run(4, 1).len(), slots.run(9, usize::MAX).len()), (0, 0));
        slots.put(3, "d");
        assert_eq!(slots.drain().collect::<Vec<_>>(), ["c", "d"]);
    }
}
