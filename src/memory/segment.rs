//! A segment: pages of one size on one node, side by side.

use super::iova::{IovaMode, IovaRun};
use super::reserve::SegmentFile;
use super::size::Size;
use crate::sys::mapping::Mapping;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// Memory of one node and one page size, contiguous in virtual addresses, populated, and mapped
/// from the start of one file. It lives as long as its [`Memory`](super::Memory).
#[derive(Debug)]
pub struct Segment {
    // Dropped in this order: unmapped, then the file given up.
    mapping: Mapping,
    file: SegmentFile,
    page_len_bytes: u64,
    node: Option<u32>,
    runs: Vec<IovaRun>,
}

impl Segment {
    pub(super) fn new(
        mapping: Mapping,
        file: SegmentFile,
        page_len_bytes: u64,
        node: Option<u32>,
        runs: Vec<IovaRun>,
    ) -> Self {
        Self { mapping, file, page_len_bytes, node, runs }
    }

    /// First byte. Which bytes are in use is the zones' affair.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.as_ptr()
    }

    /// Virtual address of the first byte.
    pub fn va(&self) -> u64 {
        self.mapping.as_ptr().addr().get() as u64
    }

    /// Length in bytes, a multiple of the page size.
    pub fn len_bytes(&self) -> usize {
        self.mapping.len_bytes()
    }

    /// Size of its pages in bytes.
    pub fn page_len_bytes(&self) -> u64 {
        self.page_len_bytes
    }

    /// The NUMA node of its pages; `None` if the kernel has no NUMA or the pages may be anywhere.
    pub fn node(&self) -> Option<u32> {
        self.node
    }

    /// The file that the segment maps, from offset 0 on, over the segment's whole length. Another
    /// process or a test device maps it a second time to share the memory.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How the device sees the segment: one run in IOVA mode `va`, in `pa` as few as the physical
    /// pages allow. Ascending by virtual address, without gaps.
    pub fn iova_runs(&self) -> &[IovaRun] {
        &self.runs
    }

    /// The runs as ranges of offsets.
    pub(super) fn windows(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let mut windows = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let end = start + usize::try_from(run.len_bytes).unwrap_or(usize::MAX - start);
            windows.push(start..end);
            start = end;
        }
        windows
    }
}

/// `node 0, 2 MiB pages, 0x100000000-0x104000000, 64 MiB`.
impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (va, len) = (self.va(), self.len_bytes() as u64);
        match self.node {
            Some(node) => write!(out, "node {node}, ")?,
            None => out.write_str("any node, ")?,
        }
        let page = Size(self.page_len_bytes);
        write!(out, "{page} pages, {va:#x}-{:#x}, {}", va + len, Size(len))
    }
}

/// `va`: `iova = va`; `pa`: the number of contiguous runs.
pub(super) fn describe_runs(mode: IovaMode, segment: &Segment) -> String {
    match (mode, segment.iova_runs().len()) {
        (IovaMode::Va, _) => "iova = va".to_owned(),
        (IovaMode::Pa, 1) => "iova = pa, 1 run".to_owned(),
        (IovaMode::Pa, runs) => format!("iova = pa, {runs} runs"),
    }
}
