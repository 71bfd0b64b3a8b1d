//! What a driver implements and an application uses.
//!
//! A [`Port`] is the control side: one thread owns it, configures it, starts and stops it, asks it
//! for link and statistics. Starting it gives out its queues, each a value of its own that is
//! `Send` and not `Sync`: it moves to the lcore that polls it, and comes back to stop the port. What
//! all drivers do alike on that way is in [`Lifecycle`].
//!
//! ```text
//!            configure            start ──► RxQueue, TxQueue ──► lcores
//!  Port ───────────────► Port ──────┤
//!            ▲                      stop ◄── RxQueue, TxQueue ◄── lcores
//!            └──────────────────────┘
//! ```

mod config;
mod driver;
mod error;
mod lifecycle;
mod offload;
mod queue;
mod sleep;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;

pub use crate::mbuf::{Burst, Mbuf};
pub use config::{DescriptorLimits, PortConfig};
pub use driver::{Driver, VirtualDriver};
pub use error::PortError;
pub use lifecycle::{BringUp, Lifecycle, Running, Shown};
pub use offload::{Capabilities, FlowControl, Offloads, RegisterValue, Rss, RssHash};
pub use queue::{RxQueue, TxQueue};
pub use sleep::Sleeper;
pub use stats::{PortCounters, PortStats, QueueCounters, QueueStats, RxDrop, TxDrop};

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

    /// What it can do besides moving frames.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The paths that its queues take, for people: `rx lean, tx full`. Empty if there is only one.
    fn paths(&self) -> String {
        String::new()
    }

    /// Gives the port another address of its own. Only while started; [`Self::info`] says it then.
    ///
    /// # Errors
    /// If the device can't, or won't.
    fn set_mac(&mut self, address: MacAddress) -> Result<(), PortError> {
        let _ = address;
        Err(self.not_supported("another MAC address"))
    }

    /// Receives frames to this address, too (or no more). Only while started.
    ///
    /// # Errors
    /// If the device can't, or has no room for it.
    fn filter_mac(&mut self, address: MacAddress, on: bool) -> Result<(), PortError> {
        let _ = (address, on);
        Err(self.not_supported("filtering by MAC address"))
    }

    /// Receives tagged frames of this VLAN (or no more). Tagged frames of other VLANs are dropped
    /// from the first call on. Only while started.
    ///
    /// # Errors
    /// If the device can't.
    fn filter_vlan(&mut self, vlan: u16, on: bool) -> Result<(), PortError> {
        let _ = (vlan, on);
        Err(self.not_supported("filtering by VLAN"))
    }

    /// Pause frames, as configured.
    ///
    /// # Errors
    /// If the device has none.
    fn flow_control(&self) -> Result<FlowControl, PortError> {
        Err(self.not_supported("flow control"))
    }

    /// Sets which pause frames are made and heeded.
    ///
    /// # Errors
    /// If the device has none.
    fn set_flow_control(&mut self, flow_control: FlowControl) -> Result<(), PortError> {
        let _ = flow_control;
        Err(self.not_supported("flow control"))
    }

    /// Makes the port's light blink, so that somebody in front of the machine finds it.
    ///
    /// # Errors
    /// If it has none.
    fn identify(&mut self, on: bool) -> Result<(), PortError> {
        let _ = on;
        Err(self.not_supported("a light that blinks"))
    }

    /// Stops or starts one receive queue that the caller has at hand. What comes in for a stopped
    /// queue is dropped by the device.
    ///
    /// # Errors
    /// If the device can't, or the queue isn't this port's.
    fn run_rx(&mut self, queue: &mut dyn RxQueue, on: bool) -> Result<(), PortError> {
        let _ = (queue, on);
        Err(self.not_supported("stopping one receive queue"))
    }

    /// Stops or starts one transmit queue that the caller has at hand. A stopped queue takes no
    /// frames.
    ///
    /// # Errors
    /// If the device can't, or the queue isn't this port's.
    fn run_tx(&mut self, queue: &mut dyn TxQueue, on: bool) -> Result<(), PortError> {
        let _ = (queue, on);
        Err(self.not_supported("stopping one transmit queue"))
    }

    /// What the device itself counts, by name, since the port was made; empty if it doesn't count.
    fn extended_stats(&mut self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// The device's registers, those that change nothing when they are read.
    ///
    /// # Errors
    /// If the driver has no list of them.
    fn registers(&self) -> Result<Vec<RegisterValue>, PortError> {
        Err(self.not_supported("a register dump"))
    }

    /// The error for what this driver doesn't have.
    fn not_supported(&self, what: &'static str) -> PortError {
        PortError::NotSupported { device: self.info().device, what }
    }

    /// What the device did that makes it unusable until it is stopped and started again: a lie
    /// that can't be just counted, or its own word that it needs a reset.
    fn fault(&self) -> Option<String> {
        None
    }

    /// Whether the device is being taken away (unplugged, or asked back by the kernel).
    fn removed(&self) -> bool;
}
