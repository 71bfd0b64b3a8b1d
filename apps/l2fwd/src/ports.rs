//! The ports that frames come in and go out by, from open to let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use packetboat::mbuf::MbufPool;
use packetboat::port::{Link, Port, PortConfig, PortError, PortInfo, Queues};
use packetboat::telemetry::Counter;

use crate::error::Error;
use crate::options::LONGEST_IN_ONE_MBUF;
use crate::sizing::USUAL_DESCRIPTORS;

/// A port in use.
pub(crate) struct OpenPort {
    /// Its number.
    pub(crate) number: u16,
    /// Its control side.
    pub(crate) port: Box<dyn Port>,
    /// What it said of itself.
    pub(crate) info: PortInfo,
    /// How it was set up.
    pub(crate) config: PortConfig,
    /// The link as it was last seen; none before the first look.
    pub(crate) link: Option<Link>,
    /// Frames that found one of its transmit queues full.
    pub(crate) queue_full: Vec<Arc<Counter>>,
}

impl OpenPort {
    /// Takes a port over and sets it up, with descriptors as asked for or a usual number.
    ///
    /// # Errors
    /// If the device can't do what is asked.
    pub(crate) fn configure(mut port: Box<dyn Port>, wanted: PortConfig) -> Result<Self, Error> {
        let info = port.info();
        let device = || info.device.clone();
        let PortConfig { number, rx_queues, tx_queues, .. } = wanted;
        if rx_queues > info.max_rx_queues {
            let (port, wanted, most) = (number, rx_queues, info.max_rx_queues);
            return Err(Error::RxQueues { port, device: device(), wanted, most });
        }
        if tx_queues > info.max_tx_queues {
            let (port, wanted, most) = (number, tx_queues, info.max_tx_queues);
            return Err(Error::TxQueues { port, device: device(), wanted, most });
        }
        // A driver's default may be a server's; what was reckoned with is enough here.
        let usual = |asked: Option<u16>, limits: packetboat::port::DescriptorLimits| {
            let too_many = limits.default > USUAL_DESCRIPTORS && limits.allow(USUAL_DESCRIPTORS);
            asked.or(too_many.then_some(USUAL_DESCRIPTORS))
        };
        let config = PortConfig {
            rx_descriptors: usual(wanted.rx_descriptors, info.rx_descriptors),
            tx_descriptors: usual(wanted.tx_descriptors, info.tx_descriptors),
            ..wanted
        };
        let can = port.capabilities();
        // It asks for scatter by itself, which isn't what the user has asked for.
        if let (Some(wanted), Some((_, most))) = (config.mtu, can.mtu)
            && (LONGEST_IN_ONE_MBUF + 1..=most).contains(&wanted)
            && !can.rx_scatter
        {
            let rule = format!(
                "the device can't receive longer frames than an mbuf holds: \
                 {LONGEST_IN_ONE_MBUF} at most"
            );
            return Err(PortError::Mtu { device: device(), wanted, rule }.into());
        }
        port.configure(&config)?;
        Ok(Self { number, port, info, config, link: None, queue_full: Vec::new() })
    }

    /// Descriptors of each receive queue.
    pub(crate) fn rx_descriptors(&self) -> u16 {
        self.config.rx_descriptors.unwrap_or(self.info.rx_descriptors.default)
    }

    /// Descriptors of each transmit queue.
    pub(crate) fn tx_descriptors(&self) -> u16 {
        self.config.tx_descriptors.unwrap_or(self.info.tx_descriptors.default)
    }

    /// Starts it, receiving into mbufs of `pool`, with promiscuous mode as asked for.
    ///
    /// # Errors
    /// If it doesn't start, or can't be made promiscuous; it is stopped then.
    pub(crate) fn start(
        &mut self,
        pool: &MbufPool,
        promiscuous: bool,
    ) -> Result<Queues, PortError> {
        let pools = vec![pool.clone(); usize::from(self.config.rx_queues)];
        let queues = self.port.start(&pools)?;
        match self.port.set_promiscuous(promiscuous) {
            // A device that can't filter receives everything, which is only less than perfect.
            Err(error @ PortError::Unsupported { .. }) if !promiscuous => {
                tracing::debug!("port {}: {error}", self.number);
            }
            Err(error) => {
                if let Err(second) = self.port.stop(queues) {
                    tracing::error!("port {}: {second}", self.number);
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        Ok(queues)
    }
}

/// Ports by number.
pub(crate) type Ports = BTreeMap<u16, OpenPort>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fate, TestPort, Wire};

    fn outcome(rx_queues: u16, tx_queues: u16) -> Result<OpenPort, String> {
        let port = Box::new(TestPort::new(3, &Wire::new(4), &Fate::default()));
        let (rx_descriptors, tx_descriptors) = (None, Some(32));
        let wanted = PortConfig {
            number: 3,
            rx_queues,
            tx_queues,
            rx_descriptors,
            tx_descriptors,
            ..PortConfig::default()
        };
        OpenPort::configure(port, wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn more_queues_than_the_device_has_are_refused_by_the_option_that_asks() {
        let rx = outcome(4, 1).map(drop).unwrap_err();
        assert!(rx.contains("--rxq asks for 4") && rx.contains("test3 has 1"), "{rx}");
        let tx = outcome(1, 2).map(drop).unwrap_err();
        assert!(tx.contains("2 lcores send to it") && tx.contains("-l"), "{tx}");
    }

    #[test]
    fn descriptors_are_as_asked_for_or_as_the_driver_likes() {
        let port = outcome(1, 1).unwrap();
        assert_eq!((port.rx_descriptors(), port.tx_descriptors()), (64, 32));
    }
}
