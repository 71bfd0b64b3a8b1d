//! The machine's PCI functions, read from sysfs.

use core::fmt;

use super::{BusError, PciAddress, PciIds};
use crate::sys::sysroot::SysRoot;

/// A PCI function as sysfs describes it: what it is, and in whose hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// What it says it is.
    pub ids: PciIds,
    /// The kernel driver that it is bound to.
    pub driver: Option<String>,
    /// The only driver that may bind it, if somebody has set one.
    pub driver_override: Option<String>,
    /// The IOMMU group it is in; none without an IOMMU.
    pub iommu_group: Option<u32>,
    /// The NUMA node it is attached to, if the machine says.
    pub numa_node: Option<u32>,
    /// The kernel's network interfaces on it.
    pub interfaces: Vec<String>,
}

/// Where sysfs lists PCI functions.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Base class of network controllers (PCI Code and ID Assignment, 1.3).
const CLASS_NETWORK: u32 = 0x02;

/// All PCI functions, in order of their addresses. Empty on a machine without PCI.
pub fn scan(root: &SysRoot) -> Vec<PciFunction> {
    let names = root.entries(DEVICES).unwrap_or_default();
    let mut functions: Vec<_> = names
        .iter()
        .filter_map(|name| name.parse().ok())
        // One that vanishes between listing and reading isn't there.
        .filter_map(|address| function(root, address))
        .collect();
    functions.sort_by_key(|function| function.address);
    functions
}

/// The function at `address`, if there is one.
pub fn function(root: &SysRoot, address: PciAddress) -> Option<PciFunction> {
    let folder = format!("{DEVICES}/{address}");
    let number = |name: &str| number(&root.read(format!("{folder}/{name}")).ok()?);
    let short = |name: &str| number(name).and_then(|value| u16::try_from(value).ok());
    let ids = PciIds {
        vendor: short("vendor")?,
        device: short("device")?,
        subsystem_vendor: short("subsystem_vendor").unwrap_or_default(),
        subsystem_device: short("subsystem_device").unwrap_or_default(),
        class: number("class").unwrap_or_default() & 0xff_ffff,
        revision: number("revision").unwrap_or_default() as u8,
    };
    Some(PciFunction {
        address,
        ids,
        driver: root.link_name(format!("{folder}/driver")),
        driver_override: root
            .read(format!("{folder}/driver_override"))
            .ok()
            .filter(|name| !name.is_empty() && name != "(null)"),
        iommu_group: root
            .link_name(format!("{folder}/iommu_group"))
            .and_then(|name| name.parse().ok()),
        // -1 says that the firmware doesn't know.
        numa_node: root.read(format!("{folder}/numa_node")).ok().and_then(|text| text.parse().ok()),
        interfaces: interfaces(root, &folder),
    })
}

/// `net/*` of the function itself, or of the virtio device that stands on it.
fn interfaces(root: &SysRoot, folder: &str) -> Vec<String> {
    let mut names = root.entries(format!("{folder}/net")).unwrap_or_default();
    for child in root.entries(folder).unwrap_or_default() {
        if child.starts_with("virtio") {
            names.extend(root.entries(format!("{folder}/{child}/net")).unwrap_or_default());
        }
    }
    names
}

/// sysfs writes ids as `0x8086`.
fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

impl PciFunction {
    /// Whether it is a network controller, by its class code.
    pub fn is_network(&self) -> bool {
        self.ids.class >> 16 == CLASS_NETWORK
    }

    /// Whether it is bound to vfio-pci, or to one of its variants for particular devices.
    pub fn is_bound_to_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(is_vfio)
    }

    /// Whether it is bound to vfio-pci, and if not, what to do about it.
    ///
    /// # Errors
    /// If it is in a kernel driver's hands, or in nobody's.
    pub fn check_bound_to_vfio(&self) -> Result<(), BusError> {
        let (address, device) = (self.address, self.to_string());
        match &self.driver {
            Some(_) if self.is_bound_to_vfio() => Ok(()),
            Some(driver) => Err(BusError::KernelDriver { address, device, driver: driver.clone() }),
            None => Err(BusError::NoDriver { address, device }),
        }
    }

    /// Vendor and device in words, as far as the PCI ID database knows them.
    pub fn model(&self) -> String {
        use pci_ids::FromId as _;
        let PciIds { vendor, device, .. } = self.ids;
        let maker = pci_ids::Vendor::from_id(vendor).map(pci_ids::Vendor::name);
        let product = pci_ids::Device::from_vid_pid(vendor, device).map(pci_ids::Device::name);
        match (maker, product) {
            (Some(maker), Some(product)) => format!("{maker} {product}"),
            (Some(maker), None) => format!("{maker} device {device:04x}"),
            (None, _) => format!("device {vendor:04x}:{device:04x}"),
        }
    }
}

/// For people: `0000:03:00.0 (Intel Corporation 82599ES …, eth2)`.
impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.address, self.model())?;
        for interface in &self.interfaces {
            write!(f, ", {interface}")?;
        }
        f.write_str(")")
    }
}

/// `vfio-pci`, or a variant such as `mlx5_vfio_pci`.
pub(super) fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A sysfs of functions in a temporary directory.
    pub(in crate::bus) struct Tree {
        directory: tempfile::TempDir,
    }

    impl Tree {
        pub(in crate::bus) fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        pub(in crate::bus) fn root(&self) -> SysRoot {
            SysRoot::new(self.directory.path())
        }

        /// Adds a function; `ids` are vendor and device, `class` 24 bits.
        pub(in crate::bus) fn add(
            &self,
            address: &str,
            ids: (u16, u16),
            class: u32,
            driver: Option<&str>,
            group: Option<u32>,
        ) {
            let folder = self.root().path(format!("{DEVICES}/{address}"));
            fs::create_dir_all(&folder).unwrap();
            let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
            write("vendor", format!("0x{:04x}\n", ids.0));
            write("device", format!("0x{:04x}\n", ids.1));
            write("subsystem_vendor", "0x1af4\n".into());
            write("subsystem_device", "0x1100\n".into());
            write("class", format!("0x{class:06x}\n"));
            write("revision", "0x01\n".into());
            write("numa_node", "-1\n".into());
            write("driver_override", "(null)\n".into());
            if let Some(driver) = driver {
                symlink(Path::new("../../drivers").join(driver), folder.join("driver")).unwrap();
            }
            if let Some(group) = group {
                let members = self.root().path(format!("/sys/kernel/iommu_groups/{group}/devices"));
                fs::create_dir_all(&members).unwrap();
                symlink(&folder, members.join(address)).unwrap();
                symlink(members.parent().unwrap(), folder.join("iommu_group")).unwrap();
            }
        }
    }

    #[test]
    fn functions_are_read_in_order_with_their_hands() {
        let tree = Tree::new();
        tree.add("0000:0a:00.0", (0x8086, 0x10fb), 0x02_0000, Some("ixgbe"), Some(12));
        tree.add("0000:03:00.0", (0x1af4, 0x1041), 0x02_0000, Some("vfio-pci"), None);
        tree.add("10000:00:01.0", (0xbad0, 0x0001), 0x01_0802, None, None);
        let nic = tree.root().path(format!("{DEVICES}/0000:0a:00.0"));
        fs::create_dir_all(nic.join("net/eth2")).unwrap();
        fs::write(nic.join("numa_node"), "1\n").unwrap();
        fs::write(nic.join("driver_override"), "vfio-pci\n").unwrap();
        let virtio = tree.root().path(format!("{DEVICES}/0000:03:00.0"));
        fs::create_dir_all(virtio.join("virtio0/net/eth0")).unwrap();
        fs::create_dir_all(tree.root().path(format!("{DEVICES}/rubbish"))).unwrap();

        let found = scan(&tree.root());
        let names: Vec<_> = found.iter().map(|function| function.address.to_string()).collect();
        assert_eq!(names, ["0000:03:00.0", "0000:0a:00.0", "10000:00:01.0"]);

        assert!(found[0].is_network() && found[0].is_bound_to_vfio());
        assert_eq!(found[0].interfaces, ["eth0"]);
        assert_eq!((found[0].numa_node, found[0].iommu_group), (None, None));
        assert_eq!(found[0].driver_override, None);

        assert_eq!(
            found[1].ids,
            PciIds {
                vendor: 0x8086,
                device: 0x10fb,
                subsystem_vendor: 0x1af4,
                subsystem_device: 0x1100,
                class: 0x02_0000,
                revision: 1
            }
        );
        assert_eq!(found[1].driver.as_deref(), Some("ixgbe"));
        assert_eq!(found[1].driver_override.as_deref(), Some("vfio-pci"));
        assert_eq!((found[1].numa_node, found[1].iommu_group), (Some(1), Some(12)));
        let text = found[1].to_string();
        assert!(text.starts_with("0000:0a:00.0 (Intel Corporation 82599ES"), "{text}");
        assert!(text.ends_with(", eth2)"), "{text}");

        assert!(!found[2].is_network() && !found[2].is_bound_to_vfio());
        assert_eq!(found[2].model(), "device bad0:0001");
    }

    #[test]
    fn a_machine_without_pci_has_no_functions() {
        assert_eq!(scan(&Tree::new().root()), []);
    }

    #[test]
    fn vfio_variants_count_as_vfio() {
        for (driver, vfio) in [
            ("vfio-pci", true),
            ("mlx5_vfio_pci", true),
            ("virtio_vfio_pci", true),
            ("ixgbe", false),
            ("uio_pci_generic", false),
        ] {
            assert_eq!(is_vfio(driver), vfio, "{driver}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        let listed = SysRoot::default()
            .entries(DEVICES)
            .unwrap_or_default()
            .iter()
            .filter(|name| name.parse::<PciAddress>().is_ok())
            .count();
        assert_eq!(scan(&SysRoot::default()).len(), listed);
    }
}
