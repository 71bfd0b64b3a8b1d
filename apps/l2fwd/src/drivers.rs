//! The drivers that this program links, and which of them drives a device.

use packetboat::bus::{PciIds, SelectedDevice, Vdev};
use packetboat::eal::Eal;
use packetboat::port::{Driver, Port, PortError, VirtualDriver};

use crate::error::Error;

/// All of them. This list is what binds application and drivers together.
pub(crate) static DRIVERS: &[&dyn Driver] = &[packetboat_ixgbe::DRIVER, packetboat_virtio::DRIVER];

/// Those of devices that are made with `--vdev`.
pub(crate) static VIRTUAL_DRIVERS: &[&dyn VirtualDriver] = &[packetboat_virtio::VHOST_USER];

/// A device that becomes a port.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// One that is there.
    Found(SelectedDevice),
    /// One that is made.
    Virtual(Vdev),
}

impl Source {
    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Found(device) => device.name(),
            Self::Virtual(vdev) => vdev.to_string(),
        }
    }

    /// The NUMA node it hangs on, if known.
    pub(crate) fn node(&self) -> Option<u32> {
        match self {
            Self::Found(device) => device.numa_node(),
            Self::Virtual(_) => None,
        }
    }

    /// Takes it over.
    ///
    /// # Errors
    /// If it can't be had.
    pub(crate) fn open(&self, eal: &Eal) -> Result<Box<dyn Port>, Error> {
        match self {
            Self::Found(device) => {
                let driver = for_ids(&device.ids()).ok_or_else(|| unsupported(device))?;
                Ok(driver.probe(eal.open(device)?, eal.memory())?)
            }
            Self::Virtual(vdev) => Ok(for_vdev(vdev)?.probe(vdev, eal.memory())?),
        }
    }
}

/// The driver of a device that is made, if its arguments are right.
///
/// # Errors
/// If no driver here makes such a device, or not with these arguments.
pub(crate) fn for_vdev(vdev: &Vdev) -> Result<&'static dyn VirtualDriver, Error> {
    let driver = VIRTUAL_DRIVERS.iter().find(|driver| driver.kind() == vdev.kind);
    let driver = driver.ok_or_else(|| Error::NoVirtualDriver {
        vdev: vdev.to_string(),
        linked: VIRTUAL_DRIVERS.iter().map(|driver| driver.kind()).collect::<Vec<_>>().join(", "),
    })?;
    let refused = |why| PortError::Vdev { vdev: vdev.to_string(), why };
    driver.check(vdev).map_err(refused)?;
    Ok(*driver)
}

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
