//! Ethernet addresses and the header in front of every frame (IEEE 802.3, 3.1.1).

use std::fmt;
use std::str::FromStr;

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

/// A 48-bit Ethernet address.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct MacAddress(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address; it has six hexadecimal bytes, as in 02:00:00:00:00:01")]
pub struct MacAddressError(String);

impl MacAddress {
    /// The address of everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group: broadcast or multicast.
    #[must_use]
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let wrong = || MacAddressError(text.to_owned());
        let mut address = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut address {
            let part = parts
                .next()
                .filter(|part| part.len() <= 2 && !part.starts_with('+'))
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(address)) }
    }
}

/// The 14 bytes in front of every frame.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// To whom.
    pub destination: MacAddress,
    /// From whom.
    pub source: MacAddress,
    /// What follows.
    pub ether_type: U16<BigEndian>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let address = MacAddress([2, 0, 0, 0xab, 0xcd, 0xff]);
        assert_eq!(address.to_string(), "02:00:00:ab:cd:ff");
        assert_eq!(address.to_string().parse(), Ok(address));
        for wrong in [
            "",
            "02:00",
            "02:00:00:00:00:00:00",
            "02-00-00-00-00-00",
            "g2:0:0:0:0:0",
            "+1:0:0:0:0:0",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong} was accepted");
        }
    }
}
