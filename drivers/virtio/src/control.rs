//! The control queue (virtio 1.3, 5.1.6.5): commands, each answered before the next is given.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use packetboat::dma::{Area, Array};
use packetboat::memory::Memory;
use packetboat::port::PortError;
use virtio_bindings::virtio_net as net;

use crate::ring::{Descriptor, SplitRing};
use crate::transport::PciTransport;

/// A command that takes longer than this has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// `VIRTIO_NET_OK`.
const OK: u8 = net::VIRTIO_NET_OK as u8;
/// Where the answer stands in the queue's buffer; the command stands at 0.
const ANSWER_AT: usize = 64;
const BUFFER_BYTES: usize = 128;

/// A command's class and number, and its name for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    class: u8,
    number: u8,
    name: &'static str,
}

/// Receive everything, or not: one byte.
pub(crate) const PROMISCUOUS: Command = Command {
    class: net::VIRTIO_NET_CTRL_RX as u8,
    number: net::VIRTIO_NET_CTRL_RX_PROMISC as u8,
    name: "VIRTIO_NET_CTRL_RX_PROMISC",
};
/// Receive all multicast frames, or not: one byte.
pub(crate) const ALL_MULTICAST: Command = Command {
    class: net::VIRTIO_NET_CTRL_RX as u8,
    number: net::VIRTIO_NET_CTRL_RX_ALLMULTI as u8,
    name: "VIRTIO_NET_CTRL_RX_ALLMULTI",
};
/// Use so many queue pairs: a little-endian u16.
pub(crate) const QUEUE_PAIRS: Command = Command {
    class: net::VIRTIO_NET_CTRL_MQ as u8,
    number: net::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8,
    name: "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET",
};

/// The driver's side of the control queue.
#[derive(Debug)]
pub(crate) struct ControlQueue {
    ring: SplitRing,
    buffer: Array<u8>,
    area: Area,
    device: String,
    /// A command was never answered: the device still has the buffer, so no other can be given.
    stuck: bool,
}

impl ControlQueue {
    /// Makes queue `index` the control queue. The areas are returned too: they must outlive the
    /// device's use of them.
    pub(crate) fn new(
        transport: &PciTransport,
        memory: &Arc<Memory>,
        index: u16,
    ) -> Result<(Self, [Area; 2]), PortError> {
        let size = largest_power_of_two(transport.queue_size_max(index)).min(64);
        if size < 2 {
            return Err(PortError::Device {
                device: transport.name().to_owned(),
                what: format!("its control queue (number {index}) has no room for a command"),
            });
        }
        let (ring, ring_area) = SplitRing::new(transport, memory, index, size)?;
        let name = format!("{} commands", transport.name());
        let area = Area::new(memory, &name, BUFFER_BYTES, 64, transport.device().numa_node())?;
        let buffer = area.array(0, BUFFER_BYTES)?;
        let queue = Self {
            ring,
            buffer,
            area: area.clone(),
            device: transport.name().to_owned(),
            stuck: false,
        };
        Ok((queue, [ring_area, area]))
    }

    /// Gives a command and waits for the answer.
    pub(crate) fn command(&mut self, command: Command, data: &[u8]) -> Result<(), PortError> {
        let fault = |what: String| PortError::Device { device: self.device.clone(), what };
        if self.stuck {
            return Err(fault(format!(
                "{} wasn't given: the device hasn't answered the command before it",
                command.name
            )));
        }
        let len = 2 + data.len();
        if len > ANSWER_AT {
            return Err(fault(format!("{} is too long: {len} bytes", command.name)));
        }
        for (at, &byte) in [command.class, command.number].iter().chain(data).enumerate() {
            self.buffer.write(at, byte);
        }
        self.buffer.write(ANSWER_AT, !OK);
        let mut given = Descriptor::readable(self.area.iova(0), len as u32);
        given.flags |= Descriptor::NEXT;
        given.next = 1;
        self.ring.describe(0, given);
        self.ring.describe(1, Descriptor::writable(self.area.iova(ANSWER_AT), 1));
        self.ring.offer(0);
        self.ring.publish();

        let start = Instant::now();
        loop {
            match self.ring.completed(1) {
                Ok(0) if start.elapsed() < ANSWER_LIMIT => sleep(Duration::from_micros(50)),
                Ok(0) | Err(_) => {
                    self.stuck = true;
                    return Err(fault(format!(
                        "it didn't answer {} within {} s",
                        command.name,
                        ANSWER_LIMIT.as_secs()
                    )));
                }
                Ok(_) => break,
            }
        }
        let used = self.ring.take_used();
        let answer = self.buffer.read(ANSWER_AT);
        if used.id != 0 || answer != OK {
            return Err(fault(format!("it refused {} (answer {answer})", command.name)));
        }
        Ok(())
    }
}

/// The largest power of two that is at most `limit`; 0 for 0.
pub(crate) fn largest_power_of_two(limit: u16) -> u16 {
    if limit == 0 { 0 } else { 1 << limit.ilog2() }
}
