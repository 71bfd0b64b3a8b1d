//! What an object of a pool is made of.

/// Elements start at multiples of this: a cache line, so that no two objects share one.
pub const ELEMENT_ALIGN_BYTES: usize = 64;

/// The parts of an object, in the order of their addresses, in bytes.
///
/// ```text
///  ┌────────────┬──────────────────────┬───────────┬────────────┐
///  │ header     │ element              │ padding   │ trailer    │
///  │ (cookie)   │                      │           │ (cookie)   │
///  └────────────┴──────────────────────┴───────────┴────────────┘
///               ▲ a multiple of 64
/// ```
///
/// Header and trailer are there only with cookies. DPDK spreads objects over memory channels by
/// padding of odd lengths, too; current memory controllers hash addresses, so this doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLayout {
    /// Before the element; its last 8 bytes are the cookie.
    pub header_bytes: usize,
    /// What the pool's user gets.
    pub element_bytes: usize,
    /// Unused, so that the whole is a multiple of [`ELEMENT_ALIGN_BYTES`].
    pub padding_bytes: usize,
    /// The cookie that a write beyond element and padding destroys.
    pub trailer_bytes: usize,
}

impl ObjectLayout {
    /// The layout for elements of `element_bytes`; `None` for none, or more than can be addressed.
    #[must_use]
    pub fn new(element_bytes: usize, cookies: bool) -> Option<Self> {
        let (header_bytes, trailer_bytes) = if cookies { (ELEMENT_ALIGN_BYTES, 8) } else { (0, 0) };
        let used = element_bytes.checked_add(header_bytes + trailer_bytes)?;
        let whole = used.checked_next_multiple_of(ELEMENT_ALIGN_BYTES)?;
        // Beyond this, sums of a few of them could overflow.
        (element_bytes > 0 && whole <= isize::MAX as usize / 4).then_some(Self {
            header_bytes,
            element_bytes,
            padding_bytes: whole - used,
            trailer_bytes,
        })
    }

    /// Bytes from one object to the next.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.header_bytes + self.element_bytes + self.padding_bytes + self.trailer_bytes
    }

    /// From the element's start to the trailer.
    pub(super) fn trailer_at(&self) -> usize {
        self.element_bytes + self.padding_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_whole_lines() {
        let plain = ObjectLayout::new(100, false).unwrap();
        assert_eq!((plain.header_bytes, plain.padding_bytes, plain.trailer_bytes), (0, 28, 0));
        assert_eq!(plain.len_bytes(), 128);
        let checked = ObjectLayout::new(100, true).unwrap();
        assert_eq!(
            (checked.header_bytes, checked.padding_bytes, checked.trailer_bytes),
            (64, 20, 8)
        );
        assert_eq!(checked.len_bytes(), 192);
        assert_eq!(ObjectLayout::new(64, false).unwrap().len_bytes(), 64);
        for (len, cookies) in [(0, false), (0, true), (usize::MAX, false), (usize::MAX - 64, true)]
        {
            assert_eq!(ObjectLayout::new(len, cookies), None, "{len}");
        }
    }
}
