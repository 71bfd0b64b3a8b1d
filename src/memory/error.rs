//! What can go wrong with memory. Each message says what was wanted, what was found, which option
//! or file is meant, and what mends it.

use super::size::{Size, mib_for};
use crate::sys::idlist;
use std::io;

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

impl MemoryError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
