//! The client's memory: which addresses a device may reach, and the bytes behind them.
//!
//! Each file is mapped once, however many mappings refer to it: behind a virtual IOMMU a guest makes
//! thousands of small ones. Before a byte is touched its address goes through a sorted table, with
//! the last entries found kept at hand.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::SealFlags;
use thiserror::Error;
use vm_memory::bitmap::BS;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// How many mappings a client may have, as VFIO's own default.
pub const MAX_MAPPINGS: usize = 65_535;
const PAGE: u64 = 4096;
const PROT_READ: i32 = 1;
const PROT_WRITE: i32 = 2;
const MAP_SHARED: i32 = 1;
const MAP_NORESERVE: i32 = 0x4000;
const HINTS: usize = 32;

/// An address that the device can't reach: the frame or descriptor is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no memory for the device at {iova:#x}, {len} bytes")]
pub struct Fault {
    /// Address as the device sees it.
    pub iova: u64,
    /// How many bytes were wanted.
    pub len: usize,
}

/// Why a mapping was refused.
#[derive(Debug, Error)]
pub enum MapError {
    /// Address, offset or length aren't page aligned, or go past the end of the address space.
    #[error(
        "mapping {iova:#x}, {len:#x} bytes, file offset {offset:#x}: not whole pages, or too long"
    )]
    Range {
        /// Address.
        iova: u64,
        /// Length in bytes.
        len: u64,
        /// Offset in the file.
        offset: u64,
    },
    /// It overlaps with one that is there.
    #[error("mapping {iova:#x}, {len:#x} bytes overlaps with {other:#x}")]
    Overlap {
        /// Address.
        iova: u64,
        /// Length in bytes.
        len: u64,
        /// Address of the one that is there.
        other: u64,
    },
    /// Nothing is mapped there, or the range would cut a mapping in two.
    #[error(
        "unmapping {iova:#x}, {len:#x} bytes: nothing is mapped there, or it would cut a mapping"
    )]
    NoSuch {
        /// Address.
        iova: u64,
        /// Length in bytes.
        len: u64,
    },
    /// There are [`MAX_MAPPINGS`] already.
    #[error("{MAX_MAPPINGS} mappings are there already")]
    TooMany,
    /// The file is shorter than the mapping: touching the rest would kill this process.
    #[error("the file has {found:#x} bytes, the mapping wants {wanted:#x}")]
    Short {
        /// The file's size.
        found: u64,
        /// What the mapping reaches to.
        wanted: u64,
    },
    /// The file could be cut short while it is in use, which would kill this process.
    #[error(
        "the file's size isn't sealed (F_SEAL_SHRINK): a client could cut it short and so kill \
             softnic. Use a memfd (QEMU: memory-backend-memfd), or start softnic with --trust-clients"
    )]
    NotSealed,
    /// The kernel refused.
    #[error("mapping the file: {0}")]
    Map(#[from] io::Error),
}

impl MapError {
    /// The error number that tells the client.
    pub fn errno(&self) -> u32 {
        let errno = match self {
            Self::Range { .. } | Self::Short { .. } => rustix::io::Errno::INVAL,
            Self::Overlap { .. } => rustix::io::Errno::EXIST,
            Self::NoSuch { .. } => rustix::io::Errno::NOENT,
            Self::TooMany => rustix::io::Errno::NOSPC,
            Self::NotSealed => rustix::io::Errno::PERM,
            Self::Map(_) => rustix::io::Errno::NOMEM,
        };
        errno.raw_os_error().unsigned_abs()
    }
}

#[derive(Debug)]
struct Backing {
    region: MmapRegion,
    writable: bool,
}

#[derive(Debug)]
struct Mapping {
    iova: u64,
    len: u64,
    offset: u64,
    writable: bool,
    backing: Option<Arc<Backing>>, // None: the client kept the memory to itself
}

/// All that a client has mapped for its device.
#[derive(Debug)]
pub struct DmaSpace {
    mappings: Vec<Mapping>, // by address
    files: HashMap<(u64, u64), Arc<Backing>>,
    hints: [Cell<u32>; HINTS],
    trusting: bool,
}

impl DmaSpace {
    /// Nothing is mapped. `trusting`: take files whose size isn't sealed.
    pub fn new(trusting: bool) -> Self {
        Self {
            mappings: Vec::new(),
            files: HashMap::new(),
            hints: std::array::from_fn(|_| Cell::new(0)),
            trusting,
        }
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Makes `len` bytes at `offset` of `file` reachable at `iova`. Without a file the addresses are
    /// taken, and touching them is a fault.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn map(
        &mut self,
        iova: u64,
        len: u64,
        offset: u64,
        writable: bool,
        file: Option<OwnedFd>,
    ) -> Result<(), MapError> {
        let range = MapError::Range { iova, len, offset };
        if len == 0 || iova.checked_add(len - 1).is_none() {
            return Err(range);
        }
        if file.is_some() && !(iova | len | offset).is_multiple_of(PAGE) {
            return Err(range);
        }
        let at = self.mappings.partition_point(|mapping| mapping.iova < iova);
        let before = at.checked_sub(1).and_then(|before| self.mappings.get(before));
        let clash = before
            .filter(|mapping| iova - mapping.iova < mapping.len)
            .or_else(|| self.mappings.get(at).filter(|mapping| mapping.iova - iova < len));
        if let Some(other) = clash {
            return Err(MapError::Overlap { iova, len, other: other.iova });
        }
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(MapError::TooMany);
        }
        let backing = match file {
            Some(file) => Some(self.backing(File::from(file), offset, len)?),
            None => None,
        };
        let writable = writable && backing.as_ref().is_some_and(|backing| backing.writable);
        self.mappings.insert(at, Mapping { iova, len, offset, writable, backing });
        Ok(())
    }

    /// Takes away all mappings that lie within the range.
    ///
    /// # Errors
    /// [`MapError::NoSuch`] if there is none, or one that lies there only in part.
    pub fn unmap(&mut self, iova: u64, len: u64) -> Result<(), MapError> {
        let none = MapError::NoSuch { iova, len };
        let Some(last) = len.checked_sub(1).and_then(|last| iova.checked_add(last)) else {
            return Err(none);
        };
        let from = self.mappings.partition_point(|mapping| mapping.iova < iova);
        let to = self.mappings.partition_point(|mapping| mapping.iova <= last);
        let cut = |at: usize| {
            at.checked_sub(1)
                .and_then(|at| self.mappings.get(at))
                .map_or(0, |mapping| mapping.iova + (mapping.len - 1))
        };
        if from == to || (from > 0 && cut(from) >= iova) || cut(to) > last {
            return Err(none);
        }
        self.mappings.drain(from..to);
        Ok(())
    }

    /// Takes everything away.
    pub fn clear(&mut self) {
        self.mappings.clear();
        self.files.clear();
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// When not all of them can be reached.
    pub fn read(&self, iova: u64, to: &mut [u8]) -> Result<(), Fault> {
        if let Some(slice) = self.slice(iova, to.len(), false) {
            slice.copy_to(to);
            return Ok(());
        }
        let mut done = 0;
        while done < to.len() {
            let slice = self.piece(iova, done, to.len(), false)?;
            let end = done + slice.len();
            slice.copy_to(&mut to[done..end]);
            done = end;
        }
        Ok(())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When not all of them can be reached; those before may have been written.
    pub fn write(&self, iova: u64, from: &[u8]) -> Result<(), Fault> {
        if let Some(slice) = self.slice(iova, from.len(), true) {
            slice.copy_from(from);
            return Ok(());
        }
        let mut done = 0;
        while done < from.len() {
            let slice = self.piece(iova, done, from.len(), true)?;
            let end = done + slice.len();
            slice.copy_from(&from[done..end]);
            done = end;
        }
        Ok(())
    }

    /// Reads an aligned word, with acquire ordering.
    ///
    /// # Errors
    /// When it isn't aligned or can't be reached.
    pub fn load(&self, iova: u64) -> Result<u64, Fault> {
        let fault = Fault { iova, len: 8 };
        let (mapping, offset) = self.find(iova, 8).ok_or(fault)?;
        let backing = mapping.backing.as_ref().ok_or(fault)?;
        let word = backing.region.get_atomic_ref::<AtomicU64>(offset).map_err(|_| fault)?;
        Ok(u64::from_le(word.load(Ordering::Acquire)))
    }

    /// Writes an aligned word in one piece, with release ordering: who sees it sees all that was
    /// written before.
    ///
    /// # Errors
    /// When it isn't aligned or can't be written.
    pub fn store(&self, iova: u64, value: u64) -> Result<(), Fault> {
        let fault = Fault { iova, len: 8 };
        let (mapping, offset) = self.find(iova, 8).ok_or(fault)?;
        let backing = mapping.backing.as_ref().filter(|_| mapping.writable).ok_or(fault)?;
        let word = backing.region.get_atomic_ref::<AtomicU64>(offset).map_err(|_| fault)?;
        word.store(value.to_le(), Ordering::Release);
        Ok(())
    }

    fn piece(
        &self,
        iova: u64,
        done: usize,
        len: usize,
        write: bool,
    ) -> Result<VolatileSlice<'_, BS<'_, ()>>, Fault> {
        let fault = Fault { iova, len };
        let at = iova.checked_add(done as u64).ok_or(fault)?;
        let (mapping, _) = self.find(at, 1).ok_or(fault)?;
        let rest = usize::try_from(mapping.len - (at - mapping.iova)).unwrap_or(usize::MAX);
        self.slice(at, rest.min(len - done), write).ok_or(fault)
    }

    fn slice(&self, iova: u64, len: usize, write: bool) -> Option<VolatileSlice<'_, BS<'_, ()>>> {
        let (mapping, offset) = self.find(iova, len)?;
        if write && !mapping.writable {
            return None;
        }
        mapping.backing.as_ref()?.region.get_slice(offset, len).ok()
    }

    /// The mapping that has all of a range, and where in its file the range begins.
    #[inline]
    fn find(&self, iova: u64, len: usize) -> Option<(&Mapping, usize)> {
        let hint = &self.hints[(iova >> 21) as usize % HINTS];
        let within = |mapping: &Mapping| {
            let from = iova.wrapping_sub(mapping.iova);
            (from < mapping.len && mapping.len - from >= len as u64)
                .then(|| usize::try_from(mapping.offset + from).unwrap_or(usize::MAX))
        };
        if let Some(mapping) = self.mappings.get(hint.get() as usize)
            && let Some(offset) = within(mapping)
        {
            return Some((mapping, offset));
        }
        let at = self.mappings.partition_point(|mapping| mapping.iova <= iova).checked_sub(1)?;
        let mapping = self.mappings.get(at)?;
        let offset = within(mapping)?;
        hint.set(u32::try_from(at).unwrap_or(0));
        Some((mapping, offset))
    }

    fn backing(&mut self, file: File, offset: u64, len: u64) -> Result<Arc<Backing>, MapError> {
        let wanted = offset.checked_add(len).ok_or(MapError::Range { iova: 0, len, offset })?;
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        if found < wanted {
            return Err(MapError::Short { found, wanted });
        }
        if !self.trusting
            && !rustix::fs::fcntl_get_seals(&file)
                .is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
        {
            return Err(MapError::NotSealed);
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(backing) = self.files.get(&key)
            && backing.region.size() as u64 >= wanted
        {
            return Ok(Arc::clone(backing));
        }
        let size = usize::try_from(found).map_err(|_| MapError::Short { found, wanted })?;
        let map = |prot: i32| -> io::Result<MmapRegion> {
            let file = FileOffset::new(file.try_clone()?, 0);
            MmapRegion::build(Some(file), size, prot, MAP_SHARED | MAP_NORESERVE)
                .map_err(io::Error::other)
        };
        let backing = match map(PROT_READ | PROT_WRITE) {
            Ok(region) => Backing { region, writable: true },
            Err(_) => Backing { region: map(PROT_READ)?, writable: false },
        };
        let backing = Arc::new(backing);
        self.files.insert(key, Arc::clone(&backing));
        Ok(backing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packetboat::sys::memfd;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    fn file(len: u64) -> OwnedFd {
        let file = memfd::create("test", None).unwrap();
        memfd::allocate(file.as_fd(), len).unwrap();
        memfd::seal_size(file.as_fd()).unwrap();
        file
    }

    #[test]
    fn bytes_go_through_mappings_that_meet() {
        let mut space = DmaSpace::new(false);
        let memory = file(4 * PAGE);
        space.map(0x10_0000, PAGE, PAGE, true, Some(memory.try_clone().unwrap())).unwrap();
        space.map(0x10_1000, PAGE, 3 * PAGE, true, Some(memory.try_clone().unwrap())).unwrap();
        let sent: Vec<u8> = (0..100).collect();
        space.write(0x10_0fce, &sent).unwrap();
        let mut found = vec![0; 100];
        space.read(0x10_0fce, &mut found).unwrap();
        assert_eq!(found, sent);
        assert_eq!(space.files.len(), 1);
        assert_eq!(space.write(0x10_1fce, &sent), Err(Fault { iova: 0x10_1fce, len: 100 }));
        assert!(space.load(0x10_0004).is_err(), "not aligned");
    }

    #[test]
    fn what_would_kill_the_process_is_refused() {
        let mut space = DmaSpace::new(false);
        let short = space.map(0, 2 * PAGE, 0, true, Some(file(PAGE)));
        assert!(matches!(short, Err(MapError::Short { .. })), "{short:?}");
        let open = memfd::create("test", None).unwrap();
        memfd::allocate(open.as_fd(), PAGE).unwrap();
        let unsealed = space.map(0, PAGE, 0, true, Some(open.try_clone().unwrap()));
        assert!(matches!(unsealed, Err(MapError::NotSealed)), "{unsealed:?}");
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(DmaSpace::new(true).map(0, PAGE, 0, true, Some(reader)).is_err());
        DmaSpace::new(true).map(0, PAGE, 0, true, Some(open)).unwrap();
    }

    #[test]
    fn memory_that_is_only_readable_is_not_written() {
        let mut space = DmaSpace::new(false);
        space.map(0, PAGE, 0, false, Some(file(PAGE))).unwrap();
        assert!(space.load(0).is_ok());
        assert!(space.store(0, 1).is_err());
        assert!(space.write(0, &[1]).is_err());
    }

    #[test]
    fn the_ends_of_the_address_space() {
        let mut space = DmaSpace::new(false);
        let top = u64::MAX - PAGE + 1;
        space.map(top, PAGE, 0, true, Some(file(PAGE))).unwrap();
        assert!(space.load(u64::MAX - 7).is_ok());
        assert!(space.read(u64::MAX, &mut [0; 2]).is_err());
        assert!(space.map(top, 2 * PAGE, 0, true, Some(file(PAGE))).is_err());
        space.unmap(top, PAGE).unwrap();
        assert!(space.is_empty());
    }

    proptest! {
        // Against a plain list of pages: what is mapped, what isn't, after any sequence of calls.
        #[test]
        fn mappings_are_what_a_list_of_pages_says(
            steps in proptest::collection::vec((any::<bool>(), 0u64..16, 1u64..5), 1..60)
        ) {
            let memory = file(16 * PAGE);
            let mut space = DmaSpace::new(false);
            let mut model: Vec<(u64, u64)> = Vec::new();
            for (map, page, pages) in steps {
                let end = page + pages;
                if map {
                    let file = Some(memory.try_clone().unwrap());
                    let fits = model.iter().all(|&(from, to)| end <= from || to <= page);
                    let done = space.map(page * PAGE, pages * PAGE, 0, true, file).is_ok();
                    prop_assert_eq!(done, fits);
                    if done { model.push((page, end)); }
                } else {
                    let touched: Vec<_> =
                        model.iter().copied().filter(|&(from, to)| from < end && page < to).collect();
                    let whole = !touched.is_empty()
                        && touched.iter().all(|&(from, to)| from >= page && to <= end);
                    let done = space.unmap(page * PAGE, pages * PAGE).is_ok();
                    prop_assert_eq!(done, whole);
                    if done { model.retain(|piece| !touched.contains(piece)); }
                }
                for page in 0..20 {
                    let there = model.iter().any(|&(from, to)| from <= page && page < to);
                    prop_assert_eq!(space.load(page * PAGE + 8).is_ok(), there);
                }
            }
        }
    }
}
