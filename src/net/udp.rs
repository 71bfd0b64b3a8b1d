//! UDP (RFC 768).

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

use super::checksum::InternetSum;

/// The 8 bytes in front of the data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// From which port.
    pub source_port: U16<BigEndian>,
    /// To which port.
    pub destination_port: U16<BigEndian>,
    /// Bytes of header and data.
    pub len: U16<BigEndian>,
    /// Over pseudo-header, header and data; 0: none was computed.
    pub checksum: U16<BigEndian>,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN_BYTES: usize = 8;

    /// The checksum that belongs into this header: `pseudo_header` is what IP adds, with
    /// [`Self::len`], and `data` what follows.
    #[must_use]
    pub fn computed_checksum(&self, pseudo_header: InternetSum, data: &[u8]) -> U16<BigEndian> {
        let header = Self { checksum: U16::ZERO, ..*self };
        let mut sum = pseudo_header;
        sum.add(header.as_bytes());
        sum.add(data);
        sum.checksum_not_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ipv4_pseudo_header;
    use super::*;

    #[test]
    fn the_checksum_makes_the_whole_add_up_and_is_never_zero() {
        let (source_port, destination_port) = (U16::new(53), U16::new(1024));
        let mut header =
            UdpHeader { source_port, destination_port, len: U16::new(13), checksum: U16::ZERO };
        let pseudo = ipv4_pseudo_header(&[198, 18, 0, 1, 198, 18, 0, 2], 17, 13);
        header.checksum = header.computed_checksum(pseudo, b"hello");
        let mut sum = pseudo;
        sum.add(header.as_bytes());
        sum.add(b"hello");
        assert_eq!(sum.checksum().get(), 0);
        // A port that makes the sum all ones.
        let rest = header.checksum.get();
        header.source_port = U16::new(53 + rest);
        assert_eq!(header.computed_checksum(pseudo, b"hello").get(), 0xffff);
    }
}
