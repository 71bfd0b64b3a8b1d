//! How a device is told to look at a queue.

use packetboat::bus::EventFd;
use packetboat::mmio::{Register, order_dma_writes};

/// A queue's doorbell.
#[derive(Debug)]
pub(crate) enum Doorbell {
    /// A register that takes the queue's number (virtio 1.3, 4.1.5.2).
    Register(Register<u16>, u16),
    /// An event that the back end waits for (vhost-user, SET_VRING_KICK).
    Event(EventFd),
}

impl Doorbell {
    /// Rings, after all writes to memory so far.
    #[inline]
    pub(crate) fn ring(&self) {
        match self {
            Self::Register(register, queue) => register.write_after_dma(*queue),
            Self::Event(event) => {
                order_dma_writes();
                // The counter can only be full if nobody has looked for 2^64 rings; and a back end
                // that has gone doesn't matter here.
                let _ = event.write(1);
            }
        }
    }
}
