//! The split virtqueue (virtio 1.3, 2.7): a table of descriptors, a ring of those available to the
//! device, a ring of those it has used.

use std::sync::Arc;

use packetboat::dma::{Area, Array, Cell};
use packetboat::memory::{Iova, Memory};
use packetboat::mmio::{Register, order_dma_all};
use packetboat::port::PortError;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::transport::{PciTransport, QueueAreas};

/// `struct virtq_desc` (2.7.5).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(16))]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    /// Another descriptor follows, in `next`.
    pub(crate) const NEXT: u16 = 1;
    /// The device writes to it.
    pub(crate) const WRITE: u16 = 2;

    /// One that the device reads.
    #[inline(always)]
    pub(crate) fn readable(address: Iova, len: u32) -> Self {
        Self { address: address.0, len, flags: 0, next: 0 }
    }

    /// One that the device writes.
    #[inline(always)]
    pub(crate) fn writable(address: Iova, len: u32) -> Self {
        Self { address: address.0, len, flags: Self::WRITE, next: 0 }
    }
}

/// `struct virtq_used_elem` (2.7.8): what the device says of a descriptor it is done with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Used {
    pub(crate) id: u32,
    pub(crate) len: u32,
}

/// The device's used index has run ahead of what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6): we poll.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (2.7.8): the device polls.
const NO_NOTIFY: u16 = 1;

/// A split virtqueue whose driver side is ours.
///
/// It moves ids and knows nothing of what they stand for: who lends buffers keeps the record.
#[derive(Debug)]
pub(crate) struct SplitRing {
    descriptors: Array<Descriptor>,
    available: Array<u16>,
    available_index: Cell<u16>,
    used: Array<Used>,
    used_index: Cell<u16>,
    used_flags: Cell<u16>,
    doorbell: Register<u16>,
    /// The queue's number, which is what its doorbell is rung with.
    index: u16,
    size: u16,
    /// Entries made available so far, modulo 2^16, and how many of them the device was shown.
    next_available: u16,
    /// Used entries taken so far, modulo 2^16.
    next_used: u16,
}

/// Where the parts of a queue of `size` entries stand in its memory.
struct Layout {
    available: usize,
    used: usize,
    len_bytes: usize,
}

impl Layout {
    fn of(size: u16) -> Self {
        let size = usize::from(size);
        // Each part on cache lines of its own: descriptors and the available ring are ours to
        // write, the used ring is the device's.
        let available = (16 * size).next_multiple_of(64);
        let used = (available + 6 + 2 * size).next_multiple_of(64);
        Self { available, used, len_bytes: (used + 6 + 8 * size).next_multiple_of(64) }
    }
}

impl SplitRing {
    /// Makes queue `index` with `size` entries (a power of two) and hands it to the device. The
    /// area is returned too: it must outlive the device's use of it, whatever becomes of the ring.
    pub(crate) fn new(
        transport: &PciTransport,
        memory: &Arc<Memory>,
        index: u16,
        size: u16,
    ) -> Result<(Self, Area), PortError> {
        let layout = Layout::of(size);
        let name = format!("{} virtqueue {index}", transport.name());
        let node = transport.device().numa_node();
        // Aligned to a page, so that a small queue stands in one.
        let area = Area::new(memory, &name, layout.len_bytes, 4096, node)?;
        let count = usize::from(size);
        let mut available_flags = area.cell::<u16>(layout.available)?;
        available_flags.store_release(NO_INTERRUPT);
        let doorbell = transport.enable_queue(
            index,
            size,
            QueueAreas {
                descriptors: area.iova(0),
                driver: area.iova(layout.available),
                device: area.iova(layout.used),
            },
        )?;
        let ring = Self {
            descriptors: area.array(0, count)?,
            available: area.array(layout.available + 4, count)?,
            available_index: area.cell(layout.available + 2)?,
            used: area.array(layout.used + 4, count)?,
            used_index: area.cell(layout.used + 2)?,
            used_flags: area.cell(layout.used)?,
            doorbell,
            index,
            size,
            next_available: 0,
            next_used: 0,
        };
        Ok((ring, area))
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Writes descriptor `id`.
    #[inline(always)]
    pub(crate) fn describe(&mut self, id: u16, descriptor: Descriptor) {
        self.descriptors.write(usize::from(id), descriptor);
    }

    /// Makes the chain that starts at descriptor `id` available, once [`Self::publish`] is called.
    #[inline(always)]
    pub(crate) fn offer(&mut self, id: u16) {
        self.available.write(usize::from(self.next_available), id);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Shows the device all that was offered, and rings its doorbell unless it said not to.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        self.available_index.store_release(self.next_available);
        // The device may just be going to sleep: it asks for notifications, then looks at the
        // index once more; we write the index, then look at what it asks (2.7.13.4.1).
        order_dma_all();
        if self.used_flags.load_acquire() & NO_NOTIFY == 0 {
            self.doorbell.write(self.index);
        }
    }

    /// Shows the device what was offered without ringing: before DRIVER_OK it may not be rung.
    pub(crate) fn publish_quietly(&mut self) {
        self.available_index.store_release(self.next_available);
    }

    /// Rings the doorbell, after all that was published.
    pub(crate) fn ring(&self) {
        self.doorbell.write_after_dma(self.index);
    }

    /// How many chains the device has completed that weren't taken yet, of `outstanding` that it
    /// has.
    #[inline(always)]
    pub(crate) fn completed(&self, outstanding: u16) -> Result<u16, Broken> {
        let completed = self.used_index.load_acquire().wrapping_sub(self.next_used);
        if completed <= outstanding { Ok(completed) } else { Err(Broken) }
    }

    /// The next completed chain. To be called only as often as [`Self::completed`] said.
    #[inline(always)]
    pub(crate) fn take_used(&mut self) -> Used {
        let used = self.used.read(usize::from(self.next_used));
        self.next_used = self.next_used.wrapping_add(1);
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_apart() {
        for size in [2u16, 4, 64, 256, 1024, 32768] {
            let layout = Layout::of(size);
            let count = usize::from(size);
            assert!(layout.available >= 16 * count);
            assert!(layout.used >= layout.available + 6 + 2 * count);
            assert!(layout.len_bytes >= layout.used + 6 + 8 * count);
            assert_eq!((layout.available % 2, layout.used % 4), (0, 0), "2.7, alignments");
        }
    }
}
