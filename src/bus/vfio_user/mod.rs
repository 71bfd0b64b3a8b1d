//! Devices that are programs: PCI functions behind a vfio-user socket.
//!
//! vfio-user carries VFIO's questions over a unix socket, to a process that plays the device
//! (the protocol's text is `docs/interop/vfio-user.rst` in QEMU's sources). Memory reaches that
//! process as file descriptors; registers are either shared pages, or one message an access.
//! No VFIO of the kernel takes part, and no root: who may write to the socket may use the device.
//!
//! The device's process is trusted as a device without an IOMMU is: it can write to all memory
//! that it was shown for as long as it runs. What it *says* isn't trusted, here as in drivers:
//! every answer's shape and length is checked, and one that makes no sense ends the connection.
//! A connection that has ended counts as a device that has been pulled out.
//!
//! Reading order: [`Server`] is a connection with a device behind it that nobody has taken yet,
//! [`VfioUserDevice`] one that is in use; `client` sends messages and waits for answers; `bar`
//! maps what the server shares.

mod bar;
mod client;
mod device;
#[cfg(test)]
mod tests;

pub use device::{Server, VfioUserDevice};
