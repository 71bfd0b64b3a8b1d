//! Which frames are received: addresses, VLANs, promiscuous modes (82599 datasheet 7.1.1).

use packetboat::net::MacAddress;
use packetboat::port::PortError;

use crate::bar::Bar;
use crate::registers::{FCTRL, MCSTCTRL, MPSAR_HI, MPSAR_LO, MTA, RAH, RAL, VFTA, VLNCTRL};

/// FCTRL: all multicast, all unicast, broadcast.
const ALL_MULTICAST: u32 = 1 << 8;
const ALL_UNICAST: u32 = 1 << 9;
pub(crate) const BROADCAST: u32 = 1 << 10;
/// RAH: the address is valid.
const VALID: u32 = 1 << 31;
/// VLNCTRL: frames of VLANs that aren't in the table are dropped.
const VLAN_FILTER: u32 = 1 << 30;
/// MCSTCTRL: groups are looked up in MTA, by the highest bits of their address.
const GROUP_FILTER: u32 = 1 << 2;
/// VLAN identifiers have 12 bits, of which the highest value is reserved.
const VLANS: u16 = 4095;

/// The address in slot `n`, whether valid or not.
pub(crate) fn address(bar: &Bar, n: u16) -> (MacAddress, bool) {
    let [a, b, c, d] = bar.read_at(RAL, n).to_le_bytes();
    let high = bar.read_at(RAH, n);
    let [e, f, ..] = high.to_le_bytes();
    (MacAddress([a, b, c, d, e, f]), high & VALID != 0)
}

/// Puts an address into slot `n`, or takes what is there out.
pub(crate) fn set_address(bar: &Bar, n: u16, address: Option<MacAddress>) {
    let MacAddress([a, b, c, d, e, f]) = address.unwrap_or(MacAddress([0; 6]));
    // While it is changed it isn't valid.
    bar.write_at(RAH, n, 0);
    bar.write_at(RAL, n, u32::from_le_bytes([a, b, c, d]));
    let valid = if address.is_some() { VALID } else { 0 };
    bar.write_at(RAH, n, u32::from_le_bytes([e, f, 0, 0]) | valid);
    bar.write_at(MPSAR_LO, n, u32::from(address.is_some()));
    bar.write_at(MPSAR_HI, n, 0);
}

/// Receives frames to `address` besides its own, or no more.
pub(crate) fn set_unicast(bar: &Bar, wanted: MacAddress, on: bool) -> Result<(), PortError> {
    let slots: Vec<(u16, MacAddress, bool)> = (1..RAL.count())
        .map(|n| {
            let (address, valid) = address(bar, n);
            (n, address, valid)
        })
        .collect();
    let there = slots.iter().find(|(_, address, valid)| *valid && *address == wanted);
    match (there, on) {
        (Some(_), true) | (None, false) => Ok(()),
        (Some((n, ..)), false) => {
            set_address(bar, *n, None);
            Ok(())
        }
        (None, true) => {
            let free = slots.iter().find(|(.., valid)| !valid);
            let (n, ..) = free.ok_or_else(|| {
                bar.fault(format!("all of its {} address filters are taken", slots.len()))
            })?;
            set_address(bar, *n, Some(wanted));
            Ok(())
        }
    }
}

/// What a running port is asked to receive besides its own address and broadcasts.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    promiscuous: bool,
    all_multicast: bool,
    /// A VLAN was asked for, or refused: others are dropped.
    by_vlan: bool,
    groups: Vec<MacAddress>,
}

impl Filters {
    /// Receives every frame, whatever its address and VLAN, or no more.
    pub(crate) fn set_promiscuous(&mut self, bar: &Bar, on: bool) {
        self.promiscuous = on;
        self.write_modes(bar);
    }

    pub(crate) fn set_all_multicast(&mut self, bar: &Bar, on: bool) {
        self.all_multicast = on;
        self.write_modes(bar);
    }

    /// Receives tagged frames of `vlan`, or no more; others are dropped from now on.
    pub(crate) fn set_vlan(&mut self, bar: &Bar, vlan: u16, on: bool) -> Result<(), PortError> {
        if vlan >= VLANS {
            return Err(bar.fault(format!("VLAN {vlan} was to be filtered; there are 0 to 4094")));
        }
        let bit = 1 << (vlan % 32);
        bar.change_at(VFTA, vlan / 32, bit, if on { bit } else { 0 });
        self.by_vlan = true;
        self.write_modes(bar);
        Ok(())
    }

    /// Receives frames to a group, or no more. The device looks at 12 bits of the address, so
    /// some other groups' frames come, too.
    pub(crate) fn set_group(&mut self, bar: &Bar, group: MacAddress, on: bool) {
        self.groups.retain(|known| *known != group);
        if on {
            self.groups.push(group);
        }
        let (n, bit) = group_place(group);
        let same_word = self.groups.iter().map(|known| group_place(*known));
        let word = same_word.filter(|(at, _)| *at == n).fold(0, |word, (_, bit)| word | bit);
        bar.change_at(MTA, n, bit, word & bit);
        bar.write(MCSTCTRL, if self.groups.is_empty() { 0 } else { GROUP_FILTER });
    }

    fn write_modes(&self, bar: &Bar) {
        let multicast = if self.promiscuous || self.all_multicast { ALL_MULTICAST } else { 0 };
        let unicast = if self.promiscuous { ALL_UNICAST } else { 0 };
        bar.change(FCTRL, ALL_MULTICAST | ALL_UNICAST, multicast | unicast);
        let by_vlan = self.by_vlan && !self.promiscuous;
        bar.change(VLNCTRL, VLAN_FILTER, if by_vlan { VLAN_FILTER } else { 0 });
    }
}

/// Where a group stands in MTA: the word, and its bit there (7.1.1.2: by bits 47:36 of the address,
/// as MCSTCTRL says).
fn group_place(group: MacAddress) -> (u16, u32) {
    let MacAddress([.., low, high]) = group;
    let hash = u16::from_le_bytes([low, high]) >> 4;
    (hash / 32, 1 << (hash % 32))
}
