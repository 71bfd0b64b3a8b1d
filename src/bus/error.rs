//! What can go wrong between this process and a device.

use std::io;
use std::path::PathBuf;

use crate::mmio::MmioError;

/// A device couldn't be found, reached, or made to do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// A text that isn't a PCI address.
    #[error(
        "{text:?} isn't a PCI address: wanted DDDD:BB:DD.F or BB:DD.F in hexadecimal, such as \
         0000:03:00.0 (`scripts/devbind.sh -s` lists this machine's)"
    )]
    BadAddress {
        /// As given.
        text: String,
    },

    /// A device's capability list leads into its header or back to itself.
    #[error(
        "{device}: its list of PCI capabilities is broken at configuration offset {offset:#x} \
         (an entry inside the header, or a loop)"
    )]
    CapabilityList {
        /// The device's name.
        device: String,
        /// Where the list went wrong.
        offset: u32,
    },

    /// A system call failed in a way that has no story of its own.
    #[error("{device}: {what} failed on {}: {source}", .path.display())]
    Os {
        /// The device's or group's name.
        device: String,
        /// What was tried: `VFIO_DEVICE_RESET`.
        what: &'static str,
        /// The file it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A register was asked for that the device doesn't have.
    #[error("{device}: {source}")]
    Mmio {
        /// The device's name.
        device: String,
        /// Which, and what there is.
        source: MmioError,
    },
}
