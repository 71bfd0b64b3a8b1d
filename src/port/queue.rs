//! The two calls of the hot path.

use std::any::Any;
use std::fmt;

use vmm_sys_util::eventfd::EventFd;

use super::Burst;

/// A receive queue: one lcore has it and polls it.
///
/// `Any`, so that a port can recognise its own queues when they come back.
pub trait RxQueue: Send + Any + fmt::Debug {
    /// Adds the frames that have come in to `burst`, as many as it has room for; never waits.
    fn receive(&mut self, burst: &mut Burst);

    /// What becomes readable when a frame has come in while the queue's interrupt was armed.
    /// `None` unless the port was configured with [`PortConfig::rx_interrupts`].
    ///
    /// [`PortConfig::rx_interrupts`]: super::PortConfig::rx_interrupts
    fn interrupt(&self) -> Option<&EventFd> {
        None
    }

    /// Lets the next frame ring [`Self::interrupt`], once. A frame that came in before may not:
    /// poll once more after arming, before going to sleep.
    fn arm_interrupt(&mut self) {}

    /// Keeps frames from ringing.
    fn disarm_interrupt(&mut self) {}
}

/// A transmit queue: one lcore has it.
pub trait TxQueue: Send + Any + fmt::Debug {
    /// Takes frames from the front of `burst`, as many as there are descriptors for; never waits.
    /// What stays in the burst is the caller's, to try again or to drop.
    fn send(&mut self, burst: &mut Burst);

    /// Gives frames that the device is done with back to their pools, without sending any.
    fn reclaim(&mut self);
}
