//! What a driver implements and an application uses.
//!
//! A [`Port`] is the control side: one thread owns it, configures it, starts and stops it, asks it
//! for link and statistics. Starting it gives out its queues, each a value of its own that is
//! `Send` and not `Sync`: it moves to the lcore that polls it, and comes back to stop the port.
//!
//! ```text
//!            configure            start ──► RxQueue, TxQueue ──► lcores
//!  Port ───────────────► Port ──────┤
//!            ▲                      stop ◄── RxQueue, TxQueue ◄── lcores
//!            └──────────────────────┘
//! ```

mod driver;
mod error;
mod queue;
mod stats;

pub use crate::mbuf::{Burst, Mbuf};
pub use driver::{Driver, VirtualDriver};
pub use error::PortError;
pub use queue::{RxQueue, TxQueue};
pub use stats::{PortStats, QueueCounters, QueueStats, RxDrop, TxDrop};

use crate::mbuf::MbufPool;
use crate::net::MacAddress;

/// What a port is and can do.
#[derive(Debug, Clone)]
pub struct PortInfo {
    /// Where it is: `0000:03:00.0`.
    pub device: String,
    /// Its driver's name: `virtio-net`.
    pub driver: &'static str,
    /// Its own Ethernet address.
    pub mac: MacAddress,
    /// The NUMA node it hangs on, if known.
    pub node: Option<u32>,
    /// The most receive queues.
    pub max_rx_queues: u16,
    /// The most transmit queues.
    pub max_tx_queues: u16,
    /// Descriptor counts that a receive queue may have.
    pub rx_descriptors: DescriptorLimits,
    /// Descriptor counts that a transmit queue may have.
    pub tx_descriptors: DescriptorLimits,
    /// The longest frame it takes, without checksum, in bytes.
    pub max_frame_bytes: u32,
}

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
#[derive(Debug, Clone)]
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
}

/// A port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// In Mbit/s, if the device knows.
    pub speed_mbps: Option<u32>,
    /// Both directions at once; `None` if the device doesn't know.
    pub full_duplex: Option<bool>,
}

/// The queues of a started port.
#[derive(Debug, Default)]
pub struct Queues {
    /// One for each receive queue, by number.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// One for each transmit queue, by number.
    pub tx: Vec<Box<dyn TxQueue>>,
}

/// A NIC port, as the one who controls it sees it.
///
/// Dropping a port resets its device. Queues that are still out then are dead: they receive and
/// send nothing more, and what they had lent is lost to its pool; [`Self::stop`] is the way that
/// loses nothing.
pub trait Port: Send {
    /// What it is and can do.
    fn info(&self) -> PortInfo;

    /// Sets it up. Only while it is stopped.
    ///
    /// # Errors
    /// If the device can't do what is asked.
    fn configure(&mut self, config: &PortConfig) -> Result<(), PortError>;

    /// Starts it: its queues receive into mbufs of `pools`, one for each receive queue.
    ///
    /// # Errors
    /// If it isn't configured, runs already, or the device doesn't start; it is stopped then.
    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError>;

    /// Stops it: the device is reset, then every mbuf it had goes back to its pool.
    ///
    /// # Errors
    /// If the device can't be reset; what it was lent is lost then.
    fn stop(&mut self, queues: Queues) -> Result<(), PortError>;

    /// The link as it is now.
    ///
    /// # Errors
    /// If the device doesn't answer.
    fn link(&mut self) -> Result<Link, PortError>;

    /// Whether the device has said, by interrupt, that its link may have changed since this was
    /// asked last. Always true for a device that can't say: then ask [`Self::link`] now and then.
    fn link_changed(&mut self) -> bool {
        true
    }

    /// Receives every frame on the wire, or only those meant for it.
    ///
    /// # Errors
    /// If the device can't, or isn't started.
    fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError>;

    /// Receives all multicast frames, or only those asked for.
    ///
    /// # Errors
    /// If the device can't, or isn't started.
    fn set_all_multicast(&mut self, on: bool) -> Result<(), PortError>;

    /// What passed since it was made.
    fn stats(&self) -> PortStats;

    /// What the device did that makes it unusable until it is stopped and started again: a lie
    /// that can't be just counted, or its own word that it needs a reset.
    fn fault(&self) -> Option<String> {
        None
    }

    /// Whether the device is being taken away (unplugged, or asked back by the kernel).
    fn removed(&self) -> bool;
}
