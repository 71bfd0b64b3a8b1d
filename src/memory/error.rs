//! What can go wrong with memory. Each message says what was wanted, what was found, which option
//! or file is meant, and what mends it.

use super::shortage::Shortage;
use super::size::{Size, mib_for};
use crate::sys::idlist;
use std::io;
use std::path::PathBuf;

/// An error of [`Memory::reserve`](super::Memory::reserve), [`Memory::zone`](super::Memory::zone)
/// or a preflight check.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// `-m` and `--socket-mem` at once.
    #[error("-m/--memory and --socket-mem are both given: leave one out")]
    TotalAndSocket,

    /// The options reserve less than the application needs.
    #[error(
        "{option} gives {given}, but {needed} are needed for the mbufs, rings and descriptors \
         asked for: use {option} {suggestion}, or ask for fewer (--mbufs, --rxd, --txd)"
    )]
    OptionTooSmall {
        /// `-m` or `--socket-mem`.
        option: &'static str,
        /// What it adds up to.
        given: Size,
        /// What the application needs.
        needed: Size,
        /// A value that would do.
        suggestion: String,
    },

    /// A file prefix that can't be the start of a file name.
    #[error(
        "--file-prefix {prefix:?}: wanted 1 to 64 bytes without '/' and NUL; \
         use letters and digits, such as --file-prefix packetboat"
    )]
    FilePrefix {
        /// As given.
        prefix: String,
    },

    /// `--no-huge` wants more than the machine has.
    #[error(
        "--no-huge: {wanted} of normal memory are wanted, {available} are available \
         (MemAvailable in /proc/meminfo): use a smaller -m, or fewer --mbufs"
    )]
    NormalMemory {
        /// Asked for.
        wanted: Size,
        /// What the kernel could give without swapping.
        available: Size,
    },

    /// Not one hugepage is reserved on this machine, or its kernel has none.
    #[error("{0}")]
    NoHugepages(Box<Shortage>),

    /// All free hugepages together are too few.
    #[error("{0}")]
    TooFewInTotal(Box<Shortage>),

    /// The free hugepages of the node that `--socket-mem` names are too few.
    #[error("--socket-mem: {0}")]
    TooFewOnNode(Box<Shortage>),

    /// A page size that the kernel doesn't have.
    #[error(
        "hugepages of {wanted} are wanted, this kernel has {}: choose one of these \
         (x86-64: pages of 1 GiB need the processor flag pdpe1gb)",
        list(.found)
    )]
    PageSize {
        /// As asked for.
        wanted: Size,
        /// Those that there are.
        found: Vec<Size>,
    },

    /// `--huge-dir` names something else than a hugetlbfs mount.
    #[error(
        "--huge-dir {}: wanted a directory on a hugetlbfs mount, found {found}. Mounted are: {}. \
         Mount one with `mkdir -p /dev/hugepages && mount -t hugetlbfs -o pagesize=2M none \
         /dev/hugepages`, or leave --huge-dir out: memory without files needs no mount",
        .dir.display(), mounted(.mounts)
    )]
    HugeDirKind {
        /// As given.
        dir: PathBuf,
        /// What it is instead.
        found: String,
        /// Where hugetlbfs is mounted.
        mounts: Vec<PathBuf>,
    },

    /// The pages of the `--huge-dir` mount have another size than the one asked for.
    #[error(
        "--huge-dir {}: hugepages of {wanted} are wanted, this mount has {found}: mount another \
         one with `mount -t hugetlbfs -o pagesize={} none DIR`",
        .dir.display(), .wanted.0
    )]
    HugeDirPageSize {
        /// As given.
        dir: PathBuf,
        /// As asked for.
        wanted: Size,
        /// The mount's.
        found: Size,
    },

    /// No file can be made in `--huge-dir`.
    #[error(
        "--huge-dir: creating {} failed: {source}. Wanted a mount that this user may write to: \
         look with `findmnt -T {}`; mend it with `mount -o remount,rw,uid=$(id -u) {}` as root, \
         or leave --huge-dir out",
        .file.display(), .dir.display(), .dir.display()
    )]
    HugeDirWrite {
        /// The file that couldn't be made.
        file: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// A page came from another node than the one it was bound to.
    #[error(
        "memory on NUMA node {wanted} is wanted, the page at {va:#x} came from node {found}: \
         check the cpuset of this process (Mems_allowed_list in /proc/self/status)"
    )]
    WrongNode {
        /// Where it should be.
        wanted: u32,
        /// Where it is.
        found: u32,
        /// Address of the page.
        va: u64,
    },

    /// `RLIMIT_MEMLOCK` is below what DMA needs.
    #[error(
        "{needed} must be locked in memory for DMA ({locked} of it are locked already), the limit \
         is {limit} (RLIMIT_MEMLOCK): raise it with `ulimit -l {needed_kib}` as root before \
         the start, with LimitMEMLOCK= in a systemd unit or memlock in /etc/security/limits.conf, \
         or give the program CAP_IPC_LOCK"
    )]
    Memlock {
        /// The limit, soft and hard.
        limit: Size,
        /// What is needed, with what is locked already.
        needed: Size,
        /// What this process has locked already.
        locked: Size,
        /// `needed` in the unit of `ulimit -l`.
        needed_kib: u64,
    },

    /// A NUMA node that isn't there.
    #[error(
        "{option}: memory on NUMA node {node} is wanted, this machine has {}: \
         see /sys/devices/system/node/online",
        nodes(.online)
    )]
    NoSuchNode {
        /// The option that asked for it.
        option: &'static str,
        /// The node.
        node: u32,
        /// Those that are online.
        online: Vec<u32>,
    },

    /// The base address leaves no room below the end of the address space.
    #[error(
        "--base-virtaddr {base:#x}: no {wanted} of free addresses between it and the end of the \
         address space at {end:#x}: use a lower one, such as the default --base-virtaddr 0x100000000"
    )]
    BaseBeyond {
        /// As given.
        base: u64,
        /// Length of the segment that had to be placed.
        wanted: Size,
        /// First address that user space may not use.
        end: u64,
    },

    /// Pages that were taken while the program runs can't be mapped for a device.
    #[error("{what} can't be mapped for devices: {source}")]
    MapDma {
        /// Length and addresses.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Pages that were taken while the program runs are in pieces for the device.
    #[error(
        "{len} are wanted in one piece for the device, the kernel gave {runs} pieces (IOVA mode pa): \
         ask for no more than a hugepage at a time, reserve it at start (-m), or use --iova-mode va"
    )]
    Scattered {
        /// What was wanted.
        len: Size,
        /// How many pieces there are.
        runs: usize,
    },

    /// The kernel didn't give pages that it had counted as free.
    #[error(
        "{wanted} in pages of {page}{} could not be had: {source}. Another program may have taken \
         them meanwhile, or a limit applies (cgroup: hugetlb.*.max or memory.max; mount: size=): \
         look with scripts/hugepages.sh --show, then start again",
        on_node(.node)
    )]
    Allocate {
        /// Bytes wanted.
        wanted: Size,
        /// Page size.
        page: Size,
        /// The node they had to come from.
        node: Option<u32>,
        /// What the kernel said.
        source: io::Error,
    },

    /// Another call to the kernel failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried, and with which file or option.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },

    /// `--iova-mode pa --no-huge`.
    #[error(
        "--iova-mode pa doesn't go with --no-huge: the kernel may move normal pages, so their \
         physical addresses don't last. Use --iova-mode va, or leave --no-huge out"
    )]
    PhysicalNoHuge,

    /// `/proc/self/pagemap` doesn't tell.
    #[error(
        "--iova-mode pa: physical addresses are wanted from /proc/self/pagemap, found: {found}. \
         The capability CAP_SYS_ADMIN is missing: run as root, or give it with \
         `setcap cap_sys_admin,cap_ipc_lock+ep PROGRAM`; with an IOMMU use --iova-mode va"
    )]
    PhysicalUnreadable {
        /// What the file gave.
        found: String,
    },

    /// A zone's name is empty or too long.
    #[error("zone name {name:?} has {} bytes: wanted 1 to 63", .name.len())]
    ZoneName {
        /// As given.
        name: String,
    },

    /// A zone of no bytes, or of more than an address space.
    #[error(
        "zone {name:?}: a length of {len_bytes} bytes was asked for; wanted 1 to {max_bytes}, the \
         length of the longest segment"
    )]
    ZoneLen {
        /// The zone.
        name: String,
        /// As asked for.
        len_bytes: usize,
        /// The longest that could ever fit.
        max_bytes: usize,
    },

    /// An alignment that isn't a power of two.
    #[error("zone {name:?}: alignment {align}: wanted a power of two, such as 64 or 4096")]
    ZoneAlign {
        /// The zone.
        name: String,
        /// As asked for.
        align: usize,
    },

    /// The name is in use.
    #[error(
        "zone {name:?} exists already ({len} at {va:#x}): drop it first, or choose another name"
    )]
    ZoneExists {
        /// The name.
        name: String,
        /// Length of the one that exists.
        len: Size,
        /// Address of the one that exists.
        va: u64,
    },

    /// No segment on the node asked for.
    #[error(
        "zone {name:?}: memory on NUMA node {node} was asked for, segments are on {}: \
         reserve some there with --socket-mem, or ask for any node",
        nodes(.found)
    )]
    ZoneNode {
        /// The zone.
        name: String,
        /// The node asked for.
        node: u32,
        /// Nodes that have segments.
        found: Vec<u32>,
    },

    /// No room left for a zone.
    #[error(
        "zone {name:?}: {asked}{}{} were asked for (alignment {align}); the largest free block has \
         {largest}, all free ones together {total}: start with more memory (-m {}), or ask for \
         less (--mbufs, --rxd, --txd)",
        on_node(.node),
        if *.iova_contiguous { ", contiguous for the device," } else { "" },
        mib_for(.reserved.0 + .asked.0)
    )]
    ZoneExhausted {
        /// The zone.
        name: String,
        /// Its length.
        asked: Size,
        /// Its alignment in bytes.
        align: usize,
        /// Its node.
        node: Option<u32>,
        /// Whether it had to be contiguous for the device.
        iova_contiguous: bool,
        /// Longest free block on that node.
        largest: Size,
        /// All that is free on that node.
        total: Size,
        /// All that was reserved, free or not.
        reserved: Size,
    },
}

/// ` on NUMA node 1`, or nothing.
fn on_node(node: &Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(" on NUMA node {node}"))
}

/// `node 0-1`, `no nodes`.
fn nodes(ids: &[u32]) -> String {
    match ids {
        [] => "no NUMA nodes".to_owned(),
        [only] => format!("node {only}"),
        _ => format!("nodes {}", idlist::format(ids)),
    }
}

/// `1 GiB, 2 MiB`.
fn list(sizes: &[Size]) -> String {
    sizes.iter().map(Size::to_string).collect::<Vec<_>>().join(", ")
}

/// `/dev/hugepages, /mnt/huge`, or `none`.
fn mounted(dirs: &[PathBuf]) -> String {
    let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl MemoryError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
