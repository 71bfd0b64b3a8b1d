//! The memory of a pool's objects: pieces that need not stand side by side.
#![expect(unsafe_code, reason = "cuts zones into objects by address")]

use std::ptr::NonNull;
use std::sync::Arc;

use super::config::{MempoolConfig, MempoolError, objects_len_bytes, smallest_page};
use super::layout::ObjectLayout;
use super::pool::Object;
use crate::memory::{Iova, IovaMode, Memory, MemoryError, Zone, ZoneRequest};

/// In how many zones a pool may stand: with fewer objects a zone, it is memory that is short, and
/// not one large piece of it.
const MOST_ZONES: usize = 64;

/// Objects side by side, contiguous for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Virtual address of the first object's first byte.
    pub va: u64,
    /// What the device calls it.
    pub iova: Iova,
    /// Number of the first object.
    pub first: usize,
    /// Objects in it.
    pub count: usize,
    /// Bytes from the first object's start to the last one's end.
    pub len_bytes: usize,
}

/// A pool's zones, and its objects in them.
#[derive(Debug)]
pub(super) struct Chunks {
    zones: Vec<Zone>,
    /// By address.
    runs: Vec<Chunk>,
    layout: ObjectLayout,
}

impl Chunks {
    /// Takes memory for all objects of `config`: one zone if there is one that long, otherwise
    /// several.
    pub(super) fn take(
        memory: &Arc<Memory>,
        config: &MempoolConfig,
        layout: ObjectLayout,
    ) -> Result<Self, MempoolError> {
        let MempoolConfig { count, node, .. } = *config;
        let object_len_bytes = layout.len_bytes();
        let name = || config.name.clone();
        let refused =
            |source| MempoolError::Memory { name: name(), count, object_len_bytes, source };
        let align = match memory.iova_mode() {
            IovaMode::Pa => smallest_page(memory) as usize,
            IovaMode::Va => 64,
        };
        let mut chunks = Self { zones: Vec::new(), runs: Vec::new(), layout };
        let mut reason: Option<MemoryError> = None;
        let (mut placed, mut ask) = (0, count);
        while placed < count {
            ask = ask.min(count - placed);
            // `config` was checked: the whole has a length.
            let len_bytes = objects_len_bytes(memory, ask, object_len_bytes).unwrap_or(usize::MAX);
            let zone_name = match chunks.zones.len() {
                0 => name(),
                nth => format!("{}.{nth}", config.name),
            };
            match memory.zone(&ZoneRequest::new(zone_name, len_bytes).align(align).on_node(node)) {
                Ok(zone) => placed = chunks.cut(zone, placed, ask),
                // Perhaps it is there in pieces.
                Err(error @ (MemoryError::ZoneExhausted { .. } | MemoryError::ZoneLen { .. }))
                    if ask > count.div_ceil(MOST_ZONES)
                        && memory.free_len_bytes()
                            >= ((count - placed) * object_len_bytes) as u64 =>
                {
                    reason.get_or_insert(error);
                    ask = ask.div_ceil(2);
                }
                // What the first request was refused for is what the user can do something about.
                Err(error) => return Err(refused(reason.unwrap_or(error))),
            }
        }
        chunks.runs.sort_unstable_by_key(|run| run.va);
        Ok(chunks)
    }

    /// Cuts up to `most` objects out of `zone`, the first with number `first`; returns the number
    /// after the last.
    fn cut(&mut self, zone: Zone, first: usize, most: usize) -> usize {
        let object_len_bytes = self.layout.len_bytes();
        let mut next = first;
        // An object never spans two runs: the device must see it in one piece.
        for run in zone.iova_runs() {
            let fit = usize::try_from(run.len_bytes).unwrap_or(usize::MAX) / object_len_bytes;
            let count = fit.min(first + most - next);
            if count == 0 {
                continue;
            }
            let len_bytes = count * object_len_bytes;
            self.runs.push(Chunk { va: run.va, iova: run.iova, first: next, count, len_bytes });
            next += count;
        }
        self.zones.push(zone);
        next
    }

    pub(super) fn node(&self) -> Option<u32> {
        self.zones.first().and_then(Zone::node)
    }

    /// The pieces, by address.
    pub(super) fn runs(&self) -> &[Chunk] {
        &self.runs
    }

    /// The number of the object whose element starts at `address`, if one does.
    pub(super) fn number_of(&self, address: NonNull<u8>) -> Option<usize> {
        let va = address.addr().get() as u64;
        let run = self.runs.get(self.runs.partition_point(|run| run.va <= va).checked_sub(1)?)?;
        let offset = usize::try_from(va - run.va).ok()?.checked_sub(self.layout.header_bytes)?;
        let nth = offset / self.layout.len_bytes();
        let starts = offset.is_multiple_of(self.layout.len_bytes());
        (starts && nth < run.count).then_some(run.first + nth)
    }

    /// Every object: number, element, device address. By address.
    pub(super) fn objects(&self) -> impl Iterator<Item = (usize, Object, Iova)> + '_ {
        let object_len_bytes = self.layout.len_bytes();
        self.runs.iter().flat_map(move |run| {
            (0..run.count).filter_map(move |nth| {
                let offset = nth * object_len_bytes + self.layout.header_bytes;
                let object = Object(self.address(run.va + offset as u64)?);
                Some((run.first + nth, object, Iova(run.iova.0 + offset as u64)))
            })
        })
    }

    /// The pointer, with the right to the zone's memory, for an address in one of the zones.
    fn address(&self, va: u64) -> Option<NonNull<u8>> {
        self.zones.iter().find_map(|zone| {
            let offset = va.checked_sub(zone.as_ptr().as_ptr() as u64)? as usize;
            // SAFETY: inside the zone, as is looked at first.
            (offset < zone.len_bytes()).then(|| unsafe { zone.as_ptr().add(offset) })
        })
    }
}
