#![expect(unsafe_code, reason = "vouches for the mapping of a BAR")]
//! A device's base address registers: what of them can be mapped, and the rest by message.

use core::ops::Range;
use core::ptr::NonNull;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;

use super::device_file::DeviceFile;
use super::info::RegionInfo;
use crate::bus::BusError;
use crate::mmio::{MappedArea, Region, RegionIo, Width};
use crate::sys::mapping::page_len_bytes;

/// The parts of a BAR that may be mapped, as ranges of bytes in it, in order.
///
/// `msix_table` is where the MSI-X table stands, if it is in this BAR. The kernel lets its pages
/// be mapped only if it says so: interrupts are set up through the kernel, and a process that
/// could write the table could send the device's interrupts anywhere.
pub(super) fn mappable(
    info: &RegionInfo,
    msix_table: Option<&Range<u64>>,
    page_len_bytes: u64,
) -> Vec<Range<u64>> {
    if info.flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Vec::new();
    }
    let whole = 0..info.len_bytes;
    let mut areas = match (&info.sparse, msix_table) {
        (Some(areas), _) => areas.clone(),
        (None, Some(table)) if !info.msix_mappable => {
            let from = table.start - table.start % page_len_bytes;
            let to = table.end.next_multiple_of(page_len_bytes);
            vec![0..from.min(whole.end), to..whole.end]
        }
        (None, _) => vec![whole],
    };
    // A mapping starts on a page; what doesn't is reached by message.
    areas.retain(|area| !area.is_empty() && area.start % page_len_bytes == 0);
    areas.sort_by_key(|area| area.start);
    areas
}

/// The registers of a BAR. Its mappings, its file, and with it the device, stay open as long as
/// the region, a window or a register of it lives.
pub(super) fn region(
    device: &Arc<DeviceFile>,
    info: &RegionInfo,
    msix_table: Option<&Range<u64>>,
) -> Result<Region, BusError> {
    let areas = mappable(info, msix_table, page_len_bytes() as u64)
        .into_iter()
        .map(|area| map(device, info, &area))
        .collect::<Result<Vec<_>, _>>()?;
    let rest = ByMessage { device: Arc::clone(device), info: info.clone() };
    Ok(Region::mapped(areas, Some(Arc::new(rest)), info.len_bytes))
}

/// A mapped part of a BAR. Fields are dropped in order: unmapped, then the file let go.
struct BarMapping {
    _mapping: MmapRaw,
    _device: Arc<DeviceFile>,
}

fn map(
    device: &Arc<DeviceFile>,
    info: &RegionInfo,
    area: &Range<u64>,
) -> Result<MappedArea, BusError> {
    let len_bytes = area.end - area.start;
    let mapping = MmapOptions::new()
        .offset(info.file_offset + area.start)
        .len(len_bytes as usize)
        .map_raw(&device.file)
        .map_err(|source| device.os_error("mmap of a BAR", source))?;
    let Some(base) = NonNull::new(mapping.as_mut_ptr()) else {
        let source = std::io::ErrorKind::AddrNotAvailable.into();
        return Err(device.os_error("mmap of a BAR", source));
    };
    let keep = Arc::new(BarMapping { _mapping: mapping, _device: Arc::clone(device) });
    // SAFETY: `keep` owns the mapping of `len_bytes` from `base`, readable, writable and shared,
    // and hands out no reference into it.
    Ok(unsafe { MappedArea::new(area.start, len_bytes, base, keep) })
}

/// Parts of a BAR that can't be mapped (I/O ports, the MSI-X table): the kernel makes the access.
struct ByMessage {
    device: Arc<DeviceFile>,
    info: RegionInfo,
}

impl RegionIo for ByMessage {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        let (asked, _) = bytes.split_at_mut(width.len_bytes());
        let ones = u64::MAX >> (64 - 8 * width.len_bytes());
        match self.device.file.read_exact_at(asked, self.info.file_offset + offset) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => ones,
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let bytes = value.to_le_bytes();
        let (asked, _) = bytes.split_at(width.len_bytes());
        if let Err(error) = self.device.file.write_all_at(asked, self.info.file_offset + offset) {
            tracing::debug!("a register write at {offset:#x} was lost: {error}");
        }
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of areas, some of one")]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn info(len_bytes: u64) -> RegionInfo {
        RegionInfo { flags: VFIO_REGION_INFO_FLAG_MMAP, len_bytes, ..RegionInfo::default() }
    }

    #[test]
    fn a_whole_bar_is_mapped_if_it_may_be() {
        assert_eq!(mappable(&info(0x4000), None, PAGE), [0..0x4000]);
        let ports = RegionInfo { flags: 0, ..info(0x20) };
        assert_eq!(mappable(&ports, None, PAGE), []);
    }

    #[test]
    fn only_sparse_areas_are_mapped_if_there_are_any() {
        let sparse = Some(vec![0x3000..0x4000, 0..0x1000, 0x1800..0x2000]);
        let info = RegionInfo { sparse, ..info(0x4000) };
        assert_eq!(mappable(&info, Some(&(0..16)), PAGE), [0..0x1000, 0x3000..0x4000]);
        let none = RegionInfo { sparse: Some(Vec::new()), ..info };
        assert_eq!(mappable(&none, None, PAGE), []);
    }

    #[test]
    fn the_pages_of_the_msix_table_are_left_out() {
        for (table, expected) in [
            (0x2ff0..0x3010, vec![0..0x2000]),
            (0x1000..0x1050, vec![0..0x1000, 0x2000..0x4000]),
            (0..0x10, vec![0x1000..0x4000]),
            (0x3000..0x4000, vec![0..0x3000]),
            (0..0x4000, vec![]),
            (0x9000..0x9010, vec![0..0x4000]),
        ] {
            assert_eq!(mappable(&info(0x4000), Some(&table), PAGE), expected, "{table:x?}");
        }
        let open = RegionInfo { msix_mappable: true, ..info(0x4000) };
        assert_eq!(mappable(&open, Some(&(0x1000..0x1050)), PAGE), [0..0x4000]);
        // A BAR smaller than a page that holds the table is all table page.
        assert_eq!(mappable(&info(0x800), Some(&(0..0x10)), PAGE), []);
    }
}
