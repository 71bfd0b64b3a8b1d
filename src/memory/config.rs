//! What can be asked of the memory: the options `-m`, `--socket-mem`, `--huge-dir`, `--no-huge`,
//! `--base-virtaddr`, `--iova-mode` and `--file-prefix`.

use crate::sys::sysroot::SysRoot;
use std::path::PathBuf;

/// How much memory to take, from where, and where to put it.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// Where the pages come from.
    pub backing: Backing,
    /// `-m`: MiB in all, spread over the nodes of `cpus`. Not together with `socket_mib`.
    pub total_mib: Option<u64>,
    /// `--socket-mem`: MiB on node 0, 1, …; empty if not given.
    pub socket_mib: Vec<u64>,
    /// What the application needs, in bytes. Without `total_mib` and `socket_mib` this is what is
    /// reserved (or [`DEFAULT_BYTES`](Self::DEFAULT_BYTES) if it is 0); with one of them it must fit.
    pub needed_bytes: u64,
    /// `--base-virtaddr`: the lowest address that a segment may have. Low, because in IOVA mode
    /// `va` the device uses the same address and an IOMMU may have 39 bits only.
    pub base_virtaddr: u64,
    /// `--iova-mode`.
    pub iova_mode: IovaModeRequest,
    /// `--file-prefix`: start of the names of files in `--huge-dir`; programs with different
    /// prefixes don't touch each other's files.
    pub file_prefix: String,
    /// Only hugepages of this size in bytes; otherwise the greatest that fit, then smaller ones.
    pub page_len_bytes: Option<u64>,
    /// The CPUs that the lcores run on; their nodes are served first. Empty: all that the process
    /// may run on.
    pub cpus: Vec<u32>,
    /// Where `/sys` and `/proc` are read.
    pub root: SysRoot,
}

/// Where pages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Hugepages in files without a name (`memfd_create` with `MFD_HUGETLB`).
    Memfd,
    /// Files on this hugetlbfs mount (`--huge-dir`).
    HugeDir(PathBuf),
    /// Normal pages (`--no-huge`): for tests, and for software devices.
    NoHuge,
}

/// The option `--iova-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IovaModeRequest {
    /// `va` if there are IOMMU groups or physical addresses can't be read, else `pa`.
    #[default]
    Auto,
    /// The device uses this process' virtual addresses, through an IOMMU.
    Va,
    /// The device uses physical addresses.
    Pa,
}

impl MemoryConfig {
    /// What is reserved if nobody says how much: 64 MiB.
    pub const DEFAULT_BYTES: u64 = 64 << 20;

    /// `--no-huge -m mib`: works on any machine, without privilege.
    pub fn no_huge(mib: u64) -> Self {
        Self { backing: Backing::NoHuge, total_mib: Some(mib), ..Self::default() }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            backing: Backing::Memfd,
            total_mib: None,
            socket_mib: Vec::new(),
            needed_bytes: 0,
            base_virtaddr: 4 << 30,
            iova_mode: IovaModeRequest::Auto,
            file_prefix: "packetboat".to_owned(),
            page_len_bytes: None,
            cpus: Vec::new(),
            root: SysRoot::default(),
        }
    }
}
