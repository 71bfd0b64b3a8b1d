//! How an application finds the driver for a device.

use std::sync::Arc;

use super::{Port, PortError};
use crate::bus::{Device, PciIds};
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
