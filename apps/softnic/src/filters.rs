//! Which frames a NIC takes: addresses, multicast hash, VLANs (82599 datasheet 7.1.1).

use crate::registers::{RegisterFile, at};

const MPE: u32 = 1 << 8;
const UPE: u32 = 1 << 9;
const BAM: u32 = 1 << 10;
const VFE: u32 = 1 << 30;
const MFE: u32 = 1 << 2;
const ADDRESS_VALID: u32 = 1 << 31;

/// The filters, as the registers have them.
#[derive(Clone, Debug)]
pub struct Filters {
    addresses: Vec<[u8; 6]>,
    fctrl: u32,
    mcstctrl: u32,
    vlnctrl: u32,
}

impl Filters {
    /// Reads the registers; the hash tables are read where they stand.
    pub fn new(registers: &RegisterFile) -> Self {
        let addresses = (0..128)
            .filter_map(|n| {
                let high = registers.get(at::RAH + 8 * n);
                let low = registers.get(at::RAL + 8 * n).to_le_bytes();
                let [four, five, ..] = high.to_le_bytes();
                (high & ADDRESS_VALID != 0).then_some([low[0], low[1], low[2], low[3], four, five])
            })
            .collect();
        Self {
            addresses,
            fctrl: registers.get(at::FCTRL),
            mcstctrl: registers.get(at::MCSTCTRL),
            vlnctrl: registers.get(at::VLNCTRL),
        }
    }

    /// The EtherType that means a VLAN tag.
    #[expect(clippy::cast_possible_truncation, reason = "bits 15:0")]
    pub fn vlan_type(&self) -> u16 {
        self.vlnctrl as u16
    }

    /// Whether a frame to `destination`, tagged with `vlan`, is for this NIC.
    pub fn pass(&self, registers: &RegisterFile, destination: [u8; 6], vlan: Option<u16>) -> bool {
        self.address(registers, destination) && self.vlan(registers, vlan)
    }

    fn address(&self, registers: &RegisterFile, destination: [u8; 6]) -> bool {
        if destination == [0xff; 6] {
            return self.fctrl & BAM != 0;
        }
        if self.addresses.contains(&destination) {
            return true;
        }
        if destination[0] & 1 == 0 {
            self.fctrl & UPE != 0
        } else {
            self.fctrl & MPE != 0
                || (self.mcstctrl & MFE != 0 && self.multicast_hash(registers, destination))
        }
    }

    /// 12 bits of the address, from bit 47, 46, 45 or 43 down, are an index into MTA.
    fn multicast_hash(&self, registers: &RegisterFile, destination: [u8; 6]) -> bool {
        let last = u32::from(destination[4]) | u32::from(destination[5]) << 8;
        let bits = match self.mcstctrl & 3 {
            0 => last >> 4,
            1 => last >> 3,
            2 => last >> 2,
            _ => last,
        } & 0xfff;
        registers.get(at::MTA + 4 * (bits >> 5)) >> (bits & 31) & 1 != 0
    }

    fn vlan(&self, registers: &RegisterFile, vlan: Option<u16>) -> bool {
        let Some(vlan) = vlan.filter(|_| self.vlnctrl & VFE != 0) else { return true };
        let id = u32::from(vlan & 0xfff);
        registers.get(at::VFTA + 4 * (id >> 5)) >> (id & 31) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0x12, 0x34];

    fn registers() -> RegisterFile {
        let registers = RegisterFile::new().unwrap();
        registers.set(at::RAL, u32::from_le_bytes([2, 0, 0, 0]));
        registers.set(at::RAH, ADDRESS_VALID | 0x0100);
        registers
    }

    #[test]
    fn addresses_and_promiscuous_modes() {
        let registers = registers();
        let pass = |destination| Filters::new(&registers).pass(&registers, destination, None);
        assert!(pass(OURS));
        assert!(!pass([2, 0, 0, 0, 0, 2]) && !pass([0xff; 6]) && !pass(GROUP));
        registers.set(at::FCTRL, BAM);
        assert!(pass([0xff; 6]) && !pass(GROUP));
        registers.set(at::FCTRL, UPE);
        assert!(pass([2, 0, 0, 0, 0, 2]) && !pass(GROUP));
        registers.set(at::FCTRL, MPE);
        assert!(!pass([2, 0, 0, 0, 0, 2]) && pass(GROUP));
    }

    #[test]
    fn multicast_by_hash() {
        let registers = registers();
        let hash = (0x3412_u32 >> 4) & 0xfff; // the last two bytes, the last one on top
        registers.set(at::MTA + 4 * (hash >> 5), 1 << (hash & 31));
        let pass =
            |registers: &RegisterFile, group| Filters::new(registers).pass(registers, group, None);
        assert!(!pass(&registers, GROUP), "MFE is not set");
        registers.set(at::MCSTCTRL, MFE);
        assert!(pass(&registers, GROUP));
        assert!(!pass(&registers, [1, 0, 0x5e, 0, 0x12, 0x44]));
    }

    #[test]
    fn vlans() {
        let registers = registers();
        let pass = |vlan| Filters::new(&registers).pass(&registers, OURS, vlan);
        assert!(pass(Some(5)));
        registers.set(at::VLNCTRL, 0x8100 | VFE);
        assert!(!pass(Some(5)) && pass(None));
        registers.set(at::VFTA, 1 << 5);
        assert!(pass(Some(0x2005)) && !pass(Some(6)));
    }
}
