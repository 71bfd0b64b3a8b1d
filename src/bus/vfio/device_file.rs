//! A device's open file, and what it holds for as long as it is open.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::bus::{BusError, PciAddress};

/// What has opened a device, and hears when it is closed: a container.
pub(super) trait Opener: Send + Sync {
    /// The device at `address`, of group `number`, was closed.
    fn release(&self, number: u32, address: PciAddress);

    /// The error of a system call on its file.
    fn os_error(
        &self,
        number: u32,
        address: PciAddress,
        what: &'static str,
        source: io::Error,
    ) -> BusError;
}

/// A device's file, and its hold on group and container. Registers that are still held keep it.
pub(super) struct DeviceFile {
    // Dropped in this order: the group's turn comes when the device is closed.
    pub(super) file: File,
    lease: Lease,
}

impl DeviceFile {
    pub(super) fn new(file: File, lease: Lease) -> Self {
        Self { file, lease }
    }

    /// An error of a system call on this file.
    pub(super) fn os_error(&self, what: &'static str, source: io::Error) -> BusError {
        self.lease.os_error(what, source)
    }
}

/// Tells the opener when the device is closed.
pub(super) struct Lease {
    opener: Arc<dyn Opener>,
    number: u32,
    address: PciAddress,
}

impl Lease {
    /// Of the device at `address`, of group `number`, which `opener` has opened or tries to.
    pub(super) fn new(opener: Arc<dyn Opener>, number: u32, address: PciAddress) -> Self {
        Self { opener, number, address }
    }

    /// An error of a system call on that device.
    pub(super) fn os_error(&self, what: &'static str, source: io::Error) -> BusError {
        self.opener.os_error(self.number, self.address, what, source)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.opener.release(self.number, self.address);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Closed(Mutex<Vec<(u32, PciAddress)>>);

    impl Opener for Closed {
        fn release(&self, number: u32, address: PciAddress) {
            self.0.lock().unwrap().push((number, address));
        }

        fn os_error(
            &self,
            number: u32,
            address: PciAddress,
            what: &'static str,
            source: io::Error,
        ) -> BusError {
            let path = format!("group {number}").into();
            BusError::Os { device: address.to_string(), what, path, source }
        }
    }

    #[test]
    fn who_opened_a_device_hears_once_when_the_last_of_it_is_let_go() {
        let opener = Arc::new(Closed::default());
        let address: PciAddress = "0000:03:00.1".parse().unwrap();
        let lease = Lease::new(opener.clone(), 7, address);
        let file = Arc::new(DeviceFile::new(tempfile::tempfile().unwrap(), lease));
        let held = file.clone();
        let error = file.os_error("a call", io::ErrorKind::Other.into()).to_string();
        assert!(error.contains("0000:03:00.1") && error.contains("group 7"), "{error}");
        drop(file);
        assert_eq!(*opener.0.lock().unwrap(), []);
        drop(held);
        assert_eq!(*opener.0.lock().unwrap(), [(7, address)]);
    }
}
