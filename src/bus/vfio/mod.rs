//! PCI functions through the kernel's VFIO, by its group interface
//! (Linux, Documentation/driver-api/vfio.rst).
//!
//! A [`Container`] is an IOMMU context: it makes all of a [`Memory`](crate::memory::Memory)
//! reachable for the devices opened in it. IOMMU groups are attached to it as their devices are
//! opened, and let go when the last of their devices is closed. [`VfioDevice`] is a
//! [`Device`](super::Device).
//!
//! Whatever the order in which the parts are dropped, things happen in this one:
//!
//! 1. the device's interrupts are turned off, its bus mastering too, and it is reset;
//! 2. its file is closed, as soon as no register of it is held any more;
//! 3. if that was the last device, the DMA mappings go, each exactly as it was made;
//! 4. its group's file is closed;
//! 5. the container's file is closed, and its hold on the memory ends.
//!
//! Without an IOMMU (`enable_unsafe_noiommu_mode`) there is nothing to map, and devices use
//! physical addresses. That path is written after the kernel's sources and has not yet been run
//! on hardware: no kernel that these tests can boot has it.
//!
//! Reading order: `container` and `device` are what the rest of the program uses; `group` opens
//! nodes and explains refusals; `device_file` keeps a device open; `bar` and `mappings` plan; `info` takes the kernel's answers
//! apart; `calls` makes the system calls.

mod bar;
mod calls;
mod container;
mod device;
mod device_file;
mod group;
mod info;
mod mappings;

pub use container::Container;
pub use device::VfioDevice;
pub(in crate::bus) use info::{RegionInfo, region_info};
