//! What stands in a frame: where its headers begin, and Internet checksums (RFC 1071).

/// Network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Neither IPv4 nor IPv6.
    None,
    /// IPv4.
    V4 {
        /// With options.
        options: bool,
    },
    /// IPv6.
    V6 {
        /// With extension headers.
        extensions: bool,
    },
}

/// Transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// None, or one that the NIC doesn't know.
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where the headers of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The EtherType behind VLAN tags.
    pub ethertype: u16,
    /// The outer VLAN tag's control word.
    pub vlan: Option<u16>,
    /// Network header.
    pub network: Network,
    /// Where it begins.
    pub network_at: usize,
    /// Transport header.
    pub transport: Transport,
    /// Where it begins.
    pub transport_at: usize,
    /// Where the network packet ends, padding excluded.
    pub end: usize,
    /// Not the only fragment of its packet.
    pub fragment: bool,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

/// Finds the headers of a frame. What is cut short or contradicts itself counts as not there.
pub fn parse(frame: &[u8], vlan_type: u16) -> Headers {
    let mut headers = Headers {
        ethertype: be16(frame, 12).unwrap_or(0),
        vlan: None,
        network: Network::None,
        network_at: 14,
        transport: Transport::None,
        transport_at: 14,
        end: frame.len(),
        fragment: false,
    };
    if headers.ethertype == vlan_type
        && let (Some(tag), Some(inner)) = (be16(frame, 14), be16(frame, 16))
    {
        headers.vlan = Some(tag);
        headers.ethertype = inner;
        headers.network_at = 18;
        headers.transport_at = 18;
    }
    match headers.ethertype {
        0x0800 => parse_v4(frame, &mut headers),
        0x86dd => parse_v6(frame, &mut headers),
        _ => {}
    }
    headers
}

fn parse_v4(frame: &[u8], headers: &mut Headers) {
    let at = headers.network_at;
    let Some(ip) = frame.get(at..at + 20) else { return };
    let header_len = usize::from(ip[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 || header_len < 20 || total < header_len || at + total > frame.len() {
        return;
    }
    headers.network = Network::V4 { options: header_len > 20 };
    headers.end = at + total;
    headers.transport_at = at + header_len;
    headers.fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if !headers.fragment {
        headers.transport = transport(ip[9], headers.end - headers.transport_at);
    }
}

fn parse_v6(frame: &[u8], headers: &mut Headers) {
    let at = headers.network_at;
    let Some(ip) = frame.get(at..at + 40) else { return };
    let end = at + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || end > frame.len() {
        return;
    }
    let (mut next, mut here, mut extensions) = (ip[6], at + 40, false);
    // Hop by hop, routing, destination options: each tells its length in 8 bytes, less one.
    while matches!(next, 0 | 43 | 60) {
        let Some(option) = frame.get(here..here + 8).filter(|_| here + 8 <= end) else { break };
        next = option[0];
        here += 8 + usize::from(option[1]) * 8;
        extensions = true;
    }
    headers.network = Network::V6 { extensions };
    headers.end = end;
    headers.fragment = next == 44;
    if here <= end {
        headers.transport_at = here;
        headers.transport = transport(next, end - here);
    }
}

fn transport(protocol: u8, len: usize) -> Transport {
    match protocol {
        6 if len >= 20 => Transport::Tcp,
        17 if len >= 8 => Transport::Udp,
        132 if len >= 12 => Transport::Sctp,
        _ => Transport::None,
    }
}

/// Adds up 16-bit words in network order, the last one filled with a zero byte.
pub fn sum(bytes: &[u8]) -> u32 {
    // Words of any byte order add up alike (RFC 1071, 2.B): eight bytes at a time.
    let mut total = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut rest = [0u8; 4];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    total += u64::from(u32::from_le_bytes(rest));
    u32::from(fold64(total).swap_bytes())
}

fn fold64(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(0)
}

/// A sum as the checksum field has it.
pub fn finish(total: u32) -> u16 {
    !fold64(u64::from(total))
}

/// The sum of the pseudo header of a TCP, UDP or SCTP packet of `len` bytes.
pub fn pseudo(frame: &[u8], headers: &Headers, protocol: u8, len: usize) -> u32 {
    let at = headers.network_at;
    let addresses = match headers.network {
        Network::V4 { .. } => frame.get(at + 12..at + 20),
        Network::V6 { .. } => frame.get(at + 8..at + 40),
        Network::None => None,
    };
    let len = u32::try_from(len).unwrap_or(0);
    sum(addresses.unwrap_or(&[])) + u32::from(protocol) + (len & 0xffff) + (len >> 16)
}

/// Whether the IPv4 header's checksum is good; `None` if there is no IPv4 header.
pub fn network_checksum_good(frame: &[u8], headers: &Headers) -> Option<bool> {
    let Network::V4 { .. } = headers.network else { return None };
    let header = frame.get(headers.network_at..headers.transport_at)?;
    Some(finish(sum(header)) == 0)
}

/// Whether the TCP, UDP or SCTP checksum is good; `None` if there is none to check.
pub fn transport_checksum_good(frame: &[u8], headers: &Headers) -> Option<bool> {
    if headers.fragment {
        return None;
    }
    let protocol = match headers.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => {
            let packet = frame.get(headers.transport_at..headers.end)?;
            return Some(sctp_checksum(packet)?.to_le_bytes() == packet[8..12]);
        }
        Transport::None => return None,
    };
    let packet = frame.get(headers.transport_at..headers.end)?;
    if protocol == 17 && packet.get(6..8)? == [0, 0] {
        return None; // the sender made none
    }
    Some(finish(pseudo(frame, headers, protocol, packet.len()) + sum(packet)) == 0)
}

/// CRC32c over an SCTP packet with zeros in its place (RFC 9260, appendix A). `None` if it is too
/// short to hold one.
pub fn sctp_checksum(packet: &[u8]) -> Option<u32> {
    let (before, after) = (packet.get(..8)?, packet.get(12..)?);
    let crc = before.iter().chain(&[0; 4]).chain(after).fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 != 0 { 0x82f6_3b78 ^ (crc >> 1) } else { crc >> 1 }
        })
    });
    Some(!crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_equal_the_plain_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut plain = 0u32;
            for pair in bytes.chunks(2) {
                plain += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            }
            prop_assert_eq!(finish(sum(&bytes)), finish(plain));
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..4) {
            let mut bytes = bytes;
            if bytes.len() > 24 {
                match kind {
                    1 => { bytes[12..15].copy_from_slice(&[8, 0, 0x45]); bytes[16] = 0; }
                    2 => { bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]); bytes[18] = 0; bytes[20] = 0; }
                    3 => bytes[12..18].copy_from_slice(&[0x81, 0, 0, 5, 8, 0]),
                    _ => {}
                }
            }
            let headers = parse(&bytes, 0x8100);
            prop_assert!(headers.end <= bytes.len());
            network_checksum_good(&bytes, &headers);
            transport_checksum_good(&bytes, &headers);
        }
    }

    #[test]
    fn the_headers_of_a_tagged_packet() {
        let mut frame = vec![0u8; 64];
        frame[12..18].copy_from_slice(&[0x81, 0, 0x20, 5, 8, 0]);
        frame[18] = 0x46;
        frame[21] = 44; // total length
        frame[27] = 17;
        let headers = parse(&frame, 0x8100);
        assert_eq!(headers.vlan, Some(0x2005));
        assert_eq!(headers.network, Network::V4 { options: true });
        assert_eq!(
            (headers.transport, headers.transport_at, headers.end),
            (Transport::Udp, 42, 62)
        );
        assert_eq!(parse(&frame, 0x88a8).network, Network::None);
    }
}
