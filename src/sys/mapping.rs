//! A piece of a file mapped into this process, unmapped when dropped.
#![expect(unsafe_code, reason = "mmap, munmap and madvise")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Where a mapping shall stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Wherever the kernel likes.
    Anywhere,
    /// At this address, or not at all: what is there already is never replaced.
    Exactly(usize),
}

/// Exclusive owner of a range of mapped addresses. It gives out a raw pointer only; who reads and
/// writes through it answers for doing so while the mapping lives.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the type owns a range of addresses and touches their contents only through the kernel
// (madvise) or by volatile reads; ownership of addresses isn't tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len_bytes` of `file` from `offset_bytes` on, shared, readable and writable.
    ///
    /// # Errors
    /// As mmap(2). `AlreadyExists` if [`Placement::Exactly`] names an address that is taken;
    /// kernels before 4.17 don't know `MAP_FIXED_NOREPLACE` and map elsewhere, which is undone
    /// and reported as the same error.
    pub fn shared(
        file: BorrowedFd<'_>,
        offset_bytes: u64,
        len_bytes: usize,
        place: Placement,
    ) -> io::Result<Self> {
        let (hint, flags) = match place {
            Placement::Anywhere => (0, libc::MAP_SHARED),
            Placement::Exactly(0) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
            Placement::Exactly(address) => (address, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE),
        };
        let offset = libc::off_t::try_from(offset_bytes)
            .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: without MAP_FIXED the kernel maps only addresses that nothing uses, so no
        // existing object changes; the descriptor is open, which BorrowedFd keeps.
        let address = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(hint),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Only a mapping that asks for address 0 can be there.
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        };
        let mapping = Self { address, len_bytes };
        match place {
            Placement::Exactly(wanted) if address.addr().get() != wanted => {
                Err(io::Error::from_raw_os_error(libc::EEXIST)) // the drop unmaps it again
            }
            _ => Ok(mapping),
        }
    }

    /// First byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.address
    }

    /// Length as it was asked for.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Enters every page into the page table now, so that no page fault is taken later. The
    /// contents stay as they are.
    ///
    /// # Errors
    /// As madvise(2) with `MADV_POPULATE_WRITE`: where a touch would have raised SIGBUS, this is
    /// an error. Kernels before 5.14 don't have it; there each page is read instead, which is
    /// safe from SIGBUS only if the file's blocks were allocated first
    /// ([`memfd::allocate`](super::memfd::allocate)).
    pub fn populate(&self) -> io::Result<()> {
        loop {
            // SAFETY: MADV_POPULATE_WRITE changes no contents, and the range is this mapping's.
            let result = unsafe {
                libc::madvise(
                    self.address.as_ptr().cast(),
                    self.len_bytes,
                    libc::MADV_POPULATE_WRITE,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
        for offset in (0..self.len_bytes).step_by(page_len_bytes()) {
            // SAFETY: `offset` lies inside the mapping, which is readable as long as `self`
            // lives; a volatile read of one byte makes no claim about other writers.
            unsafe { self.address.add(offset).read_volatile() };
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range came from mmap, nothing else unmaps it, and whoever holds pointers
        // into it promised to stop before the owner is dropped (Zone keeps its Memory alive).
        let result = unsafe { libc::munmap(self.address.as_ptr().cast(), self.len_bytes) };
        if result != 0 {
            let error = io::Error::last_os_error();
            tracing::warn!("munmap of {} bytes at {:p}: {error}", self.len_bytes, self.address);
        }
    }
}

/// Size of the machine's normal pages, in bytes.
pub fn page_len_bytes() -> usize {
    // SAFETY: sysconf only reads a constant.
    let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(len).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd;
    use std::os::fd::AsFd;

    fn file(len_bytes: u64) -> std::os::fd::OwnedFd {
        let file = memfd::create("mapping-test", None).unwrap();
        memfd::allocate(file.as_fd(), len_bytes).unwrap();
        file
    }

    #[test]
    fn two_mappings_of_a_file_show_the_same_bytes() {
        let len = page_len_bytes() * 2;
        let file = file(len as u64);
        let one = Mapping::shared(file.as_fd(), 0, len, Placement::Anywhere).unwrap();
        let two = Mapping::shared(file.as_fd(), 0, len, Placement::Anywhere).unwrap();
        one.populate().unwrap();
        // SAFETY: both mappings are alive, len bytes long, and used by this thread alone.
        let seen = unsafe {
            one.as_ptr().add(len - 1).write(0xa5);
            two.as_ptr().add(len - 1).read()
        };
        assert_eq!(seen, 0xa5);
    }

    #[test]
    fn an_occupied_address_is_left_alone_and_free_again_after_drop() {
        let len = page_len_bytes();
        let file = file(len as u64);
        let first = Mapping::shared(file.as_fd(), 0, len, Placement::Anywhere).unwrap();
        let taken = Placement::Exactly(first.as_ptr().addr().get());
        let error = Mapping::shared(file.as_fd(), 0, len, taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
