//! Queues as the port sees them: made, stopped alone, taken back.

use std::any::Any;

use packetboat::mbuf::Quiesced;
use packetboat::port::{PortError, RxQueue, TxQueue};

use crate::bar::Bar;
use crate::rx::{Full, IxgbeRx, Lean, Path};
use crate::start;
use crate::tx::IxgbeTx;

/// A receive queue of either path.
pub(super) enum RxBox {
    Lean(IxgbeRx<Lean>),
    Full(IxgbeRx<Full>),
}

impl RxBox {
    pub(super) fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        match self {
            Self::Lean(rx) => rx.fill(device, queue),
            Self::Full(rx) => rx.fill(device, queue),
        }
    }

    pub(super) fn ring_doorbell(&self) {
        match self {
            Self::Lean(rx) => rx.ring_doorbell(),
            Self::Full(rx) => rx.ring_doorbell(),
        }
    }

    pub(super) fn reclaim(&mut self, reset: &Quiesced) {
        match self {
            Self::Lean(rx) => rx.reclaim(reset),
            Self::Full(rx) => rx.reclaim(reset),
        }
    }

    pub(super) fn into_queue(self) -> Box<dyn RxQueue> {
        match self {
            Self::Lean(rx) => Box::new(rx),
            Self::Full(rx) => Box::new(rx),
        }
    }
}

/// Takes back what a receive queue had, if it is one of this driver's.
pub(super) fn reclaim_rx(queue: Box<dyn RxQueue>, reset: &Quiesced) {
    let mut queue: Box<dyn Any> = queue;
    if let Some(queue) = queue.downcast_mut::<IxgbeRx<Lean>>() {
        queue.reclaim(reset);
    } else if let Some(queue) = queue.downcast_mut::<IxgbeRx<Full>>() {
        queue.reclaim(reset);
    }
}

/// The error for a queue of somebody else's.
fn not_its_own(bar: &Bar) -> PortError {
    bar.fault("the queue to be stopped or started isn't its own")
}

/// Stops or starts one receive queue.
pub(super) fn run_rx(bar: &Bar, queue: &mut dyn RxQueue, on: bool) -> Result<(), PortError> {
    let any = queue as &mut dyn Any;
    if let Some(queue) = any.downcast_mut::<IxgbeRx<Lean>>() {
        return run_rx_of(bar, queue, on);
    }
    match any.downcast_mut::<IxgbeRx<Full>>() {
        Some(queue) => run_rx_of(bar, queue, on),
        None => Err(not_its_own(bar)),
    }
}

fn run_rx_of<P: Path>(bar: &Bar, queue: &mut IxgbeRx<P>, on: bool) -> Result<(), PortError> {
    let number = queue.number();
    if on == queue.is_running() {
        return Ok(());
    }
    if on {
        queue.restart();
        start::turn_rx(bar, number, true)?;
        queue.ring_doorbell();
        return Ok(());
    }
    queue.stop();
    // One that didn't go off still has its buffers: it goes on.
    start::turn_rx(bar, number, false).inspect_err(|_| queue.resume())
}

/// Stops or starts one transmit queue.
pub(super) fn run_tx(bar: &Bar, queue: &mut dyn TxQueue, on: bool) -> Result<(), PortError> {
    let Some(queue) = (queue as &mut dyn Any).downcast_mut::<IxgbeTx>() else {
        return Err(not_its_own(bar));
    };
    let number = queue.number();
    if on == queue.is_running() {
        return Ok(());
    }
    if on {
        start::turn_tx(bar, number, true)?;
        queue.restart();
        return Ok(());
    }
    // One that doesn't get rid of what it has (without a link, say) goes on.
    let tail = queue.stop();
    start::await_sent(bar, number, tail)
        .and_then(|()| start::turn_tx(bar, number, false))
        .inspect_err(|_| queue.resume())
}
