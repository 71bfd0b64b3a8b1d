//! Opening VFIO's nodes, and explaining why one can't be opened.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::calls;
use crate::bus::pci::{self, is_vfio};
use crate::bus::{BusError, PciAddress};
use crate::sys::sysroot::SysRoot;

/// What stands between a device and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// An IOMMU of type 1, version 2: the device reaches what is mapped for it.
    Type1V2,
    /// Nothing: the device reaches everything, by physical address.
    None,
}

impl Isolation {
    /// For [`BusError::MixedIommu`].
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Type1V2 => "is behind an IOMMU",
            Self::None => "has no IOMMU in front of it",
        }
    }
}

/// Whether group `number` is one of a real IOMMU, or made up by VFIO's no-IOMMU mode.
pub(super) fn isolation(root: &SysRoot, number: u32) -> Isolation {
    let name = root.read(format!("/sys/kernel/iommu_groups/{number}/name"));
    let made_up = name.is_ok_and(|name| name == "vfio-noiommu")
        || root.exists(format!("/dev/vfio/noiommu-{number}"));
    if made_up { Isolation::None } else { Isolation::Type1V2 }
}

/// The group's node in `/dev/vfio`.
pub(super) fn node(root: &SysRoot, number: u32, isolation: Isolation) -> PathBuf {
    root.path(match isolation {
        Isolation::Type1V2 => format!("/dev/vfio/{number}"),
        Isolation::None => format!("/dev/vfio/noiommu-{number}"),
    })
}

/// Opens the node of `address`' group, which must be viable: no member in the kernel's hands.
pub(super) fn open(
    root: &SysRoot,
    number: u32,
    isolation: Isolation,
    address: PciAddress,
) -> Result<File, BusError> {
    let path = node(root, number, isolation);
    let remedy = format!("`scripts/devbind.sh -b vfio-pci -U USER -G GROUP {address}`");
    let file = match open_node(&path, remedy) {
        Err(BusError::Os { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            return Err(busy(root, number, path, address));
        }
        other => other?,
    };
    let viable = calls::group_is_viable(&file).map_err(|source| BusError::Os {
        device: address.to_string(),
        what: "VFIO_GROUP_GET_STATUS",
        path,
        source,
    })?;
    if viable { Ok(file) } else { Err(not_viable(root, number, address)) }
}

/// Opens a node of `/dev/vfio` for reading and writing; `remedy` is what to do if this user may
/// not.
pub(super) fn open_node(path: &Path, remedy: String) -> Result<File, BusError> {
    let source = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let path = path.to_owned();
    match source.raw_os_error() {
        // ENODEV, ENXIO: the node is there (systemd makes it early), the module behind it not.
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ENXIO) => {
            Err(BusError::VfioMissing { path })
        }
        Some(libc::EACCES | libc::EPERM) => Err(not_permitted(path, remedy, source)),
        _ => {
            let device = "VFIO".to_owned();
            Err(BusError::Os { device, what: "open for reading and writing", path, source })
        }
    }
}

fn not_permitted(path: PathBuf, remedy: String, source: io::Error) -> BusError {
    // The process' own files in /proc belong to its effective user.
    let uid = std::fs::metadata("/proc/self").map(|own| own.uid());
    match uid.and_then(|uid| Ok((uid, std::fs::metadata(&path)?))) {
        Ok((uid, node)) => BusError::NotPermitted {
            path,
            uid,
            owner: node.uid(),
            group: node.gid(),
            mode: node.mode() & 0o7777,
            remedy,
        },
        Err(_) => BusError::Os {
            device: "VFIO".to_owned(),
            what: "open for reading and writing",
            path,
            source,
        },
    }
}

/// The other members of group `number` that a driver of the kernel has, and how to free them.
pub(super) fn not_viable(root: &SysRoot, number: u32, address: PciAddress) -> BusError {
    let members = root.entries(format!("/sys/kernel/iommu_groups/{number}/devices"));
    let in_the_way: Vec<_> = members
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|&member: &PciAddress| member != address)
        .filter_map(|member| pci::function(root, member))
        .filter_map(|member| member.driver.clone().map(|driver| (member, driver)))
        .filter(|(_, driver)| !harmless(driver))
        .collect();
    let others: Vec<_> =
        in_the_way.iter().map(|(member, driver)| format!("{member} on {driver}")).collect();
    let addresses: Vec<_> =
        in_the_way.iter().map(|(member, _)| member.address.to_string()).collect();
    let (others, remedy) = if in_the_way.is_empty() {
        let remedy = format!("`ls -l /sys/kernel/iommu_groups/{number}/devices/*/driver`");
        ("sysfs doesn't say which".to_owned(), remedy)
    } else {
        let remedy = format!("`scripts/devbind.sh -b vfio-pci {}`", addresses.join(" "));
        (others.join("; "), remedy)
    };
    BusError::GroupNotViable { address, group: number, others, remedy }
}

/// Drivers that do no DMA for a member, so that VFIO lets them be in a viable group.
fn harmless(driver: &str) -> bool {
    is_vfio(driver) || matches!(driver, "pci-stub" | "pcieport" | "shpchp")
}

/// Group `number` is open elsewhere: says where, as far as this user may see.
pub(super) fn busy(root: &SysRoot, number: u32, path: PathBuf, address: PciAddress) -> BusError {
    let holders = holders(root, &path);
    let holders = if holders.is_empty() {
        "another process, which this user may not see".to_owned()
    } else {
        holders.join(", ")
    };
    BusError::GroupBusy { address, group: number, path, holders }
}

/// Processes that have `path` open: `process 4711 (l2fwd)`.
fn holders(root: &SysRoot, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for pid in root.entries("/proc").unwrap_or_default() {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let folder = format!("/proc/{pid}/fd");
        let descriptors = root.entries(&folder).unwrap_or_default();
        let holds = descriptors.iter().any(|number| {
            let link = root.path(format!("{folder}/{number}"));
            std::fs::read_link(link).is_ok_and(|target| target == path)
        });
        if holds {
            let name = root.read(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(format!("process {pid} ({name})"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::bus::pci::tests::Tree;

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    #[test]
    fn a_group_that_is_not_viable_names_who_is_in_the_way() {
        let tree = Tree::new();
        tree.add("0000:03:00.0", (0x8086, 0x10fb), 0x02_0000, Some("vfio-pci"), Some(7));
        tree.add("0000:03:00.1", (0x8086, 0x10fb), 0x02_0000, Some("ixgbe"), Some(7));
        tree.add("0000:03:00.2", (0x8086, 0x10fb), 0x02_0000, None, Some(7));
        tree.add("0000:00:1c.0", (0x8086, 0x10fb), 0x06_0400, Some("pcieport"), Some(7));
        tree.add("0000:04:00.0", (0x8086, 0x10fb), 0x02_0000, Some("ixgbe"), Some(8));
        let error = not_viable(&tree.root(), 7, address("03:00.0")).to_string();
        assert!(error.contains("0000:03:00.1 (Intel Corporation 82599"), "{error}");
        assert!(error.contains(" on ixgbe; "), "{error}");
        assert!(error.ends_with("`scripts/devbind.sh -b vfio-pci 0000:03:00.1`"), "{error}");
        for innocent in ["03:00.2", "00:1c.0", "04:00.0"] {
            assert!(!error.contains(innocent), "{error}");
        }
    }

    #[test]
    fn a_missing_node_names_the_module() {
        let tree = Tree::new();
        let path = node(&tree.root(), 12, Isolation::Type1V2);
        let error = open(&tree.root(), 12, Isolation::Type1V2, address("03:00.0")).unwrap_err();
        assert!(matches!(&error, BusError::VfioMissing { path: found } if *found == path));
        assert!(error.to_string().contains("`modprobe vfio-pci`"), "{error}");
    }

    #[test]
    fn a_node_that_may_not_be_opened_names_who_and_how() {
        // Root may open anything, so the text is tested on what open would have said.
        let tree = Tree::new();
        let path = node(&tree.root(), 12, Isolation::Type1V2);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let refusal = io::Error::from_raw_os_error(libc::EACCES);
        let error = not_permitted(path.clone(), "`this command`".into(), refusal).to_string();
        let own = fs::metadata("/proc/self").unwrap().uid();
        assert!(error.starts_with(&format!("user {own} may not open {}", path.display())));
        assert!(error.contains(&format!("owner {own}, ")), "{error}");
        assert!(error.contains("mode 0644") && error.ends_with("`this command`"), "{error}");
    }

    #[test]
    fn a_node_that_is_no_group_is_an_error_of_the_system_call() {
        let tree = Tree::new();
        let path = node(&tree.root(), 12, Isolation::Type1V2);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let error = open(&tree.root(), 12, Isolation::Type1V2, address("03:00.0")).unwrap_err();
        assert!(error.to_string().contains("VFIO_GROUP_GET_STATUS failed on "), "{error}");
    }

    #[test]
    fn a_busy_group_names_the_process_that_has_it() {
        let tree = Tree::new();
        let path = node(&tree.root(), 12, Isolation::Type1V2);
        let error = busy(&tree.root(), 12, path.clone(), address("03:00.0")).to_string();
        assert!(error.contains("which this user may not see"), "{error}");

        let process = tree.root().path("/proc/4711");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "testpmd\n").unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        symlink(&path, process.join("fd/9")).unwrap();
        fs::create_dir_all(tree.root().path("/proc/4712/fd")).unwrap();
        let error = busy(&tree.root(), 12, path.clone(), address("03:00.0")).to_string();
        assert!(error.contains("is open in process 4711 (testpmd); "), "{error}");
        assert!(error.contains(&format!("`fuser -v {}`", path.display())), "{error}");
    }

    #[test]
    fn groups_without_an_iommu_are_told_apart() {
        let tree = Tree::new();
        let root = tree.root();
        for (number, name) in [(1, "vfio-noiommu\n"), (2, "anything\n")] {
            let folder = root.path(format!("/sys/kernel/iommu_groups/{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), name).unwrap();
        }
        assert_eq!(isolation(&root, 1), Isolation::None);
        assert_eq!(isolation(&root, 2), Isolation::Type1V2);
        assert_eq!(isolation(&root, 3), Isolation::Type1V2);
        assert!(node(&root, 1, Isolation::None).ends_with("dev/vfio/noiommu-1"));
        assert!(node(&root, 2, Isolation::Type1V2).ends_with("dev/vfio/2"));
    }
}
