//! Queues on their way between ports and lcores.

use std::collections::BTreeMap;

use packetboat::port::{Queues, RxQueue, TxQueue};

use crate::forward::{Lane, Rewrite};
use crate::lanes::LcorePlan;
use crate::options::Options;
use crate::ports::Ports;
use crate::txbuffer::TxBuffer;

/// Queues by port.
pub(crate) type QueuesByPort = BTreeMap<u16, Queues>;

/// The queues of all ports, to be taken one by one: by port and queue number.
pub(crate) struct Shelf {
    rx: BTreeMap<(u16, usize), Box<dyn RxQueue>>,
    tx: BTreeMap<(u16, usize), Box<dyn TxQueue>>,
}

impl Shelf {
    /// All queues of all ports.
    pub(crate) fn new(queues: QueuesByPort) -> Self {
        let mut shelf = Self { rx: BTreeMap::new(), tx: BTreeMap::new() };
        for (port, Queues { rx, tx }) in queues {
            shelf.rx.extend(rx.into_iter().enumerate().map(|(at, queue)| ((port, at), queue)));
            shelf.tx.extend(tx.into_iter().enumerate().map(|(at, queue)| ((port, at), queue)));
        }
        shelf
    }

    /// The lanes of one lcore, with the queues that its plan names. Each transmit buffer's drops
    /// are noted with its port.
    pub(crate) fn lanes(
        &mut self,
        plan: &LcorePlan,
        ports: &mut Ports,
        options: &Options,
    ) -> Vec<Lane> {
        let mut lanes = Vec::with_capacity(plan.lanes.len());
        for lane in &plan.lanes {
            let (from, to) = (lane.route.from, lane.route.to);
            let numbers = lane.rx_queues.iter().map(|number| (from, usize::from(*number)));
            let rx = numbers.filter_map(|key| self.rx.remove(&key)).collect();
            let tx = self.tx.remove(&(to, usize::from(lane.tx_queue)));
            // Each plan names what its ports were configured with, once.
            let (Some(tx), Some(port)) = (tx, ports.get_mut(&to)) else { continue };
            let tx = TxBuffer::new(tx, options.burst_len()).lossless(options.lossless);
            port.queue_full.push(tx.queue_full());
            let rewrite = match options.rewrites_addresses() {
                true => Rewrite::for_port(to, port.info.mac),
                false => Rewrite::Keep,
            };
            let finish = options.rx_unfinished() && !port.config.offloads.tx_checksum;
            lanes.push(Lane { from, rx, rewrite, finish, to, tx });
        }
        lanes
    }

    /// The queues that nobody took.
    pub(crate) fn rest(self) -> QueuesByPort {
        let mut queues = QueuesByPort::new();
        for ((port, _), queue) in self.rx {
            queues.entry(port).or_default().rx.push(queue);
        }
        for ((port, _), queue) in self.tx {
            queues.entry(port).or_default().tx.push(queue);
        }
        queues
    }
}

/// Puts the queues of lanes that are done with back to those of their ports.
pub(crate) fn give_back(lanes: Vec<Lane>, queues: &mut QueuesByPort) {
    for Lane { from, rx, to, tx, .. } in lanes {
        queues.entry(from).or_default().rx.extend(rx);
        queues.entry(to).or_default().tx.push(tx.into_queue());
    }
}
