//! What ports of both transports check and count alike.

use std::sync::Arc;

use packetboat::net::MacAddress;
use packetboat::port::{DescriptorLimits, PortConfig, PortError, PortStats, QueueCounters};

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
