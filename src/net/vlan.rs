//! VLAN tags (IEEE 802.1Q, 9.6).

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

/// The four bytes of a tag behind those two (0x8100, or 0x88a8 for an outer one) that say that
/// there is one: the tag control information, and the type of what follows.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligibility (1), identifier (12).
    pub tci: U16<BigEndian>,
    /// What follows.
    pub ether_type: U16<BigEndian>,
}

impl VlanTag {
    /// The tag control information of these parts; what doesn't fit is cut off.
    #[must_use]
    pub const fn tci_of(priority: u8, drop_eligible: bool, id: u16) -> u16 {
        (priority as u16 & 7) << 13 | (drop_eligible as u16) << 12 | id & 0xfff
    }

    /// Which VLAN, 0 to 4,095; 0: none, the tag tells the priority only.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.tci.get() & 0xfff
    }

    /// Priority, 0 to 7.
    #[must_use]
    pub fn priority(&self) -> u8 {
        (self.tci.get() >> 13) as u8
    }

    /// Whether it may be dropped before others.
    #[must_use]
    pub fn drop_eligible(&self) -> bool {
        self.tci.get() & 1 << 12 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_its_parts_where_the_standard_puts_them() {
        let tag = VlanTag::ref_from_bytes(&[0xb1, 0x23, 0x08, 0x00]).unwrap();
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (5, true, 0x123));
        assert_eq!(tag.ether_type.get(), 0x0800);
        assert_eq!(VlanTag::tci_of(5, true, 0x123), 0xb123);
        assert_eq!(VlanTag::tci_of(255, false, 0xffff), 0xefff);
    }
}
