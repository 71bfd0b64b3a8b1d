//! `RLIMIT_MEMLOCK`: how much memory this process may pin, which VFIO counts DMA mappings against.
#![expect(unsafe_code, reason = "getrlimit and setrlimit")]

use std::io;

/// A resource limit in bytes; `None` stands for "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// What is enforced now.
    pub soft_bytes: Option<u64>,
    /// What `soft_bytes` may be raised to without privilege.
    pub hard_bytes: Option<u64>,
}

/// The limit of this process.
///
/// # Errors
/// As getrlimit(2).
pub fn memlock() -> io::Result<Memlock> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit that the kernel may fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Memlock { soft_bytes: bytes(limit.rlim_cur), hard_bytes: bytes(limit.rlim_max) })
}

/// Raises the soft limit to the hard one, which any process may do, and returns the result.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2).
pub fn raise_memlock() -> io::Result<Memlock> {
    let before = memlock()?;
    if before.soft_bytes == before.hard_bytes {
        return Ok(before);
    }
    let hard = before.hard_bytes.unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `limit` is a whole rlimit that the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    memlock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_reaches_hard() {
        let before = memlock().unwrap();
        let after = raise_memlock().unwrap();
        assert_eq!(after.soft_bytes, before.hard_bytes);
        assert_eq!(after.hard_bytes, before.hard_bytes);
    }
}
