//! TCP (RFC 9293).

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, Unaligned};

use super::checksum::InternetSum;

/// The 20 bytes that every TCP header has; options may follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// From which port.
    pub source_port: U16<BigEndian>,
    /// To which port.
    pub destination_port: U16<BigEndian>,
    /// Number of the first byte.
    pub sequence: U32<BigEndian>,
    /// Number of the next byte that is waited for.
    pub acknowledgment: U32<BigEndian>,
    /// Length of the header in words of 4 bytes (upper 4 bits).
    pub data_offset: u8,
    /// See the constants.
    pub flags: u8,
    /// Bytes that the other may send.
    pub window: U16<BigEndian>,
    /// Over pseudo-header, header and data.
    pub checksum: U16<BigEndian>,
    /// End of urgent data.
    pub urgent: U16<BigEndian>,
}

impl TcpHeader {
    /// Bytes of a header without options.
    pub const LEN_BYTES: usize = 20;
    /// No more comes.
    pub const FIN: u8 = 1;
    /// Start of a connection.
    pub const SYN: u8 = 1 << 1;
    /// End of it, at once.
    pub const RST: u8 = 1 << 2;
    /// To be handed over soon.
    pub const PSH: u8 = 1 << 3;
    /// The acknowledgment counts.
    pub const ACK: u8 = 1 << 4;
    /// There is urgent data.
    pub const URG: u8 = 1 << 5;

    /// Length of header and options in bytes: 20 to 60, if the header is right.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// The checksum that belongs into this header: `pseudo_header` is what IP adds, and `rest` the
    /// options and data that follow.
    #[must_use]
    pub fn computed_checksum(&self, pseudo_header: InternetSum, rest: &[u8]) -> U16<BigEndian> {
        let header = Self { checksum: U16::ZERO, ..*self };
        let mut sum = pseudo_header;
        sum.add(header.as_bytes());
        sum.add(rest);
        sum.checksum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ipv4_pseudo_header;
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_rfc_says() {
        let mut bytes = *b"\x00\x50\x04\x00SEQ.ACK.\x60\x12\x10\x00\xff\xff\x00\x07";
        let header = TcpHeader::ref_from_bytes(&bytes).unwrap();
        assert_eq!((header.source_port.get(), header.destination_port.get()), (80, 1024));
        assert_eq!(header.sequence.to_bytes(), *b"SEQ.");
        assert_eq!(header.acknowledgment.to_bytes(), *b"ACK.");
        assert_eq!((header.len_bytes(), header.window.get(), header.urgent.get()), (24, 4096, 7));
        assert_eq!(header.flags, TcpHeader::SYN | TcpHeader::ACK);
        let pseudo = ipv4_pseudo_header(&[198, 18, 0, 1, 198, 18, 0, 2], 6, 24);
        let checksum = header.computed_checksum(pseudo, &[2, 4, 5, 0xb4]);
        bytes[16..18].copy_from_slice(checksum.as_bytes());
        let mut sum = pseudo;
        sum.add(&bytes);
        sum.add(&[2, 4, 5, 0xb4]);
        assert_eq!(sum.checksum().get(), 0);
    }
}
