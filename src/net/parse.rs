//! Which headers a frame has, found out in software. DPDK's `rte_net_get_ptype`.

use zerocopy::FromBytes;

use super::{
    EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv6Header, PacketType, TcpHeader,
    UdpHeader, VlanTag, ipv6_extensions,
};

/// What was found: kinds and lengths, as far as the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    /// The kind of each layer, none inside tunnels.
    pub packet_type: PacketType,
    /// Bytes of layer 2: Ethernet and up to two VLAN tags.
    pub l2_len_bytes: u16,
    /// Bytes of layer 3, options and extension headers included.
    pub l3_len_bytes: u16,
    /// Bytes of layer 4.
    pub l4_len_bytes: u16,
}

/// Looks at the headers at the start of a frame; `data` is its first segment, in which they should
/// be. What isn't there whole, or isn't right in its own lengths, ends the search: it and what
/// would follow count as unknown.
///
/// ```
/// use packetboat::net::PacketType;
/// let mut frame = [0; 60];
/// frame[12..14].copy_from_slice(&[0x08, 0x06]);
/// let headers = packetboat::net::parse(&frame);
/// assert_eq!(headers.packet_type, PacketType::ETHERNET_ARP);
/// assert_eq!(headers.l2_len_bytes, 14);
/// ```
#[must_use]
pub fn parse(data: &[u8]) -> Headers {
    let mut found = Headers::default();
    let Ok((ethernet, mut rest)) = EthernetHeader::ref_from_prefix(data) else { return found };
    let mut ether_type = ethernet.ether_type.get();
    let mut layer2 = PacketType::ETHERNET;
    found.l2_len_bytes = 14;
    for kind in [PacketType::ETHERNET_VLAN, PacketType::ETHERNET_QINQ] {
        if !matches!(ether_type, EtherType::VLAN | EtherType::QINQ) {
            break;
        }
        let Ok((tag, behind)) = VlanTag::ref_from_prefix(rest) else { break };
        (ether_type, rest, layer2) = (tag.ether_type.get(), behind, kind);
        found.l2_len_bytes += 4;
    }
    let (layer3, layer4) = match ether_type {
        EtherType::IPV4 => ipv4(rest, &mut found),
        EtherType::IPV6 => ipv6(rest, &mut found),
        EtherType::ARP if layer2 == PacketType::ETHERNET => {
            layer2 = PacketType::ETHERNET_ARP;
            Default::default()
        }
        EtherType::LLDP if layer2 == PacketType::ETHERNET => {
            layer2 = PacketType::ETHERNET_LLDP;
            Default::default()
        }
        _ => Default::default(),
    };
    found.packet_type = layer2 | layer3 | layer4;
    found
}

fn ipv4(bytes: &[u8], found: &mut Headers) -> (PacketType, PacketType) {
    let Ok((header, _)) = Ipv4Header::ref_from_prefix(bytes) else { return Default::default() };
    let len = header.len_bytes();
    let Some(rest) = bytes.get(len..).filter(|_| header.version() == 4 && len >= 20) else {
        return Default::default();
    };
    found.l3_len_bytes = len as u16; // at most 60
    let layer3 = if len == 20 { PacketType::IPV4 } else { PacketType::IPV4_EXT };
    let layer4 = match header.is_fragment() {
        true => PacketType::FRAGMENT,
        false => layer4(header.protocol, rest, found),
    };
    (layer3, layer4)
}

fn ipv6(bytes: &[u8], found: &mut Headers) -> (PacketType, PacketType) {
    let Ok((header, rest)) = Ipv6Header::ref_from_prefix(bytes) else { return Default::default() };
    if header.version() != 6 {
        return Default::default();
    }
    found.l3_len_bytes = Ipv6Header::LEN_BYTES as u16;
    let Some(extensions) = ipv6_extensions(header.next_header, rest) else {
        return (PacketType::IPV6_EXT_UNKNOWN, PacketType::UNKNOWN);
    };
    let len = extensions.len_bytes;
    found.l3_len_bytes += len as u16; // at most nine of 2,048 bytes
    let layer3 = if len == 0 { PacketType::IPV6 } else { PacketType::IPV6_EXT };
    let layer4 = match extensions.fragment {
        true => PacketType::FRAGMENT,
        false => layer4(extensions.protocol, rest.get(len..).unwrap_or_default(), found),
    };
    (layer3, layer4)
}

fn layer4(protocol: u8, bytes: &[u8], found: &mut Headers) -> PacketType {
    let (kind, len) = match protocol {
        IpProtocol::TCP => match TcpHeader::ref_from_prefix(bytes) {
            Ok((header, _)) if header.len_bytes() >= TcpHeader::LEN_BYTES => {
                (PacketType::TCP, header.len_bytes())
            }
            _ => return PacketType::UNKNOWN,
        },
        IpProtocol::UDP => (PacketType::UDP, UdpHeader::LEN_BYTES),
        IpProtocol::SCTP => (PacketType::SCTP, 12),
        IpProtocol::ICMP | IpProtocol::ICMPV6 => (PacketType::ICMP, 8),
        IpProtocol::IGMP => (PacketType::IGMP, 8),
        _ => return PacketType::NO_FRAGMENT,
    };
    if bytes.len() < len {
        return PacketType::UNKNOWN;
    }
    found.l4_len_bytes = len as u16; // at most 60
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(rest);
        frame
    }

    /// An IPv4 header of `words` words, and `rest`.
    fn ipv4(words: u8, fragment: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(words) * 4];
        bytes[0] = 0x40 | words;
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes.extend(rest);
        bytes
    }

    fn tcp(words: u8) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(words.max(5)) * 4];
        bytes[12] = words << 4;
        bytes
    }

    fn is(frame: &[u8], kind: PacketType, lengths: [u16; 3]) {
        let found = parse(frame);
        let [l2_len_bytes, l3_len_bytes, l4_len_bytes] = lengths;
        let expected = Headers { packet_type: kind, l2_len_bytes, l3_len_bytes, l4_len_bytes };
        assert_eq!(found, expected, "{frame:x?}");
    }

    #[test]
    fn headers_are_found_and_measured() {
        use PacketType as P;
        is(
            &ethernet(0x0800, &ipv4(5, 0, 6, &tcp(8))),
            P::ETHERNET | P::IPV4 | P::TCP,
            [14, 20, 32],
        );
        let options = ethernet(0x0800, &ipv4(7, 0x4000, 17, &[0; 8]));
        is(&options, P::ETHERNET | P::IPV4_EXT | P::UDP, [14, 28, 8]);
        let tagged = [&[0, 5, 8, 0], &ipv4(5, 0, 1, &[0; 8])[..]].concat();
        is(&ethernet(0x8100, &tagged), P::ETHERNET_VLAN | P::IPV4 | P::ICMP, [18, 20, 8]);
        let twice = [&[0, 9, 0x81, 0], &tagged[..]].concat();
        is(&ethernet(0x88a8, &twice), P::ETHERNET_QINQ | P::IPV4 | P::ICMP, [22, 20, 8]);
        is(&ethernet(0x88cc, &[0; 40]), P::ETHERNET_LLDP, [14, 0, 0]);
        let part = ethernet(0x0800, &ipv4(5, 0x2000, 17, &[0; 8]));
        is(&part, P::ETHERNET | P::IPV4 | P::FRAGMENT, [14, 20, 0]);
        let other = ethernet(0x0800, &ipv4(5, 0, 50, &[0; 8]));
        is(&other, P::ETHERNET | P::IPV4 | P::NO_FRAGMENT, [14, 20, 0]);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
        v6.extend([0; 40]);
        is(&ethernet(0x86dd, &v6), P::ETHERNET | P::IPV6 | P::ICMP, [14, 40, 8]);
        v6[6] = 60;
        v6[40] = 132;
        v6.extend([0; 12]);
        is(&ethernet(0x86dd, &v6), P::ETHERNET | P::IPV6_EXT | P::SCTP, [14, 48, 12]);
    }

    #[test]
    fn what_is_not_whole_is_not_known() {
        use PacketType as P;
        is(&[0; 13], P::UNKNOWN, [0, 0, 0]);
        is(&ethernet(0x8100, &[0, 5, 8]), P::ETHERNET, [14, 0, 0]);
        is(&ethernet(0x0800, &[0x45; 19]), P::ETHERNET, [14, 0, 0]);
        let wrong_version = ethernet(0x0800, &[0x65; 60]);
        is(&wrong_version, P::ETHERNET, [14, 0, 0]);
        is(&ethernet(0x0800, &ipv4(15, 0, 6, &[])), P::ETHERNET | P::IPV4_EXT, [14, 60, 0]);
        is(&ethernet(0x0800, &ipv4(5, 0, 6, &tcp(4))), P::ETHERNET | P::IPV4, [14, 20, 0]);
        let cut = &tcp(8)[..31];
        is(&ethernet(0x0800, &ipv4(5, 0, 6, cut)), P::ETHERNET | P::IPV4, [14, 20, 0]);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 0, 64];
        v6.extend([0; 39]);
        is(&ethernet(0x86dd, &v6), P::ETHERNET | P::IPV6_EXT_UNKNOWN, [14, 40, 0]);
    }
}
