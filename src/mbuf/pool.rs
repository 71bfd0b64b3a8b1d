//! Pools of mbufs.
#![expect(unsafe_code, reason = "writes the headers of mbufs that nobody has yet")]

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::burst::Burst;
use super::frame::Mbuf;
use super::header::{HEADROOM_BYTES, Header, Kind};
use super::owners::Owners;
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
    /// Bytes of private area per mbuf, for the application: see [`Mbuf::private`].
    pub private_bytes: u16,
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
            private_bytes: 0,
            node: None,
            backend: Backend::default(),
            cookies: cfg!(debug_assertions),
        }
    }

    /// From an mbuf's start to its buffer, which starts on a cache line.
    fn buffer_offset(&self) -> usize {
        size_of::<Header>() + usize::from(self.private_bytes).next_multiple_of(align_of::<Header>())
    }

    /// The pool of objects below.
    fn objects(&self) -> MempoolConfig {
        MempoolConfig {
            name: self.name.clone(),
            count: self.count,
            element_len_bytes: self.buffer_offset() + usize::from(self.data_room_bytes),
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
    /// From an mbuf's address to its own buffer.
    buf_offset: usize,
}

impl Shared {
    /// Gives a header that used another's buffer its own one back: it is as it was in the pool,
    /// but for what is written whenever one is taken.
    ///
    /// # Safety
    /// The header is the caller's alone; its share in the other buffer was noted elsewhere.
    pub(super) unsafe fn restore(header: *mut Header) {
        // SAFETY: the caller's promise; a pool outlives its mbufs, and its objects have room for a
        // buffer `buf_offset` behind the header.
        unsafe {
            let shared = &*(*header).meta.pool;
            let buf = header.cast::<u8>().add(shared.buf_offset);
            (*header).place.buf = buf;
            (*header).place.buf_iova = shared.iova_of(buf.addr() as u64);
            (*header).place.data_off = HEADROOM_BYTES;
            (&raw mut (*header).owners).write(Owners::single());
            let meta = &raw mut (*header).meta;
            ((*meta).data_len, (*meta).buf_len) = (0, shared.data_room_bytes);
            ((*meta).source, (*meta).kind) = (null_mut(), Kind::Own);
        }
    }

    /// What devices call an address in the pool.
    fn iova_of(&self, va: u64) -> u64 {
        let chunks = self.objects.chunks();
        let at = chunks.partition_point(|chunk| chunk.va <= va);
        // An mbuf's address is in one of them.
        at.checked_sub(1)
            .and_then(|at| chunks.get(at))
            .map_or(0, |chunk| chunk.iova.0 + (va - chunk.va))
    }
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
        let &MbufPoolConfig { data_room_bytes, private_bytes, ref name, .. } = config;
        if data_room_bytes <= HEADROOM_BYTES {
            return Err(MbufPoolError::DataRoom { name: name.clone(), data_room_bytes });
        }
        drop(sweep());
        // The headers point at `Shared`, which holds the objects: room first, contents after.
        let room: Box<MaybeUninit<Shared>> = Box::new_uninit();
        let shared = NonNull::from(Box::leak(room)).cast::<Shared>();
        let buf_offset = config.buffer_offset();
        // Where devices use the same addresses as we do, an mbuf's own tells its room's.
        let mut same_addresses = true;
        let objects = Mempool::new(memory, &config.objects(), |_, object, iova| {
            same_addresses &= iova.0 == object.0.addr().get() as u64;
            // SAFETY: the object is `object_len_bytes` of memory that nobody else has yet,
            // aligned to 64: a header fits, and the private area and the buffer behind it.
            unsafe {
                let buf = object.0.add(buf_offset).as_ptr();
                let buf_iova = iova.0 + buf_offset as u64;
                let header =
                    Header::new(buf, buf_iova, data_room_bytes, private_bytes, shared.as_ptr());
                object.0.cast::<Header>().write(header);
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
                    .then_some(buf_offset as u64 + u64::from(HEADROOM_BYTES)),
                data_room_bytes,
                buf_offset,
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
        let object = self.shared().objects.get_one()?;
        // SAFETY: an object of this pool is a header; it is ours alone.
        Some(unsafe { Mbuf::from_pool(object) })
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
