//! Where the parts of a virtqueue stand.

use std::sync::Arc;

use packetboat::dma::Area;
use packetboat::memory::{Iova, Memory};
use packetboat::port::PortError;

use super::DESCRIPTOR_BYTES;

/// Addresses of a queue's three areas, for the device (virtio 1.3, 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueAreas {
    pub(crate) descriptors: Iova,
    pub(crate) driver: Iova,
    pub(crate) device: Iova,
}

/// A queue's memory.
#[derive(Debug, Clone)]
pub(crate) struct QueueMemory {
    pub(crate) area: Area,
    pub(crate) size: u16,
    layout: Layout,
}

/// Where its parts stand in its memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) driver: usize,
    pub(crate) device: usize,
    pub(crate) len_bytes: usize,
}

impl Layout {
    /// Each part on cache lines of its own: some are ours to write, some the device's.
    fn split(size: u16) -> Self {
        let size = usize::from(size);
        // Flags and index, the ring, the event index (2.7.6).
        let driver = DESCRIPTOR_BYTES * size;
        // Flags and index stand in the last bytes of a line, so that the entries start with a line
        // and each can be read in one go: 2.7 asks for an alignment of 4 only.
        let device = (driver + 6 + 2 * size).next_multiple_of(64) + 60;
        Self { driver, device, len_bytes: (device + 6 + 8 * size).next_multiple_of(64) }
    }

    /// Descriptors, and the two event suppression structures (2.8.14).
    fn packed(size: u16) -> Self {
        let driver = (DESCRIPTOR_BYTES * usize::from(size)).next_multiple_of(64);
        Self { driver, device: driver + 64, len_bytes: driver + 128 }
    }
}

impl QueueMemory {
    /// Memory for a queue of `size` entries, a power of two. It must outlive the device's use of
    /// it, whatever becomes of the ring.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        name: &str,
        node: Option<u32>,
        size: u16,
        packed: bool,
    ) -> Result<Self, PortError> {
        let layout = if packed { Layout::packed(size) } else { Layout::split(size) };
        // Aligned to a page, so that a small queue stands in one.
        let area = Area::new(memory, name, layout.len_bytes, 4096, node)?;
        Ok(Self { area, size, layout })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn areas(&self) -> QueueAreas {
        QueueAreas {
            descriptors: self.area.iova(0),
            driver: self.area.iova(self.layout.driver),
            device: self.area.iova(self.layout.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_apart() {
        for size in [1u16, 2, 4, 64, 256, 1024, 32768] {
            let count = usize::from(size);
            let Layout { driver, device, len_bytes } = Layout::split(size);
            assert!(driver >= 16 * count && device >= driver + 6 + 2 * count);
            assert!(len_bytes >= device + 6 + 8 * count);
            assert_eq!((driver % 2, device % 4), (0, 0), "2.7, alignments");
            assert_eq!((device + 4) % 64, 0, "entries start with a line");
            assert!(device / 64 > (driver + 5 + 2 * count) / 64, "on lines of its own");
            let Layout { driver, device, len_bytes } = Layout::packed(size);
            assert!(driver >= 16 * count && device >= driver + 4 && len_bytes >= device + 4);
            assert_eq!((driver % 4, device % 4), (0, 0), "2.8.10.1, alignments");
        }
    }
}
