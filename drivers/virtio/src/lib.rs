//! virtio-net poll-mode driver (virtio 1.3, chapters 2, 4.1 and 5.1).
//!
//! From the bottom up: [`transport`] is how the device's registers are reached (PCI), [`features`]
//! what both sides agree on, [`ring`] the split virtqueue, [`rx`] and [`tx`] the hot paths that an
//! lcore owns, [`control`] the queue for commands, and [`port`] what starts and stops it all.
//!
//! Nothing that the device writes is believed: ids, lengths, counts and indexes are checked
//! against what the driver itself noted when it lent a buffer.
#![forbid(unsafe_code)]

mod announce;
mod control;
mod features;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod gate;
mod header;
mod known;
mod offload;
mod port;
mod queues;
mod ring;
mod rss;
mod rx;
mod setup;
mod transport;
mod tx;
mod vhost_user;

use std::sync::Arc;

use packetboat::bus::{Device, PciIds};
use packetboat::memory::Memory;
use packetboat::port::{Driver, Port, PortError, VirtualDriver};

pub use features::Features;

/// The driver, for an application's list.
pub static DRIVER: &dyn Driver = &VirtioNet;

/// The driver of vhost-user ports, for an application's list.
pub static VHOST_USER: &dyn VirtualDriver = &vhost_user::VhostUser;

#[derive(Debug)]
struct VirtioNet;

/// PCI vendor of all virtio devices (virtio 1.3, 4.1.2).
const VENDOR: u16 = 0x1af4;
/// A virtio 1.x network device: 0x1040 and the device type, 1.
const DEVICE_MODERN: u16 = 0x1041;
/// A network device that speaks virtio 0.9 too, or only that.
const DEVICE_TRANSITIONAL: u16 = 0x1000;

impl Driver for VirtioNet {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn devices(&self) -> &'static str {
        "virtio network devices, 1af4:1041 and 1af4:1000"
    }

    fn supports(&self, ids: &PciIds) -> bool {
        ids.vendor == VENDOR && matches!(ids.device, DEVICE_MODERN | DEVICE_TRANSITIONAL)
    }

    fn probe(
        &self,
        device: Box<dyn Device>,
        memory: &Arc<Memory>,
    ) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(port::VirtioPort::new(device, memory)?))
    }
}
