//! The bits of an mbuf's flags word: what receiving found, what sending shall do.

use std::fmt;

/// A set of bits of the flags word, with named ones.
macro_rules! bit_set {
    ($(#[$meta:meta])* $type:ident: $($name:ident = $value:expr, $doc:literal;)*) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
        #[repr(transparent)]
        pub struct $type(u64);

        impl $type {
            /// No bit.
            pub const NONE: Self = Self(0);
            $(#[doc = $doc] pub const $name: Self = Self($value);)*
            /// All bits of this kind.
            pub(super) const ALL: u64 = 0 $(| $value)*;

            #[inline(always)]
            pub(super) const fn from_word(word: u64) -> Self {
                Self(word & Self::ALL)
            }

            #[inline(always)]
            pub(super) const fn word(self) -> u64 {
                self.0
            }

            /// All bits of both; for constants.
            #[inline(always)]
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all bits of `other` are set.
            #[inline(always)]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            #[inline(always)]
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether no bit is set.
            #[inline(always)]
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitOr for $type {
            type Output = Self;

            #[inline(always)]
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl std::ops::BitOrAssign for $type {
            #[inline(always)]
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut left = self.0;
                let mut gap = "";
                write!(f, "{}(", stringify!($type))?;
                $(
                    // Those of several bits are listed before their parts.
                    if left & $value == $value {
                        left &= !$value;
                        write!(f, "{gap}{}", stringify!($name))?;
                        gap = " ";
                    }
                )*
                let _ = (left, gap);
                f.write_str(")")
            }
        }
    };
}

bit_set! {
    /// What the device found out about a frame that it received. Bits of two sets are joined by `|`.
    RxFlags:
    VLAN = 1 << 0, "`vlan_tci` holds the frame's tag (the inner one, of two).";
    VLAN_STRIPPED = 1 << 1, "That tag was taken out of the data.";
    QINQ = 1 << 2, "`vlan_tci_outer` holds the outer tag of two.";
    QINQ_STRIPPED = 1 << 3, "Both tags were taken out of the data.";
    RSS_HASH = 1 << 4, "`rss_hash` holds the hash that chose the queue.";
    MARK = 1 << 5, "`mark` holds what the matching flow director rule said.";
    TIMESYNC = 1 << 6, "A message of IEEE 1588.";
    LRO = 1 << 7, "The device has joined several TCP segments into this one.";
    IP_CHECKSUM_NONE = 3 << 8, "There is nothing in the IP header to be checked, or it is wrong and the data is right.";
    IP_CHECKSUM_BAD = 1 << 8, "The IP header's checksum is wrong.";
    IP_CHECKSUM_GOOD = 1 << 9, "The IP header's checksum is right.";
    L4_CHECKSUM_NONE = 3 << 10, "The checksum isn't there or not filled in, but the data is whole (virtio).";
    L4_CHECKSUM_BAD = 1 << 10, "The TCP, UDP or SCTP checksum is wrong.";
    L4_CHECKSUM_GOOD = 1 << 11, "The TCP, UDP or SCTP checksum is right.";
    OUTER_L4_CHECKSUM_BAD = 1 << 12, "A tunnel's outer UDP checksum is wrong.";
    OUTER_L4_CHECKSUM_GOOD = 1 << 13, "A tunnel's outer UDP checksum is right.";
    OUTER_IP_CHECKSUM_BAD = 1 << 14, "A tunnel's outer IP checksum is wrong.";
}

/// What is known of a checksum of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: it wasn't looked at.
    Unknown,
    /// It is wrong.
    Bad,
    /// It is right.
    Good,
    /// There is none, or not yet, but the data is whole.
    None,
}

impl Checksum {
    const fn of(bad: bool, good: bool) -> Self {
        match (bad, good) {
            (false, false) => Self::Unknown,
            (true, false) => Self::Bad,
            (false, true) => Self::Good,
            (true, true) => Self::None,
        }
    }
}

impl RxFlags {
    /// What is known of the IP header's checksum.
    #[inline]
    #[must_use]
    pub const fn ip_checksum(self) -> Checksum {
        let (bad, good) = (Self::IP_CHECKSUM_BAD, Self::IP_CHECKSUM_GOOD);
        Checksum::of(self.contains(bad), self.contains(good))
    }

    /// What is known of the TCP, UDP or SCTP checksum.
    #[inline]
    #[must_use]
    pub const fn l4_checksum(self) -> Checksum {
        let (bad, good) = (Self::L4_CHECKSUM_BAD, Self::L4_CHECKSUM_GOOD);
        Checksum::of(self.contains(bad), self.contains(good))
    }
}

bit_set! {
    /// What the device shall do when it sends a frame. Bits of two sets are joined by `|`.
    ///
    /// A program sets them with [`Mbuf::request`](super::Mbuf::request); a driver first asks
    /// [`Mbuf::requests_any`](super::Mbuf::requests_any), which is one test.
    TxFlags:
    UDP_CHECKSUM = 3 << 32, "Fill in the UDP checksum.";
    TCP_CHECKSUM = 1 << 32, "Fill in the TCP checksum.";
    SCTP_CHECKSUM = 1 << 33, "Fill in the SCTP checksum.";
    IP_CHECKSUM = 1 << 34, "Fill in the IPv4 header's checksum.";
    IPV4 = 1 << 35, "Layer 3 is IPv4; wanted with any checksum or segmentation of layer 4.";
    IPV6 = 1 << 36, "Layer 3 is IPv6; wanted with any checksum or segmentation of layer 4.";
    VLAN = 1 << 37, "Insert a tag: `vlan_tci`.";
    QINQ = 1 << 38, "Insert two tags: `vlan_tci_outer` and `vlan_tci`.";
    TCP_SEGMENT = 1 << 39, "Cut into TCP segments of `segment_len` bytes of data.";
    UDP_SEGMENT = 1 << 40, "Cut into UDP datagrams of `segment_len` bytes of data.";
    OUTER_IP_CHECKSUM = 1 << 41, "Fill in the outer IPv4 header's checksum of a tunnel.";
    OUTER_UDP_CHECKSUM = 1 << 42, "Fill in the outer UDP checksum of a tunnel.";
    OUTER_IPV4 = 1 << 43, "A tunnel whose outer layer 3 is IPv4.";
    OUTER_IPV6 = 1 << 44, "A tunnel whose outer layer 3 is IPv6.";
    TUNNEL_GENEVE = 3 << 45, "A GENEVE tunnel.";
    TUNNEL_VXLAN = 1 << 45, "A VXLAN tunnel.";
    TUNNEL_GRE = 1 << 46, "A GRE tunnel.";
    TUNNEL_IP = 1 << 47, "IP in IP.";
}

/// The checksum of layer 4 that a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4Checksum {
    /// TCP's.
    Tcp,
    /// UDP's.
    Udp,
    /// SCTP's.
    Sctp,
}

impl TxFlags {
    /// The checksum of layer 4 that is asked for. One test of a pair of bits: what
    /// `contains(TCP_CHECKSUM)` says is true of UDP, too.
    #[inline(always)]
    #[must_use]
    pub const fn l4_checksum(self) -> Option<L4Checksum> {
        match self.0 & Self::UDP_CHECKSUM.0 {
            0 => None,
            bits if bits == Self::TCP_CHECKSUM.0 => Some(L4Checksum::Tcp),
            bits if bits == Self::SCTP_CHECKSUM.0 => Some(L4Checksum::Sctp),
            _ => Some(L4Checksum::Udp),
        }
    }
}

/// Bits of the flags word that neither set uses: for flags that programs register by name.
pub(super) const DYNAMIC: u64 = !(RxFlags::ALL | TxFlags::ALL);

const _: () = {
    assert!(RxFlags::ALL & TxFlags::ALL == 0, "they share a word");
    assert!(RxFlags::ALL < 1 << 16 && TxFlags::ALL >> 32 < 1 << 16, "each is tested at once");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_bits_are_read_as_what_they_say() {
        for (flags, expected) in [
            (RxFlags::NONE, Checksum::Unknown),
            (RxFlags::IP_CHECKSUM_BAD, Checksum::Bad),
            (RxFlags::IP_CHECKSUM_GOOD, Checksum::Good),
            (RxFlags::IP_CHECKSUM_NONE, Checksum::None),
        ] {
            let other = flags | RxFlags::L4_CHECKSUM_GOOD | RxFlags::VLAN;
            assert_eq!((other.ip_checksum(), other.l4_checksum()), (expected, Checksum::Good));
        }
        assert_eq!(RxFlags::L4_CHECKSUM_BAD.l4_checksum(), Checksum::Bad);
        assert_eq!(RxFlags::L4_CHECKSUM_NONE.l4_checksum(), Checksum::None);
        assert_eq!(TxFlags::IP_CHECKSUM.l4_checksum(), None);
        assert_eq!(TxFlags::TCP_CHECKSUM.l4_checksum(), Some(L4Checksum::Tcp));
        assert_eq!(TxFlags::SCTP_CHECKSUM.l4_checksum(), Some(L4Checksum::Sctp));
        let udp = TxFlags::UDP_CHECKSUM | TxFlags::IPV4;
        assert_eq!(udp.l4_checksum(), Some(L4Checksum::Udp));
        assert_eq!(format!("{udp:?}"), "TxFlags(UDP_CHECKSUM IPV4)");
        assert_eq!(DYNAMIC.count_ones(), 64 - 15 - 16);
    }
}
