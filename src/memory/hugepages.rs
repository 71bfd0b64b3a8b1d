//! What hugepages the machine has: sizes, how many are free on which node, and where hugetlbfs is
//! mounted. Sources: Linux, Documentation/admin-guide/mm/hugetlbpage.rst, and proc_mounts(5).

use super::error::MemoryError;
use crate::sys::numa;
use crate::sys::sysroot::SysRoot;
use std::io;
use std::path::PathBuf;

/// All hugepages and hugetlbfs mounts, as they were when [`read`](Self::read) looked. Pages that
/// the kernel would try to make on demand (`nr_overcommit_hugepages`) aren't counted: whether it can
/// shows only when they are touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// By node, then by page size, greatest first. Sizes without a single page are listed too.
    pub pools: Vec<Pool>,
    /// Mounts of hugetlbfs.
    pub mounts: Vec<Mount>,
    /// NUMA nodes that are online; empty on a kernel without NUMA.
    pub nodes: Vec<u32>,
    /// The size that the kernel takes if none is named, in bytes; `None` without hugetlbfs.
    pub default_page_len_bytes: Option<u64>,
}

/// The hugepages of one size on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `None` on a kernel that doesn't list hugepages by node.
    pub node: Option<u32>,
    /// Page size in bytes.
    pub page_len_bytes: u64,
    /// Pages that are reserved for use as hugepages, in use or not, with the surplus.
    pub total: u64,
    /// Pages that can be had: free, and not promised to a mapping of another program that hasn't
    /// touched them yet. Promises are counted by the kernel for all nodes together; they are
    /// taken off where most is free.
    pub free: u64,
    /// Pages beyond the fixed count (`nr_overcommit_hugepages`), which go when their user goes.
    pub surplus: u64,
}

/// A mounted hugetlbfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub dir: PathBuf,
    /// Its page size in bytes; `None` for the default size.
    pub page_len_bytes: Option<u64>,
    /// Mounted read-only.
    pub read_only: bool,
}

const GLOBAL: &str = "/sys/kernel/mm/hugepages";
const NODES: &str = "/sys/devices/system/node";

impl Inventory {
    /// Looks at the machine. A kernel without hugetlbfs has an empty inventory.
    ///
    /// # Errors
    /// A file that should be there can't be read or isn't a number.
    pub fn read(root: &SysRoot) -> Result<Self, MemoryError> {
        let failed = MemoryError::system("reading the number of hugepages");
        Self::read_io(root).map_err(failed)
    }

    fn read_io(root: &SysRoot) -> io::Result<Self> {
        let mut pools = Vec::new();
        for (node, dir) in node_dirs(root) {
            pools.extend(read_pools(root, &dir, Some(node))?);
        }
        if pools.is_empty() {
            pools = read_pools(root, GLOBAL, None)?;
        }
        pools.sort_by_key(|pool| (pool.node, u64::MAX - pool.page_len_bytes));
        for (page_len_bytes, name) in sizes(root, GLOBAL)? {
            let promised = root.read_u64(format!("{GLOBAL}/{name}/resv_hugepages")).unwrap_or(0);
            take_off(&mut pools, page_len_bytes, promised);
        }
        let mounts = root.read("/proc/mounts").unwrap_or_default();
        Ok(Self {
            pools,
            mounts: mounts.lines().filter_map(parse_mount).collect(),
            nodes: numa::online_nodes(root),
            default_page_len_bytes: default_page_len_bytes(root),
        })
    }

    /// The file that says how many pages of a pool are reserved: write a number there to change it.
    pub fn count_file(node: Option<u32>, page_len_bytes: u64) -> String {
        let kib = page_len_bytes >> 10;
        match node {
            Some(node) => format!("{NODES}/node{node}/hugepages/hugepages-{kib}kB/nr_hugepages"),
            None => format!("{GLOBAL}/hugepages-{kib}kB/nr_hugepages"),
        }
    }

    /// All page sizes that the kernel knows, in bytes, greatest first.
    pub fn page_sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<_> = self.pools.iter().map(|pool| pool.page_len_bytes).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        sizes
    }
}

/// Nodes that list hugepages, with the directories that do.
fn node_dirs(root: &SysRoot) -> Vec<(u32, String)> {
    let names = root.entries(NODES).unwrap_or_default();
    let node = |name: &String| name.strip_prefix("node")?.parse::<u32>().ok();
    let dirs = names.iter().filter_map(node).map(|id| (id, format!("{NODES}/node{id}/hugepages")));
    dirs.filter(|(_, dir)| root.exists(dir)).collect()
}

/// Page sizes with the names of their directories; none if `dir` isn't there.
fn sizes(root: &SysRoot, dir: &str) -> io::Result<Vec<(u64, String)>> {
    let names = match root.entries(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    let size = |name: String| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some((kib.checked_mul(1024).filter(|len| len.is_power_of_two())?, name))
    };
    Ok(names.into_iter().filter_map(size).collect())
}

fn read_pools(root: &SysRoot, dir: &str, node: Option<u32>) -> io::Result<Vec<Pool>> {
    let mut pools = Vec::new();
    for (page_len_bytes, name) in sizes(root, dir)? {
        let number = |file: &str| root.read_u64(format!("{dir}/{name}/{file}"));
        pools.push(Pool {
            node,
            page_len_bytes,
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?,
            surplus: number("surplus_hugepages")?,
        });
    }
    Ok(pools)
}

/// Takes `promised` pages off the free ones of this size, the fullest pool first.
fn take_off(pools: &mut [Pool], page_len_bytes: u64, mut promised: u64) {
    let mut same: Vec<_> =
        pools.iter_mut().filter(|pool| pool.page_len_bytes == page_len_bytes).collect();
    same.sort_by_key(|pool| u64::MAX - pool.free);
    for pool in same {
        let taken = pool.free.min(promised);
        pool.free -= taken;
        promised -= taken;
    }
}

/// `Hugepagesize:    2048 kB` of `/proc/meminfo`.
fn default_page_len_bytes(root: &SysRoot) -> Option<u64> {
    let text = root.read("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10).filter(|len| len.is_power_of_two())
}

/// A line of `/proc/mounts`, if it is a hugetlbfs.
fn parse_mount(line: &str) -> Option<Mount> {
    let mut fields = line.split_ascii_whitespace();
    let (dir, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
    if kind != "hugetlbfs" {
        return None;
    }
    Some(Mount {
        dir: PathBuf::from(unescape(dir)),
        page_len_bytes: options
            .split(',')
            .find_map(|option| option.strip_prefix("pagesize="))
            .and_then(parse_size),
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

/// `2M`, `1024M`, `1G`, `2097152`.
fn parse_size(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Undoes the `\040` in which `/proc/mounts` writes white space and backslashes.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                text.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    /// A machine made of files: `(node, page KiB, total, free)` for each pool; nodes of `None`
    /// stand for a kernel without NUMA.
    pub(in crate::memory) fn tree(
        pools: &[(Option<u32>, u64, u64, u64)],
    ) -> (tempfile::TempDir, SysRoot) {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        let write = |path: String, text: String| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text + "\n").unwrap();
        };
        fs::create_dir_all(root.path(NODES)).unwrap();
        fs::create_dir_all(root.path("/sys/kernel/iommu_groups/0")).unwrap();
        let mut nodes = Vec::new();
        for &(node, kib, total, free) in pools {
            let dir = match node {
                Some(node) => format!("{NODES}/node{node}/hugepages/hugepages-{kib}kB"),
                None => format!("{GLOBAL}/hugepages-{kib}kB"),
            };
            write(format!("{dir}/nr_hugepages"), total.to_string());
            write(format!("{dir}/free_hugepages"), free.to_string());
            write(format!("{dir}/surplus_hugepages"), "0".to_owned());
            write(format!("{GLOBAL}/hugepages-{kib}kB/resv_hugepages"), "0".to_owned());
            nodes.extend(node);
        }
        nodes.dedup();
        for node in &nodes {
            // Two CPUs a node: 0 and 1 on node 0, 2 and 3 on node 1.
            for cpu in [node * 2, node * 2 + 1] {
                let dir = format!("/sys/devices/system/cpu/cpu{cpu}/node{node}");
                fs::create_dir_all(root.path(dir)).unwrap();
            }
        }
        write(format!("{NODES}/online"), crate::sys::idlist::format(&nodes));
        write("/proc/self/status".to_owned(), "Cpus_allowed_list:\t0-3".to_owned());
        write("/proc/meminfo".to_owned(), "Hugepagesize:    2048 kB".to_owned());
        (tree, root)
    }

    const M2: u64 = 2 << 20;
    const G1: u64 = 1 << 30;

    #[test]
    fn two_nodes_with_two_sizes() {
        let (_tree, root) = tree(&[
            (Some(0), 2048, 512, 100),
            (Some(0), 1_048_576, 4, 4),
            (Some(1), 2048, 256, 256),
            (Some(1), 1_048_576, 0, 0),
        ]);
        let found = Inventory::read(&root).unwrap();
        let pools: Vec<_> = found
            .pools
            .iter()
            .map(|pool| (pool.node.unwrap(), pool.page_len_bytes, pool.total, pool.free))
            .collect();
        let expected = [(0, G1, 4, 4), (0, M2, 512, 100), (1, G1, 0, 0), (1, M2, 256, 256)];
        assert_eq!(pools, expected);
        assert_eq!(found.nodes, [0, 1]);
        assert_eq!(found.page_sizes(), [G1, M2]);
        assert_eq!(found.default_page_len_bytes, Some(M2));
    }

    #[test]
    fn a_kernel_without_numa_is_read_from_the_global_counts() {
        let (_tree, root) = tree(&[(None, 2048, 64, 60)]);
        let found = Inventory::read(&root).unwrap();
        assert!(found.nodes.is_empty());
        assert_eq!(found.pools.len(), 1);
        assert_eq!((found.pools[0].node, found.pools[0].free), (None, 60));
        assert!(root.exists(Inventory::count_file(None, M2)));
    }

    #[test]
    fn a_kernel_without_hugepages_has_none() {
        let (_tree, root) = tree(&[]);
        assert_eq!(Inventory::read(&root).unwrap().pools, []);
        let empty = tempfile::tempdir().unwrap();
        let found = Inventory::read(&SysRoot::new(empty.path())).unwrap();
        assert_eq!(found, Inventory::default());
    }

    #[test]
    fn promised_pages_are_not_free() {
        let (_tree, root) = tree(&[(Some(0), 2048, 8, 8), (Some(1), 2048, 8, 5)]);
        let path = root.path("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages");
        fs::write(path, "10\n").unwrap();
        let free: Vec<_> =
            Inventory::read(&root).unwrap().pools.iter().map(|pool| pool.free).collect();
        assert_eq!(free, [0, 3]);
    }

    #[test]
    fn a_wrong_number_is_an_error_that_names_the_file() {
        let (_tree, root) = tree(&[(Some(0), 2048, 8, 8)]);
        fs::write(root.path(Inventory::count_file(Some(0), M2)), "eight\n").unwrap();
        let error = Inventory::read(&root).unwrap_err();
        let text = format!("{error}");
        assert!(text.contains("node0/hugepages/hugepages-2048kB/nr_hugepages"), "{text}");
        assert!(text.contains("eight"), "{text}");
    }

    #[test]
    fn mounts_are_found_with_their_page_size() {
        let (_tree, root) = tree(&[]);
        let mounts = "\
proc /proc proc rw 0 0
hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0
none /mnt/one\\040gig hugetlbfs ro,relatime,pagesize=1024M,size=4G 0 0
none /mnt/plain hugetlbfs rw 0 0
none /mnt/odd\\x hugetlbfs rw,pagesize=2097152 0 0
broken line
";
        fs::write(root.path("/proc/mounts"), mounts).unwrap();
        let found = Inventory::read(&root).unwrap().mounts;
        let mount = |dir: &str, page_len_bytes, read_only| Mount {
            dir: PathBuf::from(dir),
            page_len_bytes,
            read_only,
        };
        let expected = [
            mount("/dev/hugepages", Some(M2), false),
            mount("/mnt/one gig", Some(G1), true),
            mount("/mnt/plain", None, false),
            mount("/mnt/odd\\x", Some(M2), false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn this_machine_can_be_read() {
        let found = Inventory::read(&SysRoot::default()).unwrap();
        for pool in &found.pools {
            assert!(pool.free <= pool.total, "{pool:?}");
        }
    }
}
