//! What ports of both transports reckon alike.

use packetboat::net::MacAddress;
use packetboat::port::DescriptorLimits;

/// Descriptors per queue when nobody asks.
pub(crate) const DEFAULT_DESCRIPTORS: u16 = 256;

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
