//! How an application finds the driver for a device.

use std::sync::Arc;

use super::{Port, PortError};
use crate::bus::{Device, PciIds, Vdev, VdevError};
use crate::memory::Memory;

/// A driver that an application links. A list of them is all that binds the two together.
pub trait Driver: Sync {
    /// Its name: `virtio-net`.
    fn name(&self) -> &'static str;

    /// The devices it drives, in words for people, with their ids.
    fn devices(&self) -> &'static str;

    /// Whether it drives devices with these ids.
    fn supports(&self, ids: &PciIds) -> bool;

    /// Takes the device over; the port is stopped at first. `memory` is mapped for the device.
    ///
    /// # Errors
    /// If the device isn't what it says, or lacks something that the driver needs.
    fn probe(
        &self,
        device: Box<dyn Device>,
        memory: &Arc<Memory>,
    ) -> Result<Box<dyn Port>, PortError>;
}

/// A driver of devices that the program makes itself, given with `--vdev`.
pub trait VirtualDriver: Sync {
    /// The kind it makes, as `--vdev` names it: `vhost-user`.
    fn kind(&self) -> &'static str;

    /// Looks at the arguments, and takes nothing.
    ///
    /// # Errors
    /// If it can't make such a device.
    fn check(&self, vdev: &Vdev) -> Result<(), VdevError>;

    /// Makes the device; the port is stopped at first. It reaches all of `memory`.
    ///
    /// # Errors
    /// If the arguments are wrong, or what stands behind the device isn't there.
    fn probe(&self, vdev: &Vdev, memory: &Arc<Memory>) -> Result<Box<dyn Port>, PortError>;
}
