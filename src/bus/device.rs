//! What a driver sees of a device.

use vmm_sys_util::eventfd::EventFd;

use super::{BusError, PciIds};
use crate::mbuf::Quiesced;
use crate::mmio::{Region, Width};

/// A PCI function as a driver sees it, whichever way it is reached.
pub trait Device: Send + Sync {
    /// A name for people: `0000:03:00.0`.
    fn name(&self) -> String;

    /// Vendor, device, class.
    fn ids(&self) -> PciIds;

    /// The NUMA node it is attached to, if the machine says.
    fn numa_node(&self) -> Option<u32>;

    /// Reads 1, 2 or 4 bytes of configuration space; the value stands in the low bits.
    ///
    /// # Errors
    /// If `offset` isn't aligned to `width` or beyond the device's configuration space, or the
    /// device is gone.
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError>;

    /// Writes 1, 2 or 4 bytes of configuration space.
    ///
    /// # Errors
    /// As for [`config_read`](Self::config_read).
    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError>;

    /// The registers behind base address register `index` (0–5).
    ///
    /// # Errors
    /// If the device has no such BAR, or it can't be mapped.
    fn bar(&self, index: u8) -> Result<Region, BusError>;

    /// Lets the device start DMA, or stops it from starting any more.
    ///
    /// # Errors
    /// If configuration space can't be written.
    fn set_bus_master(&self, on: bool) -> Result<(), BusError>;

    /// Brings the device back to its power-on state. When it returns, no DMA is under way and
    /// none will start until bus mastering is set again.
    ///
    /// # Errors
    /// If the device can't be reset and can't be kept from DMA either: what it was lent has then
    /// to be considered lost.
    fn reset(&self) -> Result<Quiesced, BusError>;

    /// How many MSI-X vectors the device has; 0 if none.
    fn msix_vectors(&self) -> u16;

    /// Turns MSI-X on with vectors 0 to `count`-1. Each returned eventfd is non-blocking and
    /// counts its vector's interrupts.
    ///
    /// # Errors
    /// If the device has fewer vectors, or the kernel can't allot them.
    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>, BusError>;

    /// Turns MSI-X off; harmless if it isn't on.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn disable_msix(&self) -> Result<(), BusError>;

    /// Whether somebody has asked for the device back (it is being unplugged or unbound). Polled;
    /// doesn't block. Once true it stays true. Whoever holds the device is to let go of it soon.
    fn removal_requested(&self) -> bool;
}
