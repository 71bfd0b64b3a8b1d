//! What a received frame is, layer by layer, as a NIC or [`parse`](super::parse()) has found out.

use std::fmt;

/// The kinds of a frame's headers: four bits a layer, in the places and with the numbers of DPDK's
/// `RTE_PTYPE_*` (its programmer's guide, "Packet type parsing").
///
/// ```text
///  bits   0-3    4-7   8-11   12-15   16-19      20-23      24-27
///         layer 2 layer 3 layer 4 tunnel inner layer 2, layer 3, layer 4
/// ```
///
/// ```
/// use packetboat::net::PacketType;
/// let kind = PacketType::ETHERNET | PacketType::IPV4 | PacketType::UDP;
/// assert!(kind.is_ipv4() && kind.layer4() == PacketType::UDP);
/// assert_eq!(kind.to_string(), "ether ipv4 udp");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(transparent)]
pub struct PacketType(u32);

/// Names the values of a layer: constants, and what `Display` says.
macro_rules! kinds {
    ($($name:ident = $value:literal, $text:literal, $doc:literal;)*) => {
        impl PacketType {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    ETHERNET = 0x1, "ether", "Layer 2: Ethernet.";
    ETHERNET_TIMESYNC = 0x2, "timesync", "Layer 2: Ethernet with a time synchronisation message.";
    ETHERNET_ARP = 0x3, "arp", "Layer 2: Ethernet with an ARP message.";
    ETHERNET_LLDP = 0x4, "lldp", "Layer 2: Ethernet with an LLDP message.";
    ETHERNET_VLAN = 0x6, "vlan", "Layer 2: Ethernet with one VLAN tag.";
    ETHERNET_QINQ = 0x7, "qinq", "Layer 2: Ethernet with two VLAN tags.";
    IPV4 = 0x10, "ipv4", "Layer 3: IPv4 without options.";
    IPV4_EXT = 0x30, "ipv4ext", "Layer 3: IPv4 with options.";
    IPV6 = 0x40, "ipv6", "Layer 3: IPv6 without extension headers.";
    IPV4_EXT_UNKNOWN = 0x90, "ipv4?", "Layer 3: IPv4, with or without options.";
    IPV6_EXT = 0xc0, "ipv6ext", "Layer 3: IPv6 with extension headers.";
    IPV6_EXT_UNKNOWN = 0xe0, "ipv6?", "Layer 3: IPv6, with or without extension headers.";
    TCP = 0x100, "tcp", "Layer 4: TCP.";
    UDP = 0x200, "udp", "Layer 4: UDP.";
    FRAGMENT = 0x300, "fragment", "Layer 4: a fragment of an IP packet.";
    SCTP = 0x400, "sctp", "Layer 4: SCTP.";
    ICMP = 0x500, "icmp", "Layer 4: ICMP or ICMPv6.";
    NO_FRAGMENT = 0x600, "other", "Layer 4: a whole packet of none of the kinds known.";
    IGMP = 0x700, "igmp", "Layer 4: IGMP.";
    TUNNEL_IP = 0x1000, "ip-in-ip", "Tunnel: IP in IP.";
    TUNNEL_GRE = 0x2000, "gre", "Tunnel: GRE.";
    TUNNEL_VXLAN = 0x3000, "vxlan", "Tunnel: VXLAN.";
    TUNNEL_NVGRE = 0x4000, "nvgre", "Tunnel: NVGRE.";
    TUNNEL_GENEVE = 0x5000, "geneve", "Tunnel: GENEVE.";
}

const LAYER_2: u32 = 0xf;
const LAYER_3: u32 = 0xf0;
const LAYER_4: u32 = 0xf00;
const TUNNEL: u32 = 0xf000;
/// From a layer's place to that of the same layer inside a tunnel.
const INNER_SHIFT: u32 = 16;

impl PacketType {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self(0);

    /// From its number.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Its number, as in DPDK.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The kinds of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The same layers, inside a tunnel.
    #[must_use]
    pub const fn inside(self) -> Self {
        Self((self.0 & (LAYER_2 | LAYER_3 | LAYER_4)) << INNER_SHIFT)
    }

    /// Layer 2 alone.
    #[must_use]
    pub const fn layer2(self) -> Self {
        Self(self.0 & LAYER_2)
    }

    /// Layer 3 alone.
    #[must_use]
    pub const fn layer3(self) -> Self {
        Self(self.0 & LAYER_3)
    }

    /// Layer 4 alone.
    #[must_use]
    pub const fn layer4(self) -> Self {
        Self(self.0 & LAYER_4)
    }

    /// The tunnel's kind alone.
    #[must_use]
    pub const fn tunnel(self) -> Self {
        Self(self.0 & TUNNEL)
    }

    /// The layers inside the tunnel, as if they were the whole.
    #[must_use]
    pub const fn inner(self) -> Self {
        Self(self.0 >> INNER_SHIFT)
    }

    /// Whether layer 3 is IPv4 of any kind.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.0 & Self::IPV4.0 != 0
    }

    /// Whether layer 3 is IPv6 of any kind.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.0 & Self::IPV6.0 != 0
    }
}

impl std::ops::BitOr for PacketType {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        let outside = [self.layer2(), self.layer3(), self.layer4(), self.tunnel()];
        let inside = [inner.layer2(), inner.layer3(), inner.layer4()];
        let mut gap = "";
        for (layers, mark) in [(&outside[..], ""), (&inside[..], "inner ")] {
            for layer in layers.iter().filter(|layer| layer.0 != 0) {
                match layer.name() {
                    Some(name) => write!(f, "{gap}{mark}{name}")?,
                    None => write!(f, "{gap}{mark}{:#x}", layer.0)?,
                }
                gap = " ";
            }
        }
        if gap.is_empty() { f.write_str("unknown") } else { Ok(()) }
    }
}

impl fmt::Debug for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketType({:#x}: {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_apart() {
        let inner = PacketType::ETHERNET | PacketType::IPV6_EXT | PacketType::TCP;
        let whole = PacketType::ETHERNET_VLAN
            | PacketType::IPV4_EXT_UNKNOWN
            | PacketType::UDP
            | PacketType::TUNNEL_VXLAN
            | inner.inside();
        assert_eq!(whole.bits(), 0x1c1_3296);
        assert_eq!(whole.inner(), inner);
        assert_eq!((whole.layer2(), whole.layer4()), (PacketType::ETHERNET_VLAN, PacketType::UDP));
        assert!(whole.is_ipv4() && !whole.is_ipv6() && whole.inner().is_ipv6());
        assert_eq!(whole.tunnel(), PacketType::TUNNEL_VXLAN);
        let text = "vlan ipv4? udp vxlan inner ether inner ipv6ext inner tcp";
        assert_eq!(whole.to_string(), text);
        assert_eq!(PacketType::UNKNOWN.to_string(), "unknown");
        assert_eq!(PacketType::from_bits(0xf01).to_string(), "ether 0xf00");
    }
}
