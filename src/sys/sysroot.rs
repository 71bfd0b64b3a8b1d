//! Where `/sys`, `/proc` and `/dev` start: `/` on a running machine, a directory in a test.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// The directory that stands for `/`. Clone it freely; it is only a path.
///
/// ```
/// use packetboat::sys::sysroot::SysRoot;
/// assert_eq!(SysRoot::default().path("/proc/mounts").to_str(), Some("/proc/mounts"));
/// assert_eq!(SysRoot::new("/tmp/t").path("/proc/mounts").to_str(), Some("/tmp/t/proc/mounts"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysRoot {
    root: PathBuf,
}

impl Default for SysRoot {
    /// The machine itself: `/`.
    fn default() -> Self {
        Self::new("/")
    }
}

impl SysRoot {
    /// Takes `root` for `/`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this is the machine itself and not a tree made for a test.
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The real place of `absolute` (`/sys/…`, `/proc/…`, `/dev/…`).
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether the file or directory is there.
    pub fn exists(&self, absolute: impl AsRef<Path>) -> bool {
        self.path(absolute).exists()
    }

    /// A file's text without the white space at its ends.
    ///
    /// # Errors
    /// As `std::fs::read_to_string`, with the path in the message.
    pub fn read(&self, absolute: impl AsRef<Path>) -> io::Result<String> {
        let path = self.path(absolute);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(with_path(error, &path)),
        }
    }

    /// A file that holds one decimal number.
    ///
    /// # Errors
    /// As [`read`](Self::read); `InvalidData` if the text isn't a number.
    pub fn read_u64(&self, absolute: impl AsRef<Path>) -> io::Result<u64> {
        let text = self.read(&absolute)?;
        text.parse().map_err(|_| {
            let path = self.path(absolute);
            let what = format!("{}: wanted a number, found {text:?}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    /// The names in a directory, sorted. Names that aren't UTF-8 are left out: sysfs has none.
    ///
    /// # Errors
    /// As `std::fs::read_dir`, with the path in the message.
    pub fn entries(&self, absolute: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let path = self.path(absolute);
        let listing = std::fs::read_dir(&path).map_err(|error| with_path(error, &path))?;
        let mut names = Vec::new();
        for entry in listing {
            let name = entry.map_err(|error| with_path(error, &path))?.file_name();
            names.extend(name.to_str().map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The last part of what a symbolic link points at: a device's driver, its IOMMU group.
    /// `None` if there is no such link.
    pub fn link_name(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.path(absolute)).ok()?;
        target.file_name().and_then(OsStr::to_str).map(str::to_owned)
    }
}

/// The same kind of error, with the path in front of its words.
fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_names_the_file_that_is_wrong() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        std::fs::create_dir_all(root.path("/sys/a")).unwrap();
        std::fs::write(root.path("/sys/a/good"), "17\n").unwrap();
        std::fs::write(root.path("/sys/a/bad"), "many\n").unwrap();
        assert_eq!(root.read_u64("/sys/a/good").unwrap(), 17);
        let error = root.read_u64("/sys/a/bad").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("/sys/a/bad"), "{error}");
        assert!(error.to_string().contains("many"), "{error}");
        let error = root.read("/sys/a/none").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/sys/a/none"), "{error}");
        assert_eq!(root.entries("/sys/a").unwrap(), ["bad", "good"]);
    }

    #[test]
    fn a_link_is_known_by_the_last_part_of_its_target() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        std::os::unix::fs::symlink("../../drivers/vfio-pci", root.path("/driver")).unwrap();
        assert_eq!(root.link_name("/driver").as_deref(), Some("vfio-pci"));
        assert_eq!(root.link_name("/iommu_group"), None);
    }
}
