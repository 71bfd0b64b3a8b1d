//! vfio-user messages as bytes (vfio-user protocol, version 0.1).

use thiserror::Error;

/// Length of a header.
pub(super) const HEADER_LEN: usize = 16;
/// The longest transfer of data in one message.
pub(super) const MAX_TRANSFER: usize = 1 << 20;
/// The longest message.
pub(super) const MAX_MESSAGE: usize = MAX_TRANSFER + 64;

const TYPE_MASK: u32 = 0xf;
const COMMAND: u32 = 0;
const REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Version,
    DmaMap,
    DmaUnmap,
    DeviceGetInfo,
    DeviceGetRegionInfo,
    DeviceGetRegionIoFds,
    DeviceGetIrqInfo,
    DeviceSetIrqs,
    RegionRead,
    RegionWrite,
    DeviceReset,
}

impl Command {
    fn new(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::DeviceGetInfo,
            5 => Self::DeviceGetRegionInfo,
            6 => Self::DeviceGetRegionIoFds,
            7 => Self::DeviceGetIrqInfo,
            8 => Self::DeviceSetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            13 => Self::DeviceReset,
            _ => return None,
        })
    }
}

/// The first 16 bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Chosen by who asks.
    pub id: u16,
    /// The command's number.
    pub number: u16,
    /// Length of the message with its header, in bytes.
    pub len: usize,
    flags: u32,
}

/// Bytes that are no message: the connection has no future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The length in the header is impossible.
    #[error("a message of {0} bytes: wanted {HEADER_LEN} to {MAX_MESSAGE}")]
    Length(usize),
    /// A client sends commands only.
    #[error("a message that isn't a command (flags {0:#x})")]
    NotACommand(u32),
    /// The body is shorter than its command needs.
    #[error("a body of {found} bytes: wanted {wanted}")]
    Short {
        /// What there is.
        found: usize,
        /// What the command needs.
        wanted: usize,
    },
    /// The version isn't ours, or isn't a version.
    #[error("a version that makes no sense")]
    Version,
    /// The first message must be the version.
    #[error("a message before the version was agreed on")]
    TooEarly,
}

impl Header {
    /// Takes a header apart.
    ///
    /// # Errors
    /// [`Malformed`] when no message can follow.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let (id, number) = (reader.u16()?, reader.u16()?);
        let (len, flags) = (reader.u32()? as usize, reader.u32()?);
        if !(HEADER_LEN..=MAX_MESSAGE).contains(&len) {
            return Err(Malformed::Length(len));
        }
        if flags & TYPE_MASK != COMMAND {
            return Err(Malformed::NotACommand(flags));
        }
        Ok(Self { id, number, len, flags })
    }

    /// The command, if there is one of that number.
    pub(super) fn command(&self) -> Option<Command> {
        Command::new(self.number)
    }

    /// Whether the client waits for an answer.
    pub(super) fn wants_reply(&self) -> bool {
        self.flags & NO_REPLY == 0
    }

    /// An answer with its body.
    pub(super) fn reply(&self, body: &[u8]) -> Vec<u8> {
        self.answer(REPLY, 0, body)
    }

    /// The answer that it went wrong.
    pub(super) fn error(&self, errno: u32) -> Vec<u8> {
        self.answer(REPLY | ERROR, errno, &[])
    }

    fn answer(&self, flags: u32, errno: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER_LEN + body.len());
        message.extend_from_slice(&self.id.to_le_bytes());
        message.extend_from_slice(&self.number.to_le_bytes());
        for word in [len, flags, errno] {
            message.extend_from_slice(&word.to_le_bytes());
        }
        message.extend_from_slice(body);
        message
    }
}

/// Takes numbers from the front of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let short = Malformed::Short { found: self.0.len(), wanted: N };
        let (number, rest) = self.0.split_first_chunk::<N>().ok_or(short)?;
        self.0 = rest;
        Ok(*number)
    }

    /// # Errors
    /// When too little is left.
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_le_bytes)
    }

    /// # Errors
    /// When too little is left.
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    /// # Errors
    /// When too little is left.
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    /// `len` bytes.
    ///
    /// # Errors
    /// When too little is left.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let short = Malformed::Short { found: self.0.len(), wanted: len };
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(short)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// A body made of 32-bit words.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u32, flags: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..2].copy_from_slice(&7u16.to_le_bytes());
        bytes[2] = 9;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..12].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_and_its_answers() {
        let parsed = Header::parse(&header(32, NO_REPLY)).unwrap();
        assert_eq!((parsed.id, parsed.command()), (7, Some(Command::RegionRead)));
        assert!(!parsed.wants_reply());
        let error = parsed.error(22);
        assert_eq!(error.len(), HEADER_LEN);
        assert_eq!(error[8..16], [REPLY as u8 | ERROR as u8, 0, 0, 0, 22, 0, 0, 0]);
        assert_eq!(parsed.reply(&[1, 2])[4], 18);
    }

    #[test]
    fn impossible_headers() {
        assert_eq!(Header::parse(&header(15, 0)), Err(Malformed::Length(15)));
        assert!(matches!(Header::parse(&header(u32::MAX, 0)), Err(Malformed::Length(_))));
        assert_eq!(Header::parse(&header(16, 1)), Err(Malformed::NotACommand(1)));
    }

    #[test]
    fn a_reader_stops_at_the_end() {
        let mut reader = Reader(&[1, 0, 2]);
        assert_eq!(reader.u16(), Ok(1));
        assert_eq!(reader.u32(), Err(Malformed::Short { found: 1, wanted: 4 }));
        assert_eq!(reader.bytes(1), Ok(&[2][..]));
    }
}
