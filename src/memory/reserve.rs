//! Takes pages from the kernel, places them and learns their device addresses.

use super::config::{Backing, MemoryConfig};
use super::error::MemoryError;
use super::iova::{self, IovaMode};
use super::place;
use super::segment::Segment;
use super::size::Size;
use crate::sys::mapping::page_len_bytes;
use crate::sys::{memfd, numa};
use std::io;
use std::os::fd::AsFd;

/// Everything that `config` asks for. On an error, what was taken is given back by its drop.
pub(super) fn segments(config: &MemoryConfig) -> Result<(Vec<Segment>, IovaMode), MemoryError> {
    let _ = (&config.backing, Backing::NoHuge);
    let mode = iova::choose_mode(config.iova_mode, false, &config.root)?;
    let page = page_len_bytes() as u64;
    let wanted = config.total_mib.map_or(config.needed_bytes, |mib| mib << 20);
    let len = wanted.max(page).next_multiple_of(page);
    let failed = |source: io::Error| MemoryError::Allocate {
        wanted: Size(len),
        page: Size(page),
        node: None,
        source,
    };
    let file = memfd::create(&config.file_prefix, None).map_err(failed)?;
    memfd::allocate(file.as_fd(), len).map_err(failed)?;
    memfd::seal_size(file.as_fd()).map_err(failed)?;
    let mapping = place::map_low(file.as_fd(), len, page.max(2 << 20), config.base_virtaddr)?;
    mapping.populate().map_err(failed)?;
    let _ = numa::node_of_page(mapping.as_ptr());
    let va = mapping.as_ptr().addr().get() as u64;
    let runs = iova::runs(mode, va, len, page, &config.root)?;
    Ok((vec![Segment::new(mapping, file, page, None, runs)], mode))
}
