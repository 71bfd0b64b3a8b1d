//! IPv6 (RFC 8200).

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, Unaligned};

use super::IpProtocol;
use super::checksum::{InternetSum, ipv6_pseudo_header};

/// The 40 bytes of every IPv6 header; extension headers may follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (6, 4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32<BigEndian>,
    /// Bytes behind this header, extension headers included.
    pub payload_len: U16<BigEndian>,
    /// What follows: see [`super::IpProtocol`].
    pub next_header: u8,
    /// Hops that it may still take.
    pub hop_limit: u8,
    /// From whom.
    pub source: [u8; 16],
    /// To whom.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Bytes of the header.
    pub const LEN_BYTES: usize = 40;

    /// The version, which should be 6.
    #[must_use]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }

    /// The sum of the pseudo-header for a checksum over `len_bytes` bytes of layer 4, whose number
    /// is `protocol` (that of the last extension header, if there are any: RFC 8200, 8.1).
    #[must_use]
    pub fn pseudo_header(&self, protocol: u8, len_bytes: u32) -> InternetSum {
        let mut addresses = [0; 32];
        let (source, destination) = addresses.split_at_mut(16);
        source.copy_from_slice(&self.source);
        destination.copy_from_slice(&self.destination);
        ipv6_pseudo_header(&addresses, protocol, len_bytes)
    }
}

/// Where a chain of extension headers leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Extensions {
    /// Bytes of all of them.
    pub len_bytes: usize,
    /// What follows the last.
    pub protocol: u8,
    /// There is a fragment header among them, of a packet that was cut.
    pub fragment: bool,
}

/// Follows the extension headers in `bytes`, the first of which is a `next_header` (RFC 8200, 4).
/// `None` if one isn't all there, or there are more than 8: nobody sends that many.
#[must_use]
pub fn ipv6_extensions(next_header: u8, bytes: &[u8]) -> Option<Ipv6Extensions> {
    const MOST: usize = 8;
    let mut found = Ipv6Extensions { len_bytes: 0, protocol: next_header, fragment: false };
    for _ in 0..=MOST {
        let here = bytes.get(found.len_bytes..)?;
        let len = match found.protocol {
            IpProtocol::HOP_BY_HOP | IpProtocol::ROUTING | IpProtocol::DESTINATION_OPTIONS => {
                usize::from(*here.get(1)?) * 8 + 8
            }
            // In words of 4 bytes, two of which don't count (RFC 4302, 2.2).
            IpProtocol::AUTHENTICATION => usize::from(*here.get(1)?) * 4 + 8,
            IpProtocol::FRAGMENT => {
                let place = u16::from_be_bytes([*here.get(2)?, *here.get(3)?]);
                // An atomic one (RFC 6946) is neither behind nor before others.
                found.fragment |= place & !6 != 0;
                8
            }
            _ => return Some(found),
        };
        let header = here.get(..len)?;
        found.protocol = *header.first()?;
        found.len_bytes += len;
        // What follows a fragment that isn't the first is the middle of something.
        if found.fragment {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_rfc_says() {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 58, 255]);
        bytes[23] = 1;
        bytes[39] = 2;
        let header = Ipv6Header::ref_from_bytes(&bytes).unwrap();
        assert_eq!((header.version(), header.payload_len.get()), (6, 0x1234));
        assert_eq!((header.next_header, header.hop_limit), (58, 255));
        assert_eq!((header.source[15], header.destination[15]), (1, 2));
        // 1 + 2 + 17 + 8, all at even places.
        assert_eq!(header.pseudo_header(17, 8).folded().get(), 28);
    }

    #[test]
    fn extensions_lead_to_layer_4() {
        let none = Ipv6Extensions { len_bytes: 0, protocol: 6, fragment: false };
        assert_eq!(ipv6_extensions(6, &[]), Some(none));
        let mut bytes = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop by hop, then routing of 16 bytes
        bytes.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([17, 4]); // authentication of 24 bytes, then UDP
        bytes.extend([0; 22]);
        let found = Ipv6Extensions { len_bytes: 48, protocol: 17, fragment: false };
        assert_eq!(ipv6_extensions(0, &bytes), Some(found));
        for len in 0..bytes.len() {
            assert_eq!(ipv6_extensions(0, &bytes[..len]), None, "{len}");
        }
        let atomic = [17, 0, 0, 0, 0, 0, 0, 1];
        let found = Ipv6Extensions { len_bytes: 8, protocol: 17, fragment: false };
        assert_eq!(ipv6_extensions(44, &atomic), Some(found));
        for place in [1, 8] {
            let part = [60, 0, 0, place, 0, 0, 0, 1];
            let found = Ipv6Extensions { len_bytes: 8, protocol: 60, fragment: true };
            assert_eq!(ipv6_extensions(44, &part), Some(found), "and stops there");
        }
        let endless = [60, 0, 0, 0, 0, 0, 0, 0].repeat(20);
        assert_eq!(ipv6_extensions(60, &endless), None);
    }
}
