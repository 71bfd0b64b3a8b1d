//! vhost-user messages as bytes (the vhost-user protocol, "Message Specification").
//!
//! Everything here is plain data in and out, so that it can be fuzzed: what a back end answers is
//! not believed.

/// Bytes of the header: request, flags, size, a little-endian u32 each. (The protocol says native
/// byte order; both ends run on one machine, and all that this runs on are little-endian.)
pub(crate) const HEADER_BYTES: usize = 12;
/// The longest answer that this front end ever asks for: a configuration space of 256 bytes with
/// 12 bytes in front.
pub(crate) const MAX_BODY_BYTES: usize = 12 + 256;

/// The protocol's version, in the low two bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The bit among virtio's features that says: protocol features can be negotiated.
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Requests of a front end ("Front-end message types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    GetConfig = 24,
    ResetDevice = 34,
    SetStatus = 39,
}

/// Protocol features ("Protocol features").
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Protocol(pub(crate) u64);

impl Protocol {
    pub(crate) const MQ: Self = Self(1);
    pub(crate) const REPLY_ACK: Self = Self(1 << 3);
    pub(crate) const CONFIG: Self = Self(1 << 9);
    pub(crate) const RESET_DEVICE: Self = Self(1 << 13);
    pub(crate) const STATUS: Self = Self(1 << 16);
    const NAMES: [(Self, &'static str); 5] = [
        (Self::MQ, "MQ"),
        (Self::REPLY_ACK, "REPLY_ACK"),
        (Self::CONFIG, "CONFIG"),
        (Self::RESET_DEVICE, "RESET_DEVICE"),
        (Self::STATUS, "STATUS"),
    ];
    /// All that this front end has a use for. INFLIGHT_SHMFD isn't among them: it lets a new back
    /// end find the requests that the old one took out of order; frames aren't requests, and here
    /// both rings start anew.
    pub(crate) const KNOWN: Self = Self(
        Self::MQ.0 | Self::REPLY_ACK.0 | Self::CONFIG.0 | Self::RESET_DEVICE.0 | Self::STATUS.0,
    );

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)?;
        for (bit, name) in Self::NAMES {
            if self.has(bit) {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

/// A part of memory that is shown to the back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryRegion {
    /// What descriptors call it.
    pub(crate) guest_address: u64,
    pub(crate) len_bytes: u64,
    /// What the ring addresses of SET_VRING_ADDR call it.
    pub(crate) user_address: u64,
    /// Where it starts in its file.
    pub(crate) file_offset: u64,
}

/// Addresses of a ring's three parts, as user addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) request: Request,
    body: Vec<u8>,
}

impl Message {
    pub(crate) fn empty(request: Request) -> Self {
        Self { request, body: Vec::new() }
    }

    pub(crate) fn number(request: Request, value: u64) -> Self {
        Self { request, body: value.to_le_bytes().to_vec() }
    }

    /// A queue's number, and what is said of it.
    pub(crate) fn queue(request: Request, index: u16, value: u32) -> Self {
        Self { request, body: words(&[u32::from(index), value]) }
    }

    /// The queue that a file descriptor belongs to that goes along.
    pub(crate) fn queue_file(request: Request, index: u16) -> Self {
        Self::number(request, u64::from(index))
    }

    /// That there is no file descriptor for the queue: its driver polls, and wants no calls.
    pub(crate) fn no_queue_file(request: Request, index: u16) -> Self {
        Self::number(request, u64::from(index) | 1 << 8)
    }

    pub(crate) fn ring_addresses(index: u16, ring: RingAddresses) -> Self {
        let mut body = words(&[u32::from(index), 0]);
        for address in [ring.descriptors, ring.device, ring.driver, 0] {
            body.extend(address.to_le_bytes());
        }
        Self { request: Request::SetVringAddr, body }
    }

    pub(crate) fn memory(regions: &[MemoryRegion]) -> Self {
        let mut body = words(&[regions.len() as u32, 0]);
        for region in regions {
            let fields =
                [region.guest_address, region.len_bytes, region.user_address, region.file_offset];
            body.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        }
        Self { request: Request::SetMemTable, body }
    }

    /// Asks for `len_bytes` of the device's configuration space, from its start.
    pub(crate) fn get_config(len_bytes: u32) -> Self {
        let mut body = words(&[0, len_bytes, 0]);
        body.resize(body.len() + len_bytes as usize, 0);
        Self { request: Request::GetConfig, body }
    }

    /// With its header; `acknowledge`: an answer is wanted to a request that has none of its own.
    pub(crate) fn bytes(&self, acknowledge: bool) -> Vec<u8> {
        let flags = VERSION | if acknowledge { NEED_REPLY } else { 0 };
        let mut bytes = words(&[self.request as u32, flags, self.body.len() as u32]);
        bytes.extend(&self.body);
        bytes
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReply {
    /// It answers another request.
    #[error("it answers request {found}, and {wanted} was asked")]
    Request {
        /// That was asked.
        wanted: u32,
        /// That it names.
        found: u32,
    },
    /// Its flags don't say that it is an answer in version 1.
    #[error("its flags are {flags:#x}")]
    Flags {
        /// As found.
        flags: u32,
    },
    /// It is too short or too long.
    #[error("it has {found} bytes of payload, and {wanted} were wanted")]
    Size {
        /// That was wanted.
        wanted: usize,
        /// That it has.
        found: u32,
    },
    /// It is about another queue, or another part of the configuration space.
    #[error("it is about {found}, and {wanted} was asked for")]
    About {
        /// That was asked.
        wanted: u32,
        /// That it names.
        found: u32,
    },
}

/// Reads the header of the answer to `request`, whose body is to have `body_bytes`.
pub(crate) fn check_reply(
    header: [u8; HEADER_BYTES],
    request: Request,
    body_bytes: usize,
) -> Result<(), BadReply> {
    let [found, flags, size] = [0, 4, 8].map(|at| word_at(&header, at));
    if found != request as u32 {
        return Err(BadReply::Request { wanted: request as u32, found });
    }
    if flags & VERSION_MASK != VERSION || flags & REPLY == 0 {
        return Err(BadReply::Flags { flags });
    }
    if size as usize != body_bytes || body_bytes > MAX_BODY_BYTES {
        return Err(BadReply::Size { wanted: body_bytes, found: size });
    }
    Ok(())
}

/// The u32 at `at`; 0 beyond the end, which callers have ruled out.
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The answer to a request about queue `index`: a number.
pub(crate) fn queue_state(body: &[u8; 8], index: u16) -> Result<u32, BadReply> {
    match word_at(body, 0) {
        found if found == u32::from(index) => Ok(word_at(body, 4)),
        found => Err(BadReply::About { wanted: u32::from(index), found }),
    }
}

/// The configuration space in the answer to [`Message::get_config`].
pub(crate) fn config_space(body: &[u8], len_bytes: u32) -> Result<&[u8], BadReply> {
    let about = [word_at(body, 0), word_at(body, 4)];
    match body.get(12..12 + len_bytes as usize) {
        Some(space) if about == [0, len_bytes] => Ok(space),
        _ => Err(BadReply::About { wanted: len_bytes, found: about[1] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> [u8; HEADER_BYTES] {
        words(&[request, flags, size]).try_into().unwrap()
    }

    #[test]
    fn messages_are_laid_out_as_the_protocol_says() {
        let message = Message::queue(Request::SetVringNum, 3, 256);
        assert_eq!(message.bytes(true), words(&[8, 9, 8, 3, 256]));
        let ring = RingAddresses { descriptors: 1, driver: 2, device: 3 };
        let bytes = Message::ring_addresses(5, ring).bytes(false);
        assert_eq!(
            bytes,
            words(&[9, 1, 40, 5, 0, 1, 0, 3, 0, 2, 0, 0, 0]),
            "used before available"
        );
        let region =
            MemoryRegion { guest_address: 1, len_bytes: 2, user_address: 3, file_offset: 4 };
        let bytes = Message::memory(&[region]).bytes(false);
        assert_eq!(bytes, words(&[5, 1, 40, 1, 0, 1, 0, 2, 0, 3, 0, 4, 0]));
        assert_eq!(Message::no_queue_file(Request::SetVringCall, 2).bytes(false)[12..14], [2, 1]);
    }

    #[test]
    fn answers_are_checked() {
        let request = Request::GetFeatures;
        assert_eq!(check_reply(header(1, 5, 8), request, 8), Ok(()));
        for (header, expected) in [
            (header(2, 5, 8), BadReply::Request { wanted: 1, found: 2 }),
            (header(1, 1, 8), BadReply::Flags { flags: 1 }),
            (header(1, 6, 8), BadReply::Flags { flags: 6 }),
            (header(1, 5, 9), BadReply::Size { wanted: 8, found: 9 }),
            (header(1, 5, u32::MAX), BadReply::Size { wanted: 8, found: u32::MAX }),
        ] {
            assert_eq!(check_reply(header, request, 8), Err(expected));
        }
        let state: [u8; 8] = words(&[1, 7]).try_into().unwrap();
        assert_eq!(queue_state(&state, 1), Ok(7));
        assert_eq!(queue_state(&state, 2), Err(BadReply::About { wanted: 2, found: 1 }));
        let mut body = words(&[0, 2, 0]);
        body.extend([8, 9]);
        assert_eq!(config_space(&body, 2), Ok(&[8, 9][..]));
        assert!(config_space(&body, 3).is_err());
        assert!(config_space(&[], 0).is_err());
    }
}
