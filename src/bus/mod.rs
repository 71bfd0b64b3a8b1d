//! Devices and how they are reached: PCI functions in sysfs, and VFIO.
//!
//! [`Device`] is all that a driver knows of a device. Who implements it (VFIO on a kernel device,
//! a test device in process) isn't the driver's concern.

mod address;
mod capability;
mod device;
mod error;
mod pci;
mod select;
mod vdev;
pub mod vfio;

pub use crate::mbuf::Quiesced;
pub use address::{PciAddress, PciIds};
pub use capability::{Capability, capabilities};
pub use device::Device;
pub use error::BusError;
pub use pci::{PciFunction, function, scan};
pub use select::{AllowEntry, DeviceArgument, Place, SelectedFunction, Selection};
pub use vdev::{Vdev, VdevError};
pub use vmm_sys_util::eventfd::EventFd;
