//! All segments, and who has which part of them.

use super::config::MemoryConfig;
use super::error::MemoryError;
use super::freelist::FreeList;
use super::growth::Growth;
use super::iova::IovaMode;
use super::reserve;
use super::segment::Segment;
use super::size::Size;
use super::zone::{Zone, ZoneInfo, ZoneRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The memory that devices may reach: all segments, and the registry of the zones in them.
///
/// Zones and device mappings keep it alive through the `Arc`; when the last of them goes, the
/// segments are unmapped and their pages are free again.
#[derive(Debug)]
pub struct Memory {
    segments: Vec<Segment>,
    iova_mode: IovaMode,
    registry: Mutex<Registry>,
    /// Segments that came later.
    pub(super) growth: Growth,
}

#[derive(Debug)]
struct Registry {
    zones: BTreeMap<String, ZoneInfo>,
    /// One for each segment, in the same order.
    rooms: Vec<Room>,
}

/// What the registry knows of a segment's bytes.
#[derive(Debug)]
struct Room {
    free: FreeList,
    /// Bytes from here on were never lent out: the kernel has zeroed them, nobody wrote since.
    fresh_from: usize,
}

/// Zones start and end on cache lines, so that two of them never share one.
const LINE_BYTES: usize = 64;

impl Memory {
    /// Takes the memory that `config` asks for, all of it now.
    ///
    /// # Errors
    /// Any of [`MemoryError`] that isn't about a zone; what was taken until then is given back.
    pub fn reserve(config: &MemoryConfig) -> Result<Arc<Self>, MemoryError> {
        let (segments, iova_mode) = reserve::segments(config)?;
        for segment in &segments {
            tracing::debug!("segment: {segment}, IOVA mode {iova_mode}");
        }
        Ok(Arc::new(Self::new(segments, iova_mode, config.clone())))
    }

    pub(super) fn new(segments: Vec<Segment>, iova_mode: IovaMode, config: MemoryConfig) -> Self {
        let room = |segment: &Segment| Room {
            free: FreeList::new(segment.as_ptr().addr().get(), segment.len_bytes()),
            fresh_from: 0,
        };
        let rooms = segments.iter().map(room).collect();
        let registry = Mutex::new(Registry { zones: BTreeMap::new(), rooms });
        Self { segments, iova_mode, registry, growth: Growth::new(config) }
    }

    /// The segments that were reserved at start, those of the lcores' nodes first. Zones stand in these.
    /// See [`add_segment`](Self::add_segment) for others.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What kind of addresses devices use.
    pub fn iova_mode(&self) -> IovaMode {
        self.iova_mode
    }

    /// Lends out part of a segment, zeroed.
    ///
    /// # Errors
    /// A `Zone…` variant of [`MemoryError`]; nothing is taken then.
    pub fn zone(self: &Arc<Self>, request: &ZoneRequest) -> Result<Zone, MemoryError> {
        let longest = self.segments.iter().map(Segment::len_bytes).max().unwrap_or(0);
        request.check(longest)?;
        let padded = request.len_bytes.next_multiple_of(LINE_BYTES);
        let align = request.align.max(LINE_BYTES);

        let mut registry = self.lock();
        if let Some(zone) = registry.zones.get(&request.name) {
            return Err(MemoryError::ZoneExists {
                name: request.name.clone(),
                len: Size(zone.len_bytes as u64),
                va: zone.va,
            });
        }
        if !self.segments.iter().any(|segment| request.accepts(segment.node())) {
            return Err(self.no_such_node(request));
        }
        for (index, segment) in self.segments.iter().enumerate() {
            if !request.accepts(segment.node()) {
                continue;
            }
            let windows = match request.iova_contiguous {
                true => segment.windows(),
                false => std::iter::once(0..segment.len_bytes()).collect(),
            };
            let room = &mut registry.rooms[index];
            let Some(offset) = room.free.take(padded, align, &windows) else { continue };
            let used_before = room.fresh_from.saturating_sub(offset).min(padded);
            room.fresh_from = room.fresh_from.max(offset + padded);
            let info = ZoneInfo {
                name: request.name.clone(),
                va: segment.va() + offset as u64,
                len_bytes: request.len_bytes,
                node: segment.node(),
                page_len_bytes: segment.page_len_bytes(),
            };
            registry.zones.insert(request.name.clone(), info.clone());
            drop(registry);
            return Ok(Zone::new(Arc::clone(self), info, index, offset, padded, used_before));
        }
        Err(self.exhausted(&registry, request))
    }

    /// What is known of the zone with this name.
    pub fn lookup(&self, name: &str) -> Option<ZoneInfo> {
        self.lock().zones.get(name).cloned()
    }

    /// All zones, by name.
    pub fn zones(&self) -> Vec<ZoneInfo> {
        self.lock().zones.values().cloned().collect()
    }

    /// Bytes that no zone has, in all segments.
    pub fn free_len_bytes(&self) -> u64 {
        self.lock().rooms.iter().map(|room| room.free.total() as u64).sum()
    }

    /// Bytes in all segments, lent out or not.
    pub fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len_bytes() as u64).sum()
    }

    /// Each segment's free blocks as offset and length, in the order of [`segments`](Self::segments).
    pub(super) fn free_blocks(&self) -> Vec<Vec<(usize, usize)>> {
        self.lock().rooms.iter().map(|room| room.free.blocks().collect()).collect()
    }

    /// Takes back what a zone had. Called by its drop, once.
    pub(super) fn release(&self, name: &str, segment: usize, offset: usize, padded: usize) {
        let mut registry = self.lock();
        registry.zones.remove(name);
        if let Some(room) = registry.rooms.get_mut(segment) {
            room.free.give_back(offset, padded);
        }
    }

    /// The registry is changed in steps that can't panic halfway, so a poisoned lock is as good
    /// as any.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_such_node(&self, request: &ZoneRequest) -> MemoryError {
        let mut found: Vec<u32> = self.segments.iter().filter_map(Segment::node).collect();
        found.sort_unstable();
        found.dedup();
        let node = request.node.unwrap_or_default();
        MemoryError::ZoneNode { name: request.name.clone(), node, found }
    }

    fn exhausted(&self, registry: &Registry, request: &ZoneRequest) -> MemoryError {
        let rooms = || {
            let pairs = self.segments.iter().zip(&registry.rooms);
            pairs.filter(|(segment, _)| request.accepts(segment.node())).map(|(_, room)| &room.free)
        };
        MemoryError::ZoneExhausted {
            name: request.name.clone(),
            asked: Size(request.len_bytes as u64),
            align: request.align,
            node: request.node,
            iova_contiguous: request.iova_contiguous,
            largest: Size(rooms().map(FreeList::largest).max().unwrap_or(0) as u64),
            total: Size(rooms().map(FreeList::total).sum::<usize>() as u64),
            reserved: Size(self.len_bytes()),
        }
    }
}
