//! A page of counters in a file, for programs that want them without asking.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::statistics::Tally;

const PAGE: usize = 4096;
const EACH: usize = 16;

/// Counters of doorbells, for whoever counts instructions per frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doorbells {
    /// Writes of RDT.
    pub rdt: u64,
    /// Writes of TDT.
    pub tdt: u64,
}

/// The part of a NIC.
#[derive(Clone, Debug)]
pub struct Counters {
    page: Arc<MmapRegion>,
    first: usize,
}

impl Counters {
    /// Makes the file, and gives the parts of the first two NICs.
    ///
    /// # Errors
    /// When the file can't be made or mapped.
    pub fn create(path: &Path) -> io::Result<[Self; 2]> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(PAGE as u64)?;
        let page =
            MmapRegion::from_file(FileOffset::new(file, 0), PAGE).map_err(io::Error::other)?;
        let page = Arc::new(page);
        Ok([Self { page: Arc::clone(&page), first: 0 }, Self { page, first: EACH }])
    }

    /// Puts the numbers of now there.
    pub fn publish(&self, tally: &Tally, doorbells: Doorbells) {
        let values = [
            tally.received.frames,
            tally.sent.frames,
            doorbells.rdt,
            doorbells.tdt,
            tally.dma_faults,
            tally.bad_descriptors,
        ];
        for (n, value) in values.into_iter().enumerate() {
            if let Ok(slot) = self.page.get_atomic_ref::<AtomicU64>(8 * (self.first + n)) {
                slot.store(value, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_where_others_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        let [_, second] = Counters::create(&path).unwrap();
        let mut tally = Tally::new();
        tally.sent.count(&[0; 60], 0);
        second.publish(&tally, Doorbells { rdt: 7, tdt: 8 });
        let bytes = std::fs::read(&path).unwrap();
        let number = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
        assert_eq!((number(1), number(17), number(18), number(19)), (0, 1, 7, 8));
    }
}
