//! Where a ring lives, and that both its ends keep it there.
#![expect(unsafe_code, reason = "the ring may be placed in a zone's memory")]

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc as StdArc;

use super::core::Core;
use super::error::RingError;
use super::mode::Mode;
use super::slots::{Slot, count_for};
use crate::memory::{Memory, Zone, ZoneRequest};
use crate::sys::sync::Arc;

/// An end's hold on its ring. Reaching the ring through it costs one pointer, wherever it is.
pub(crate) struct Hold<T, P: Mode, C: Mode> {
    core: NonNull<Core<T, P, C>>,
    home: Arc<Home<T, P, C>>,
}

// SAFETY: a Hold is a shared reference to its Core and a part in dropping it, as an Arc is.
unsafe impl<T: Send, P: Mode, C: Mode> Send for Hold<T, P, C> {}
// SAFETY: as above.
unsafe impl<T: Send, P: Mode, C: Mode> Sync for Hold<T, P, C> {}

impl<T, P: Mode, C: Mode> Hold<T, P, C> {
    /// A ring in plain memory.
    pub(crate) fn plain(core: Core<T, P, C>) -> Self {
        let core = NonNull::from(Box::leak(Box::new(core)));
        Self { core, home: Arc::new(Home { core, zone: None, owned: PhantomData }) }
    }

    /// A ring in a zone: its indexes, and behind them its slots.
    pub(crate) fn in_zone(
        memory: &StdArc<Memory>,
        name: &str,
        node: Option<u32>,
        capacity: usize,
    ) -> Result<Self, RingError> {
        Core::<T, P, C>::check(capacity)?;
        let element_len_bytes = size_of::<T>();
        let slots = count_for(capacity);
        let placed = Layout::array::<Slot<T>>(slots)
            .and_then(|slots| Layout::new::<Core<T, P, C>>().extend(slots));
        let Ok((layout, slots_at)) = placed else {
            return Err(RingError::NoMemory { capacity, element_len_bytes, slots });
        };
        let request = ZoneRequest::new(name, layout.size()).align(layout.align()).on_node(node);
        let zone = memory.zone(&request).map_err(|source| RingError::Zone {
            name: name.to_owned(),
            capacity,
            element_len_bytes,
            source,
        })?;
        let core: NonNull<Core<T, P, C>> = zone.as_ptr().cast();
        // SAFETY: the zone is ours alone and as long as the layout, at whose start is the core,
        // and at `slots_at`, aligned, the slots. Home drops the core before the zone.
        unsafe { core.write(Core::placed(zone.as_ptr().add(slots_at).cast(), capacity)?) };
        Ok(Self { core, home: Arc::new(Home { core, zone: Some(zone), owned: PhantomData }) })
    }

    /// The NUMA node of the ring's zone, if it is in one and the node is known.
    pub(super) fn node(&self) -> Option<u32> {
        self.home.zone.as_ref()?.node()
    }
}

impl<T, P: Mode, C: Mode> fmt::Debug for Hold<T, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T, P: Mode, C: Mode> Clone for Hold<T, P, C> {
    fn clone(&self) -> Self {
        Self { core: self.core, home: self.home.clone() }
    }
}

impl<T, P: Mode, C: Mode> Deref for Hold<T, P, C> {
    type Target = Core<T, P, C>;

    #[inline(always)]
    fn deref(&self) -> &Core<T, P, C> {
        // SAFETY: initialised when the home was made, and dropped only with it; we hold a part of
        // it. Nobody has a mutable reference before that.
        unsafe { self.core.as_ref() }
    }
}

/// The owner of a ring and its memory.
struct Home<T, P: Mode, C: Mode> {
    core: NonNull<Core<T, P, C>>,
    /// What the ring stands in; without a zone, a box.
    zone: Option<Zone>,
    owned: PhantomData<Core<T, P, C>>,
}

impl<T, P: Mode, C: Mode> Drop for Home<T, P, C> {
    fn drop(&mut self) {
        match self.zone {
            // SAFETY: leaked from a box by `plain`; no end is left, so this is the last use.
            None => drop(unsafe { Box::from_raw(self.core.as_ptr()) }),
            // SAFETY: written by `in_zone`; no end is left. The zone goes after this, as a field,
            // even if dropping a value panics.
            Some(_) => unsafe { self.core.drop_in_place() },
        }
    }
}
