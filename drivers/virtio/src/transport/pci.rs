//! virtio over PCI (virtio 1.3, 4.1): registers behind capabilities that say which BAR they are in.

use std::thread::sleep;
use std::time::{Duration, Instant};

use packetboat::bus::{Device, EventFd, Quiesced, capabilities};
use packetboat::mmio::{MmioError, Region, Register, Width};
use packetboat::net::MacAddress;
use packetboat::port::PortError;

use super::status;
use crate::features::Features;
use crate::ring::QueueAreas;

/// PCI capability id of vendor-specific capabilities, which virtio's are (4.1.4).
const VENDOR_SPECIFIC: u8 = 0x09;
/// `cfg_type` values (4.1.4).
const COMMON_CONFIG: u8 = 1;
const NOTIFY_CONFIG: u8 = 2;
const DEVICE_CONFIG: u8 = 4;
/// MSI-X vector number that means none (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// A reset that takes longer than this has failed.
const RESET_LIMIT: Duration = Duration::from_secs(2);
/// A device may say 0x8000 (5.1.4.1), with the control queue behind them all; one pair less, so
/// that its number fits into 16 bits.
const MAX_QUEUE_PAIRS: u16 = 0x7fff;
/// How often a configuration that keeps changing is read again (2.5.3).
const CONFIG_TRIES: usize = 100;

/// `struct virtio_pci_common_cfg` (4.1.4.3), a register a field.
#[derive(Debug)]
struct Common {
    device_feature_select: Register<u32>,
    device_feature: Register<u32>,
    driver_feature_select: Register<u32>,
    driver_feature: Register<u32>,
    config_msix_vector: Register<u16>,
    device_status: Register<u8>,
    config_generation: Register<u8>,
    queue_select: Register<u16>,
    queue_size: Register<u16>,
    queue_msix_vector: Register<u16>,
    queue_enable: Register<u16>,
    queue_notify_off: Register<u16>,
    /// Descriptor area, driver area, device area: low and high halves, as 64-bit fields are to be
    /// written in two (4.1.3.1).
    queue_areas: [[Register<u32>; 2]; 3],
    /// In devices that know `RING_RESET`.
    queue_reset: Option<Register<u16>>,
}

impl Common {
    fn new(region: &Region) -> Result<Self, MmioError> {
        let area = |at| Ok([region.register(at)?, region.register(at + 4)?]);
        Ok(Self {
            device_feature_select: region.register(0)?,
            device_feature: region.register(4)?,
            driver_feature_select: region.register(8)?,
            driver_feature: region.register(12)?,
            config_msix_vector: region.register(16)?,
            device_status: region.register(20)?,
            config_generation: region.register(21)?,
            queue_select: region.register(22)?,
            queue_size: region.register(24)?,
            queue_msix_vector: region.register(26)?,
            queue_enable: region.register(28)?,
            queue_notify_off: region.register(30)?,
            queue_areas: [area(32)?, area(40)?, area(48)?],
            queue_reset: region.register(58).ok(),
        })
    }
}

/// The network device's own configuration (5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetConfig {
    pub(crate) mac: Option<MacAddress>,
    pub(crate) link_up: Option<bool>,
    pub(crate) max_queue_pairs: u16,
    pub(crate) mtu: Option<u16>,
    /// The device wants to be announced to the network (5.1.6.5.4).
    pub(crate) announce: bool,
    pub(crate) rss: Option<RssLimits>,
}

/// What a device's RSS can do (5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RssLimits {
    pub(crate) key_len: u8,
    pub(crate) table_len: u16,
    pub(crate) types: u32,
}

/// A virtio device behind PCI registers.
pub(crate) struct PciTransport {
    device: Box<dyn Device>,
    name: String,
    common: Common,
    notify: Region,
    notify_multiplier: u32,
    config: Region,
    config_interrupt: Option<EventFd>,
}

impl PciTransport {
    /// Finds the registers. The device isn't touched beyond reading its configuration space.
    pub(crate) fn new(device: Box<dyn Device>) -> Result<Self, PortError> {
        let name = device.name();
        let mut common = None;
        let mut notify = None;
        let mut config = None;
        for capability in capabilities(device.as_ref())? {
            if capability.id != VENDOR_SPECIFIC {
                continue;
            }
            let at = capability.offset;
            let kind = device.config_read(at + 3, Width::U8)? as u8;
            // A device may offer several of a kind, the one to be preferred first (4.1.4.1); ones
            // in a BAR that can't be had are passed over.
            let find = |found: &Option<Region>| -> Result<Option<Region>, PortError> {
                if found.is_some() {
                    return Ok(None);
                }
                let bar = device.config_read(at + 4, Width::U8)?;
                let offset = u64::from(device.config_read(at + 8, Width::U32)?);
                let len = u64::from(device.config_read(at + 12, Width::U32)?);
                if bar > 5 {
                    return Ok(None);
                }
                let region = device.bar(bar as u8)?;
                region.window(offset, len).map(Some).map_err(|error| broken(&name, &error))
            };
            match kind {
                COMMON_CONFIG => common = find(&common)?.or(common),
                DEVICE_CONFIG => config = find(&config)?.or(config),
                NOTIFY_CONFIG => {
                    if let Some(region) =
                        find(&notify.as_ref().map(|(r, _): &(Region, u32)| r.clone()))?
                    {
                        notify = Some((region, device.config_read(at + 16, Width::U32)?));
                    }
                }
                _ => {}
            }
        }
        let (Some(common), Some((notify, notify_multiplier)), Some(config)) =
            (common, notify, config)
        else {
            return Err(PortError::Unsupported {
                device: name,
                what: "be driven by the virtio 1.x interface".to_owned(),
                why: "its PCI capabilities don't name the common, notification and device \
                      configuration of virtio 1.x: it is a legacy-only (0.9) device; with QEMU: \
                      disable-legacy=on,disable-modern=off"
                    .to_owned(),
            });
        };
        let common = Common::new(&common).map_err(|error| broken(&name, &error))?;
        Ok(Self { device, name, common, notify, notify_multiplier, config, config_interrupt: None })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    fn fault(&self, what: impl Into<String>) -> PortError {
        PortError::Device { device: self.name.clone(), what: what.into() }
    }

    pub(crate) fn status(&self) -> u8 {
        self.common.device_status.read()
    }

    /// Adds a bit to the device status.
    pub(crate) fn add_status(&self, bit: u8) {
        self.common.device_status.write(self.status() | bit);
    }

    /// Resets the virtio device and waits until it says that it is done (2.4). Queues and features
    /// are gone then, and it does no DMA.
    pub(crate) fn reset(&self) -> Result<(), PortError> {
        self.common.device_status.write(0);
        let start = Instant::now();
        loop {
            match self.status() {
                0 => return Ok(()),
                status::GONE => return Err(self.gone()),
                _ if start.elapsed() > RESET_LIMIT => {
                    return Err(self.fault(format!(
                        "it didn't finish its reset within {} s (status {:#x})",
                        RESET_LIMIT.as_secs(),
                        self.status()
                    )));
                }
                _ => sleep(Duration::from_micros(100)),
            }
        }
    }

    /// Resets the virtio device, then the function around it.
    pub(crate) fn quiesce(&mut self) -> Result<Quiesced, PortError> {
        // A device that is gone or doesn't finish is the function reset's to stop.
        if let Err(error) = self.reset() {
            tracing::warn!("{error}; resetting the PCI function");
        }
        self.config_interrupt = None;
        self.device.disable_msix()?;
        self.device.set_bus_master(false)?;
        Ok(self.device.reset()?)
    }

    fn gone(&self) -> PortError {
        self.fault("it is gone: its registers read as all ones")
    }

    /// What the device offers.
    pub(crate) fn offered(&self) -> Result<Features, PortError> {
        let mut words = [0; 2];
        for (select, word) in (0..).zip(&mut words) {
            self.common.device_feature_select.write(select);
            *word = self.common.device_feature.read();
        }
        if self.status() == status::GONE {
            return Err(self.gone());
        }
        let offered = Features::from_words(words[0], words[1]);
        // What has no register can't be used.
        Ok(match self.common.queue_reset {
            Some(_) => offered,
            None => offered.without(Features::RING_RESET),
        })
    }

    /// Tells the device what was chosen, and asks whether it agrees (3.1.1, steps 4 to 6).
    pub(crate) fn accept(&self, chosen: Features) -> Result<(), PortError> {
        let (low, high) = chosen.words();
        for (select, word) in [(0, low), (1, high)] {
            self.common.driver_feature_select.write(select);
            self.common.driver_feature.write(word);
        }
        self.add_status(status::FEATURES_OK);
        if self.status() & status::FEATURES_OK == 0 {
            self.add_status(status::FAILED);
            return Err(
                self.fault(format!("it refused the features {chosen:?}, all of which it offered"))
            );
        }
        Ok(())
    }

    /// The most entries that queue `index` can have; 0: there is no such queue.
    pub(crate) fn queue_size_max(&self, index: u16) -> u16 {
        self.common.queue_select.write(index);
        self.common.queue_size.read()
    }

    /// Tells the device where queue `index` is and turns it on (4.1.5.1.3). Returns its doorbell.
    pub(crate) fn enable_queue(
        &self,
        index: u16,
        size: u16,
        areas: QueueAreas,
        vector: Option<u16>,
    ) -> Result<Register<u16>, PortError> {
        let common = &self.common;
        common.queue_select.write(index);
        common.queue_size.write(size);
        let found = common.queue_size.read();
        if found != size {
            return Err(
                self.fault(format!("queue {index}: wrote a size of {size}, read back {found}"))
            );
        }
        // Polled ones raise no interrupts.
        let vector = vector.unwrap_or(NO_VECTOR);
        common.queue_msix_vector.write(vector);
        if common.queue_msix_vector.read() != vector {
            return Err(self.fault(format!("queue {index}: it has no resources for an interrupt")));
        }
        let addresses = [areas.descriptors, areas.driver, areas.device];
        for ([low, high], address) in common.queue_areas.iter().zip(addresses) {
            low.write(address.0 as u32);
            high.write((address.0 >> 32) as u32);
        }
        let doorbell_at =
            u64::from(common.queue_notify_off.read()) * u64::from(self.notify_multiplier);
        let doorbell =
            self.notify.register(doorbell_at).map_err(|error| broken(&self.name, &error))?;
        common.queue_enable.write(1);
        Ok(doorbell)
    }

    /// Resets queue `index` alone (2.6.1, 4.1.4.3): when this returns the device uses it no more,
    /// and it can be enabled again.
    pub(crate) fn reset_queue(&self, index: u16) -> Result<(), PortError> {
        let Some(queue_reset) = &self.common.queue_reset else {
            return Err(self.fault("it has no register to reset a queue with"));
        };
        self.common.queue_select.write(index);
        queue_reset.write(1);
        let start = Instant::now();
        while queue_reset.read() != 0 || self.common.queue_enable.read() != 0 {
            if start.elapsed() > RESET_LIMIT {
                return Err(self.fault(format!(
                    "it didn't finish the reset of queue {index} within {} s",
                    RESET_LIMIT.as_secs()
                )));
            }
            sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Turns on the interrupt that tells of configuration changes, if the device has vectors; and
    /// gets `queues` more for queues: the first is vector 1.
    pub(crate) fn enable_interrupts(&mut self, queues: u16) -> Result<Vec<EventFd>, PortError> {
        self.config_interrupt = None;
        if self.device.msix_vectors() == 0 && queues == 0 {
            return Ok(Vec::new());
        }
        let mut interrupts = self.device.enable_msix(1 + queues)?;
        let of_queues = interrupts.split_off(1.min(interrupts.len()));
        self.common.config_msix_vector.write(0);
        // NO_VECTOR read back: the device has no resources for it (4.1.5.1.2.1).
        if self.common.config_msix_vector.read() == 0 {
            self.config_interrupt = interrupts.into_iter().next();
        } else if queues == 0 {
            self.device.disable_msix()?;
        }
        Ok(of_queues)
    }

    /// Whether the configuration may have changed since this was asked last.
    pub(crate) fn config_changed(&self) -> bool {
        match &self.config_interrupt {
            Some(interrupt) => interrupt.read().is_ok(),
            None => true,
        }
    }

    /// Reads the device configuration, all fields of one moment (2.5.3).
    pub(crate) fn net_config(&self, features: Features) -> Result<NetConfig, PortError> {
        for _ in 0..CONFIG_TRIES {
            let before = self.common.config_generation.read();
            let config = self.net_config_once(features).map_err(|e| broken(&self.name, &e))?;
            if self.common.config_generation.read() == before {
                return Ok(config);
            }
        }
        Err(self.fault("its configuration changes faster than it can be read"))
    }

    fn net_config_once(&self, features: Features) -> Result<NetConfig, MmioError> {
        let word = |at| self.config.register::<u16>(at).map(|register| register.read());
        let mac = if features.has(Features::MAC) {
            let mut bytes = [0; 6];
            for (at, byte) in (0..).zip(&mut bytes) {
                *byte = self.config.register::<u8>(at)?.read();
            }
            Some(MacAddress(bytes))
        } else {
            None
        };
        let when = |feature, at| features.has(feature).then(|| word(at)).transpose();
        let status = when(Features::STATUS, 6)?;
        let rss = match features.has(Features::RSS) {
            true => Some(RssLimits {
                key_len: self.config.register::<u8>(17)?.read(),
                table_len: word(18)?,
                types: self.config.register::<u32>(20)?.read(),
            }),
            false => None,
        };
        let pairs = when(Features::MQ, 8)?.or(when(Features::RSS, 8)?);
        Ok(NetConfig {
            mac,
            link_up: status.map(|status| status & 1 != 0),
            max_queue_pairs: pairs.unwrap_or(1).clamp(1, MAX_QUEUE_PAIRS),
            mtu: when(Features::MTU, 10)?,
            announce: status.is_some_and(|status| status & 2 != 0),
            rss,
        })
    }
}

impl std::fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciTransport").field("device", &self.name).finish_non_exhaustive()
    }
}

fn broken(device: &str, error: &MmioError) -> PortError {
    PortError::Device {
        device: device.to_owned(),
        what: format!(
            "a virtio capability or queue points outside the device's registers: {error}"
        ),
    }
}
