//! What driver and device agree on (virtio 1.3, 2.2 and 5.1.3).

use std::fmt;

use packetboat::memory::IovaMode;
use packetboat::port::{Capabilities, Offloads, PortError};
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring as ring;

/// A set of feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u64);

macro_rules! features {
    ($($name:ident = $bit:expr, $text:literal;)*) => {
        impl Features {
            $(#[doc = $text] pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(u32, &'static str)] = &[$(($bit, $text)),*];
        }
    };
}
features! {
    CSUM = net::VIRTIO_NET_F_CSUM, "VIRTIO_NET_F_CSUM";
    GUEST_CSUM = net::VIRTIO_NET_F_GUEST_CSUM, "VIRTIO_NET_F_GUEST_CSUM";
    GUEST_TSO4 = net::VIRTIO_NET_F_GUEST_TSO4, "VIRTIO_NET_F_GUEST_TSO4";
    GUEST_TSO6 = net::VIRTIO_NET_F_GUEST_TSO6, "VIRTIO_NET_F_GUEST_TSO6";
    HOST_TSO4 = net::VIRTIO_NET_F_HOST_TSO4, "VIRTIO_NET_F_HOST_TSO4";
    HOST_TSO6 = net::VIRTIO_NET_F_HOST_TSO6, "VIRTIO_NET_F_HOST_TSO6";
    MTU = net::VIRTIO_NET_F_MTU, "VIRTIO_NET_F_MTU";
    MAC = net::VIRTIO_NET_F_MAC, "VIRTIO_NET_F_MAC";
    MRG_RXBUF = net::VIRTIO_NET_F_MRG_RXBUF, "VIRTIO_NET_F_MRG_RXBUF";
    STATUS = net::VIRTIO_NET_F_STATUS, "VIRTIO_NET_F_STATUS";
    CTRL_VQ = net::VIRTIO_NET_F_CTRL_VQ, "VIRTIO_NET_F_CTRL_VQ";
    CTRL_RX = net::VIRTIO_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX";
    MQ = net::VIRTIO_NET_F_MQ, "VIRTIO_NET_F_MQ";
    CTRL_VLAN = net::VIRTIO_NET_F_CTRL_VLAN, "VIRTIO_NET_F_CTRL_VLAN";
    CTRL_MAC_ADDR = net::VIRTIO_NET_F_CTRL_MAC_ADDR, "VIRTIO_NET_F_CTRL_MAC_ADDR";
    GUEST_ANNOUNCE = net::VIRTIO_NET_F_GUEST_ANNOUNCE, "VIRTIO_NET_F_GUEST_ANNOUNCE";
    RSS = net::VIRTIO_NET_F_RSS, "VIRTIO_NET_F_RSS";
    RING_RESET = config::VIRTIO_F_RING_RESET, "VIRTIO_F_RING_RESET";
    INDIRECT_DESC = ring::VIRTIO_RING_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC";
    EVENT_IDX = ring::VIRTIO_RING_F_EVENT_IDX, "VIRTIO_F_EVENT_IDX";
    RING_PACKED = config::VIRTIO_F_RING_PACKED, "VIRTIO_F_RING_PACKED";
    IN_ORDER = config::VIRTIO_F_IN_ORDER, "VIRTIO_F_IN_ORDER";
    VERSION_1 = config::VIRTIO_F_VERSION_1, "VIRTIO_F_VERSION_1";
    ACCESS_PLATFORM = config::VIRTIO_F_ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM";
}

impl Features {
    /// All that this driver uses whenever it is offered.
    pub const SUPPORTED: Self = Self(
        Self::MTU.0
            | Self::MAC.0
            | Self::MRG_RXBUF.0
            | Self::STATUS.0
            | Self::CTRL_VQ.0
            | Self::CTRL_RX.0
            | Self::CTRL_MAC_ADDR.0
            | Self::GUEST_ANNOUNCE.0
            | Self::MQ.0
            | Self::RSS.0
            | Self::RING_RESET.0
            | Self::INDIRECT_DESC.0
            | Self::EVENT_IDX.0
            | Self::RING_PACKED.0
            | Self::IN_ORDER.0
            | Self::VERSION_1.0
            | Self::ACCESS_PLATFORM.0,
    );

    /// What a port with these offloads uses besides, of what is offered. Nothing that isn't asked
    /// for: each bit of it lets the device hand over frames that have to be looked at.
    pub(crate) fn for_offloads(self, wanted: &Offloads) -> Self {
        let mut chosen = Self::default();
        if wanted.rx_checksum || wanted.rx_lro {
            chosen = chosen.with(Self::GUEST_CSUM);
        }
        // 5.1.3.1: long frames need checksums; and room for them, which single buffers aren't.
        if wanted.rx_lro && self.has(Self::GUEST_CSUM) && self.has(Self::MRG_RXBUF) {
            chosen = chosen.with(Self::GUEST_TSO4).with(Self::GUEST_TSO6);
        }
        if wanted.tx_checksum || wanted.tx_segment {
            chosen = chosen.with(Self::CSUM);
        }
        if wanted.tx_segment && self.has(Self::CSUM) {
            chosen = chosen.with(Self::HOST_TSO4).with(Self::HOST_TSO6);
        }
        // A device that has agreed to it drops all tagged frames until it is told of a VLAN.
        if wanted.rx_vlan_filter && self.has(Self::CTRL_VQ) {
            chosen = chosen.with(Self::CTRL_VLAN);
        }
        self.and(chosen)
    }

    /// What a port on a device that offers these can do for the program.
    pub(crate) fn capabilities(self) -> Capabilities {
        let all = self.for_offloads(&Offloads {
            rx_checksum: true,
            rx_lro: true,
            tx_checksum: true,
            tx_segment: true,
            ..Offloads::default()
        });
        let any = |one, other| all.has(one) || all.has(other);
        Capabilities {
            rx_checksum: all.has(Self::GUEST_CSUM),
            rx_scatter: self.has(Self::MRG_RXBUF),
            rx_lro: any(Self::GUEST_TSO4, Self::GUEST_TSO6),
            tx_checksum: all.has(Self::CSUM),
            tx_segment: any(Self::HOST_TSO4, Self::HOST_TSO6),
            ..Capabilities::default()
        }
    }

    /// From the device's words, low 32 bits first.
    #[must_use]
    pub fn from_words(low: u32, high: u32) -> Self {
        Self(u64::from(high) << 32 | u64::from(low))
    }

    /// The low and the high 32 bits.
    #[must_use]
    pub fn words(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// From all 64 bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The name of one of them.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(bit, _)| self.0 == 1 << bit);
        found.map_or("it", |(_, name)| name)
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        for (bit, name) in Self::NAMES {
            if self.0 & 1 << bit != 0 {
                write!(f, " {}", name.trim_start_matches("VIRTIO_").trim_start_matches("NET_F_"))?;
            }
        }
        Ok(())
    }
}

/// Picks what to use of what the device offers.
///
/// # Errors
/// If something is missing without which the driver can't work; it is named.
pub(crate) fn choose(
    device: &str,
    offered: Features,
    iova_mode: IovaMode,
    wanted: &Offloads,
) -> Result<Features, PortError> {
    let missing = |what: &str, name: &str, why: &str| PortError::Unsupported {
        device: device.to_owned(),
        what: what.to_owned(),
        why: format!("it doesn't offer {name}; {why} (it offers {offered:?})"),
    };
    if !offered.has(Features::VERSION_1) {
        return Err(missing(
            "be driven by the virtio 1.x interface",
            "VIRTIO_F_VERSION_1",
            "a legacy device isn't supported; with QEMU: disable-legacy=on",
        ));
    }
    // Without it the device takes the addresses in descriptors for physical ones and goes past the
    // IOMMU (virtio 1.3, 6.1). Where our addresses aren't physical, it would write anywhere.
    if iova_mode == IovaMode::Va && !offered.has(Features::ACCESS_PLATFORM) {
        return Err(missing(
            "be given IOMMU addresses (--iova-mode=va)",
            "VIRTIO_F_ACCESS_PLATFORM",
            "its DMA would go past the IOMMU; with QEMU: iommu_platform=on",
        ));
    }
    let mut chosen = offered.and(Features::SUPPORTED).with(offered.for_offloads(wanted));
    // All of these are commands, and a device without the queue for them can't take any.
    if !chosen.has(Features::CTRL_VQ) {
        let commands = [
            Features::CTRL_RX,
            Features::CTRL_MAC_ADDR,
            Features::GUEST_ANNOUNCE,
            Features::MQ,
            Features::RSS,
        ];
        chosen = commands.into_iter().fold(chosen, Features::without);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: u64 = Features::VERSION_1.0 | Features::ACCESS_PLATFORM.0;

    fn choose(device: &str, offered: Features, mode: IovaMode) -> Result<Features, PortError> {
        super::choose(device, offered, mode, &Offloads::default())
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = choose("dev", Features(NEEDED & !Features::VERSION_1.0), IovaMode::Va);
        assert!(error.unwrap_err().to_string().contains("VIRTIO_F_VERSION_1"));
        let error = choose("dev", Features::VERSION_1, IovaMode::Va);
        assert!(error.unwrap_err().to_string().contains("VIRTIO_F_ACCESS_PLATFORM"));
        assert_eq!(choose("dev", Features::VERSION_1, IovaMode::Pa).unwrap(), Features::VERSION_1);
    }

    #[test]
    fn unknown_features_and_those_without_their_base_are_left() {
        let offered = Features(NEEDED | Features::MQ.0 | Features::CTRL_RX.0 | 1 | 1 << 60);
        assert_eq!(choose("dev", offered, IovaMode::Va).unwrap(), Features(NEEDED));
        assert_eq!(choose("dev", Features(!0), IovaMode::Va).unwrap(), Features::SUPPORTED);
    }

    #[test]
    fn offloads_are_taken_when_they_are_asked_for_and_their_base_is_there() {
        let rx = Offloads { rx_lro: true, ..Offloads::default() };
        let tx = Offloads { tx_segment: true, ..Offloads::default() };
        let all = Features(!0);
        let guest = Features::GUEST_TSO4.with(Features::GUEST_TSO6).with(Features::GUEST_CSUM);
        let host = Features::HOST_TSO4.with(Features::HOST_TSO6).with(Features::CSUM);
        assert_eq!(all.for_offloads(&Offloads::default()), Features(0));
        assert_eq!((all.for_offloads(&rx), all.for_offloads(&tx)), (guest, host));
        let without = |base| all.without(base).for_offloads(&rx).bits();
        assert_eq!(without(Features::GUEST_CSUM), 0);
        assert_eq!(without(Features::MRG_RXBUF), Features::GUEST_CSUM.0);
        assert_eq!(all.without(Features::CSUM).for_offloads(&tx), Features(0));
        assert!(!all.without(Features::MRG_RXBUF).capabilities().rx_lro);
        assert!(all.capabilities().rx_lro && all.capabilities().tx_segment);
    }
}
