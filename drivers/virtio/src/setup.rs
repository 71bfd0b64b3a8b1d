//! What ports of both transports reckon alike.

use packetboat::mbuf::MbufPool;
use packetboat::net::MacAddress;
use packetboat::port::{DescriptorLimits, PortError};

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
