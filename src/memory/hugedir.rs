//! Files on a hugetlbfs mount (`--huge-dir`): locked while in use, removed when dropped. Those of
//! a process that was killed have lost their lock; the next start with the same prefix removes
//! them and so frees their pages.

use super::error::MemoryError;
use super::hugepages::Inventory;
use super::size::Size;
use crate::sys::fs::hugetlbfs_page_len;
use crate::sys::sysroot::SysRoot;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory on a hugetlbfs mount, and the start of our files' names there.
#[derive(Debug)]
pub(super) struct HugeDir {
    dir: PathBuf,
    prefix: String,
    /// The mount's page size.
    pub(super) page_len_bytes: u64,
}

/// A file of ours. The lock lasts as long as the value; the drop removes the file.
#[derive(Debug)]
pub(super) struct HugeFile {
    file: File,
    path: PathBuf,
}

/// More files than any start makes: one for each node and page size.
const MAX_FILES: u32 = 4096;

impl HugeDir {
    /// Checks that `dir` is on a hugetlbfs (with pages of `page_len_bytes`, if given), and removes
    /// what dead processes of this prefix left there.
    pub(super) fn open(
        dir: &Path,
        prefix: &str,
        page_len_bytes: Option<u64>,
        root: &SysRoot,
    ) -> Result<Self, MemoryError> {
        let other = |found: String| {
            let mounts = Inventory::read(root).map(|inventory| inventory.mounts);
            let mounts = mounts.unwrap_or_default().into_iter().map(|mount| mount.dir).collect();
            MemoryError::HugeDirKind { dir: dir.to_owned(), found, mounts }
        };
        let found = match hugetlbfs_page_len(dir) {
            Ok(Some(page_len_bytes)) if dir.is_dir() => page_len_bytes,
            Ok(Some(_)) => return Err(other("a file".to_owned())),
            Ok(None) => return Err(other("another file system".to_owned())),
            Err(error) => return Err(other(error.to_string())),
        };
        if let Some(wanted) = page_len_bytes.filter(|wanted| *wanted != found) {
            return Err(MemoryError::HugeDirPageSize {
                dir: dir.to_owned(),
                wanted: Size(wanted),
                found: Size(found),
            });
        }
        let this = Self { dir: dir.to_owned(), prefix: prefix.to_owned(), page_len_bytes: found };
        this.remove_stale();
        Ok(this)
    }

    /// A new, empty, locked file of ours.
    pub(super) fn create(&self) -> Result<HugeFile, MemoryError> {
        let mut path = self.dir.join(format!("{}map_0", self.prefix));
        for number in 0..MAX_FILES {
            path.set_file_name(format!("{}map_{number}", self.prefix));
            match create_locked(&path) {
                Ok(Some(file)) => return Ok(HugeFile { file, path }),
                Ok(None) => {}
                Err(source) => {
                    return Err(MemoryError::HugeDirWrite {
                        file: path,
                        dir: self.dir.clone(),
                        source,
                    });
                }
            }
        }
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "all names are taken");
        Err(MemoryError::HugeDirWrite { file: path, dir: self.dir.clone(), source })
    }

    /// Removes files of our prefix that nobody has locked. One that can't be removed is only
    /// reported: if its pages are missing, the preflight says so.
    fn remove_stale(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| self.is_ours(name)) {
                continue;
            }
            let path = entry.path();
            let shown = path.display();
            match remove_unlocked(&path) {
                Ok(true) => {
                    tracing::info!("removed {shown}, left by a dead process");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        "{shown} is left by a dead process and keeps its hugepages: {error}. \
                         Remove it with `rm {shown}` as its owner"
                    );
                }
            }
        }
    }

    /// Whether a file name is `<prefix>map_<number>`.
    fn is_ours(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix("map_"));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// Makes the file and locks it; `None` if another process has the name, or took the new file for
/// a dead one's and removed it before it was locked.
fn create_locked(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) if file.metadata()?.nlink() > 0 => Ok(Some(file)),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(path); // it is empty; the lock's error says more
            Err(error)
        }
    }
}

/// Removes the file unless a living process has locked it. Whether it did.
fn remove_unlocked(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock() {
        // The name may be a newer file's by now: remove it only if it is still this one.
        Ok(()) if fs::metadata(path)?.ino() == file.metadata()?.ino() => {
            fs::remove_file(path).map(|()| true)
        }
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl HugeFile {
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for HugeFile {
    fn drop(&mut self) {
        // Removed while still locked, so that nobody else takes it for a dead one's.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The life of files needs no hugetlbfs: any directory shows it.
    fn huge_dir(dir: &Path, prefix: &str) -> HugeDir {
        HugeDir { dir: dir.to_owned(), prefix: prefix.to_owned(), page_len_bytes: 2 << 20 }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_numbered_locked_and_removed_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let huge = huge_dir(dir.path(), "boat");
        let first = huge.create().unwrap();
        let second = huge.create().unwrap();
        assert_eq!(names(dir.path()), ["boatmap_0", "boatmap_1"]);
        let again = File::open(dir.path().join("boatmap_0")).unwrap();
        assert!(matches!(again.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        assert_eq!(names(dir.path()), ["boatmap_1"]);
        drop(second);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn only_unlocked_files_of_the_same_prefix_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["boatmap_7", "boatmap_", "boatmap_7x", "shipmap_7", "boat", "lifeboatmap_1"] {
            fs::write(dir.path().join(name), "left").unwrap();
        }
        let huge = huge_dir(dir.path(), "boat");
        let living = huge.create().unwrap();
        huge.remove_stale();
        let left = ["boat", "boatmap_", "boatmap_0", "boatmap_7x", "lifeboatmap_1", "shipmap_7"];
        assert_eq!(names(dir.path()), left);
        drop(living);
    }

    #[test]
    fn what_is_no_hugetlbfs_is_refused_with_the_mounts_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = SysRoot::new(dir.path());
        fs::create_dir(root.path("/proc")).unwrap();
        let mounts = "none /mnt/huge hugetlbfs rw,pagesize=2M 0 0\n";
        fs::write(root.path("/proc/mounts"), mounts).unwrap();
        let error = HugeDir::open(dir.path(), "boat", None, &root).unwrap_err().to_string();
        for part in
            ["--huge-dir", "another file system", "Mounted are: /mnt/huge", "mount -t hugetlbfs"]
        {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        let error = HugeDir::open(Path::new("/no/such"), "boat", None, &root).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        // procfs refuses new files even from root.
        let error = huge_dir(Path::new("/proc"), "boat").create().unwrap_err().to_string();
        for part in ["/proc/boatmap_0", "findmnt -T /proc", "remount,rw"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}
