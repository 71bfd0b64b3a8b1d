//! The ports that frames come in and go out by, from open to let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use packetboat::mbuf::MbufPool;
use packetboat::port::{Capabilities, Link, Port, PortConfig, PortError, PortInfo, Queues};
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
        check_room(&info.device, config.mtu, &port.capabilities())?;
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

/// Checks that a device can receive frames of an MTU that it takes: a long one asks for scatter, which
/// nobody has named.
fn check_room(device: &str, wanted: Option<u16>, can: &Capabilities) -> Result<(), PortError> {
    let taken = |wanted| can.mtu.is_some_and(|(least, most)| (least..=most).contains(&wanted));
    match wanted {
        Some(wanted) if wanted > LONGEST_IN_ONE_MBUF && !can.rx_scatter && taken(wanted) => {
            let most = LONGEST_IN_ONE_MBUF;
            let rule = format!(
                "the device can't receive longer frames than an mbuf holds: {most} at most"
            );
            Err(PortError::Mtu { device: device.to_owned(), wanted, rule })
        }
        _ => Ok(()),
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
    fn an_mtu_that_cannot_be_is_refused_with_one_that_can() {
        let one = Capabilities { mtu: Some((68, 9000)), ..Capabilities::default() };
        let several = Capabilities { rx_scatter: true, ..one.clone() };
        let said = |wanted, can| check_room("dev", wanted, can).map_err(|error| error.to_string());
        for (wanted, can) in
            [(None, &one), (Some(68), &one), (Some(2026), &one), (Some(9000), &several)]
        {
            assert_eq!(said(wanted, can), Ok(()));
        }
        for (wanted, can, words) in [
            (2027, &one, "an mbuf holds: 2026 at most"),
            (9000, &one, "an mbuf holds: 2026 at most"),
        ] {
            let error = said(Some(wanted), can).unwrap_err();
            assert!(error.contains(words) && error.starts_with("dev: "), "{error}");
        }
    }

    #[test]
    fn descriptors_are_as_asked_for_or_as_the_driver_likes() {
        let port = outcome(1, 1).unwrap();
        assert_eq!((port.rx_descriptors(), port.tx_descriptors()), (64, 32));
    }
}
