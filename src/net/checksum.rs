//! The Internet checksum (RFC 1071; its update in place RFC 1624), and pseudo-headers.

use zerocopy::{BigEndian, U16};

/// A one's complement sum of 16-bit words, in the making: add bytes in any number of pieces.
///
/// ```
/// use packetboat::net::InternetSum;
/// // RFC 1071, 3: the words 0001 f203 f4f5 f6f7 sum up to ddf2.
/// let mut sum = InternetSum::new();
/// sum.add(&[0x00, 0x01, 0xf2]);
/// sum.add(&[0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(sum.folded().get(), 0xddf2);
/// assert_eq!(sum.checksum().get(), !0xddf2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InternetSum {
    /// Of words in the machine's byte order: the sum is the same, in that order (RFC 1071, 2 (B)).
    sum: u64,
    /// An odd number of bytes was added so far.
    odd: bool,
}

impl InternetSum {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds bytes, which follow those that were added before.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let sum = fold(sum_of(bytes));
        // A word whose halves come from two pieces has them the other way round in this one.
        self.sum += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds a word that stands at an even place.
    #[inline]
    pub fn add_word(&mut self, word: u16) {
        self.sum += u64::from(word.to_be());
    }

    /// The sum of 16 bits: what a device expects in the checksum's place that it shall fill in.
    #[inline]
    #[must_use]
    pub fn folded(self) -> U16<BigEndian> {
        U16::from_bytes(fold(self.sum).to_ne_bytes())
    }

    /// Its complement: what goes into a header. Zero where all that was added, with the checksum
    /// in it, is right.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> U16<BigEndian> {
        U16::from_bytes((!fold(self.sum)).to_ne_bytes())
    }

    /// The checksum as UDP wants it: zero would say that there is none (RFC 768).
    #[inline]
    #[must_use]
    pub fn checksum_not_zero(self) -> U16<BigEndian> {
        match self.checksum() {
            U16::<BigEndian>::ZERO => U16::MAX_VALUE,
            sum => sum,
        }
    }
}

/// The Internet checksum of `bytes`.
#[inline]
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> U16<BigEndian> {
    let mut sum = InternetSum::new();
    sum.add(bytes);
    sum.checksum()
}

/// A checksum after one of the words that it covers has changed (RFC 1624, equation 3).
#[inline]
#[must_use]
pub fn updated_checksum(checksum: U16<BigEndian>, old: u16, new: u16) -> U16<BigEndian> {
    let sum = u64::from(!checksum.get()) + u64::from(!old) + u64::from(new);
    U16::new(!fold(sum))
}

/// The sum of an IPv4 pseudo-header (RFC 793, 3.1; RFC 768): `addresses` are source and
/// destination, `len_bytes` that of layer 4.
#[inline]
#[must_use]
pub fn ipv4_pseudo_header(addresses: &[u8; 8], protocol: u8, len_bytes: u16) -> InternetSum {
    let mut sum = InternetSum::new();
    sum.add(addresses);
    sum.add_word(protocol.into());
    sum.add_word(len_bytes);
    sum
}

/// The sum of an IPv6 pseudo-header (RFC 8200, 8.1).
#[inline]
#[must_use]
pub fn ipv6_pseudo_header(addresses: &[u8; 32], protocol: u8, len_bytes: u32) -> InternetSum {
    let mut sum = InternetSum::new();
    sum.add(addresses);
    sum.add(&len_bytes.to_be_bytes());
    sum.add_word(protocol.into());
    sum
}

/// The sum of 32-bit words in the machine's byte order, the last one filled up with zeros.
#[inline]
fn sum_of(bytes: &[u8]) -> u64 {
    // Several sums at a time, which don't wait for each other. 2^32 words can't overflow one.
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut sums = [0_u64; 4];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks::<4>().0) {
            *sum += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut sum = sums.iter().copied().map(fold_once).sum::<u64>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum + u64::from(u32::from_ne_bytes(last))
}

#[inline]
fn fold_once(sum: u64) -> u64 {
    (sum >> 32) + (sum & 0xffff_ffff)
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = fold_once(fold_once(sum));
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Word by word, as RFC 1071 says it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn any_pieces_give_what_the_definition_gives(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(0..400usize, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let (mut sum, mut from) = (InternetSum::new(), 0);
            for cut in cuts {
                sum.add(&bytes[from..cut]);
                from = cut;
            }
            sum.add(&bytes[from..]);
            prop_assert_eq!(sum.checksum().get(), plain(&bytes));
            prop_assert_eq!(internet_checksum(&bytes).get(), plain(&bytes));
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(
            words in proptest::collection::vec(any::<u16>(), 1..40), at in any::<usize>(), new in any::<u16>(),
        ) {
            let bytes = |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
            let mut changed = words.clone();
            let at = at % words.len();
            changed[at] = new;
            let updated = updated_checksum(internet_checksum(&bytes(&words)), words[at], new);
            let again = internet_checksum(&bytes(&changed));
            // Zero has two representations; only all-zero data has the other one.
            prop_assert!(updated == again || changed.iter().all(|word| *word == 0), "{updated} {again}");
        }
    }

    #[test]
    fn long_data_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 1 << 20];
        assert_eq!(internet_checksum(&bytes).get(), 0);
        let mut sum = InternetSum::new();
        sum.add(&bytes);
        assert_eq!(sum.checksum_not_zero().get(), 0xffff);
    }

    #[test]
    fn pseudo_headers_are_the_words_that_the_rfcs_list() {
        let v4 = ipv4_pseudo_header(&[192, 0, 2, 1, 198, 51, 100, 2], 17, 20);
        let words = [0xc000, 0x0201, 0xc633, 0x6402, 17, 20];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u16| word.to_be_bytes()).collect();
        assert_eq!(v4.checksum().get(), plain(&bytes));
        let addresses: [u8; 32] = std::array::from_fn(|nth| nth as u8 * 7);
        let v6 = ipv6_pseudo_header(&addresses, 6, 0x1_2345);
        let mut bytes = addresses.to_vec();
        bytes.extend([0, 1, 0x23, 0x45, 0, 0, 0, 6]);
        assert_eq!(v6.checksum().get(), plain(&bytes));
    }
}
