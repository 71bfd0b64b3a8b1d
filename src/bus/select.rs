//! Which of the machine's functions a run uses: the options `-a`/`--allow` and `-b`/`--block`.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::vfio_user::Server;
use super::{BusError, PciAddress, PciFunction, PciIds};

/// The devices that a run may use, and those it must leave alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `-a`: only these. Empty: every network function bound to VFIO.
    pub allow: Vec<AllowEntry>,
    /// `-b`: none of these. Goes with an empty `allow` or not, but no function stands in both.
    pub block: Vec<PciAddress>,
}

/// One `-a`: a device, and what its driver is to be told about it.
///
/// Read from `BDF[,key=value…]`, as in `0000:03:00.0,queues=2`, or from
/// `vfio-user:PATH[,key=value…]`, as in `vfio-user:/run/nic0.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowEntry {
    /// Where the device is.
    pub place: Place,
    /// For its driver, in the order given.
    pub arguments: Vec<DeviceArgument>,
}

/// Where an allowed device is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A PCI function of this machine.
    Pci(PciAddress),
    /// A device in software, behind the vfio-user socket with this path.
    VfioUser(PathBuf),
}

/// A `key=value` behind an address in `-a`; just `key` has an empty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceArgument {
    /// Before the `=`.
    pub key: String,
    /// Behind it.
    pub value: String,
}

/// A function that a run is to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedFunction {
    /// The function.
    pub function: PciFunction,
    /// Its arguments from `-a`.
    pub arguments: Vec<DeviceArgument>,
}

/// A socket that a run is to use, with the connection to it.
#[derive(Debug, Clone)]
pub struct SelectedSocket {
    /// The device's server.
    pub server: Arc<Server>,
    /// Its arguments from `-a`.
    pub arguments: Vec<DeviceArgument>,
}

/// A device that a run is to use.
#[derive(Debug, Clone)]
pub enum SelectedDevice {
    /// A PCI function of this machine.
    Pci(SelectedFunction),
    /// A device in software.
    VfioUser(SelectedSocket),
}

impl SelectedDevice {
    /// Its name: `0000:03:00.0`, or `vfio-user:/run/nic0.sock`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Pci(selected) => selected.function.address.to_string(),
            Self::VfioUser(selected) => selected.server.name(),
        }
    }

    /// What it says it is.
    #[must_use]
    pub fn ids(&self) -> PciIds {
        match self {
            Self::Pci(selected) => selected.function.ids,
            Self::VfioUser(selected) => selected.server.ids(),
        }
    }

    /// The NUMA node it is attached to, if known.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        match self {
            Self::Pci(selected) => selected.function.numa_node,
            Self::VfioUser(_) => None,
        }
    }

    /// Its arguments from `-a`.
    #[must_use]
    pub fn arguments(&self) -> &[DeviceArgument] {
        match self {
            Self::Pci(selected) => &selected.arguments,
            Self::VfioUser(selected) => &selected.arguments,
        }
    }
}

/// For people: with the model of a PCI function.
impl fmt::Display for SelectedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(selected) => selected.function.fmt(f),
            Self::VfioUser(selected) => f.write_str(&selected.server.name()),
        }
    }
}

impl Selection {
    /// The sockets that `-a` names, in the order of the options.
    pub fn sockets(&self) -> impl Iterator<Item = (&Path, &AllowEntry)> {
        self.allow.iter().filter_map(|entry| match &entry.place {
            Place::VfioUser(path) => Some((path.as_path(), entry)),
            Place::Pci(_) => None,
        })
    }

    /// Connects to each socket that `-a` names.
    ///
    /// # Errors
    /// If one is given twice, or there is no device behind it.
    pub fn connect(&self) -> Result<Vec<SelectedSocket>, BusError> {
        let mut found: Vec<SelectedSocket> = Vec::new();
        for (path, entry) in self.sockets() {
            if found.iter().any(|other| other.server.path() == path) {
                return Err(BusError::SocketTwice { path: path.to_owned() });
            }
            let server = Arc::new(Server::connect(path)?);
            found.push(SelectedSocket { server, arguments: entry.arguments.clone() });
        }
        Ok(found)
    }

    /// The functions of `machine` (see [`scan`](super::scan)) that the run is to use, in the
    /// order of their addresses, whatever the order of the options: that is the order of ports.
    ///
    /// A function that `-a` names is taken whatever its class and driver, so that opening it can
    /// say what is in the way. Without `-a` only network functions bound to VFIO are taken:
    /// others are somebody else's, which is no error.
    ///
    /// # Errors
    /// If `-a` or `-b` names a function that isn't there, or one is given twice.
    pub fn apply(&self, machine: &[PciFunction]) -> Result<Vec<SelectedFunction>, BusError> {
        self.check(machine)?;
        let chosen = machine.iter().filter_map(|function| {
            let arguments = if self.allow.is_empty() {
                let usable = function.is_network() && function.is_bound_to_vfio();
                if !usable || self.block.contains(&function.address) {
                    return None;
                }
                Vec::new()
            } else {
                let here = Place::Pci(function.address);
                self.allow.iter().find(|entry| entry.place == here)?.arguments.clone()
            };
            Some(SelectedFunction { function: function.clone(), arguments })
        });
        let mut chosen: Vec<_> = chosen.collect();
        chosen.sort_by_key(|selected| selected.function.address);
        Ok(chosen)
    }

    fn check(&self, machine: &[PciFunction]) -> Result<(), BusError> {
        let mut seen: Vec<(&'static str, PciAddress)> = Vec::new();
        let allowed = self.allow.iter().filter_map(|entry| match entry.place {
            Place::Pci(address) => Some(("-a", address)),
            Place::VfioUser(_) => None,
        });
        let blocked = self.block.iter().map(|&address| ("-b", address));
        for (option, address) in allowed.chain(blocked) {
            if let Some(&(first, _)) = seen.iter().find(|(_, other)| *other == address) {
                // Blocking twice what is blocked says nothing new.
                if (first, option) != ("-b", "-b") {
                    return Err(BusError::GivenTwice { address, first, second: option });
                }
            }
            if !machine.iter().any(|function| function.address == address) {
                let found = network_functions(machine);
                return Err(BusError::NoSuchDevice { option, address, found });
            }
            seen.push((option, address));
        }
        Ok(())
    }
}

/// For an error: what could have been meant.
fn network_functions(machine: &[PciFunction]) -> String {
    let names: Vec<_> = machine
        .iter()
        .filter(|function| function.is_network())
        .map(|function| {
            let driver = function.driver.as_deref().unwrap_or("no driver");
            format!("{function} on {driver}")
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join("; ") }
}

impl FromStr for AllowEntry {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        let mut parts = text.split(',');
        let place = parts.next().unwrap_or_default();
        let place = match place.strip_prefix("vfio-user:") {
            Some("") => return Err(BusError::BadSocket { text: text.to_owned() }),
            Some(path) => Place::VfioUser(PathBuf::from(path)),
            None => Place::Pci(place.parse()?),
        };
        let arguments = parts
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                if key.is_empty() {
                    let (entry, argument) = (text.to_owned(), part.to_owned());
                    return Err(BusError::BadDeviceArgument { entry, argument });
                }
                Ok(DeviceArgument { key: key.to_owned(), value: value.to_owned() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { place, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::pci::{scan, tests::Tree};

    fn machine() -> Vec<PciFunction> {
        let tree = Tree::new();
        tree.add("0000:01:00.0", (0x8086, 0x10fb), 0x02_0000, Some("vfio-pci"), Some(1));
        tree.add("0000:02:00.0", (0x8086, 0x10fb), 0x02_0000, Some("ixgbe"), Some(2));
        tree.add("0000:03:00.0", (0x1af4, 0x1041), 0x02_0000, Some("vfio-pci"), Some(3));
        tree.add("0000:04:00.0", (0x1af4, 0x1042), 0x01_0000, Some("vfio-pci"), Some(4));
        scan(&tree.root())
    }

    fn selection(allow: &[&str], block: &[&str]) -> Selection {
        Selection {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            block: block.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn chosen(allow: &[&str], block: &[&str]) -> Vec<String> {
        let chosen = selection(allow, block).apply(&machine()).unwrap();
        chosen.iter().map(|selected| selected.function.address.to_string()).collect()
    }

    #[test]
    fn without_options_network_functions_on_vfio_are_taken() {
        assert_eq!(chosen(&[], &[]), ["0000:01:00.0", "0000:03:00.0"]);
        assert_eq!(chosen(&[], &["01:00.0", "02:00.0", "01:00.0"]), ["0000:03:00.0"]);
    }

    #[test]
    fn allowed_functions_are_taken_whatever_they_are_in_order_of_address() {
        assert_eq!(chosen(&["04:00.0", "02:00.0"], &["01:00.0"]), ["0000:02:00.0", "0000:04:00.0"]);
    }

    #[test]
    fn arguments_reach_their_function() {
        let chosen =
            selection(&["03:00.0,queues=2,legacy,mac=", "01:00.0"], &[]).apply(&machine()).unwrap();
        assert_eq!(chosen[0].arguments, []);
        let pairs: Vec<_> = chosen[1]
            .arguments
            .iter()
            .map(|argument| (argument.key.as_str(), argument.value.as_str()))
            .collect();
        assert_eq!(pairs, [("queues", "2"), ("legacy", ""), ("mac", "")]);
    }

    #[test]
    fn a_function_that_is_not_there_is_an_error_that_names_those_that_are() {
        for (allow, block, option) in
            [(&["09:00.0"][..], &[][..], "-a"), (&[][..], &["09:00.0"][..], "-b")]
        {
            let error = selection(allow, block).apply(&machine()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{option} 0000:09:00.0: ")), "{error}");
            assert!(error.contains("0000:02:00.0 (Intel Corporation 82599"), "{error}");
            assert!(error.contains("on ixgbe"), "{error}");
            assert!(!error.contains("0000:04:00.0"), "{error}");
        }
        let error = selection(&["09:00.0"], &[]).apply(&[]).unwrap_err().to_string();
        assert!(error.contains("network functions are: none"), "{error}");
    }

    #[test]
    fn given_twice_is_an_error() {
        for (allow, block) in
            [(&["03:00.0", "0000:03:00.0,a=b"][..], &[][..]), (&["03:00.0"][..], &["03:00.0"][..])]
        {
            let error = selection(allow, block).apply(&machine()).unwrap_err();
            assert!(matches!(error, BusError::GivenTwice { .. }), "{error}");
        }
    }

    #[test]
    fn a_socket_is_a_place_and_no_function() {
        let entry: AllowEntry = "vfio-user:/run/nic:0.sock,queues=2".parse().unwrap();
        assert_eq!(entry.place, Place::VfioUser(PathBuf::from("/run/nic:0.sock")));
        assert_eq!(entry.arguments[0].value, "2");
        assert_eq!(chosen(&["vfio-user:/nowhere"], &[]), [""; 0], "and none is taken unasked");
        assert_eq!(chosen(&["vfio-user:/nowhere", "03:00.0"], &[]), ["0000:03:00.0"]);
        let error = "vfio-user:,a=b".parse::<AllowEntry>().unwrap_err().to_string();
        assert!(error.contains("vfio-user:/run/nic0.sock"), "{error}");
    }

    #[test]
    fn arguments_without_a_key_are_refused() {
        for text in ["03:00.0,", "03:00.0,=2", "03:00.0,a=1,,b=2"] {
            let error = text.parse::<AllowEntry>().unwrap_err();
            assert!(matches!(error, BusError::BadDeviceArgument { .. }), "{error}");
        }
        assert!("eth0,a=b".parse::<AllowEntry>().is_err());
    }
}
