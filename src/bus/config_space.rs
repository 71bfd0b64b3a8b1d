//! Places in configuration space that every way of reaching a device needs.

/// Command register (PCI Local Bus 3.0, 6.2.2).
pub(super) const COMMAND: u16 = 0x04;
/// The device answers in its memory BARs.
pub(super) const COMMAND_MEMORY: u32 = 1 << 1;
/// The device may start DMA.
pub(super) const COMMAND_BUS_MASTER: u32 = 1 << 2;

/// Power management (PCI Power Management 1.2, 3.2): control and status in the capability.
pub(super) const CAPABILITY_POWER: u8 = 0x01;
/// Control and status, in the capability.
pub(super) const POWER_CONTROL: u16 = 0x04;
/// D0 to D3hot.
pub(super) const POWER_STATE_MASK: u32 = 0b11;

/// PCI Express (PCI Express Base 4.0, 7.5.3.5): device status in the capability.
pub(super) const CAPABILITY_EXPRESS: u8 = 0x10;

/// MSI-X (PCI Local Bus 3.0, 6.8.2).
pub(super) const CAPABILITY_MSIX: u8 = 0x11;
/// Message control, in the capability: the number of vectors, less 1, in bits 10:0.
pub(super) const MSIX_CONTROL: u16 = 0x02;
/// Where the table stands, in the capability.
pub(super) const MSIX_TABLE: u16 = 0x04;
