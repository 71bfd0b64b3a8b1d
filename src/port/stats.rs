//! What a port counts.

use std::sync::Arc;

use serde::Serialize;

use crate::telemetry::Counter;

/// Why a received frame was dropped by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxDrop {
    /// The device named a descriptor that it hadn't.
    BadId,
    /// The device claimed a length that doesn't fit the buffer, or that no frame has.
    BadLength,
    /// A frame in several buffers that came apart, or longer than the driver allows.
    BadChain,
    /// The device wants something to be done with it that makes no sense for it.
    BadRequest,
}

/// Why a frame to be sent, or a completion, was dropped by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxDrop {
    /// The device completed a descriptor that it hadn't: no frame is lost, a completion is ignored.
    BadId,
    /// It has more segments than the ring takes.
    TooManySegments,
    /// It has no data, or more than the device takes.
    BadLength,
    /// It asks for an offload that the port wasn't configured with, or that makes no sense for it.
    BadRequest,
    /// The device had it when it went away, and never said what became of it.
    InFlight,
}

/// The counters of one queue, written by its owner once a burst, read by anybody.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Frames received or sent.
    pub packets: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Times that the pool had no mbuf to lend to the device.
    pub no_mbuf: Counter,
    /// Descriptors that the device completed with an id it hadn't.
    pub bad_id: Counter,
    /// Frames of an impossible length.
    pub bad_length: Counter,
    /// Frames of an impossible chain.
    pub bad_chain: Counter,
    /// Frames that asked for what the queue doesn't do.
    pub bad_request: Counter,
    /// Frames that the device had to send when it went away: counted as sent, and nobody knows.
    pub in_flight: Counter,
    /// Not 0: the device claimed to have completed more than it was given, and the queue does
    /// nothing more until the port is started again.
    pub broken: Counter,
}

impl QueueCounters {
    /// Counts a received frame that was dropped.
    pub fn rx_dropped(&self, why: RxDrop) {
        match why {
            RxDrop::BadId => self.bad_id.add(1),
            RxDrop::BadLength => self.bad_length.add(1),
            RxDrop::BadChain => self.bad_chain.add(1),
            RxDrop::BadRequest => self.bad_request.add(1),
        }
    }

    /// Counts a frame that wasn't sent.
    pub fn tx_dropped(&self, why: TxDrop) {
        match why {
            TxDrop::BadId => self.bad_id.add(1),
            TxDrop::TooManySegments => self.bad_chain.add(1),
            TxDrop::BadLength => self.bad_length.add(1),
            TxDrop::BadRequest => self.bad_request.add(1),
            TxDrop::InFlight => self.in_flight.add(1),
        }
    }

    /// As numbers.
    #[must_use]
    pub fn read(&self) -> QueueStats {
        QueueStats {
            packets: self.packets.get(),
            bytes: self.bytes.get(),
            no_mbuf: self.no_mbuf.get(),
            bad_id: self.bad_id.get(),
            bad_length: self.bad_length.get(),
            bad_chain: self.bad_chain.get(),
            bad_request: self.bad_request.get(),
            in_flight: self.in_flight.get(),
        }
    }
}

/// What a queue counted, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueStats {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Empty pool.
    pub no_mbuf: u64,
    /// Dropped: a descriptor id that the device hadn't.
    pub bad_id: u64,
    /// Dropped: an impossible length.
    pub bad_length: u64,
    /// Dropped: an impossible chain.
    pub bad_chain: u64,
    /// Dropped: it asked for what the queue doesn't do.
    pub bad_request: u64,
    /// Sent, and the device went away before it said so; not part of [`Self::dropped`].
    pub in_flight: u64,
}

impl QueueStats {
    /// Frames that the driver dropped, whatever the reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.bad_id + self.bad_length + self.bad_chain + self.bad_request
    }
}

/// A port's counters, queue by queue.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// By receive queue.
    pub rx: Vec<Arc<QueueCounters>>,
    /// By transmit queue.
    pub tx: Vec<Arc<QueueCounters>>,
}

impl PortCounters {
    /// For so many queues; those that were there go on.
    pub fn resize(&mut self, rx: u16, tx: u16) {
        self.rx.resize_with(rx.into(), Arc::default);
        self.tx.resize_with(tx.into(), Arc::default);
    }

    /// As numbers.
    #[must_use]
    pub fn read(&self) -> PortStats {
        let read = |queues: &[Arc<QueueCounters>]| queues.iter().map(|q| q.read()).collect();
        PortStats { rx: read(&self.rx), tx: read(&self.tx) }
    }
}

/// What a port counted, queue by queue.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PortStats {
    /// By receive queue.
    pub rx: Vec<QueueStats>,
    /// By transmit queue.
    pub tx: Vec<QueueStats>,
}

impl PortStats {
    /// The sum over receive queues.
    #[must_use]
    pub fn rx_total(&self) -> QueueStats {
        total(&self.rx)
    }

    /// The sum over transmit queues.
    #[must_use]
    pub fn tx_total(&self) -> QueueStats {
        total(&self.tx)
    }
}

fn total(queues: &[QueueStats]) -> QueueStats {
    queues.iter().fold(QueueStats::default(), |sum, queue| QueueStats {
        packets: sum.packets + queue.packets,
        bytes: sum.bytes + queue.bytes,
        no_mbuf: sum.no_mbuf + queue.no_mbuf,
        bad_id: sum.bad_id + queue.bad_id,
        bad_length: sum.bad_length + queue.bad_length,
        bad_chain: sum.bad_chain + queue.bad_chain,
        bad_request: sum.bad_request + queue.bad_request,
        in_flight: sum.in_flight + queue.in_flight,
    })
}
