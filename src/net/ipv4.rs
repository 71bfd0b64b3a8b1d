//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

use super::checksum::{InternetSum, internet_checksum, ipv4_pseudo_header};

/// The 20 bytes that every IPv4 header has; options may follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4), and length in words of 4 bytes.
    pub version_and_len: u8,
    /// Differentiated services (RFC 2474) and congestion notification (RFC 3168).
    pub traffic_class: u8,
    /// Length of header and data.
    pub total_len: U16<BigEndian>,
    /// The same in all fragments of a packet.
    pub identification: U16<BigEndian>,
    /// Flags (3 bits), and the fragment's place in units of 8 bytes.
    pub fragment: U16<BigEndian>,
    /// Hops that it may still take.
    pub time_to_live: u8,
    /// What follows: see [`super::IpProtocol`].
    pub protocol: u8,
    /// Over the header alone.
    pub checksum: U16<BigEndian>,
    /// From whom.
    pub source: [u8; 4],
    /// To whom.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of a header without options.
    pub const LEN_BYTES: usize = 20;
    /// The flag of a packet that must not be cut.
    pub const DONT_FRAGMENT: u16 = 1 << 14;
    /// The flag of all fragments but the last.
    pub const MORE_FRAGMENTS: u16 = 1 << 13;

    /// A header without options, in front of `data_len` bytes, with the right checksum. `None` if
    /// they are too many for the length field.
    #[must_use]
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        data_len: usize,
    ) -> Option<Self> {
        let total = u16::try_from(data_len.checked_add(Self::LEN_BYTES)?).ok()?;
        let mut header = Self {
            version_and_len: 0x45,
            traffic_class: 0,
            total_len: U16::new(total),
            identification: U16::ZERO,
            fragment: U16::new(Self::DONT_FRAGMENT),
            time_to_live: 64,
            protocol,
            checksum: U16::ZERO,
            source: source.octets(),
            destination: destination.octets(),
        };
        header.checksum = header.computed_checksum(&[]);
        Some(header)
    }

    /// The version, which should be 4.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version_and_len >> 4
    }

    /// Length of header and options in bytes: 20 to 60, if the header is right.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        usize::from(self.version_and_len & 0xf) * 4
    }

    /// Whether it is a part of a packet that was cut.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & !(Self::DONT_FRAGMENT | 1 << 15) != 0
    }

    /// The checksum that belongs into the header, with these `options` behind it.
    #[must_use]
    pub fn computed_checksum(&self, options: &[u8]) -> U16<BigEndian> {
        let header = Self { checksum: U16::ZERO, ..*self };
        let mut sum = InternetSum::new();
        sum.add(header.as_bytes());
        sum.add(options);
        sum.checksum()
    }

    /// The sum of the pseudo-header for a checksum of layer 4 over `len_bytes` bytes.
    #[must_use]
    pub fn pseudo_header(&self, len_bytes: u16) -> InternetSum {
        let [a, b, c, d] = self.source;
        let [e, f, g, h] = self.destination;
        ipv4_pseudo_header(&[a, b, c, d, e, f, g, h], self.protocol, len_bytes)
    }

    /// Whether the header at the start of `bytes`, options included, adds up. False if it isn't
    /// one, or there isn't all of it.
    #[must_use]
    pub fn is_intact(bytes: &[u8]) -> bool {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else { return false };
        let len = header.len_bytes();
        header.version() == 4
            && len >= Self::LEN_BYTES
            && bytes.get(..len).is_some_and(|whole| internet_checksum(whole) == U16::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header from a capture, widely used as an example of the sum.
    const KNOWN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn a_known_header_adds_up() {
        let header = Ipv4Header::ref_from_bytes(&KNOWN).unwrap();
        assert_eq!((header.version(), header.len_bytes()), (4, 20));
        assert_eq!((header.total_len.get(), header.protocol), (115, 17));
        assert!(!header.is_fragment());
        assert_eq!(header.computed_checksum(&[]).get(), 0xb861);
        assert!(Ipv4Header::is_intact(&KNOWN));
        let (source, destination) =
            (Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(192, 168, 0, 199));
        assert_eq!(Ipv4Header::new(source, destination, 17, 95).unwrap().as_bytes(), KNOWN);
        assert!(Ipv4Header::new(source, destination, 17, 65_515).is_some());
        assert!(Ipv4Header::new(source, destination, 17, 65_516).is_none());
    }

    #[test]
    fn what_is_no_header_is_not_intact() {
        for at in 0..20 {
            let mut wrong = KNOWN;
            wrong[at] ^= 0x10;
            assert!(!Ipv4Header::is_intact(&wrong), "byte {at}");
        }
        assert!(!Ipv4Header::is_intact(&KNOWN[..19]));
        // Options that aren't there, and a header shorter than headers are.
        for version_and_len in [0x46, 0x44, 0x40] {
            let mut wrong = KNOWN;
            wrong[0] = version_and_len;
            let sum = Ipv4Header::ref_from_bytes(&wrong).unwrap().computed_checksum(&[]);
            wrong[10..12].copy_from_slice(sum.as_bytes());
            assert!(!Ipv4Header::is_intact(&wrong));
        }
        let mut options = [KNOWN.as_slice(), &[1, 1, 1, 0]].concat();
        options[0] = 0x46;
        let header = *Ipv4Header::ref_from_prefix(&options).unwrap().0;
        options[10..12].copy_from_slice(header.computed_checksum(&[1, 1, 1, 0]).as_bytes());
        assert!(Ipv4Header::is_intact(&options));
        let fragments = [Ipv4Header::MORE_FRAGMENTS, 1, Ipv4Header::DONT_FRAGMENT];
        let is =
            fragments.map(|bits| Ipv4Header { fragment: U16::new(bits), ..header }.is_fragment());
        assert_eq!(is, [true, true, false]);
    }
}
