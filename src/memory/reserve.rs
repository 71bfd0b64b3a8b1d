//! Takes pages from the kernel, places them and learns their device addresses.

use super::config::{Backing, MemoryConfig};
use super::error::MemoryError;
use super::hugedir::{HugeDir, HugeFile};
use super::hugepages::Inventory;
use super::iova::{self, IovaMode};
use super::place;
use super::plan::Take;
use super::preflight;
use super::segment::Segment;
use super::size::Size;
use crate::sys::mapping::Mapping;
use crate::sys::{memfd, numa};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Everything that `config` asks for. On an error, what was taken is given back by its drop.
pub(super) fn segments(config: &MemoryConfig) -> Result<(Vec<Segment>, IovaMode), MemoryError> {
    let mode =
        iova::choose_mode(config.iova_mode, config.backing != Backing::NoHuge, &config.root)?;
    let (source, page_len_bytes) = match &config.backing {
        Backing::NoHuge => (Source::NormalMemfd, None),
        Backing::Memfd => (Source::HugeMemfd, config.page_len_bytes),
        Backing::HugeDir(dir) => {
            // Before the inventory: files of dead processes are removed here, pages get free.
            let wanted = config.page_len_bytes;
            let dir = HugeDir::open(dir, &config.file_prefix, wanted, &config.root)?;
            let page_len_bytes = dir.page_len_bytes;
            (Source::Dir(dir), Some(page_len_bytes))
        }
    };
    let inventory = Inventory::read(&config.root)?;
    let takes = preflight::plan(config, page_len_bytes, &inventory)?;
    let mut segments = Vec::with_capacity(takes.len());
    for take in &takes {
        segments.push(segment(take, &source, MIN_ALIGN_BYTES, mode, config)?);
    }
    Ok((segments, mode))
}

/// Where files come from.
enum Source {
    NormalMemfd,
    HugeMemfd,
    Dir(HugeDir),
}

/// The file behind a segment.
#[derive(Debug)]
pub(super) enum SegmentFile {
    /// Without a name.
    Memfd(OwnedFd),
    /// On a hugetlbfs mount.
    Named(HugeFile),
}

impl AsFd for SegmentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memfd(fd) => fd.as_fd(),
            Self::Named(file) => file.file().as_fd(),
        }
    }
}

impl Source {
    fn file(&self, take: &Take, config: &MemoryConfig) -> Result<SegmentFile, MemoryError> {
        let huge_page = match self {
            Self::Dir(dir) => return dir.create().map(SegmentFile::Named),
            Self::NormalMemfd => None,
            Self::HugeMemfd => Some(take.page_len_bytes),
        };
        let file = memfd::create(&config.file_prefix, huge_page);
        file.map(SegmentFile::Memfd).map_err(|source| allocate_error(take, source))
    }
}

/// Where nothing else asks for more: a multiple of what x86-64 and aarch64 map with one entry of
/// the second level, so that an IOMMU can use large entries for contiguous pages.
const MIN_ALIGN_BYTES: u64 = 2 << 20;

/// One segment more, while the program runs, at a multiple of `align_bytes`, a power of two. In a file
/// without a name.
pub(super) fn later(
    take: &Take,
    align_bytes: u64,
    mode: IovaMode,
    config: &MemoryConfig,
) -> Result<Segment, MemoryError> {
    let normal = config.backing == Backing::NoHuge;
    preflight::check_later(take, normal, &config.root)?;
    let source = if normal { Source::NormalMemfd } else { Source::HugeMemfd };
    segment(take, &source, align_bytes.max(MIN_ALIGN_BYTES), mode, config)
}

/// One segment: its file filled with pages of the right node, mapped, verified.
fn segment(
    take: &Take,
    source: &Source,
    align_bytes: u64,
    mode: IovaMode,
    config: &MemoryConfig,
) -> Result<Segment, MemoryError> {
    let file = source.file(take, config)?;
    let policy = take.node.map(numa::AllocationPolicy::bind).transpose();
    let bound = match policy {
        Ok(policy) => {
            // The pages are taken here, so that a lack of them is an error and never a SIGBUS.
            let allocated = memfd::allocate(file.as_fd(), take.len_bytes());
            drop(policy);
            allocated.map_err(|source| allocate_error(take, source))?;
            true
        }
        Err(error) if is_forbidden(&error) => {
            tracing::debug!("binding memory to node {:?} is not possible: {error}", take.node);
            memfd::allocate(file.as_fd(), take.len_bytes())
                .map_err(|source| allocate_error(take, source))?;
            false
        }
        Err(source) => return Err(allocate_error(take, source)),
    };
    if let SegmentFile::Memfd(fd) = &file {
        memfd::seal_size(fd.as_fd()).map_err(|source| allocate_error(take, source))?;
    }

    let align = take.page_len_bytes.max(align_bytes);
    let mapping = place::map_low(file.as_fd(), take.len_bytes(), align, config.base_virtaddr)?;
    if let Some(node) = take.node
        && bound
    {
        numa::bind_mapping(&mapping, node).map_err(|source| allocate_error(take, source))?;
    }
    mapping.populate().map_err(|source| allocate_error(take, source))?;
    let node = verified_node(take, &mapping, bound)?;
    let va = mapping.as_ptr().addr().get() as u64;
    let runs = iova::runs(mode, va, take.len_bytes(), take.page_len_bytes, &config.root)?;
    Ok(Segment::new(mapping, file, take.page_len_bytes, node, runs))
}

/// The node that all pages are on. Where the kernel or a container's seccomp profile forbids
/// binding or asking, pages may be anywhere: that costs speed and is no error.
fn verified_node(take: &Take, mapping: &Mapping, bound: bool) -> Result<Option<u32>, MemoryError> {
    let Some(wanted) = take.node else { return Ok(None) };
    let step = usize::try_from(take.page_len_bytes).unwrap_or(usize::MAX);
    for offset in (0..mapping.len_bytes()).step_by(step) {
        let start = mapping.as_ptr().addr();
        let Some(address) = start.checked_add(offset) else { break };
        match numa::node_of_page(NonNull::without_provenance(address)) {
            Ok(found) if found == wanted => {}
            Ok(found) if bound => {
                return Err(MemoryError::WrongNode { wanted, found, va: address.get() as u64 });
            }
            Ok(found) => {
                tracing::warn!(
                    "memory on NUMA node {wanted} is wanted, some came from node {found}: this \
                     process may not bind memory (set_mempolicy is forbidden; in a container give \
                     CAP_SYS_NICE)"
                );
                return Ok(None);
            }
            Err(error) if is_forbidden(&error) => return Ok(bound.then_some(wanted)),
            Err(source) => {
                return Err(MemoryError::System {
                    what: format!("asking for the NUMA node of the page at {address:#x}"),
                    source,
                });
            }
        }
    }
    Ok(Some(wanted))
}

/// No NUMA in the kernel, or forbidden by a seccomp profile.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn allocate_error(take: &Take, source: io::Error) -> MemoryError {
    MemoryError::Allocate {
        wanted: Size(take.len_bytes()),
        page: Size(take.page_len_bytes),
        node: take.node,
        source,
    }
}
