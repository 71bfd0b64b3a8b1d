#![expect(unsafe_code, reason = "vouches for the mapping of pages that the server shares")]
//! Registers of a BAR: pages that the server shares are mapped, the rest goes by message.

use core::ops::Range;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::client::{Client, Command};
use crate::bus::BusError;
use crate::bus::vfio::RegionInfo;
use crate::mmio::{MappedArea, Region, RegionIo, Width};
use crate::sys::mapping::{Mapping, Placement, page_len_bytes};
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;

/// What is known of one of the device's regions.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) region: RegionInfo,
    /// What its shared pages are mapped from.
    pub(super) file: Option<File>,
}

/// The registers of region `index`.
pub(super) fn region(client: &Arc<Client>, index: u32, info: &Info) -> Result<Region, BusError> {
    let mut areas = Vec::new();
    if let Some(file) = &info.file {
        for area in shared(&info.region) {
            areas.push(map(client, file, info.region.file_offset, &area)?);
        }
    }
    let io = Arc::new(ByMessage { client: client.clone(), index });
    Ok(Region::mapped(areas, Some(io), info.region.len_bytes))
}

/// The parts that the server shares, as ranges of bytes in the region.
fn shared(info: &RegionInfo) -> Vec<Range<u64>> {
    if info.flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Vec::new();
    }
    let page = page_len_bytes() as u64;
    let whole = || std::iter::once(0..info.len_bytes - info.len_bytes % page).collect();
    let mut areas = info.sparse.clone().unwrap_or_else(whole);
    // What doesn't start and end on a page is reached by message.
    areas.retain(|area| {
        !area.is_empty() && area.start.is_multiple_of(page) && area.end.is_multiple_of(page)
    });
    areas
}

fn map(
    client: &Arc<Client>,
    file: &File,
    offset: u64,
    area: &Range<u64>,
) -> Result<MappedArea, BusError> {
    let path = client.path();
    let os = |source| BusError::Os {
        device: client.name(),
        what: "mmap of a region that the server shares",
        path: path.to_owned(),
        source,
    };
    let len_bytes = area.end - area.start;
    let nonsense = |why| client.nonsense(Command::RegionInfo, why);
    let from = offset.checked_add(area.start).ok_or_else(|| nonsense("its offset can't be"))?;
    // A page beyond the file's end would be mapped, and kill the process at its first touch.
    let end = file.metadata().map_err(os)?.len();
    if from.checked_add(len_bytes).is_none_or(|to| to > end) {
        return Err(nonsense("a shared page lies beyond the end of its file"));
    }
    let len = usize::try_from(len_bytes).map_err(|_| nonsense("a shared area is too long"))?;
    let mapping = Mapping::shared(file.as_fd(), from, len, Placement::Anywhere).map_err(os)?;
    let base = mapping.as_ptr();
    // SAFETY: `keep` owns the mapping of `len_bytes` from `base`, readable, writable and shared,
    // and hands out no reference into it.
    Ok(unsafe { MappedArea::new(area.start, len_bytes, base, Arc::new(mapping)) })
}

/// Registers that aren't shared: one message an access, some 30 µs.
struct ByMessage {
    client: Arc<Client>,
    index: u32,
}

impl RegionIo for ByMessage {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let ones = u64::MAX >> (64 - 8 * width.len_bytes());
        read(&self.client, self.index, offset, width).unwrap_or(ones)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Err(error) = write(&self.client, self.index, offset, width, value) {
            tracing::debug!("a register write at {offset:#x} was lost: {error}");
        }
    }
}

/// Offset, region, count: what an access begins with, and its answer too.
fn access(offset: u64, index: u32, count: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(24);
    body.extend(offset.to_ne_bytes());
    body.extend(index.to_ne_bytes());
    body.extend((count as u32).to_ne_bytes());
    body
}

/// Reads `width` at `offset` of region `index`.
pub(super) fn read(
    client: &Client,
    index: u32,
    offset: u64,
    width: Width,
) -> Result<u64, BusError> {
    let count = width.len_bytes();
    let body = access(offset, index, count);
    let answer = client.ask(Command::RegionRead, &body, None)?.body;
    match answer.strip_prefix(body.as_slice()) {
        Some(data) if data.len() == count => {
            Ok(data.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
        }
        _ => Err(client.nonsense(Command::RegionRead, "it isn't the data that was asked for")),
    }
}

/// Writes the low `width` of `value` at `offset` of region `index`.
pub(super) fn write(
    client: &Client,
    index: u32,
    offset: u64,
    width: Width,
    value: u64,
) -> Result<(), BusError> {
    let count = width.len_bytes();
    let mut body = access(offset, index, count);
    body.extend(value.to_le_bytes().iter().take(count));
    client.ask(Command::RegionWrite, &body, None).map(drop)
}
