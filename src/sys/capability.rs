//! Which capabilities this process has, read from `/proc/self/status`.

use super::sysroot::SysRoot;
use std::io;

/// The capabilities that this program's messages speak of, with their numbers from
/// capabilities(7) and `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Pin memory beyond `RLIMIT_MEMLOCK`.
    IpcLock = 14,
    /// Read physical addresses from `/proc/self/pagemap`, among much else.
    SysAdmin = 21,
}

/// Whether the capability is effective.
///
/// # Errors
/// `/proc/self/status` can't be read or has no `CapEff` line.
pub fn has(root: &SysRoot, capability: Capability) -> io::Result<bool> {
    let status = root.read("/proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| {
            let what = "/proc/self/status: wanted a line CapEff with a hexadecimal mask";
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
    Ok(mask & (1 << capability as u32) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_the_mask_are_found() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        std::fs::create_dir_all(root.path("/proc/self")).unwrap();
        let status = root.path("/proc/self/status");
        std::fs::write(&status, "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t0\n").unwrap();
        assert!(has(&root, Capability::IpcLock).unwrap());
        assert!(!has(&root, Capability::SysAdmin).unwrap());
        std::fs::write(&status, "Name:\tx\n").unwrap();
        assert!(has(&root, Capability::IpcLock).is_err());
    }
}
