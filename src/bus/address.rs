//! Names of PCI functions: where they are, and what they say they are.

use core::fmt;
use core::str::FromStr;

use super::BusError;

/// Where a PCI function is: domain, bus, device, function ("BDF").
///
/// Reads `0000:03:00.0` and, for domain 0, `03:00.0`; always prints the long form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain (segment); 16 bits on most machines, more behind Intel VMD.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0–31.
    pub device: u8,
    /// Function number, 0–7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for PciAddress {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        parse(text).ok_or_else(|| BusError::BadAddress { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = match rest.split_once(':') {
        Some((domain, bus)) => (hex(domain, 8)?, bus),
        None => (0, rest),
    };
    let address = PciAddress {
        domain,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(hex(device, 2)?).ok()?,
        function: u8::try_from(hex(function, 1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

/// One to `digits_max` hex digits; no sign, no prefix (`u32::from_str_radix` would take a `+`).
fn hex(text: &str, digits_max: usize) -> Option<u32> {
    let fits = (1..=digits_max).contains(&text.len());
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits && digits { u32::from_str_radix(text, 16).ok() } else { None }
}

/// What a PCI function says it is (PCI Local Bus 3.0, 6.2.1 and 6.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PciIds {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem_device: u16,
    /// Class code, 24 bits: base class, subclass, programming interface.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
}

impl fmt::Display for PciIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read_and_the_long_one_printed() {
        for text in ["0000:03:00.1", "03:00.1", "0:3:0.1"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), "0000:03:00.1");
        }
        let vmd: PciAddress = "10000:e1:1f.7".parse().unwrap();
        assert_eq!((vmd.domain, vmd.bus, vmd.device, vmd.function), (0x10000, 0xe1, 31, 7));
        assert_eq!(vmd.to_string(), "10000:e1:1f.7");
    }

    #[test]
    fn nonsense_is_refused_and_quoted() {
        for text in [
            "",
            "eth0",
            "03:00",
            "03:00.",
            "03:20.0",
            "03:00.8",
            "103:00.0",
            "+3:00.0",
            "0x3:00.0",
            "0000:03:00.0 ",
            "1:2:3:4.5",
            "03.00.0",
            "03:00.00",
        ] {
            let error = text.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(domain: u32, bus: u8, device in 0_u8..32, function in 0_u8..8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
        }
    }
}
