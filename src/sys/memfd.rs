//! Files without a name: memory that a second process can map, and that ends with its last user.
#![expect(unsafe_code, reason = "memfd_create, fallocate and fcntl")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Creates an empty memfd that is closed on exec and whose size can be sealed. `name` is what
/// `/proc/PID/maps` shows; `huge_page_len_bytes` asks for hugepages of that size.
///
/// # Errors
/// As memfd_create(2); `InvalidInput` for a name with a NUL byte or a page size that isn't a
/// power of two.
pub fn create(name: &str, huge_page_len_bytes: Option<u64>) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let mut flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    if let Some(len) = huge_page_len_bytes {
        if !len.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        flags |= libc::MFD_HUGETLB | (len.trailing_zeros() << libc::MFD_HUGE_SHIFT);
    }
    // Kernels from 6.3 on want to hear that the memory won't be executed; older ones refuse the
    // unknown flag.
    match create_with(&name, flags | libc::MFD_NOEXEC_SEAL) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create_with(&name, flags),
        result => result,
    }
}

fn create_with(name: &CString, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the file `len_bytes` of real memory. After this a touch of a mapped page can't fail
/// for lack of memory, so it can't raise SIGBUS either.
///
/// # Errors
/// As fallocate(2): `ENOSPC` or `ENOMEM` when the pages aren't there.
pub fn allocate(file: BorrowedFd<'_>, len_bytes: u64) -> io::Result<()> {
    let len =
        libc::off_t::try_from(len_bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: the call takes numbers and an open descriptor, nothing of this process' memory.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Fixes the size of a memfd for good, so that a peer which also has the descriptor can't cut
/// pages away under our feet (which would be SIGBUS here).
///
/// # Errors
/// As fcntl(2) with `F_ADD_SEALS`.
pub fn seal_size(file: BorrowedFd<'_>) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the call takes numbers and an open descriptor.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn allocated_memory_is_counted_and_its_size_is_fixed() {
        let fd = create("memfd-test", None).unwrap();
        allocate(fd.as_fd(), 1 << 20).unwrap();
        seal_size(fd.as_fd()).unwrap();
        let file = File::from(fd);
        let status = file.metadata().unwrap();
        assert_eq!(status.len(), 1 << 20);
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&status) * 512, 1 << 20);
        assert_eq!(file.set_len(0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn bad_names_and_page_sizes_are_refused() {
        assert_eq!(create("a\0b", None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(create("a", Some(3)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
