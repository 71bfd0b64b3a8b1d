//! Poll-mode driver for Intel's 82599 and X540 10-gigabit controllers.
//!
//! From the bottom up: [`registers`] is the one table of them, [`bar`] reaches them, [`eeprom`],
//! [`sfp`] and [`link`] are what has to be there before frames pass, [`start`] brings the device
//! up in the order of the 82599 datasheet's chapter 4.6; [`descriptor`], [`rx`] and [`tx`] are the
//! hot paths that an lcore owns; [`filters`], [`statistics`] and [`watch`] serve the [`port`].
//!
//! Nothing that the device writes is believed: a descriptor says how long a frame is and whether
//! it is whole, and both are checked against the buffer that was lent; which buffer that is, and
//! how many there are, the driver knows from its own notes.
#![forbid(unsafe_code)]

mod bar;
mod clock;
mod descriptor;
mod eeprom;
mod filters;
mod link;
mod port;
mod registers;
mod rx;
mod sfp;
mod start;
mod statistics;
mod tx;
mod watch;

use std::sync::Arc;

use packetboat::bus::{Device, PciIds};
use packetboat::memory::Memory;
use packetboat::port::{Driver, Port, PortError};

/// The driver, for an application's list.
pub static DRIVER: &dyn Driver = &Ixgbe;

#[derive(Debug)]
struct Ixgbe;

/// Intel's PCI vendor id.
const VENDOR: u16 = 0x8086;

/// What a device is, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// 82599 with a cage for an SFP+ module.
    Sfp,
    /// 82599 on a backplane: KX, KX4, KR.
    Backplane,
    /// 82599 with a fixed interface: XAUI, CX4.
    Fixed,
    /// X540 with its own 10GBASE-T PHY.
    Copper,
}

/// Device ids, what they are, and whether this driver has run on one (in software or not).
const DEVICES: &[(u16, Media, bool)] = &[
    (0x10fb, Media::Sfp, true),        // 82599ES SFI/SFP+
    (0x1557, Media::Sfp, false),       // 82599EN SFI/SFP+
    (0x1507, Media::Sfp, false),       // 82599 SFP+ mezzanine, with extended memory
    (0x154d, Media::Sfp, false),       // 82599ES SFP+ with two ports a function
    (0x10f7, Media::Backplane, false), // 82599EB KX4
    (0x1514, Media::Backplane, false), // 82599EB KX4 mezzanine
    (0x1517, Media::Backplane, false), // 82599ES KR
    (0x10f8, Media::Backplane, false), // 82599 combined backplane
    (0x10fc, Media::Fixed, false),     // 82599 XAUI
    (0x10f9, Media::Fixed, false),     // 82599EB CX4
    (0x1528, Media::Copper, false),    // X540-AT2
    (0x1560, Media::Copper, false),    // X540-AT1
];

/// What a device with these ids is, and whether this driver has run on one.
pub(crate) fn media(ids: &PciIds) -> Option<(Media, bool)> {
    if ids.vendor != VENDOR {
        return None;
    }
    let known = DEVICES.iter().find(|(device, ..)| *device == ids.device);
    known.map(|(_, media, ran)| (*media, *ran))
}

impl Driver for Ixgbe {
    fn name(&self) -> &'static str {
        "ixgbe"
    }

    fn devices(&self) -> &'static str {
        "Intel 82599 and X540 controllers, 8086:10fb and its kin"
    }

    fn supports(&self, ids: &PciIds) -> bool {
        media(ids).is_some()
    }

    fn probe(
        &self,
        device: Box<dyn Device>,
        memory: &Arc<Memory>,
    ) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(port::IxgbePort::new(device, memory)?))
    }
}
