//! What stands in a descriptor: two 64-bit words (82599 datasheet 7.1.6, 7.2.3).

use packetboat::mbuf::{PacketType, RxFlags};

/// Length of a descriptor in bytes.
pub(crate) const DESCRIPTOR_BYTES: usize = 16;

/// The upper word of a receive descriptor that the device has written back (7.1.6.2): status and
/// errors in bits 31:0, length 47:32, VLAN tag 63:48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RxDone(pub(crate) u64);

impl RxDone {
    /// The device is done with the descriptor.
    pub(crate) const DD: u64 = 1 << 0;
    /// It is the frame's last.
    pub(crate) const EOP: u64 = 1 << 1;
    /// The tag was taken out, and is in the descriptor.
    pub(crate) const VP: u64 = 1 << 3;
    /// Layer 4 was checked; bit 6: the IP header was.
    const CHECKED_SHIFT: u32 = 5;
    /// Errors: bit 29 of the MAC (frames that aren't received unless asked for), 30 layer 4, 31 IP.
    pub(crate) const RXE: u64 = 1 << 29;
    const ERRORS_SHIFT: u32 = 30;
    pub(crate) const TCPE: u64 = 1 << 30;
    pub(crate) const IPE: u64 = 1 << 31;

    #[inline(always)]
    pub(crate) const fn is_done(self) -> bool {
        self.0 & Self::DD != 0
    }

    /// Whether it is done and a frame's last, and no other of the bits looked at is set.
    #[inline(always)]
    pub(crate) const fn is_usual(self, looked_at: u64) -> bool {
        self.0 & looked_at == Self::DD | Self::EOP
    }

    /// Whether it is the frame's last.
    pub(crate) const fn is_last(self) -> bool {
        self.0 & Self::EOP != 0
    }

    /// Whether the MAC found an error.
    pub(crate) const fn has_error(self) -> bool {
        self.0 & Self::RXE != 0
    }

    /// Bytes that the device says it wrote.
    #[inline(always)]
    pub(crate) const fn len_bytes(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub(crate) const fn vlan_tci(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// As [`Self::flags`], if no checksum is wrong.
    #[inline(always)]
    pub(crate) fn flags_without_errors(self, lower: RxLower) -> RxFlags {
        // Bit 3 is a tag, 5 and 6 say what was checked; 4 says nothing here.
        let flags = WITHOUT_ERRORS[(self.0 >> 3) as usize & 15];
        if lower.has_hash() { flags | RxFlags::RSS_HASH } else { flags }
    }

    /// What was found out about checksums, and whether there is a tag.
    pub(crate) fn flags(self, lower: RxLower) -> RxFlags {
        let checked = (self.0 >> Self::CHECKED_SHIFT) & 0b11;
        let errors = (self.0 >> (Self::ERRORS_SHIFT - 2)) & 0b1100;
        let mut flags = CHECKSUMS[(checked | errors) as usize & 15];
        if self.0 & Self::TCPE != 0 && lower.is_udp() {
            // Erratum: a UDP frame without a checksum may be reported as a wrong one.
            flags = CHECKSUMS[(checked & 0b10 | errors & 0b1000) as usize & 15];
        }
        if self.0 & Self::VP != 0 {
            flags |= RxFlags::VLAN | RxFlags::VLAN_STRIPPED;
        }
        if lower.has_hash() {
            flags |= RxFlags::RSS_HASH;
        }
        flags
    }
}

/// By bits: layer 4 checked, IP checked, layer 4 wrong, IP wrong.
const CHECKSUMS: [RxFlags; 16] = {
    let mut all = [RxFlags::NONE; 16];
    let mut at = 0;
    while at < 16 {
        let l4 = match (at & 1 != 0, at & 4 != 0) {
            (false, _) => RxFlags::NONE,
            (true, false) => RxFlags::L4_CHECKSUM_GOOD,
            (true, true) => RxFlags::L4_CHECKSUM_BAD,
        };
        let ip = match (at & 2 != 0, at & 8 != 0) {
            (false, _) => RxFlags::NONE,
            (true, false) => RxFlags::IP_CHECKSUM_GOOD,
            (true, true) => RxFlags::IP_CHECKSUM_BAD,
        };
        all[at] = l4.with(ip);
        at += 1;
    }
    all
};

/// By bits: a tag was taken out, nothing, layer 4 checked, IP checked.
const WITHOUT_ERRORS: [RxFlags; 16] = {
    let mut all = [RxFlags::NONE; 16];
    let mut at = 0;
    while at < 16 {
        let checked = CHECKSUMS[at >> 2];
        all[at] = match at & 1 {
            0 => checked,
            _ => checked.with(RxFlags::VLAN).with(RxFlags::VLAN_STRIPPED),
        };
        at += 1;
    }
    all
};

/// The lower word of a receive descriptor that the device has written back: RSS type in bits 3:0,
/// packet type 16:4, hash 63:32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RxLower(pub(crate) u64);

impl RxLower {
    const UDP: u64 = 1 << 9;
    /// The packet type is the number of an Ethertype filter instead.
    const FILTERED: u64 = 1 << 15;

    #[inline(always)]
    pub(crate) const fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn has_hash(self) -> bool {
        self.0 & 0xf != 0
    }

    #[inline(always)]
    const fn is_udp(self) -> bool {
        self.0 & (Self::UDP | Self::FILTERED) == Self::UDP
    }

    #[inline(always)]
    pub(crate) const fn packet_type(self) -> PacketType {
        PACKET_TYPES[(self.0 >> 4) as usize & 127]
    }
}

/// By bits: IPv4, with options, IPv6, with extensions, TCP, UDP, SCTP (7.1.6.2, packet type).
const PACKET_TYPES: [PacketType; 128] = {
    let mut all = [PacketType::ETHERNET; 128];
    let mut at = 0;
    while at < 128 {
        let layer3 = match (at & 1 != 0, at & 2 != 0, at & 4 != 0, at & 8 != 0) {
            (_, true, _, _) => PacketType::IPV4_EXT,
            (true, ..) => PacketType::IPV4,
            (_, _, _, true) => PacketType::IPV6_EXT,
            (_, _, true, _) => PacketType::IPV6,
            _ => PacketType::UNKNOWN,
        };
        let layer4 = match at >> 4 {
            1 => PacketType::TCP,
            2 => PacketType::UDP,
            4 => PacketType::SCTP,
            _ => PacketType::UNKNOWN,
        };
        all[at] = PacketType::ETHERNET.and(layer3).and(layer4);
        at += 1;
    }
    all
};

/// The upper word of an advanced data descriptor for a whole frame in one buffer that asks for
/// nothing but a CRC (7.2.3.2.4): type 3, end of packet, insert CRC, extended; payload length from
/// bit 46.
pub(crate) const TX_PLAIN: u64 = DTYP_DATA | EOP | IFCS | DEXT;
const DTYP_DATA: u64 = 3 << 20;
const DTYP_CONTEXT: u64 = 2 << 20;
pub(crate) const EOP: u64 = 1 << 24;
const IFCS: u64 = 1 << 25;
/// Tell when it is done: sets DD in the descriptor.
pub(crate) const RS: u64 = 1 << 27;
const DEXT: u64 = 1 << 29;
/// Insert the context's VLAN tag.
pub(crate) const VLE: u64 = 1 << 30;
/// Cut into segments.
pub(crate) const TSE: u64 = 1 << 31;
/// Done, in a descriptor that was written back.
pub(crate) const TX_DD: u64 = 1 << 32;
/// There is a context to go by.
pub(crate) const CHECK_CONTEXT: u64 = 1 << 39;
pub(crate) const POPTS_IP: u64 = 1 << 40;
pub(crate) const POPTS_L4: u64 = 1 << 41;
pub(crate) const PAYLEN_SHIFT: u32 = 46;

/// One of several buffers of a frame: without end of packet.
pub(crate) const TX_PART: u64 = DTYP_DATA | IFCS | DEXT;

/// A context descriptor (7.2.3.2.3): where the headers are, and what to put into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Context {
    pub(crate) vlan_tci: u16,
    pub(crate) l2_len_bytes: u16,
    pub(crate) l3_len_bytes: u16,
    pub(crate) l4_len_bytes: u16,
    pub(crate) segment_len_bytes: u16,
    pub(crate) ipv4: bool,
    /// 0 UDP, 1 TCP, 2 SCTP.
    pub(crate) l4_type: u8,
}

impl Context {
    pub(crate) fn words(&self) -> [u64; 2] {
        let lower = u64::from(self.vlan_tci) << 16
            | u64::from(self.l2_len_bytes & 0x7f) << 9
            | u64::from(self.l3_len_bytes & 0x1ff);
        let upper = DTYP_CONTEXT
            | DEXT
            | u64::from(self.ipv4) << 10
            | u64::from(self.l4_type & 3) << 11
            | u64::from(self.l4_len_bytes & 0xff) << 40
            | u64::from(self.segment_len_bytes) << 48;
        [lower, upper]
    }
}

#[cfg(test)]
mod tests {
    use packetboat::mbuf::Checksum;

    use super::*;

    const USUAL: u64 = RxDone::DD | RxDone::EOP | RxDone::RXE;

    /// Where no checksum is wrong, both ways to the flags lead to the same.
    #[test]
    fn the_short_way_to_the_flags_agrees_with_the_long_one() {
        for status in 0..128 {
            for lower in [0, 0x0111, 0x0217] {
                let (done, lower) = (RxDone(status | 3), RxLower(lower));
                assert_eq!(done.flags_without_errors(lower), done.flags(lower), "{status:#x}");
            }
        }
    }

    #[test]
    fn what_the_device_says_of_a_frame_is_read() {
        let upper = RxDone(0x0123_05dc_0000_0063 | RxDone::VP);
        assert!(upper.is_done() && upper.is_usual(USUAL));
        assert_eq!((upper.len_bytes(), upper.vlan_tci()), (1500, 0x123));
        let tcp = RxLower(0xdead_beef_0000_0111);
        let flags = upper.flags(tcp);
        assert_eq!((flags.ip_checksum(), flags.l4_checksum()), (Checksum::Good, Checksum::Good));
        assert!(flags.contains(RxFlags::VLAN | RxFlags::RSS_HASH));
        assert_eq!(
            (tcp.hash(), tcp.packet_type().to_string().as_str()),
            (0xdead_beef, "ether ipv4 tcp")
        );
    }

    #[test]
    fn wrong_checksums_are_told_apart() {
        let plain = RxLower(0x0111);
        let of = |word| RxDone(word).flags(plain);
        let unchecked = of(3);
        assert_eq!(
            (unchecked.ip_checksum(), unchecked.l4_checksum()),
            (Checksum::Unknown, Checksum::Unknown)
        );
        let ip = of(0x63 | 1 << 31);
        assert_eq!((ip.ip_checksum(), ip.l4_checksum()), (Checksum::Bad, Checksum::Good));
        let l4 = of(0x63 | 1 << 30);
        assert_eq!((l4.ip_checksum(), l4.l4_checksum()), (Checksum::Good, Checksum::Bad));
        // The erratum: a UDP frame's wrong checksum may be none at all.
        let udp = RxDone(0x63 | 1 << 30).flags(RxLower(0x0217));
        assert_eq!((udp.ip_checksum(), udp.l4_checksum()), (Checksum::Good, Checksum::Unknown));
        assert!(!RxDone(0x3 | RxDone::RXE).is_usual(USUAL) && !RxDone(1).is_usual(USUAL));
    }

    #[test]
    fn packet_types_follow_the_bits() {
        let of = |bits: u64| RxLower(bits << 4).packet_type().to_string();
        assert_eq!(of(0), "ether");
        assert_eq!(of(0x23), "ether ipv4ext udp");
        assert_eq!(of(0x44), "ether ipv6 sctp");
        assert_eq!(of(0x1c), "ether ipv6ext tcp");
    }

    #[test]
    fn contexts_are_as_the_datasheet_lays_them_out() {
        let context = Context {
            vlan_tci: 0x2001,
            l2_len_bytes: 14,
            l3_len_bytes: 20,
            l4_len_bytes: 32,
            segment_len_bytes: 1448,
            ipv4: true,
            l4_type: 1,
        };
        assert_eq!(context.words(), [0x2001_1c14, 0x05a8_2000_2020_0c00]);
    }
}
