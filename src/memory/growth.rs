//! Segments that come and go while the program runs, and who has to hear of them.
//!
//! [`Memory::add_segment`] takes pages from the kernel, tells every [`DmaListener`] to map them, and
//! gives an [`AddedSegment`], whose drop goes the other way: first nobody may reach the pages any
//! more, then they go. If a listener can't map, those before it unmap again, the pages go back, and the
//! error says why. If one can't *unmap*, the pages stay as long as the memory does: a device that
//! goes on writing must not hit somebody else's.

use super::config::{Backing, MemoryConfig};
use super::error::MemoryError;
use super::hugepages::Inventory;
use super::iova::Iova;
use super::plan::Take;
use super::registry::Memory;
use super::reserve;
use super::segment::Segment;
use super::size::Size;
use crate::sys::mapping;
use std::error::Error;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A piece of a segment that is contiguous for the device: what is mapped, and unmapped, at once.
#[derive(Clone, Copy, Debug)]
pub struct DmaRegion<'a> {
    /// The file that has the bytes, for another process to map.
    pub file: BorrowedFd<'a>,
    /// Where in the file they start, in bytes.
    pub file_offset: u64,
    /// Where they start in this process.
    pub va: u64,
    /// The device's address of the first one.
    pub iova: Iova,
    /// How many.
    pub len_bytes: u64,
}

impl DmaRegion<'_> {
    fn describe(&self) -> String {
        format!("{} at {:#x} (iova {})", Size(self.len_bytes), self.va, self.iova)
    }
}

/// Why a region can't be mapped or unmapped: which limit, and what mends it.
pub type ListenerError = Box<dyn Error + Send + Sync>;

/// Whoever lets devices reach the memory: a VFIO container, a client of a device in another process.
///
/// It maps [`Memory::segments`] itself when it begins; what comes later it is told here. Calls come
/// one at a time, from any thread, while the memory's growing is locked: neither may call
/// [`Memory::add_segment`], drop an [`AddedSegment`], or call [`Memory::with_added`]. A lock of its own that it
/// takes in here it must take after `with_added`, never around it.
///
/// The memory holds it weakly. When it goes, no device may reach the regions through it any more.
pub trait DmaListener: Send + Sync {
    /// Devices may reach the region from now on. One that has no device yet may do nothing, and
    /// ask [`Memory::with_added`] when it gets one.
    ///
    /// # Errors
    /// Why it can't be mapped; nothing of it is then.
    fn map(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError>;

    /// No device reaches the region when this returns. It is exactly one that was mapped.
    ///
    /// # Errors
    /// Why devices may still reach it. Its pages are kept then.
    fn unmap(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError>;
}

/// What of a [`Memory`] comes and goes.
pub(super) struct Growth {
    pub(super) config: MemoryConfig,
    state: Mutex<State>,
}

impl std::fmt::Debug for Growth {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        let (added, listeners) = (&state.added, state.listeners.len());
        out.debug_struct("Growth").field("added", added).field("listeners", &listeners).finish()
    }
}

#[derive(Default)]
struct State {
    listeners: Vec<Weak<dyn DmaListener>>,
    added: Vec<Arc<Segment>>,
    /// Given back, but a listener couldn't unmap them.
    stuck: Vec<Arc<Segment>>,
}

impl Growth {
    pub(super) fn new(config: MemoryConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// Nothing panics halfway through a change but a listener, which is asked before one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn listeners(&mut self) -> Vec<Arc<dyn DmaListener>> {
        self.listeners.retain(|listener| listener.strong_count() > 0);
        self.listeners.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Maps all of `regions` by all of `listeners`, or nothing. Tells besides the error whether what was
/// mapped until then is unmapped again.
fn map_all(
    regions: &[DmaRegion<'_>],
    listeners: &[Arc<dyn DmaListener>],
) -> Result<(), (MemoryError, bool)> {
    let mut done = Vec::new();
    for region in regions {
        for listener in listeners {
            match listener.map(region) {
                Ok(()) => done.push((listener, region)),
                Err(source) => {
                    let mut clean = true;
                    for (listener, region) in done.into_iter().rev() {
                        clean &= unmapped(&**listener, region);
                    }
                    return Err((MemoryError::MapDma { what: region.describe(), source }, clean));
                }
            }
        }
    }
    Ok(())
}

fn unmapped(listener: &dyn DmaListener, region: &DmaRegion<'_>) -> bool {
    match listener.unmap(region) {
        Ok(()) => true,
        Err(error) => {
            let what = region.describe();
            tracing::error!("{what} is kept, since devices may still reach it: {error}");
            false
        }
    }
}

impl Memory {
    /// Size of the pages that [`add_segment`](Self::add_segment) takes, in bytes: normal ones with
    /// `--no-huge`, otherwise the smallest hugepages of at least 2 MiB, or those that were asked for.
    ///
    /// # Errors
    /// If the kernel's list of hugepages can't be read, or is empty.
    pub fn added_page_len_bytes(&self) -> Result<u64, MemoryError> {
        let config = &self.growth.config;
        if config.backing == Backing::NoHuge {
            return Ok(mapping::page_len_bytes() as u64);
        }
        if let Some(len) = config.page_len_bytes {
            return Ok(len);
        }
        let sizes = Inventory::read(&config.root)?.page_sizes();
        let usual = sizes.iter().copied().filter(|len| *len >= 2 << 20).min();
        let wanted = Size(2 << 20);
        usual.or(sizes.first().copied()).ok_or(MemoryError::PageSize { wanted, found: Vec::new() })
    }

    /// Takes `len_bytes` (whole pages of [`added_page_len_bytes`](Self::added_page_len_bytes)) from
    /// the kernel, on `node`, at the lowest free multiple of `align_bytes` (a power of two) from
    /// `--base-virtaddr` on, contiguous for the device, and has every listener map them. In a file
    /// without a name, also where the first segments are in a `--huge-dir`.
    ///
    /// # Errors
    /// [`MemoryError::Allocate`] if there are no pages, [`MemoryError::MapDma`] if a listener can't
    /// map them, [`MemoryError::Scattered`] if the device would see them in pieces, and others;
    /// nothing is taken then.
    pub fn add_segment(
        self: &Arc<Self>,
        node: Option<u32>,
        len_bytes: u64,
        align_bytes: u64,
    ) -> Result<AddedSegment, MemoryError> {
        let page_len_bytes = self.added_page_len_bytes()?;
        let pages = len_bytes.div_ceil(page_len_bytes).max(1);
        let take = Take { node, page_len_bytes, pages };
        let segment = reserve::later(&take, align_bytes, self.iova_mode(), &self.growth.config)?;
        let runs = segment.iova_runs().len();
        if runs != 1 {
            return Err(MemoryError::Scattered { len: Size(take.len_bytes()), runs });
        }
        let segment = Arc::new(segment);
        let mut state = self.growth.lock();
        let listeners = state.listeners();
        let regions: Vec<_> = segment.dma_regions().collect();
        if let Err((error, clean)) = map_all(&regions, &listeners) {
            if !clean {
                state.stuck.push(Arc::clone(&segment));
            }
            return Err(error);
        }
        tracing::debug!("added segment: {segment}");
        state.added.push(Arc::clone(&segment));
        drop(state);
        Ok(AddedSegment { segment, memory: Arc::clone(self) })
    }

    /// From now on `listener` is told of segments that come and go. Those that were added until now it is
    /// told at once.
    ///
    /// # Errors
    /// If it can't map one of them; it isn't told of any then.
    pub fn add_dma_listener(&self, listener: Weak<dyn DmaListener>) -> Result<(), MemoryError> {
        let mut state = self.growth.lock();
        let listeners: Vec<_> = listener.upgrade().into_iter().collect();
        let regions: Vec<_> =
            state.added.iter().flat_map(|segment| segment.dma_regions()).collect();
        let outcome = map_all(&regions, &listeners);
        drop(regions);
        match outcome {
            Ok(()) => state.listeners.push(listener),
            Err((error, clean)) => {
                if !clean {
                    let added = state.added.clone();
                    state.stuck.extend(added);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs `work` with the regions of all segments that were added and are still there; none comes
    /// or goes meanwhile.
    pub fn with_added<R>(&self, work: impl FnOnce(&[DmaRegion<'_>]) -> R) -> R {
        let state = self.growth.lock();
        // What is stuck may be gone from some listeners, and nobody uses it.
        let regions: Vec<_> =
            state.added.iter().flat_map(|segment| segment.dma_regions()).collect();
        work(&regions)
    }

    /// The segments that were added and are still there.
    pub fn added_segments(&self) -> Vec<Arc<Segment>> {
        self.growth.lock().added.clone()
    }

    fn remove_segment(&self, segment: &Arc<Segment>) {
        let mut state = self.growth.lock();
        let mut clean = true;
        for region in segment.dma_regions() {
            for listener in state.listeners() {
                clean &= unmapped(&*listener, &region);
            }
        }
        state.added.retain(|known| !Arc::ptr_eq(known, segment));
        if !clean {
            state.stuck.push(Arc::clone(segment));
        }
    }
}

impl Segment {
    /// What devices may reach of it, by stretches that are contiguous for them.
    pub fn dma_regions(&self) -> impl Iterator<Item = DmaRegion<'_>> {
        self.iova_runs().iter().map(|run| DmaRegion {
            file: self.file(),
            file_offset: run.va - self.va(),
            va: run.va,
            iova: run.iova,
            len_bytes: run.len_bytes,
        })
    }
}

/// A segment that goes when this is dropped. Its bytes were zero when it came.
#[derive(Debug)]
pub struct AddedSegment {
    // Dropped in this order, after the listeners have unmapped it.
    segment: Arc<Segment>,
    memory: Arc<Memory>,
}

impl AddedSegment {
    /// Where it is.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl Drop for AddedSegment {
    fn drop(&mut self) {
        self.memory.remove_segment(&self.segment);
    }
}
