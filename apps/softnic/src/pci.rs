//! The configuration space of an 82599 with MSI-X (82599 datasheet 9).

/// Size of the configuration space in bytes.
pub const LEN_BYTES: usize = 4096;
/// Which BAR has the MSI-X table and the pending bits.
pub const MSIX_BAR: u32 = 4;
/// Size of that BAR.
pub const MSIX_BAR_LEN_BYTES: u64 = 16 << 10;
/// Where the pending bits stand in it.
pub const PENDING_OFFSET: u64 = 0x2000;

const VENDOR_INTEL: u16 = 0x8086;
const SUBSYSTEM: u16 = 0x0003; // X520-2, as SFP+ cards have it
const COMMAND: usize = 0x04;
const BAR0: usize = 0x10;
const BAR4: usize = 0x20;
const POWER: usize = 0x40;
const POWER_CONTROL: usize = POWER + 4;
const MSIX: usize = 0x70;
const EXPRESS: usize = 0xa0;
const DEVICE_CONTROL: usize = EXPRESS + 8;
const SERIAL: usize = 0x100;

/// What a write asks the device to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond the bytes.
    None,
    /// Function level reset.
    Reset,
    /// It has left D3hot: as after a reset.
    WokeUp,
}

/// The bytes, and which of their bits software may change.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    initial: Vec<u8>,
}

impl ConfigSpace {
    /// As after power-on.
    pub fn new(device_id: u16, mac: [u8; 6], vectors: u16) -> Self {
        let mut space =
            Self { bytes: vec![0; LEN_BYTES], writable: vec![0; LEN_BYTES], initial: Vec::new() };
        space.put16(0x00, VENDOR_INTEL, 0);
        space.put16(0x02, device_id, 0);
        space.put16(COMMAND, 0, 0x0547); // I/O, memory, bus master, parity, SERR, INTx disable
        space.put16(0x06, 0x0010, 0); // there are capabilities
        space.put32(0x08, 0x0200_0001, 0); // Ethernet controller, revision 1
        space.put8(0x0c, 0x10, 0xff); // cache line
        space.put64(BAR0, 0xc, !(crate::registers::BAR_LEN_BYTES - 1)); // 64 bits, prefetchable
        space.put64(BAR4, 0xc, !(MSIX_BAR_LEN_BYTES - 1));
        space.put16(0x2c, VENDOR_INTEL, 0);
        space.put16(0x2e, SUBSYSTEM, 0);
        space.put8(0x34, POWER as u8, 0);
        space.put8(0x3c, 0, 0xff); // interrupt line; no pin: MSI-X only

        space.put16(POWER, 0x01 | (MSIX as u16) << 8, 0);
        space.put16(POWER + 2, 0x4803, 0); // version 3, PME from D0 and D3hot
        space.put16(POWER_CONTROL, 0x0008, 0x0003); // no soft reset; D0

        space.put16(MSIX, 0x11 | (EXPRESS as u16) << 8, 0);
        space.put16(MSIX + 2, vectors - 1, 0xc000);
        space.put32(MSIX + 4, MSIX_BAR, 0);
        space.put32(MSIX + 8, PENDING_OFFSET as u32 | MSIX_BAR, 0);

        space.put16(EXPRESS, 0x10, 0);
        space.put16(EXPRESS + 2, 0x0002, 0); // version 2, endpoint
        space.put32(EXPRESS + 4, 0x1000_8cc2, 0); // 512 bytes payload, FLR
        space.put16(DEVICE_CONTROL, 0x2810, 0x7fff);
        space.put32(EXPRESS + 0x0c, 0x0003_4c82, 0); // 8 lanes at 5 GT/s
        space.put16(EXPRESS + 0x10, 0, 0x0fff);
        space.put16(EXPRESS + 0x12, 0x1082, 0); // and so they run
        space.put32(EXPRESS + 0x24, 0x0000_001f, 0); // completion timeout ranges
        space.put16(EXPRESS + 0x28, 0, 0x001f);
        space.put16(EXPRESS + 0x30, 0x0002, 0x000f);

        space.put32(SERIAL, 0x0001_0003, 0); // device serial number: the MAC with ff:ff in its middle
        space.put32(SERIAL + 4, u32::from_be_bytes([0xff, mac[3], mac[4], mac[5]]), 0);
        space.put32(SERIAL + 8, u32::from_be_bytes([mac[0], mac[1], mac[2], 0xff]), 0);
        space.initial = space.bytes.clone();
        space
    }

    /// As after a reset of the function: addresses and command are gone.
    pub fn reset(&mut self) {
        self.bytes.clone_from(&self.initial);
    }

    /// Bytes from `offset` on; what lies outside reads as zero.
    pub fn read(&self, offset: u64, to: &mut [u8]) {
        for (n, byte) in to.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(n));
            *byte = at.and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
        }
    }

    /// A write by software.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Effect {
        let asleep = self.is_asleep();
        let mut effect = Effect::None;
        for (n, byte) in from.iter().enumerate() {
            let Some(at) = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(n))
            else {
                break;
            };
            let (Some(old), Some(writable)) = (self.bytes.get_mut(at), self.writable.get(at))
            else {
                break;
            };
            *old = (*old & !writable) | (byte & writable);
            if at == DEVICE_CONTROL + 1 && byte & 0x80 != 0 {
                effect = Effect::Reset;
            }
        }
        if effect == Effect::None && asleep && !self.is_asleep() {
            effect = Effect::WokeUp;
        }
        effect
    }

    /// Whether the device may reach memory.
    pub fn is_bus_master(&self) -> bool {
        self.bytes[COMMAND] & 4 != 0
    }

    /// Whether it is in D3hot.
    pub fn is_asleep(&self) -> bool {
        self.bytes[POWER_CONTROL] & 3 == 3
    }

    fn put8(&mut self, at: usize, value: u8, writable: u8) {
        self.bytes[at] = value;
        self.writable[at] = writable;
    }

    fn put16(&mut self, at: usize, value: u16, writable: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self.writable[at..at + 2].copy_from_slice(&writable.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32, writable: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.writable[at..at + 4].copy_from_slice(&writable.to_le_bytes());
    }

    fn put64(&mut self, at: usize, value: u64, writable: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self.writable[at..at + 8].copy_from_slice(&writable.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(0x10fb, [2, 0, 0, 0, 0, 1], 64)
    }

    #[test]
    fn capabilities_form_a_list_with_an_end() {
        let space = space();
        let mut found = Vec::new();
        let mut at = usize::from(space.bytes[0x34]);
        while at != 0 {
            assert!(found.len() < 10);
            found.push(space.bytes[at]);
            at = usize::from(space.bytes[at + 1]);
        }
        assert_eq!(found, [0x01, 0x11, 0x10]);
    }

    #[test]
    fn a_bar_tells_its_size_when_all_ones_are_written() {
        let mut space = space();
        assert_eq!(space.write(0x10, &[0xff; 8]), Effect::None);
        let mut found = [0; 8];
        space.read(0x10, &mut found);
        let size = !(u64::from_le_bytes(found) & !0xf) + 1;
        assert_eq!(size, crate::registers::BAR_LEN_BYTES);
    }

    #[test]
    fn power_state_and_resets() {
        let mut space = space();
        assert_eq!(space.write(0x44, &[3, 0]), Effect::None);
        assert!(space.is_asleep());
        assert_eq!(space.write(0x44, &[0, 0]), Effect::WokeUp);
        assert_eq!(space.write(DEVICE_CONTROL as u64, &[0, 0x80]), Effect::Reset);
        space.write(4, &[4, 0]);
        assert!(space.is_bus_master());
        space.reset();
        assert!(!space.is_bus_master());
    }

    #[test]
    fn writes_outside_are_ignored() {
        let mut space = space();
        space.write(4095, &[1; 8]);
        space.write(u64::MAX, &[1; 8]);
        let mut found = [1; 4];
        space.read(u64::MAX - 1, &mut found);
        assert_eq!(found, [0; 4]);
    }
}
