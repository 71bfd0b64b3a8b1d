//! Which free list a size belongs to: the two levels of "two-level segregated fit".
//!
//! The first level (a row) is the power of two below the size, the second (a column) one of 16
//! equal parts of the span up to the next power. Sizes below 16 have a list each. A size is found
//! in, or mapped to, its list with two shifts and a count of leading zeros, so neither depends on
//! how many blocks there are (Masmano, Ripoll, Crespo, Real: "TLSF: a New Dynamic Memory Allocator
//! for Real-Time Systems", ECRTS 2004).

/// Columns a row has, as a power of two.
const COLUMN_BITS: u32 = 4;

/// Lists in a row.
pub(super) const COLUMNS: usize = 1 << COLUMN_BITS;

/// Sizes are below this: 2^30 granules of 64 bytes, 64 GiB.
pub(super) const SIZE_END: u32 = 1 << 30;

/// Rows: one for the sizes below 16, and one for each power of two from 2^4 to 2^29.
pub(super) const ROWS: usize = 27;

/// The name of a free list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Class {
    /// The list that holds blocks of `size` granules (1 to `SIZE_END - 1`).
    #[inline]
    pub(super) fn of(size: u32) -> Self {
        if size < COLUMNS as u32 {
            return Self { row: 0, column: size as usize };
        }
        let power = size.ilog2();
        let column = (size >> (power - COLUMN_BITS)) as usize & (COLUMNS - 1);
        Self { row: (power - COLUMN_BITS + 1) as usize, column }
    }

    /// The first list all of whose blocks have at least `size` granules; `None` if no such list
    /// exists.
    #[inline]
    pub(super) fn at_least(size: u32) -> Option<Self> {
        let rounded = if size < COLUMNS as u32 {
            size
        } else {
            size.checked_add((1 << (size.ilog2() - COLUMN_BITS)) - 1)?
        };
        (rounded < SIZE_END).then(|| Self::of(rounded))
    }
}

/// Which lists have blocks: a bit each, found by counting trailing zeros.
#[derive(Debug, Default)]
pub(super) struct Occupied {
    rows: u32,
    columns: [u16; ROWS],
}

impl Occupied {
    /// The list is no longer empty.
    #[inline]
    pub(super) fn set(&mut self, class: Class) {
        self.columns[class.row] |= 1 << class.column;
        self.rows |= 1 << class.row;
    }

    /// The list is empty now.
    #[inline]
    pub(super) fn clear(&mut self, class: Class) {
        let columns = &mut self.columns[class.row];
        *columns &= !(1 << class.column);
        if *columns == 0 {
            self.rows &= !(1 << class.row);
        }
    }

    /// The first list with blocks at or after `class`.
    #[inline]
    pub(super) fn first_from(&self, class: Class) -> Option<Class> {
        let columns = self.columns[class.row] & (u16::MAX << class.column);
        if columns != 0 {
            return Some(Class { column: columns.trailing_zeros() as usize, ..class });
        }
        // ROWS is below 32, so the shift is too.
        let rows = self.rows & (u32::MAX << (class.row + 1));
        if rows == 0 {
            return None;
        }
        let row = rows.trailing_zeros() as usize;
        Some(Class { row, column: self.columns[row].trailing_zeros() as usize })
    }

    /// The list of the largest blocks.
    pub(super) fn last(&self) -> Option<Class> {
        let row = self.rows.checked_ilog2()? as usize;
        Some(Class { row, column: self.columns[row].ilog2() as usize })
    }

    /// Whether the list is said to have blocks.
    pub(super) fn has(&self, class: Class) -> bool {
        let column = self.columns[class.row] & (1 << class.column) != 0;
        debug_assert_eq!(self.columns[class.row] != 0, self.rows & (1 << class.row) != 0);
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes around every border, and all small ones.
    fn sizes() -> impl Iterator<Item = u32> {
        let borders = (4..30).flat_map(|power| {
            (0..16_u32).flat_map(move |column| {
                let size = (1 << power) + (column << (power - 4));
                [size - 1, size, size + 1]
            })
        });
        (1..5000).chain(borders).chain([SIZE_END - 1]).filter(|size| *size < SIZE_END)
    }

    fn rank(class: Class) -> usize {
        class.row * COLUMNS + class.column
    }

    #[test]
    fn lists_ascend_with_the_size_and_are_within_the_table() {
        let mut sizes: Vec<u32> = sizes().collect();
        sizes.sort_unstable();
        let ranks: Vec<_> = sizes.iter().map(|size| rank(Class::of(*size))).collect();
        assert!(ranks.is_sorted());
        assert!(ranks.iter().all(|rank| *rank < ROWS * COLUMNS));
    }

    #[test]
    fn every_block_of_the_list_that_is_searched_is_large_enough_and_wastes_a_sixteenth_at_most() {
        for size in sizes() {
            let Some(class) = Class::at_least(size) else {
                assert!(size > SIZE_END - (SIZE_END >> 5), "{size}");
                continue;
            };
            // The list before holds a smaller block; this one doesn't.
            assert!(rank(class) >= rank(Class::of(size)));
            let smallest = match class.row {
                0 => class.column as u32,
                row => (16 + class.column as u32) << (row - 1),
            };
            assert!(smallest >= size, "{size}: {class:?} starts at {smallest}");
            assert!(smallest - size <= size >> 4, "{size}: {class:?} starts at {smallest}");
            assert_eq!(Class::of(smallest), class);
        }
    }

    #[test]
    fn the_next_list_with_blocks_is_found() {
        let mut occupied = Occupied::default();
        let class = |row, column| Class { row, column };
        assert_eq!(occupied.first_from(class(0, 1)), None);
        assert_eq!(occupied.last(), None);
        for (row, column) in [(0, 3), (5, 0), (26, 15)] {
            occupied.set(class(row, column));
        }
        assert_eq!(occupied.first_from(class(0, 0)), Some(class(0, 3)));
        assert_eq!(occupied.first_from(class(0, 4)), Some(class(5, 0)));
        assert_eq!(occupied.first_from(class(5, 1)), Some(class(26, 15)));
        assert_eq!(occupied.last(), Some(class(26, 15)));
        occupied.clear(class(26, 15));
        assert_eq!(occupied.first_from(class(5, 1)), None);
        assert_eq!(occupied.last(), Some(class(5, 0)));
        assert!(occupied.has(class(5, 0)) && !occupied.has(class(26, 15)));
    }
}
