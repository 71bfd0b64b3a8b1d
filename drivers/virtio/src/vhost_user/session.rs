//! A conversation with one back end, from its greeting to its end.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use packetboat::bus::EventFd;
use packetboat::memory::Memory;
use packetboat::net::MacAddress;

use super::message::{
    MemoryRegion, Message, PROTOCOL_FEATURES, Protocol, Request, RingAddresses, config_space,
    queue_state,
};
use super::socket::{Connection, SocketError};
use crate::features::Features;
use crate::ring::QueueMemory;
use crate::transport::{NetConfig, status};

/// The most memory regions that every back end takes.
pub(crate) const MAX_REGIONS: usize = 8;
/// Bytes of the network device's configuration up to and with its MTU (virtio 1.3, 5.1.4).
const CONFIG_BYTES: usize = 12;
/// How long a back end may take to go when it was told to.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A back end that answers.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// What it offers, of virtio.
    pub(crate) offered: Features,
    /// What of the protocol is used.
    protocol: Protocol,
    /// Queue pairs that it can have.
    pub(crate) queue_pairs: u16,
    /// Queues that were started.
    queues: u16,
}

/// A queue as the back end is told of it.
#[derive(Debug)]
pub(crate) struct QueueSetup<'a> {
    pub(crate) index: u16,
    pub(crate) memory: &'a QueueMemory,
    pub(crate) kick: &'a EventFd,
    /// Rung by the back end, if anybody may want it.
    pub(crate) call: Option<&'a EventFd>,
}

/// Memory as the back end maps it.
pub(crate) struct SharedMemory<'a> {
    regions: Vec<MemoryRegion>,
    files: Vec<BorrowedFd<'a>>,
}

impl<'a> SharedMemory<'a> {
    /// All of `memory`: descriptors and rings are in its device addresses.
    pub(crate) fn of(memory: &'a Memory) -> Self {
        let (mut regions, mut files) = (Vec::new(), Vec::new());
        for segment in memory.segments() {
            for run in segment.iova_runs() {
                regions.push(MemoryRegion {
                    guest_address: run.iova.0,
                    len_bytes: run.len_bytes,
                    user_address: run.iova.0,
                    file_offset: run.va - segment.va(),
                });
                files.push(segment.file());
            }
        }
        Self { regions, files }
    }

    /// How many regions it takes.
    pub(crate) fn region_count(&self) -> usize {
        self.regions.len()
    }
}

impl Session {
    /// Greets a back end and asks what it can.
    pub(crate) fn greet(mut connection: Connection) -> Result<Self, SocketError> {
        connection.set(&Message::empty(Request::SetOwner), &[])?;
        let offered = number(connection.get(&Message::empty(Request::GetFeatures))?);
        let mut protocol = Protocol::default();
        if offered & PROTOCOL_FEATURES != 0 {
            let all = number(connection.get(&Message::empty(Request::GetProtocolFeatures))?);
            protocol = Protocol(all & Protocol::KNOWN.0);
            connection.set(&Message::number(Request::SetProtocolFeatures, protocol.0), &[])?;
            connection.acknowledged = protocol.has(Protocol::REPLY_ACK);
        }
        let mut queue_pairs = 1;
        if protocol.has(Protocol::MQ) {
            let most = number(connection.get(&Message::empty(Request::GetQueueNum))?);
            // Some count pairs, some queues (the protocol says queues): both have at least one
            // pair.
            queue_pairs = u16::try_from(most).unwrap_or(u16::MAX).max(1);
        }
        let offered = Features::from_bits(offered & !PROTOCOL_FEATURES);
        tracing::debug!(
            "vhost-user back end: offers {offered:?}, protocol {protocol:?}, {queue_pairs} pairs"
        );
        Ok(Self { connection, offered, protocol, queue_pairs, queues: 0 })
    }

    /// The configuration space, where the back end has one.
    pub(crate) fn net_config(&mut self, features: Features) -> Result<NetConfig, SocketError> {
        let mut config = NetConfig {
            mac: None,
            link_up: None,
            max_queue_pairs: 1,
            mtu: None,
            announce: false,
            rss: None,
        };
        if !self.protocol.has(Protocol::CONFIG) {
            return Ok(config);
        }
        let asked = Message::get_config(CONFIG_BYTES as u32);
        let answer: [u8; 12 + CONFIG_BYTES] = self.connection.get(&asked)?;
        let space = config_space(&answer, CONFIG_BYTES as u32).map_err(|why| {
            SocketError::BadReply { request: format!("{:?}", Request::GetConfig), why }
        })?;
        let &[a, b, c, d, e, f, _, _, pairs_low, pairs_high, mtu_low, mtu_high] = space else {
            return Ok(config);
        };
        if self.offered.has(Features::MAC) {
            config.mac = Some(MacAddress([a, b, c, d, e, f]));
        }
        if features.has(Features::MQ) {
            config.max_queue_pairs = u16::from_le_bytes([pairs_low, pairs_high]).max(1);
        }
        if self.offered.has(Features::MTU) {
            config.mtu = Some(u16::from_le_bytes([mtu_low, mtu_high]));
        }
        Ok(config)
    }

    /// Starts the device: features, memory, queues ("Starting and stopping rings"). The rings
    /// stand at their beginning.
    pub(crate) fn start(
        &mut self,
        features: Features,
        memory: &SharedMemory<'_>,
        queues: &[QueueSetup<'_>],
    ) -> Result<(), SocketError> {
        let extra = if self.protocol == Protocol::default() { 0 } else { PROTOCOL_FEATURES };
        let chosen = features.bits() | extra;
        self.set_status(status::ACKNOWLEDGE | status::DRIVER)?;
        self.connection.set(&Message::number(Request::SetFeatures, chosen), &[])?;
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK)?;
        let files: Vec<RawFd> = memory.files.iter().map(AsRawFd::as_raw_fd).collect();
        self.connection.set(&Message::memory(&memory.regions), &files)?;
        // A packed ring's counts begin with both wrap counters at 1 ("Vring state description").
        let base = if features.has(Features::RING_PACKED) { 1 << 15 | 1 << 31 } else { 0 };
        for queue in queues {
            let QueueSetup { index, memory, kick, call } = *queue;
            let areas = memory.areas();
            let addresses = RingAddresses {
                descriptors: areas.descriptors.0,
                driver: areas.driver.0,
                device: areas.device.0,
            };
            let connection = &mut self.connection;
            match call {
                Some(call) => {
                    let message = Message::queue_file(Request::SetVringCall, index);
                    connection.set(&message, &[call.as_raw_fd()])?;
                }
                // We poll: nobody is to be called.
                None => {
                    connection.set(&Message::no_queue_file(Request::SetVringCall, index), &[])?;
                }
            }
            let size = u32::from(memory.size);
            connection.set(&Message::queue(Request::SetVringNum, index, size), &[])?;
            connection.set(&Message::queue(Request::SetVringBase, index, base), &[])?;
            connection.set(&Message::ring_addresses(index, addresses), &[])?;
            let kick = [kick.as_raw_fd()];
            connection.set(&Message::queue_file(Request::SetVringKick, index), &kick)?;
            self.queues = self.queues.max(index + 1);
        }
        // Without protocol features rings are enabled from the beginning.
        if extra != 0 {
            for queue in queues {
                let enable = Message::queue(Request::SetVringEnable, queue.index, 1);
                self.connection.set(&enable, &[])?;
            }
        }
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.set_status(all)
    }

    fn set_status(&mut self, bits: u8) -> Result<(), SocketError> {
        if !self.protocol.has(Protocol::STATUS) {
            return Ok(());
        }
        self.connection.set(&Message::number(Request::SetStatus, u64::from(bits)), &[])
    }

    /// Stops all rings. When this returns the back end touches them no more: it answers when it
    /// has stopped ("Starting and stopping rings"). It can be started again.
    pub(crate) fn stop(&mut self) -> Result<(), SocketError> {
        for index in 0..self.queues {
            let asked = Message::queue(Request::GetVringBase, index, 0);
            let answer = self.connection.get(&asked)?;
            queue_state(&answer, index).map_err(|why| SocketError::BadReply {
                request: format!("{:?}", asked.request),
                why,
            })?;
        }
        self.queues = 0;
        self.set_status(0)?;
        if self.protocol.has(Protocol::RESET_DEVICE) {
            self.connection.set(&Message::empty(Request::ResetDevice), &[])?;
        }
        Ok(())
    }

    /// Whether the back end has gone.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.connection.is_closed()
    }

    /// Ends it. Whether the back end has let go of our memory for certain.
    pub(crate) fn close(self) -> bool {
        self.connection.close(CLOSE_LIMIT)
    }
}

fn number(answer: [u8; 8]) -> u64 {
    u64::from_le_bytes(answer)
}
