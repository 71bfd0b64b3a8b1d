//! The heap: arenas by node, and what crosses them.
#![expect(unsafe_code, reason = "zeroes and copies blocks by address")]

use super::arena::{Arena, Stowed};
use super::block::Block;
use super::cache;
use super::class::SIZE_END;
use super::config::{HeapConfig, Request};
use super::error::HeapError;
use super::source::{ExtentSource, KernelPages, Zones};
use super::state::{Ask, Part, Refusal, State};
use super::table::GRANULE_BYTES;
use crate::memory::{Iova, Memory};
use crossbeam_utils::CachePadded;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Allocations of any size from memory that devices may reach. See the [module](super).
///
/// All methods may be called from any thread. A block may be freed by another thread than the one
/// that allocated it.
#[derive(Debug)]
pub struct Heap {
    pub(super) config: HeapConfig,
    /// Tells this heap's blocks from those of others.
    pub(super) id: u32,
    pub(super) source: Box<dyn ExtentSource>,
    pub(super) arenas: Box<[CachePadded<Arena>]>,
    /// Bytes of all extents, those that are just being taken included: never above the limit.
    pub(super) taken_bytes: AtomicU64,
    pub(super) failures: AtomicU64,
    /// The longest that an allocation may be, in bytes.
    max_bytes: u64,
    /// The longest that goes through caches, in bytes; 0 if there are none.
    most_cached_bytes: usize,
}

/// Ids of heaps; a wrap would take four thousand million heaps.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

impl Heap {
    /// A heap that takes zones of `memory` as it grows. It takes none yet.
    ///
    /// # Errors
    /// [`HeapError::Name`] or [`HeapError::Limit`].
    pub fn new(memory: &Arc<Memory>, config: HeapConfig) -> Result<Arc<Self>, HeapError> {
        let source = Zones::new(Arc::clone(memory), &config.name);
        Self::with_source(Box::new(source), config)
    }

    /// A heap that takes pages from the kernel as it grows, and gives them back: see [`KernelPages`].
    ///
    /// # Errors
    /// [`HeapError::Name`] or [`HeapError::Limit`]; [`HeapError::Source`] if the kernel has no such
    /// pages.
    pub fn of_kernel_pages(
        memory: &Arc<Memory>,
        config: HeapConfig,
    ) -> Result<Arc<Self>, HeapError> {
        let name = config.name.clone();
        let source = KernelPages::new(Arc::clone(memory));
        let source = source.map_err(|source| HeapError::Source { name, source })?;
        Self::with_source(Box::new(source), config)
    }

    /// A heap that grows from `source`.
    ///
    /// # Errors
    /// [`HeapError::Name`] or [`HeapError::Limit`].
    pub fn with_source(
        source: Box<dyn ExtentSource>,
        config: HeapConfig,
    ) -> Result<Arc<Self>, HeapError> {
        config.check()?;
        let arena = |node| CachePadded::new(Arena::new(node, &config));
        let mut nodes = source.nodes();
        nodes.truncate(usize::from(u8::MAX));
        let arenas: Box<[_]> = nodes.into_iter().map(arena).collect();
        // Sizes end there; less what a red zone takes.
        let max_bytes = config.limit_bytes.min(u64::from(SIZE_END - 2) * GRANULE_BYTES as u64);
        // One that a cache couldn't hold needn't be offered to it.
        let most = config.cache_most_bytes().min(cache::MOST_BYTES as u64);
        let has_caches = arenas.iter().any(|arena| arena.caches.is_some());
        Ok(Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            arenas,
            taken_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            max_bytes,
            most_cached_bytes: if has_caches { most as usize } else { 0 },
            source,
            config,
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether blocks have red zones and free memory is poisoned.
    pub fn is_guarded(&self) -> bool {
        self.config.guarded
    }

    /// Allocates. The bytes hold whatever they held before (in a guarded heap, poison).
    ///
    /// In constant time, unless the heap has to grow.
    ///
    /// # Errors
    /// [`HeapError::Len`], [`HeapError::Align`], [`HeapError::Node`] for what can never be had,
    /// [`HeapError::Exhausted`] for what can't be had now. Nothing changes then.
    #[inline(always)]
    pub fn alloc(&self, request: &Request) -> Result<Block, HeapError> {
        match self.take_cached(request) {
            Some(part) => Ok(Block(part)),
            None => self.take_uncached(request).map(Block),
        }
    }

    /// As [`alloc`](Self::alloc), with all bytes 0.
    ///
    /// # Errors
    /// As for `alloc`.
    pub fn zeroed(&self, request: &Request) -> Result<Block, HeapError> {
        let block = self.alloc(request)?;
        // SAFETY: the block is `len_bytes` long, and nobody else knows it yet.
        unsafe { block.as_ptr().write_bytes(0, block.len_bytes()) };
        Ok(block)
    }

    /// Makes a block longer or shorter, where it is if possible, otherwise elsewhere on any node
    /// with its bytes copied. Its address is a multiple of `align` afterwards. Bytes that are new
    /// hold whatever they held before.
    ///
    /// # Errors
    /// Those of [`alloc`](Self::alloc) and of [`free`](Self::free). The block is as it was then.
    pub fn realloc(
        &self,
        block: &mut Block,
        len_bytes: usize,
        align: usize,
    ) -> Result<(), HeapError> {
        let old = block.0;
        let request = Request::new(len_bytes).align(align).tag(old.tag);
        self.check_request(&request)?;
        let arena = self.arena_of(&old)?;
        let ask = Ask::new(&request, self.config.guarded);
        match arena.state.with(|state| state.resize(&mut block.0, &ask)) {
            Ok(()) => return Ok(()),
            Err(Refusal::NoRoom) => {}
            Err(refusal) => return Err(self.refused(&old, refusal)),
        }
        // Where the block is now comes first, and then anywhere.
        let new = match self.take(&request.on_node(arena.node)) {
            Ok(new) => new,
            Err(error) if self.arenas.len() == 1 => return Err(error),
            Err(_) => self.take(&request)?,
        };
        let kept = old.len_bytes.min(len_bytes);
        // SAFETY: both blocks are live and at least `kept` bytes long; being two, they don't
        // overlap. The caller lent the old one exclusively.
        unsafe { new.address.copy_from_nonoverlapping(old.address, kept) };
        block.0 = new;
        self.give(&old)
    }

    /// Gives a block back, in constant time. Neighbours that are free are joined at once; an extent
    /// that is wholly free is given back to where it came from, but for one.
    ///
    /// # Errors
    /// [`HeapError::Foreign`] for another heap's block; [`HeapError::Overrun`] in a guarded heap;
    /// [`HeapError::FreedTwice`] or [`HeapError::NotABlock`] if unsafe code has made two of one
    /// block. The block is lost to its owner in any case, and stays in use if it was.
    #[inline(always)]
    pub fn free(&self, block: Block) -> Result<(), HeapError> {
        self.give(&block.0)
    }

    /// The block that starts at `address`: the way back from [`Block::into_raw`]. Takes a search
    /// among the extents.
    ///
    /// # Errors
    /// [`HeapError::Foreign`], [`HeapError::NotABlock`] or [`HeapError::FreedTwice`].
    ///
    /// # Safety
    /// The caller owns the block: there is no other `Block`, `HeapBox` or `HeapSlice` of it.
    pub unsafe fn block_from_raw(&self, address: NonNull<u8>) -> Result<Block, HeapError> {
        let wanted = address.addr().get();
        for (index, arena) in self.arenas.iter().enumerate() {
            let found = arena.state.with(|state| {
                let (place, used, address) = state.look_up(wanted)?;
                let iova = state.iova_of(wanted).ok_or(Refusal::Outside)?;
                Ok(Part {
                    address,
                    len_bytes: used.len_bytes(),
                    iova,
                    heap: self.id,
                    arena: index as u8,
                    slot: place.slot,
                    tag: used.tag,
                })
            });
            match found {
                Ok(part) => return Ok(Block(part)),
                Err(Refusal::Outside) => {}
                Err(refusal) => return Err(self.refusal(wanted, None, refusal)),
            }
        }
        Err(self.refusal(wanted, None, Refusal::Outside))
    }

    /// The device's address of any byte of any block, found by its address here; `None` if it isn't
    /// in this heap. Takes a search among the extents; a [`Block`] knows its own.
    pub fn iova_of(&self, address: *const u8) -> Option<Iova> {
        self.arenas.iter().find_map(|arena| arena.state.with(|state| state.iova_of(address.addr())))
    }

    /// Bytes taken from the source.
    pub fn total_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, request: &Request) -> Result<Part, HeapError> {
        match self.take_cached(request) {
            Some(part) => Ok(part),
            None => self.take_uncached(request),
        }
    }

    /// The usual case: a short block, of the first node or of any, for an lcore.
    #[inline(always)]
    fn take_cached(&self, request: &Request) -> Option<Part> {
        let is_short = request.len_bytes.wrapping_sub(1) < self.most_cached_bytes;
        if !is_short || request.align != GRANULE_BYTES {
            return None;
        }
        let arena = self.arenas.first().filter(|arena| request.accepts(arena.node))?;
        arena.take_cached(request, self.id, 0)
    }

    #[cold]
    #[inline(never)]
    fn take_uncached(&self, request: &Request) -> Result<Part, HeapError> {
        self.check_request(request)?;
        let ask = Ask::new(request, self.config.guarded);
        match self.take_from_arenas(request, &ask) {
            Some(part) => Ok(part),
            None => self.take_growing(request, &ask),
        }
    }

    #[inline]
    pub(super) fn take_from_arenas(&self, request: &Request, ask: &Ask) -> Option<Part> {
        let may_cache =
            request.len_bytes <= self.most_cached_bytes && request.align <= GRANULE_BYTES;
        for (index, arena) in self.arenas.iter().enumerate() {
            if !request.accepts(arena.node) {
                continue;
            }
            let index = index as u8;
            if may_cache && let Some(part) = arena.take_cached(request, self.id, index) {
                return Some(part);
            }
            let taken = arena.state.with(|state| state.take(ask, self.id, index));
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    #[inline(always)]
    pub(super) fn give(&self, part: &Part) -> Result<(), HeapError> {
        let arena = self.arena_of(part)?;
        if part.len_bytes <= self.most_cached_bytes {
            match arena.give_cached(part) {
                Stowed::Yes => return Ok(()),
                Stowed::Full => {
                    self.give_back(arena.flush_own());
                    return Ok(());
                }
                Stowed::No => {}
            }
        }
        self.give_uncached(arena, part)
    }

    #[cold]
    #[inline(never)]
    fn give_uncached(&self, arena: &Arena, part: &Part) -> Result<(), HeapError> {
        match arena.state.with(|state| state.give(part)) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.give_back(arena.state.with(State::take_leaving));
                Ok(())
            }
            Err(refusal) => Err(self.refused(part, refusal)),
        }
    }

    #[inline(always)]
    fn arena_of(&self, part: &Part) -> Result<&Arena, HeapError> {
        match self.arenas.get(usize::from(part.arena)) {
            Some(arena) if part.heap == self.id => Ok(arena),
            _ => Err(self.refused(part, Refusal::Outside)),
        }
    }

    #[inline]
    fn check_request(&self, request: &Request) -> Result<(), HeapError> {
        let &Request { len_bytes, align, tag, .. } = request;
        if len_bytes.wrapping_sub(1) as u64 >= self.max_bytes {
            return Err(self.bad_len(request));
        }
        if !align.is_power_of_two() || align > Request::MAX_ALIGN {
            return Err(HeapError::Align { align, len_bytes, tag });
        }
        Ok(())
    }

    #[cold]
    pub(super) fn bad_len(&self, request: &Request) -> HeapError {
        HeapError::Len {
            heap: self.config.name.clone(),
            len_bytes: request.len_bytes,
            tag: request.tag,
            max_bytes: self.max_bytes,
        }
    }

    fn refused(&self, part: &Part, refusal: Refusal) -> HeapError {
        self.refusal(part.address.addr().get(), Some((part.len_bytes, part.tag)), refusal)
    }

    /// `block` is what the caller says that it is.
    #[cold]
    fn refusal(
        &self,
        address: usize,
        block: Option<(usize, super::Tag)>,
        refusal: Refusal,
    ) -> HeapError {
        let heap = self.config.name.clone();
        match refusal {
            Refusal::Outside => HeapError::Foreign { heap, address, block },
            Refusal::Inside { offset, block } => {
                HeapError::NotABlock { heap, address, offset, block }
            }
            Refusal::Freed(freed) => {
                HeapError::FreedTwice { heap, address, block: freed.or(block) }
            }
            Refusal::Overrun { offset } => {
                let (len_bytes, tag) = block.unwrap_or_default();
                HeapError::Overrun { heap, address, len_bytes, tag, offset }
            }
            Refusal::NoRoom => HeapError::Corrupt { heap, address, what: "no room to resize" },
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for tag in self.tags().iter().filter(|tag| tag.counts.live_blocks > 0) {
            tracing::warn!(
                "heap {:?} goes with {} blocks ({} bytes, {}) that were never freed",
                self.config.name,
                tag.counts.live_blocks,
                tag.counts.live_bytes,
                tag.tag
            );
        }
    }
}
