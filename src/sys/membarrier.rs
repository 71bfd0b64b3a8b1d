//! A barrier on all cores that run this process, so that a thread which does something all the
//! time needs none of its own against one that comes rarely (Linux, `membarrier(2)`).
#![expect(unsafe_code, reason = "membarrier")]

use std::io;
use std::sync::OnceLock;

// <linux/membarrier.h>
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Tells the kernel that this process is going to use [`everywhere`]; whether it may. Asked once.
pub fn register() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| match call(REGISTER_PRIVATE_EXPEDITED) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!("membarrier isn't to be had: {error}");
            false
        }
    })
}

/// A full barrier on every core that runs a thread of this process. Returns when all are done.
///
/// # Errors
/// As membarrier(2): `PermissionDenied` without a [`register`] that said yes.
pub fn everywhere() -> io::Result<()> {
    call(PRIVATE_EXPEDITED)
}

fn call(command: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes numbers, and touches no memory of this process.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such system call")]
    fn a_registered_process_may_use_it() {
        assert!(super::register());
        super::everywhere().unwrap();
    }
}
