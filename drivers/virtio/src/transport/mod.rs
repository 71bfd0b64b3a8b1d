//! How the device's registers are reached.

mod pci;

pub(crate) use pci::{NetConfig, PciTransport, RssLimits};

use virtio_bindings::virtio_config as config;

/// Device status bits (virtio 1.3, 2.1).
pub(crate) mod status {
    use super::config;
    pub(crate) const ACKNOWLEDGE: u8 = config::VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
    pub(crate) const DRIVER: u8 = config::VIRTIO_CONFIG_S_DRIVER as u8;
    pub(crate) const DRIVER_OK: u8 = config::VIRTIO_CONFIG_S_DRIVER_OK as u8;
    pub(crate) const FEATURES_OK: u8 = config::VIRTIO_CONFIG_S_FEATURES_OK as u8;
    pub(crate) const NEEDS_RESET: u8 = config::VIRTIO_CONFIG_S_NEEDS_RESET as u8;
    pub(crate) const FAILED: u8 = config::VIRTIO_CONFIG_S_FAILED as u8;
    /// What any register of a device reads as that is no longer there.
    pub(crate) const GONE: u8 = 0xff;
}
