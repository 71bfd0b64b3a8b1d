//! What a PCI device was told of a queue, to tell it again when the queue has broken down.

use std::sync::Arc;

use packetboat::mbuf::Mbuf;
use packetboat::port::{PortError, QueueCounters};

use crate::gate::{Gate, Passage};
use crate::queues::Parts;
use crate::ring::{Doorbell, QueueMemory};
use crate::transport::PciTransport;

/// A queue that breaks down more often than this needs a reset of the device, which may help more.
const RESETS_MAX: u32 = 5;

/// A queue as the device knows it.
#[derive(Debug)]
pub(crate) struct KnownQueue {
    index: u16,
    memory: QueueMemory,
    vector: Option<u16>,
    counters: Arc<QueueCounters>,
    /// Closed while the queue is reset. Each queue has its own: the others go on.
    gate: Arc<Gate>,
    /// What its `broken` counter stood at when its ring last began.
    broken_before: u64,
    /// Times that it was reset.
    resets: u32,
}

impl KnownQueue {
    pub(crate) fn new(
        index: u16,
        memory: QueueMemory,
        vector: Option<u16>,
        counters: Arc<QueueCounters>,
    ) -> Self {
        let broken_before = counters.broken.get();
        Self { index, memory, vector, counters, gate: Arc::default(), broken_before, resets: 0 }
    }

    /// What a queue on it is made of.
    pub(crate) fn parts(&self, doorbell: Doorbell) -> Parts<'_> {
        Parts {
            memory: &self.memory,
            doorbell,
            counters: self.counters.clone(),
            passage: Passage::new(&self.gate),
            interrupt: None,
        }
    }

    /// Its number.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Has its owner send `frame`, if it is a transmit queue.
    pub(crate) fn hand_in(&self, frame: Mbuf) {
        self.gate.hand_in(frame);
    }

    /// Whether it has broken down since its ring began.
    pub(crate) fn is_broken(&self) -> bool {
        self.counters.broken.get() != self.broken_before
    }

    /// Resets the queue alone if it has broken down, and enables it again once its owner, who
    /// polls it, has put its ring back to the beginning. To be called again and again.
    ///
    /// # Errors
    /// If the device doesn't do it, or has broken it too often.
    pub(crate) fn mend(&mut self, transport: &PciTransport) -> Result<(), PortError> {
        let (index, device) = (self.index, transport.name());
        if self.gate.is_open() {
            if !self.is_broken() {
                return Ok(());
            }
            self.resets += 1;
            if self.resets > RESETS_MAX {
                let what = format!("queue {index} has broken down {} times", self.resets);
                return Err(PortError::Device { device: device.to_owned(), what });
            }
            tracing::warn!(
                "{device}: queue {index}: the device claims to have completed what it hadn't; \
                 resetting the queue"
            );
            transport.reset_queue(index)?;
            self.gate.close();
        }
        if self.gate.parked() == 1 {
            let (size, areas) = (self.memory.size, self.memory.areas());
            let doorbell = transport.enable_queue(index, size, areas, self.vector)?;
            self.broken_before = self.counters.broken.get();
            self.gate.open();
            Doorbell::Register(doorbell, index).ring();
        }
        Ok(())
    }
}
