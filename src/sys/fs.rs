//! What kind of file system a path is on.
#![expect(unsafe_code, reason = "statfs")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The page size of the hugetlbfs mount that `path` is on, in bytes; `None` if it is on another
/// kind of file system.
///
/// # Errors
/// As statfs(2).
pub fn hugetlbfs_page_len(path: &Path) -> io::Result<Option<u64>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the name is NUL-terminated, and `status` is room for one statfs.
    if unsafe { libc::statfs(name.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs succeeded, so the kernel has filled the whole structure.
    let status = unsafe { status.assume_init() };
    // Field types differ between C libraries; all values here are small and positive.
    let is_hugetlbfs = i128::from(status.f_type) == i128::from(libc::HUGETLBFS_MAGIC);
    Ok(if is_hugetlbfs { u64::try_from(status.f_bsize).ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_not_hugetlbfs_and_a_missing_path_is_an_error() {
        assert_eq!(hugetlbfs_page_len(Path::new("/proc")).unwrap(), None);
        let error = hugetlbfs_page_len(Path::new("/no/such/path")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
