//! The control queue (virtio 1.3, 5.1.6.5): commands, each answered before the next is given.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use packetboat::dma::{Area, Array};
use packetboat::memory::{Iova, Memory};
use packetboat::net::MacAddress;
use packetboat::port::PortError;
use virtio_bindings::virtio_net as net;

use crate::ring::{Broken, Doorbell, PackedRing, QueueMemory, Ring, SplitRing, Used};
use crate::setup::largest_power_of_two;
use crate::transport::PciTransport;

/// A command that takes longer than this has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// `VIRTIO_NET_OK`.
const OK: u8 = net::VIRTIO_NET_OK as u8;
/// Where the answer stands in the queue's buffer; the command stands at 0.
const ANSWER_AT: usize = 1984;
const BUFFER_BYTES: usize = 2048;

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

/// Spread received frames by a hash, over so many queue pairs: see [`rss_config`].
pub(crate) const RSS_CONFIG: Command = Command {
    class: net::VIRTIO_NET_CTRL_MQ as u8,
    number: net::VIRTIO_NET_CTRL_MQ_RSS_CONFIG as u8,
    name: "VIRTIO_NET_CTRL_MQ_RSS_CONFIG",
};
/// The device's own address: six bytes.
pub(crate) const OWN_ADDRESS: Command = Command {
    class: net::VIRTIO_NET_CTRL_MAC as u8,
    number: net::VIRTIO_NET_CTRL_MAC_ADDR_SET as u8,
    name: "VIRTIO_NET_CTRL_MAC_ADDR_SET",
};
/// Addresses to receive besides: see [`address_table`].
pub(crate) const ADDRESS_TABLE: Command = Command {
    class: net::VIRTIO_NET_CTRL_MAC as u8,
    number: net::VIRTIO_NET_CTRL_MAC_TABLE_SET as u8,
    name: "VIRTIO_NET_CTRL_MAC_TABLE_SET",
};
/// Receive tagged frames of a VLAN: a little-endian u16.
pub(crate) const VLAN_ADD: Command = Command {
    class: net::VIRTIO_NET_CTRL_VLAN as u8,
    number: net::VIRTIO_NET_CTRL_VLAN_ADD as u8,
    name: "VIRTIO_NET_CTRL_VLAN_ADD",
};
/// Don't any more.
pub(crate) const VLAN_REMOVE: Command = Command {
    class: net::VIRTIO_NET_CTRL_VLAN as u8,
    number: net::VIRTIO_NET_CTRL_VLAN_DEL as u8,
    name: "VIRTIO_NET_CTRL_VLAN_DEL",
};
/// That its wish for an announcement was heard.
pub(crate) const ANNOUNCED: Command = Command {
    class: net::VIRTIO_NET_CTRL_ANNOUNCE as u8,
    number: net::VIRTIO_NET_CTRL_ANNOUNCE_ACK as u8,
    name: "VIRTIO_NET_CTRL_ANNOUNCE_ACK",
};

/// Addresses besides the device's own: `struct virtio_net_ctrl_mac` twice, of single stations and
/// of groups (5.1.6.5.2).
pub(crate) fn address_table(addresses: &[MacAddress]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in [0, 1] {
        let kind = addresses.iter().filter(|MacAddress([first, ..])| first & 1 == group);
        bytes.extend((kind.clone().count() as u32).to_le_bytes());
        bytes.extend(kind.flat_map(|address| address.0));
    }
    bytes
}

/// `struct virtio_net_rss_config` (5.1.6.5.7.1): what is hashed, which queue each value of the
/// hash's lower bits leads to (as many as a power of two), and the key. Frames that aren't hashed
/// go to queue 0.
pub(crate) fn rss_config(types: u32, table: &[u16], tx_queues: u16, key: &[u8]) -> Vec<u8> {
    let mut bytes = types.to_le_bytes().to_vec();
    bytes.extend((table.len() as u16).wrapping_sub(1).to_le_bytes());
    bytes.extend(0_u16.to_le_bytes());
    bytes.extend(table.iter().flat_map(|queue| queue.to_le_bytes()));
    bytes.extend(tx_queues.to_le_bytes());
    bytes.push(key.len() as u8);
    bytes.extend(key);
    bytes
}

/// Its ring, in the format that all queues have. The commands go in order by themselves.
#[derive(Debug)]
enum ControlRing {
    Split(SplitRing<false>),
    Packed(PackedRing<false>),
}

impl ControlRing {
    fn give(&mut self, command: (Iova, u32), answer: (Iova, u32)) {
        match self {
            Self::Split(ring) => {
                ring.offer_command(command, answer);
                ring.publish();
            }
            Self::Packed(ring) => {
                ring.offer_command(command, answer);
                ring.publish();
            }
        }
    }

    /// What the device has completed, if it has.
    fn completed(&mut self) -> Result<Option<Used>, Broken> {
        fn next<R: Ring>(ring: &mut R) -> Result<Option<Used>, Broken> {
            Ok(if ring.completed()? == 0 { None } else { ring.take_used() })
        }
        match self {
            Self::Split(ring) => next(ring),
            Self::Packed(ring) => next(ring),
        }
    }

    /// Takes the descriptors of the last command back, if the device named the right one.
    fn take_back(&mut self, used: Used) -> bool {
        fn take<R: Ring>(ring: &mut R, used: Used) -> bool {
            let right = ring.is_expected(used.id);
            if right {
                ring.give_back_chain(used.id as u16, 2);
            }
            right
        }
        match self {
            Self::Split(ring) => take(ring, used),
            Self::Packed(ring) => take(ring, used),
        }
    }
}

/// The driver's side of the control queue.
#[derive(Debug)]
pub(crate) struct ControlQueue {
    ring: ControlRing,
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
        packed: bool,
    ) -> Result<(Self, [Area; 2]), PortError> {
        let size = largest_power_of_two(transport.queue_size_max(index)).min(64);
        if size < 2 {
            return Err(PortError::Device {
                device: transport.name().to_owned(),
                what: format!("its control queue (number {index}) has no room for a command"),
            });
        }
        let name = format!("{} virtqueue {index}", transport.name());
        let node = transport.device().numa_node();
        let queue = QueueMemory::new(memory, &name, node, size, packed)?;
        let doorbell =
            Doorbell::Register(transport.enable_queue(index, size, queue.areas(), None)?, index);
        let ring = match packed {
            true => ControlRing::Packed(PackedRing::new(&queue, doorbell, false, 0)?),
            false => ControlRing::Split(SplitRing::new(&queue, doorbell, false, 0)?),
        };
        let name = format!("{} commands", transport.name());
        let area = Area::new(memory, &name, BUFFER_BYTES, 64, node)?;
        let buffer = area.array(0, BUFFER_BYTES)?;
        let memory_of_ring = queue.area;
        let queue = Self {
            ring,
            buffer,
            area: area.clone(),
            device: transport.name().to_owned(),
            stuck: false,
        };
        Ok((queue, [memory_of_ring, area]))
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
        let command_at = (self.area.iova(0), len as u32);
        self.ring.give(command_at, (self.area.iova(ANSWER_AT), 1));

        let start = Instant::now();
        let used = loop {
            match self.ring.completed() {
                Ok(None) if start.elapsed() < ANSWER_LIMIT => sleep(Duration::from_micros(50)),
                Ok(None) | Err(_) => {
                    self.stuck = true;
                    return Err(fault(format!(
                        "it didn't answer {} within {} s",
                        command.name,
                        ANSWER_LIMIT.as_secs()
                    )));
                }
                Ok(Some(used)) => break used,
            }
        };
        let answer = self.buffer.read(ANSWER_AT);
        let right = self.ring.take_back(used);
        self.stuck = !right;
        if !right || answer != OK {
            return Err(fault(format!("it refused {} (answer {answer})", command.name)));
        }
        Ok(())
    }
}
