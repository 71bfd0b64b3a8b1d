//! What ports of both transports check and count alike.

use std::sync::Arc;

use packetboat::mbuf::MbufPool;
use packetboat::net::MacAddress;
use packetboat::port::{DescriptorLimits, PortConfig, PortError, PortStats, QueueCounters};

use crate::queues::Path;

/// Descriptors per queue when nobody asks.
pub(crate) const DEFAULT_DESCRIPTORS: u16 = 256;

/// Ethernet header and one VLAN tag: what a frame has beyond its MTU.
pub(crate) const FRAME_OVERHEAD_BYTES: u32 = 18;
/// What each IPv4 network must carry (RFC 791, 3.2).
const MTU_MIN: u16 = 68;
/// The longest that makes frames of less than 64 KiB.
const MTU_MAX: u16 = u16::MAX - FRAME_OVERHEAD_BYTES as u16;

/// MTUs that a port may be given: `offered` is the most that the device takes (`VIRTIO_NET_F_MTU`, virtio
/// 1.3, 5.1.4), if it says.
pub(crate) fn mtu_range(offered: Option<u16>) -> (u16, u16) {
    (MTU_MIN, offered.map_or(MTU_MAX, |most| most.clamp(MTU_MIN, MTU_MAX)))
}

/// Checks an MTU that was asked for.
pub(crate) fn check_mtu(
    device: &str,
    wanted: Option<u16>,
    offered: Option<u16>,
) -> Result<(), PortError> {
    let (least, most) = mtu_range(offered);
    match wanted {
        Some(wanted) if !(least..=most).contains(&wanted) => {
            let whose = if offered.is_some() { ", by its VIRTIO_NET_F_MTU" } else { "" };
            let rule = format!("the device takes {least} to {most}{whose}");
            Err(PortError::Mtu { device: device.to_owned(), wanted, rule })
        }
        _ => Ok(()),
    }
}

/// Checks that frames of an MTU that was asked for can be received into buffers of `pool`.
pub(crate) fn check_room(
    device: &str,
    wanted: Option<u16>,
    path: Path,
    pool: &MbufPool,
) -> Result<(), PortError> {
    let room = pool.room_len_bytes();
    match wanted {
        Some(wanted)
            if !path.mergeable && u32::from(wanted) + FRAME_OVERHEAD_BYTES > u32::from(room) =>
        {
            let rule = format!(
                "frames of {} bytes don't fit into mbufs of {room}, and the device can't spread them \
                 over several (VIRTIO_NET_F_MRG_RXBUF isn't agreed on)",
                u32::from(wanted) + FRAME_OVERHEAD_BYTES
            );
            Err(PortError::Mtu { device: device.to_owned(), wanted, rule })
        }
        _ => Ok(()),
    }
}

/// The limits of queues of at most `max` entries.
pub(crate) fn limits(max: u16, default: u16) -> DescriptorLimits {
    let max = largest_power_of_two(max);
    DescriptorLimits { min: 2, max, default: default.min(max), power_of_two: true }
}

/// The largest power of two that is at most `limit`; 0 for 0.
pub(crate) fn largest_power_of_two(limit: u16) -> u16 {
    if limit == 0 { 0 } else { 1 << limit.ilog2() }
}

/// Checks what is asked of a port.
pub(crate) fn check(
    device: &str,
    config: &PortConfig,
    max_pairs: u16,
    rx: DescriptorLimits,
    tx: DescriptorLimits,
) -> Result<(), PortError> {
    let device = || device.to_owned();
    for (kind, wanted) in [("receive", config.rx_queues), ("transmit", config.tx_queues)] {
        if wanted == 0 || wanted > max_pairs {
            return Err(PortError::Queues { device: device(), kind, wanted, most: max_pairs });
        }
    }
    let descriptors = [
        ("receive", "--rxd", config.rx_descriptors, rx),
        ("transmit", "--txd", config.tx_descriptors, tx),
    ];
    for (kind, option, wanted, limits) in descriptors {
        if let Some(wanted) = wanted.filter(|&wanted| !limits.allow(wanted)) {
            let rule =
                format!("this device takes a power of two from {} to {}", limits.min, limits.max);
            return Err(PortError::Descriptors { device: device(), kind, wanted, option, rule });
        }
    }
    Ok(())
}

/// A port's counters, queue by queue.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rx: Vec<Arc<QueueCounters>>,
    pub(crate) tx: Vec<Arc<QueueCounters>>,
}

impl Counters {
    /// For so many queues; those that were there go on.
    pub(crate) fn resize(&mut self, rx: u16, tx: u16) {
        self.rx.resize_with(rx.into(), Arc::default);
        self.tx.resize_with(tx.into(), Arc::default);
    }

    /// How often a queue broke down, over all queues.
    pub(crate) fn broken(&self) -> u64 {
        self.rx.iter().chain(&self.tx).map(|queue| queue.broken.get()).sum()
    }

    pub(crate) fn read(&self) -> PortStats {
        PortStats::read(&self.rx, &self.tx)
    }
}

/// An address for a device that has none of its own (5.1.5): locally administered, and the same
/// each time for the same device.
pub(crate) fn local_mac(device: &str) -> MacAddress {
    // FNV-1a: a well-spread 64-bit hash in two lines.
    let hash = device.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    MacAddress([0x02, a, b, c, d, e])
}
