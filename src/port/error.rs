//! What can go wrong with a port.

use crate::bus::{BusError, VdevError};
use crate::dma::DmaError;

/// Why a port didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// More queues than the device has.
    #[error(
        "{device}: {wanted} {kind} queues were asked for, and the device has {most}; \
         ask for {most} at most"
    )]
    Queues {
        /// The device.
        device: String,
        /// `receive` or `transmit`.
        kind: &'static str,
        /// Asked for.
        wanted: u16,
        /// There are.
        most: u16,
    },
    /// A number of descriptors that the queue can't have.
    #[error("{device}: a {kind} queue of {wanted} descriptors was asked for with {option}; {rule}")]
    Descriptors {
        /// The device.
        device: String,
        /// `receive` or `transmit`.
        kind: &'static str,
        /// Asked for.
        wanted: u16,
        /// The option that asked.
        option: &'static str,
        /// What is allowed.
        rule: String,
    },
    /// Not possible in the state the port is in.
    #[error("{device}: can't {action} while the port is {state}")]
    State {
        /// The device.
        device: String,
        /// What was asked.
        action: &'static str,
        /// What it is.
        state: &'static str,
    },
    /// The device lacks something.
    #[error("{device}: the device can't {what}: {why}")]
    Unsupported {
        /// The device.
        device: String,
        /// What was asked.
        what: String,
        /// What is missing.
        why: String,
    },
    /// The driver has no such thing.
    #[error(
        "{device}: {what} isn't supported by this driver; leave the option out, or use a port \
         whose driver has it"
    )]
    NotSupported {
        /// The device.
        device: String,
        /// What was asked: `VLAN stripping`.
        what: &'static str,
    },
    /// RSS that the device can't do.
    #[error("{device}: RSS was asked for with {what}")]
    Rss {
        /// The device.
        device: String,
        /// What doesn't fit.
        what: String,
    },
    /// An MTU that the device, or its mbufs, can't do.
    #[error("{device}: an MTU of {wanted} was asked for with --mtu; {rule}")]
    Mtu {
        /// The device.
        device: String,
        /// Asked for.
        wanted: u16,
        /// What would do.
        rule: String,
    },
    /// The device doesn't behave.
    #[error("{device}: {what}")]
    Device {
        /// The device.
        device: String,
        /// What it did, or didn't do.
        what: String,
    },
    /// No mbufs to receive into.
    #[error(
        "{device}: receive queue {queue} needs {wanted} mbufs to start with, and pool {pool:?} \
         has {available} left; give it more with --mbufs"
    )]
    Mbufs {
        /// The device.
        device: String,
        /// Which queue.
        queue: u16,
        /// Needed.
        wanted: usize,
        /// There are.
        available: usize,
        /// The pool.
        pool: String,
    },
    /// A device of `--vdev` that can't be.
    #[error("--vdev {vdev}: {why}")]
    Vdev {
        /// As given.
        vdev: String,
        /// What is wrong with it.
        why: VdevError,
    },
    /// The bus below.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// DMA memory.
    #[error(transparent)]
    Dma(#[from] DmaError),
}
