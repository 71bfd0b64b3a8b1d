//! Addresses as the device sees them, and the choice between the two kinds.

use super::config::IovaModeRequest;
use super::error::MemoryError;
use crate::sys::sysroot::SysRoot;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};

/// An address that a device may be told: a virtual one in [`IovaMode::Va`], a physical one in
/// [`IovaMode::Pa`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Iova(
    /// The address as it goes into a descriptor.
    pub u64,
);

impl Iova {
    /// The address `len_bytes` further on.
    #[must_use]
    #[inline]
    pub const fn offset(self, len_bytes: u64) -> Self {
        Self(self.0.wrapping_add(len_bytes))
    }
}

impl fmt::Display for Iova {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}", self.0)
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Iova({:#x})", self.0)
    }
}

/// What kind of address the devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IovaMode {
    /// Virtual addresses of this process; the IOMMU translates.
    Va,
    /// Physical addresses; nothing translates, or one to one.
    Pa,
}

impl fmt::Display for IovaMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Va => "va",
            Self::Pa => "pa",
        })
    }
}

/// A stretch of memory that is contiguous in virtual and in device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaRun {
    /// First virtual address.
    pub va: u64,
    /// The device's address of the same byte.
    pub iova: Iova,
    /// Length in bytes.
    pub len_bytes: u64,
}

impl IovaRun {
    /// The part of the run within `va .. va + len_bytes`, if there is one.
    pub fn part(&self, va: u64, len_bytes: u64) -> Option<Self> {
        let start = self.va.max(va);
        let len_bytes = (self.va + self.len_bytes).min(va + len_bytes).checked_sub(start)?;
        let iova = self.iova.offset(start - self.va);
        (len_bytes > 0).then_some(Self { va: start, iova, len_bytes })
    }
}

/// Turns the option into a mode, by the usual rule: with IOMMU groups `va`; otherwise `pa`, if
/// physical addresses can be read and stay the same, which only those of hugepages do.
pub(super) fn choose_mode(
    request: IovaModeRequest,
    hugepages: bool,
    root: &SysRoot,
) -> Result<IovaMode, MemoryError> {
    let groups = root.entries("/sys/kernel/iommu_groups").is_ok_and(|names| !names.is_empty());
    let readable = || match Pagemap::open(root) {
        Ok(pagemap) => pagemap.probe(),
        Err(error) => Err(error),
    };
    match request {
        IovaModeRequest::Va => Ok(IovaMode::Va),
        IovaModeRequest::Pa if !hugepages => Err(MemoryError::PhysicalNoHuge),
        IovaModeRequest::Pa => readable().map(|()| IovaMode::Pa),
        IovaModeRequest::Auto if groups || !hugepages => Ok(IovaMode::Va),
        IovaModeRequest::Auto => match readable() {
            Ok(()) => Ok(IovaMode::Pa),
            Err(error) => {
                tracing::debug!("IOVA mode va, since {error}");
                Ok(IovaMode::Va)
            }
        },
    }
}

/// The stretches of `va .. va + len_bytes` that are contiguous for the device.
pub(super) fn runs(
    mode: IovaMode,
    va: u64,
    len_bytes: u64,
    page_len_bytes: u64,
    root: &SysRoot,
) -> Result<Vec<IovaRun>, MemoryError> {
    match mode {
        IovaMode::Va => Ok(vec![IovaRun { va, iova: Iova(va), len_bytes }]),
        IovaMode::Pa => {
            let pagemap = Pagemap::open(root)?;
            let mut pages = Vec::new();
            for va in (va..va + len_bytes).step_by(page_len_bytes.try_into().unwrap_or(usize::MAX))
            {
                pages.push(IovaRun { va, iova: pagemap.physical(va)?, len_bytes: page_len_bytes });
            }
            Ok(merge(pages))
        }
    }
}

/// Joins neighbours that are contiguous both ways. The runs must be in ascending order of `va`.
fn merge(pages: impl IntoIterator<Item = IovaRun>) -> Vec<IovaRun> {
    let mut runs: Vec<IovaRun> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(last)
                if last.va + last.len_bytes == page.va
                    && last.iova.offset(last.len_bytes) == page.iova =>
            {
                last.len_bytes += page.len_bytes;
            }
            _ => runs.push(page),
        }
    }
    runs
}

/// `/proc/self/pagemap`: a word of 64 bits for each normal page (Linux,
/// Documentation/admin-guide/mm/pagemap.rst). Without `CAP_SYS_ADMIN` the frame number reads as 0.
struct Pagemap {
    file: File,
    page_len_bytes: u64,
}

/// What the probe looks up: a byte that is written first, so that its page is there.
static PROBED: AtomicU8 = AtomicU8::new(0);

const PRESENT: u64 = 1 << 63;
const FRAME_MASK: u64 = (1 << 55) - 1;

impl Pagemap {
    fn open(root: &SysRoot) -> Result<Self, MemoryError> {
        let file = File::open(root.path("/proc/self/pagemap")).map_err(unreadable)?;
        Ok(Self { file, page_len_bytes: crate::sys::mapping::page_len_bytes() as u64 })
    }

    /// Whether frame numbers can be read at all, tried on a page that is surely there.
    fn probe(&self) -> Result<(), MemoryError> {
        PROBED.store(1, Ordering::Relaxed);
        self.physical((&raw const PROBED).addr() as u64).map(|_| ())
    }

    fn physical(&self, va: u64) -> Result<Iova, MemoryError> {
        let mut word = [0; 8];
        let position = va / self.page_len_bytes * 8;
        self.file.read_exact_at(&mut word, position).map_err(unreadable)?;
        let word = u64::from_ne_bytes(word);
        let frame = word & FRAME_MASK;
        if word & PRESENT == 0 || frame == 0 {
            return Err(MemoryError::PhysicalUnreadable {
                found: format!("no frame number for the page at {va:#x} (entry {word:#x})"),
            });
        }
        Ok(Iova(frame * self.page_len_bytes + va % self.page_len_bytes))
    }
}

fn unreadable(error: io::Error) -> MemoryError {
    MemoryError::PhysicalUnreadable { found: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 2 << 20;

    fn page(va: u64, iova: u64) -> IovaRun {
        IovaRun { va: va * PAGE, iova: Iova(iova * PAGE), len_bytes: PAGE }
    }

    #[test]
    fn only_pages_contiguous_both_ways_are_merged() {
        let merged = merge([page(1, 7), page(2, 8), page(3, 12), page(5, 13), page(6, 5)]);
        let lens: Vec<_> = merged.iter().map(|run| run.len_bytes / PAGE).collect();
        assert_eq!(lens, [2, 1, 1, 1]);
        assert_eq!(merged[0], IovaRun { len_bytes: 2 * PAGE, ..page(1, 7) });
    }

    #[test]
    fn a_part_of_a_run_keeps_its_distance() {
        let run = IovaRun { va: 100, iova: Iova(1100), len_bytes: 50 };
        let part = |va, len| run.part(va, len).map(|part| (part.va, part.iova.0, part.len_bytes));
        assert_eq!(part(90, 20), Some((100, 1100, 10)));
        assert_eq!(part(120, 10), Some((120, 1120, 10)));
        assert_eq!(part(140, 100), Some((140, 1140, 10)));
        assert_eq!(part(150, 10), None);
        assert_eq!(part(170, 10), None);
        assert_eq!(part(80, 10), None);
        assert_eq!(part(0, 100), None);
    }

    /// A tree with or without IOMMU groups and with a page map full of `word`.
    fn tree(groups: bool, word: Option<u64>) -> (tempfile::TempDir, SysRoot) {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        let group = if groups { "/sys/kernel/iommu_groups/0" } else { "/sys/kernel/iommu_groups" };
        std::fs::create_dir_all(root.path(group)).unwrap();
        std::fs::create_dir_all(root.path("/proc/self")).unwrap();
        if let Some(word) = word {
            // Sparse, but for the entry that the probe looks up.
            let file = File::create(root.path("/proc/self/pagemap")).unwrap();
            let page = crate::sys::mapping::page_len_bytes() as u64;
            let position = (&raw const PROBED).addr() as u64 / page * 8;
            file.write_all_at(&word.to_ne_bytes(), position).unwrap();
        }
        (tree, root)
    }

    #[test]
    fn the_mode_follows_the_usual_rule() {
        use IovaModeRequest::{Auto, Pa, Va};
        let readable = Some(PRESENT | 0x1234);
        for (groups, word, hugepages, expected) in [
            (true, readable, true, IovaMode::Va),
            (false, readable, true, IovaMode::Pa),
            (false, readable, false, IovaMode::Va),
            (false, Some(PRESENT), true, IovaMode::Va),
            (false, Some(0x1234), true, IovaMode::Va),
            (false, None, true, IovaMode::Va),
        ] {
            let (_tree, root) = tree(groups, word);
            let mode = choose_mode(Auto, hugepages, &root).unwrap();
            assert_eq!(mode, expected, "groups {groups} word {word:x?} hugepages {hugepages}");
            assert_eq!(choose_mode(Va, hugepages, &root).unwrap(), IovaMode::Va);
        }
        let (_tree, root) = tree(true, readable);
        assert_eq!(choose_mode(Pa, true, &root).unwrap(), IovaMode::Pa);
        let error = choose_mode(Pa, false, &root).unwrap_err().to_string();
        assert!(error.contains("--no-huge"), "{error}");
        let (_tree, root) = tree(false, Some(PRESENT));
        let error = choose_mode(Pa, true, &root).unwrap_err().to_string();
        assert!(error.contains("CAP_SYS_ADMIN"), "{error}");
    }
}
