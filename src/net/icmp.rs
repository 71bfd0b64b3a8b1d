//! ICMP (RFC 792) and ICMPv6 (RFC 4443): what all their messages have in common, and echo.

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

use super::checksum::internet_checksum;

/// The 8 bytes that every message starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// What it is.
    pub kind: u8,
    /// And of which sort.
    pub code: u8,
    /// Over the whole message, in ICMPv6 with a pseudo-header.
    pub checksum: U16<BigEndian>,
    /// In an echo: whose it is.
    pub identifier: U16<BigEndian>,
    /// In an echo: which one.
    pub sequence: U16<BigEndian>,
}

impl IcmpHeader {
    /// Bytes of the header.
    pub const LEN_BYTES: usize = 8;
    /// The kind of an ICMP echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// The kind of its answer.
    pub const ECHO_REPLY: u8 = 0;
    /// The kind of an ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// The kind of its answer.
    pub const V6_ECHO_REPLY: u8 = 129;

    /// Whether the checksum of a whole ICMP message is right.
    #[must_use]
    pub fn is_intact(message: &[u8]) -> bool {
        message.len() >= Self::LEN_BYTES && internet_checksum(message) == U16::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::super::updated_checksum;
    use super::*;

    #[test]
    fn an_echo_is_answered_by_changing_its_kind() {
        let mut message = *b"\x08\x00\x00\x00\x12\x34\x00\x01payload";
        let sum = internet_checksum(&message);
        message[2..4].copy_from_slice(sum.as_bytes());
        assert!(IcmpHeader::is_intact(&message));
        let header = IcmpHeader::mut_from_prefix(&mut message).unwrap().0;
        assert_eq!((header.identifier.get(), header.sequence.get()), (0x1234, 1));
        header.kind = IcmpHeader::ECHO_REPLY;
        header.checksum = updated_checksum(header.checksum, 0x0800, 0);
        assert!(IcmpHeader::is_intact(&message));
        assert!(!IcmpHeader::is_intact(&message[..7]));
    }
}
