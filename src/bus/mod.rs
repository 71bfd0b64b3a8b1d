//! Devices and how they are reached: PCI functions in sysfs and VFIO, software devices behind
//! vfio-user sockets.
//!
//! [`Device`] is all that a driver knows of a device. Who implements it (VFIO on a kernel device,
//! a process behind a socket, a test device) isn't the driver's concern.

mod address;
mod capability;
mod config_space;
mod device;
mod error;
mod pci;
mod select;
mod vdev;
pub mod vfio;
pub mod vfio_user;

pub use crate::mbuf::Quiesced;
pub use address::{PciAddress, PciIds};
pub use capability::{Capability, capabilities};
pub use device::Device;
pub use error::BusError;
pub use pci::{PciFunction, function, scan};
pub use select::{
    AllowEntry, DeviceArgument, Place, SelectedDevice, SelectedFunction, SelectedSocket, Selection,
};
pub use vdev::{Vdev, VdevError};
pub use vmm_sys_util::eventfd::EventFd;
