//! TAP interfaces: a network interface of the kernel whose frames a program reads and writes.
#![expect(unsafe_code, reason = "the TUNSETIFF ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

const DEVICE: &str = "/dev/net/tun";

/// Opens the TAP interface `name`, which is made if there is none. Each read gives a frame, each
/// write sends one, without a header of the kernel's; neither blocks.
///
/// # Errors
/// `InvalidInput` for a name that no interface can have, else as open(2) and the ioctl: `EPERM`
/// without CAP_NET_ADMIN, `EBUSY` when another process has it.
pub fn open(name: &str) -> io::Result<File> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    // The name's last byte stays 0.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "flags of 16 bits")]
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and which lives until after
    // the call; the descriptor is open.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have() {
        for name in ["", "sixteen-bytes-xx", "a\0b"] {
            assert_eq!(
                open(name).map_err(|error| error.kind()).err(),
                Some(io::ErrorKind::InvalidInput)
            );
        }
    }
}
