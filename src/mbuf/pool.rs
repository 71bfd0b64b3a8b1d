//! Pools of mbufs.
#![expect(unsafe_code, reason = "writes the headers of mbufs that nobody has yet")]

use std::mem::{ManuallyDrop, MaybeUninit, size_of};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::burst::Burst;
use super::frame::Mbuf;
use super::header::{HEADROOM_BYTES, Header};
use crate::memory::Memory;
use crate::mempool::{Backend, Mempool, MempoolConfig, MempoolError, Object};

/// Data room of an mbuf unless told otherwise: 2,048 bytes of data behind the headroom.
pub const DEFAULT_DATA_ROOM_BYTES: u16 = 2048 + HEADROOM_BYTES;

/// What an mbuf pool shall be like.
#[derive(Debug, Clone)]
pub struct MbufPoolConfig {
    /// Unique name; the zone it stands in has the same.
    pub name: String,
    /// Number of mbufs.
    pub count: usize,
    /// Free mbufs that each lcore may keep for itself; 0: none.
    pub cache_size: usize,
    /// Bytes of buffer per mbuf, headroom included.
    pub data_room_bytes: u16,
    /// NUMA node; `None`: any.
    pub node: Option<u32>,
    /// Where free mbufs wait that no lcore has.
    pub backend: Backend,
    /// Marks around each mbuf that find overruns; see [`MempoolConfig::cookies`].
    pub cookies: bool,
}

impl MbufPoolConfig {
    /// `count` mbufs of the default data room, with caches of 256 (or less for a small pool).
    #[must_use]
    pub fn new(name: impl Into<String>, count: usize) -> Self {
        Self {
            name: name.into(),
            count,
            cache_size: (count / 8).min(256),
            data_room_bytes: DEFAULT_DATA_ROOM_BYTES,
            node: None,
            backend: Backend::default(),
            cookies: cfg!(debug_assertions),
        }
    }

    /// The pool of objects below.
    fn objects(&self) -> MempoolConfig {
        MempoolConfig {
            name: self.name.clone(),
            count: self.count,
            element_len_bytes: size_of::<Header>() + usize::from(self.data_room_bytes),
            cache_size: self.cache_size,
            node: self.node,
            backend: self.backend,
            cookies: self.cookies,
        }
    }

    /// Bytes from one mbuf to the next.
    #[must_use]
    pub fn object_len_bytes(&self) -> usize {
        self.objects().layout().map_or(0, |layout| layout.len_bytes())
    }

    /// Bytes of memory that the pool takes where it is contiguous for devices: mbufs, and the list
    /// of free ones.
    #[must_use]
    pub fn memory_len_bytes(&self) -> usize {
        let mbufs = self.count.saturating_mul(self.object_len_bytes());
        mbufs.saturating_add(self.objects().free_list_len_bytes())
    }
}

/// Why an mbuf pool can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MbufPoolError {
    /// There would be no room for data.
    #[error(
        "mbuf pool {name:?}: a data room of {data_room_bytes} bytes leaves nothing for data; \
         the headroom alone is {HEADROOM_BYTES} bytes"
    )]
    DataRoom {
        /// The pool's name.
        name: String,
        /// What was asked for.
        data_room_bytes: u16,
    },
    /// The pool of objects below can't be made.
    #[error(transparent)]
    Mempool(#[from] MempoolError),
}

/// What a pool's mbufs point back to.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) objects: ManuallyDrop<Mempool>,
    /// Mbufs that a driver dropped while the device may still have had them; they are lost.
    pub(super) leaked: AtomicU64,
    /// From an mbuf's address to what devices call its room, if that is the same for all.
    iova_offset: Option<u64>,
    data_room_bytes: u16,
}

/// A handle to a pool of mbufs; clones are handles to the same pool.
///
/// If mbufs are still out when the last handle goes, an error is logged that says how many, and
/// the pool's memory stays until they are back.
#[derive(Debug, Clone)]
pub struct MbufPool {
    shared: Arc<Handle>,
}

/// The last handle's drop decides what becomes of the pool.
#[derive(Debug)]
struct Handle {
    shared: NonNull<Shared>,
}

// SAFETY: `Shared` is Sync (a Mempool and an atomic), and `Handle` gives out only `&Shared`.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl MbufPool {
    /// Makes a pool.
    ///
    /// # Errors
    /// If the configuration makes no sense or there is no memory for it.
    pub fn new(memory: &Arc<Memory>, config: &MbufPoolConfig) -> Result<Self, MbufPoolError> {
        let &MbufPoolConfig { data_room_bytes, ref name, .. } = config;
        if data_room_bytes <= HEADROOM_BYTES {
            return Err(MbufPoolError::DataRoom { name: name.clone(), data_room_bytes });
        }
        drop(sweep());
        // The headers point at `Shared`, which holds the objects: room first, contents after.
        let room: Box<MaybeUninit<Shared>> = Box::new_uninit();
        let shared = NonNull::from(Box::leak(room)).cast::<Shared>();
        let header_len = size_of::<Header>();
        // Where devices use the same addresses as we do, an mbuf's own tells its room's.
        let mut same_addresses = true;
        let objects = Mempool::new(memory, &config.objects(), |_, object, iova| {
            same_addresses &= iova.0 == object.0.addr().get() as u64;
            // SAFETY: the object is `object_len_bytes` of memory that nobody else has yet,
            // aligned to 64: a header fits, and the buffer behind it.
            unsafe {
                let buf = object.0.add(header_len).as_ptr();
                object.0.cast::<Header>().write(Header {
                    buf,
                    buf_iova: iova.0 + header_len as u64,
                    data_off: HEADROOM_BYTES,
                    refcnt: AtomicU16::new(1),
                    segments: 1,
                    port: u16::MAX,
                    flags: 0,
                    packet_type: 0,
                    packet_len: 0,
                    data_len: 0,
                    vlan_tci: 0,
                    rss_hash: 0,
                    vlan_tci_outer: 0,
                    buf_len: data_room_bytes,
                    mark: 0,
                    pool: shared.as_ptr(),
                    next: null_mut(),
                    tx_offload: 0,
                    external: null_mut(),
                    private_len: 0,
                    time_sync: 0,
                    dynamic: [0; 9],
                });
            }
        });
        let objects = match objects {
            Ok(objects) => objects,
            Err(error) => {
                // SAFETY: the box leaked above, uninitialised still; nothing points to it, as the
                // objects that did are gone.
                drop(unsafe { Box::from_raw(shared.cast::<MaybeUninit<Shared>>().as_ptr()) });
                return Err(error.into());
            }
        };
        // SAFETY: the room leaked above, to be initialised once, here.
        unsafe {
            shared.write(Shared {
                objects: ManuallyDrop::new(objects),
                leaked: AtomicU64::new(0),
                iova_offset: same_addresses
                    .then_some(header_len as u64 + u64::from(HEADROOM_BYTES)),
                data_room_bytes,
            });
        }
        Ok(Self { shared: Arc::new(Handle { shared }) })
    }

    #[inline(always)]
    fn shared(&self) -> &Shared {
        // SAFETY: initialised in `new`, and freed only when the last handle is dropped.
        unsafe { self.shared.shared.as_ref() }
    }

    /// The pool of objects below: its name, count and how many are out.
    #[must_use]
    pub fn objects(&self) -> &Mempool {
        &self.shared().objects
    }

    #[inline(always)]
    pub(super) fn iova_offset(&self) -> Option<u64> {
        self.shared().iova_offset
    }

    /// Bytes of data that a device can receive into each mbuf, behind the headroom.
    #[inline(always)]
    #[must_use]
    pub fn room_len_bytes(&self) -> u16 {
        // A pool's data room is larger than the headroom.
        self.shared().data_room_bytes.saturating_sub(HEADROOM_BYTES)
    }

    /// Mbufs that were dropped while lent to a device, and so are lost to the pool.
    #[must_use]
    pub fn leaked(&self) -> u64 {
        self.shared().leaked.load(Ordering::Relaxed)
    }

    /// An empty mbuf: no data, all of its headroom. `None` if the pool is empty.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut object = [MaybeUninit::uninit()];
        self.shared().objects.get_bulk(&mut object).then(|| {
            // SAFETY: filled, as the pool said so; the object is ours alone.
            unsafe { Mbuf::from_pool(object[0].assume_init()) }
        })
    }

    /// Adds `count` empty mbufs to `burst`, or none: true if they were added. None are if the
    /// pool hasn't that many, or the burst not that much room.
    #[inline(always)]
    pub fn alloc_bulk(&self, burst: &mut Burst, count: usize) -> bool {
        let Some(room) = burst.spare(count) else { return false };
        // An Mbuf is its header's address, and so is an Object.
        // SAFETY: both are transparent around the same pointer; MaybeUninit of either has no
        // validity of its own.
        let objects = unsafe {
            std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<MaybeUninit<Object>>(), count)
        };
        if !self.shared().objects.get_bulk(objects) {
            return false;
        }
        for object in objects {
            // SAFETY: filled by the pool, and ours alone.
            std::mem::forget(unsafe { Mbuf::from_pool(object.assume_init()) });
        }
        // SAFETY: `count` slots behind the burst's end hold mbufs now, which the burst takes over.
        unsafe { burst.grow(count) };
        true
    }
}

/// Pools whose last handle went while mbufs were out. They are looked through whenever a pool is
/// made or let go, and freed once all of their mbufs are back.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A pool without a handle.
struct Kept(NonNull<Shared>);

// SAFETY: as for `Handle`.
unsafe impl Send for Kept {}

impl Kept {
    /// Frees the pool if all of its mbufs are back; whether it did.
    fn free(&mut self) -> bool {
        // SAFETY: nobody allocates from it any more, so the number that are out can only fall, and
        // `available` never overstates what has come back: with none out, nobody points to it.
        unsafe {
            let shared = self.0.as_mut();
            if shared.objects.in_use() != 0 {
                return false;
            }
            ManuallyDrop::drop(&mut shared.objects);
            drop(Box::from_raw(self.0.as_ptr()));
        }
        true
    }
}

/// Frees what can be freed of the kept pools.
fn sweep() -> MutexGuard<'static, Vec<Kept>> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain_mut(|pool| !pool.free());
    kept
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut pool = Kept(self.shared);
        let mut kept = sweep();
        // SAFETY: this was the last handle, and the pool is freed below at the earliest.
        let objects = unsafe { &self.shared.as_ref().objects };
        let (name, out, count) = (objects.name().to_owned(), objects.in_use(), objects.count());
        if !pool.free() {
            kept.push(pool);
            tracing::error!(
                "mbuf pool {name:?}: {out} of {count} mbufs are still out; its memory is kept"
            );
        }
    }
}
