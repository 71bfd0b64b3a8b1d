//! The list of capabilities in a function's configuration space.

use super::{BusError, Device};
use crate::mmio::Width;

/// An entry of the capability list (PCI Local Bus 3.0, 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// What it is: 0x01 power management, 0x09 vendor specific, 0x11 MSI-X, …
    pub id: u8,
    /// Where in configuration space it starts, in bytes: a multiple of 4, 0x40–0xfc.
    pub offset: u16,
}

/// Status register, and its bit that says that there is a list (PCI Local Bus 3.0, 6.2.3).
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// The pointer to the first entry.
const FIRST_POINTER: u16 = 0x34;
/// Entries are 4-byte aligned and lie behind the header, so there can't be more of them.
const ENTRIES_MAX: usize = (0x100 - 0x40) / 4;

/// The function's capabilities in the order of its list; none if it has no list.
///
/// # Errors
/// If configuration space can't be read, or the list is a lie: it leads into the header, or back
/// to itself.
pub fn capabilities(device: &dyn Device) -> Result<Vec<Capability>, BusError> {
    let mut found: Vec<Capability> = Vec::new();
    let status = device.config_read(STATUS, Width::U16)?;
    if status & STATUS_CAPABILITIES == 0 || status == 0xffff {
        return Ok(found);
    }
    // The low two bits of a pointer are reserved and to be masked.
    let mut offset = device.config_read(FIRST_POINTER, Width::U8)? & 0xfc;
    while offset != 0 {
        if offset < 0x40 || found.len() == ENTRIES_MAX {
            return Err(BusError::CapabilityList { device: device.name(), offset });
        }
        let head = device.config_read(offset as u16, Width::U16)?;
        found.push(Capability { id: head as u8, offset: offset as u16 });
        offset = (head >> 8) & 0xfc;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::bus::{PciIds, Quiesced};
    use crate::mmio::Region;

    /// A device that is only a configuration space.
    struct Config([u8; 256]);

    impl Config {
        fn with_list(entries: &[(u8, u8)]) -> Self {
            let mut bytes = [0; 256];
            bytes[0x06] = 0x10;
            let mut link = 0x34;
            for &(id, offset) in entries {
                bytes[link] = offset;
                bytes[usize::from(offset)] = id;
                link = usize::from(offset & 0xfc) + 1;
            }
            Self(bytes)
        }
    }

    impl Device for Config {
        fn name(&self) -> String {
            "test".to_owned()
        }
        fn ids(&self) -> PciIds {
            PciIds::default()
        }
        fn numa_node(&self) -> Option<u32> {
            None
        }
        fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
            let from = usize::from(offset);
            let bytes = &self.0[from..from + width.len_bytes()];
            Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
        }
        fn config_write(&self, _: u16, _: Width, _: u32) -> Result<(), BusError> {
            unreachable!("reading a list writes nothing")
        }
        fn bar(&self, _: u8) -> Result<Region, BusError> {
            unreachable!("the list is in configuration space")
        }
        fn set_bus_master(&self, _: bool) -> Result<(), BusError> {
            Ok(())
        }
        fn reset(&self) -> Result<Quiesced, BusError> {
            Ok(Quiesced::after_reset())
        }
        fn msix_vectors(&self) -> u16 {
            0
        }
        fn enable_msix(&self, _: u16) -> Result<Vec<EventFd>, BusError> {
            Ok(Vec::new())
        }
        fn disable_msix(&self) -> Result<(), BusError> {
            Ok(())
        }
        fn removal_requested(&self) -> bool {
            false
        }
    }

    #[test]
    fn the_list_is_walked_in_its_order() {
        let device = Config::with_list(&[(0x11, 0x98), (0x09, 0x84), (0x01, 0x40)]);
        let found: Vec<_> =
            capabilities(&device).unwrap().iter().map(|cap| (cap.id, cap.offset)).collect();
        assert_eq!(found, [(0x11, 0x98), (0x09, 0x84), (0x01, 0x40)]);
    }

    #[test]
    fn no_list_and_no_device_give_none() {
        let mut device = Config::with_list(&[(0x11, 0x98)]);
        device.0[0x06] = 0;
        assert!(capabilities(&device).unwrap().is_empty());
        assert!(capabilities(&Config([0xff; 256])).unwrap().is_empty());
    }

    #[test]
    fn a_list_that_lies_ends_in_an_error() {
        let mut looping = Config::with_list(&[(0x11, 0x98), (0x09, 0x84)]);
        looping.0[0x85] = 0x98;
        let header = Config::with_list(&[(0x11, 0x98), (0x09, 0x10)]);
        for device in [looping, header] {
            assert!(matches!(capabilities(&device), Err(BusError::CapabilityList { .. })));
        }
    }
}
