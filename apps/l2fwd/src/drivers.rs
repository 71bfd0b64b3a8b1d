//! The drivers that this program links, and which of them drives a device.

use packetboat::bus::{PciIds, SelectedDevice};
use packetboat::port::Driver;

use crate::error::Error;

/// All of them. This list is what binds application and drivers together.
pub(crate) static DRIVERS: &[&dyn Driver] = &[packetboat_ixgbe::DRIVER, packetboat_virtio::DRIVER];

/// The driver for a device with these ids.
pub(crate) fn for_ids(ids: &PciIds) -> Option<&'static dyn Driver> {
    DRIVERS.iter().find(|driver| driver.supports(ids)).copied()
}

/// No driver here knows that device: an error that says which there are.
pub(crate) fn unsupported(device: &SelectedDevice) -> Error {
    let one = |driver: &&dyn Driver| format!("{} ({})", driver.name(), driver.devices());
    let linked: Vec<String> = DRIVERS.iter().map(one).collect();
    Error::NoDriver {
        device: device.to_string(),
        ids: device.ids().to_string(),
        linked: linked.join(", "),
    }
}
