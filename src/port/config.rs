//! What a port shall be set up with, checked against what it is and can do.

use super::{Capabilities, Offloads, PortError, PortInfo};

/// How many descriptors a queue may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// At least.
    pub min: u16,
    /// At most.
    pub max: u16,
    /// What the driver takes when nobody asks.
    pub default: u16,
    /// Only powers of two.
    pub power_of_two: bool,
}

impl DescriptorLimits {
    /// Whether a queue may have `count` descriptors.
    #[must_use]
    pub fn allow(&self, count: u16) -> bool {
        (self.min..=self.max).contains(&count) && (!self.power_of_two || count.is_power_of_two())
    }
}

/// What a port shall be set up with.
#[derive(Debug, Clone, Default)]
pub struct PortConfig {
    /// The port's number in the application; received mbufs carry it.
    pub number: u16,
    /// Receive queues; at least 1.
    pub rx_queues: u16,
    /// Transmit queues; at least 1.
    pub tx_queues: u16,
    /// Descriptors per receive queue; `None`: the driver's choice.
    pub rx_descriptors: Option<u16>,
    /// Descriptors per transmit queue; `None`: the driver's choice.
    pub tx_descriptors: Option<u16>,
    /// The longest packet behind an Ethernet header, in bytes; `None`: the driver's choice.
    pub mtu: Option<u16>,
    /// What it shall do for the program.
    pub offloads: Offloads,
    /// Whether its receive queues shall be able to wake an lcore.
    pub rx_interrupts: bool,
}

impl PortConfig {
    /// Whether a port that is `info` and can do `can` can do all of it.
    ///
    /// # Errors
    /// The first thing that it can't.
    pub fn check(&self, info: &PortInfo, can: &Capabilities) -> Result<(), PortError> {
        let device = || info.device.clone();
        for (kind, wanted, most) in [
            ("receive", self.rx_queues, info.max_rx_queues),
            ("transmit", self.tx_queues, info.max_tx_queues),
        ] {
            if !(1..=most).contains(&wanted) {
                return Err(PortError::Queues { device: device(), kind, wanted, most });
            }
        }
        for (kind, option, wanted, limits) in [
            ("receive", "--rxd", self.rx_descriptors, info.rx_descriptors),
            ("transmit", "--txd", self.tx_descriptors, info.tx_descriptors),
        ] {
            let Some(wanted) = wanted.filter(|wanted| !limits.allow(*wanted)) else { continue };
            let what = if limits.power_of_two { "a power of two from " } else { "" };
            let rule = format!("this device takes {what}{} to {}", limits.min, limits.max);
            return Err(PortError::Descriptors { device: device(), kind, wanted, option, rule });
        }
        let cannot = |what| Err(PortError::NotSupported { device: device(), what });
        match (self.mtu, can.mtu) {
            (Some(_), None) => return cannot("another MTU"),
            (Some(wanted), Some((min, max))) if !(min..=max).contains(&wanted) => {
                let rule = format!("the device takes {min} to {max}");
                return Err(PortError::Mtu { device: device(), wanted, rule });
            }
            _ => {}
        }
        // Behind the MTU: a long one asks for offloads by itself, which nobody has named.
        self.offloads.check(&info.device, can)?;
        if self.rx_interrupts && !can.rx_interrupts {
            return cannot("waking an lcore (--interrupt-mode)");
        }
        Ok(())
    }

    /// Whether a device with so many MSI-X vectors has enough of them: one for itself, and one for
    /// each receive queue that shall wake an lcore.
    ///
    /// # Errors
    /// [`PortError::Unsupported`] with both numbers.
    pub fn check_vectors(&self, device: &str, vectors: u16) -> Result<(), PortError> {
        if !self.rx_interrupts || vectors > self.rx_queues {
            return Ok(());
        }
        Err(PortError::Unsupported {
            device: device.to_owned(),
            what: format!("wake lcores from {} receive queues", self.rx_queues),
            why: format!("it has {vectors} MSI-X vectors, and needs one more than queues"),
        })
    }
}
