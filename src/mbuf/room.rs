//! Empty buffers that a device has, to receive into.
#![expect(unsafe_code, reason = "writes the header of a buffer that comes back from a device")]

use std::mem::{MaybeUninit, forget};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::frame::Mbuf;
use super::header::{HEADROOM_BYTES, Header};
use super::lent::Quiesced;
use super::offload::RxInfo;
use super::pool::MbufPool;
use crate::memory::Iova;
use crate::mempool::{Mempool, Object};

/// A buffer lent to a device to put a frame in. There is no way to its data until the driver takes
/// it back, with what the device said of the frame: see [`Lent`](super::Lent), which is the same
/// for frames that are sent.
///
/// Its header isn't written before it comes back, and then once: receiving a frame costs one set of
/// stores to one cache line.
#[derive(Debug)]
#[repr(transparent)]
pub struct LentRoom(NonNull<Header>);

// SAFETY: as for Mbuf: whoever has it has the header to itself.
unsafe impl Send for LentRoom {}

/// Buffers are taken from the pool this many at a time.
const BATCH: usize = 64;

impl MbufPool {
    /// Takes `count` buffers for a device to receive into and hands each to `lend`, with the
    /// address to tell the device ([`LentRoom::iova`]). Their headers aren't touched.
    ///
    /// Returns how many: all, or none if the pool hasn't that many. (More than 64 are taken in
    /// several goes, between which it may run dry.)
    #[inline(always)]
    pub fn lend_bulk(&self, count: usize, mut lend: impl FnMut(LentRoom, Iova)) -> usize {
        let offset = self.iova_offset();
        let mut lend_one = |object: Object| {
            // Objects of this pool are headers; this one was just taken, and is ours.
            let room = LentRoom(object.0.cast());
            let iova = match offset {
                Some(offset) => Iova(room.0.addr().get() as u64 + offset),
                None => room.iova(),
            };
            lend(room, iova);
        };
        let mut done = 0;
        while done < count {
            let batch = (count - done).min(BATCH);
            if !self.objects().take_each(batch, &mut lend_one) {
                // Here, and not in a function that is handed the closure: what it has captured would
                // be in memory for good, and be read again after each store of the loop above.
                let mut objects = [const { MaybeUninit::<Object>::uninit() }; BATCH];
                let Some(objects) = objects.get_mut(..batch) else { break };
                if !self.copy_out(objects) {
                    break;
                }
                let mut rest = Rest { objects, handed_out: 0, pool: self.objects() };
                while let Some(object) = rest.objects.get(rest.handed_out) {
                    // SAFETY: filled by the pool.
                    let object = unsafe { object.assume_init() };
                    rest.handed_out += 1;
                    lend_one(object);
                }
                forget(rest);
            }
            done += batch;
        }
        done
    }

    /// For who has no cache, or one that is too small or empty.
    #[cold]
    #[inline(never)]
    fn copy_out(&self, objects: &mut [MaybeUninit<Object>]) -> bool {
        self.objects().get_bulk(objects)
    }
}

impl MbufPool {
    /// Fills `places` with buffers for a device to receive into, all or none, and hands the address
    /// of each to `describe`, with one of `descriptors`. Their headers aren't touched.
    #[inline(always)]
    pub(crate) fn lend_into<D>(
        &self,
        places: &mut [MaybeUninit<LentRoom>],
        descriptors: impl Iterator<Item = D>,
        mut describe: impl FnMut(D, Iova),
    ) -> bool {
        let pointer = places.as_mut_ptr().cast::<MaybeUninit<Object>>();
        // SAFETY: both are transparent around a pointer of the same kind, and MaybeUninit of either
        // has no validity of its own.
        let objects = unsafe { std::slice::from_raw_parts_mut(pointer, places.len()) };
        if !self.objects().get_bulk(objects) {
            return false;
        }
        let offset = self.iova_offset();
        let rooms = places.iter().map(|place| {
            // SAFETY: filled by the pool: the header of an object of it, and ours alone.
            unsafe { place.assume_init_ref() }
        });
        let each = descriptors.zip(rooms);
        match offset {
            Some(offset) => each.for_each(|(descriptor, room)| {
                describe(descriptor, Iova(room.0.addr().get() as u64 + offset));
            }),
            None => each.for_each(|(descriptor, room)| describe(descriptor, room.iova())),
        }
        true
    }
}

/// What was taken from the pool, to be put back from `handed_out` on if `lend` panics.
struct Rest<'a> {
    objects: &'a mut [MaybeUninit<Object>],
    handed_out: usize,
    pool: &'a Mempool,
}

impl Drop for Rest<'_> {
    #[cold]
    fn drop(&mut self) {
        let rest = self.objects.get(self.handed_out..).unwrap_or_default();
        if !rest.is_empty() {
            // SAFETY: filled; taken from this pool and not used since.
            unsafe {
                let rest: *const [MaybeUninit<Object>] = rest;
                self.pool.put_bulk(&*(rest as *const [Object]));
            }
        }
    }
}

impl Mbuf {
    /// Gives the buffer of a frame to a device to receive into; what it holds is lost.
    ///
    /// # Errors
    /// A chain, or a frame that shares its data, comes back: a device can't write there.
    #[inline(always)]
    pub fn lend_room(self) -> Result<LentRoom, Self> {
        if self.is_single() { Ok(LentRoom(self.into_header())) } else { Err(self) }
    }
}

impl LentRoom {
    #[inline(always)]
    fn header(&self) -> &Header {
        // SAFETY: the header is this holder's alone; devices get the buffer's address, not its.
        unsafe { self.0.as_ref() }
    }

    /// Where the device shall put a frame: behind the headroom.
    #[inline(always)]
    #[must_use]
    pub fn iova(&self) -> Iova {
        Iova(self.header().place.buf_iova + u64::from(HEADROOM_BYTES))
    }

    /// How much may stand there, in bytes. The same for all buffers of a pool:
    /// [`MbufPool::room_len_bytes`].
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> u16 {
        // A pool's data room is larger than the headroom.
        self.header().meta.buf_len.saturating_sub(HEADROOM_BYTES)
    }

    /// Whether so many bytes fit.
    #[inline(always)]
    #[must_use]
    pub fn fits(&self, len_bytes: u32) -> bool {
        let end = u64::from(len_bytes) + u64::from(HEADROOM_BYTES);
        end <= u64::from(self.header().meta.buf_len)
    }

    /// The device has put a frame, or a part of one, of `len_bytes` bytes there, and says `info`
    /// of it.
    ///
    /// # Errors
    /// The length is what the device said, and isn't believed: one that doesn't fit comes back as
    /// an error that holds the frame, empty.
    #[inline(always)]
    pub fn take_back_filled(self, len_bytes: u32, port: u16, info: RxInfo) -> Result<Mbuf, Mbuf> {
        if !self.fits(len_bytes) {
            return Err(self.take_back_empty(port));
        }
        // SAFETY: the data lies inside the buffer, as was just found.
        Ok(unsafe { self.take_back_as(HEADROOM_BYTES, len_bytes as u16, port, info) })
    }

    /// As [`Self::take_back_filled`], of a length that is known to fit.
    ///
    /// # Safety
    /// `len_bytes` is at most [`Self::len_bytes`].
    #[inline(always)]
    pub(crate) unsafe fn take_back_fitting(self, len_bytes: u16, port: u16, info: RxInfo) -> Mbuf {
        // SAFETY: behind the headroom there is room for so much, as the caller promises.
        unsafe { self.take_back_as(HEADROOM_BYTES, len_bytes, port, info) }
    }

    /// The device has written `len_bytes` bytes, from `prefix` bytes in front of
    /// [`Self::iova`] on; the first `skip` of them are its own header, the rest is data.
    ///
    /// # Errors
    /// As for [`Self::take_back_filled`]; also if it is less than `skip`.
    #[inline(always)]
    pub fn take_back_written(
        self,
        prefix: u16,
        skip: u16,
        len_bytes: u32,
        port: u16,
        info: RxInfo,
    ) -> Result<Mbuf, Mbuf> {
        // From the buffer's start on, so that with constants in front it is two comparisons.
        let start = HEADROOM_BYTES.saturating_sub(prefix);
        let end = u64::from(start) + u64::from(len_bytes);
        let fits = prefix <= HEADROOM_BYTES
            && len_bytes >= u32::from(skip)
            && end <= u64::from(self.header().meta.buf_len);
        if !fits {
            return Err(self.take_back_empty(port));
        }
        let len = len_bytes - u32::from(skip);
        // SAFETY: the data lies inside the buffer, as was just found.
        Ok(unsafe { self.take_back_as(HEADROOM_BYTES - prefix + skip, len as u16, port, info) })
    }

    /// Writes the first line.
    ///
    /// # Safety
    /// `data_off + data_len` is at most the buffer's length.
    #[inline(always)]
    unsafe fn take_back_as(self, data_off: u16, data_len: u16, port: u16, info: RxInfo) -> Mbuf {
        let header = self.0;
        forget(self);
        // SAFETY: the header is the holder's alone.
        unsafe { Header::receive(header.as_ptr(), data_off, data_len, port, info) };
        Mbuf::from_header(header)
    }

    /// Nothing was put there, or nothing that can be used.
    #[cold]
    fn take_back_empty(self, port: u16) -> Mbuf {
        // SAFETY: a pool's data room is larger than the headroom.
        unsafe { self.take_back_as(HEADROOM_BYTES, 0, port, RxInfo::NONE) }
    }

    /// The device was reset: what it had comes back, empty.
    #[must_use]
    pub fn reclaim(self, _reset: &Quiesced) -> Mbuf {
        self.take_back_empty(u16::MAX)
    }
}

impl Drop for LentRoom {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: a pool's memory outlives every mbuf of it, leaked ones for ever.
        let leaked = unsafe { &(*self.header().meta.pool).leaked };
        leaked.fetch_add(1, Ordering::Relaxed);
    }
}
