//! The connection: one message, one answer.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::bus::BusError;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceInfo = 4,
    RegionInfo = 5,
    IrqInfo = 7,
    SetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DeviceReset = 13,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Version => "VFIO_USER_VERSION",
            Self::DmaMap => "VFIO_USER_DMA_MAP",
            Self::DmaUnmap => "VFIO_USER_DMA_UNMAP",
            Self::DeviceInfo => "VFIO_USER_DEVICE_GET_INFO",
            Self::RegionInfo => "VFIO_USER_DEVICE_GET_REGION_INFO",
            Self::IrqInfo => "VFIO_USER_DEVICE_GET_IRQ_INFO",
            Self::SetIrqs => "VFIO_USER_DEVICE_SET_IRQS",
            Self::RegionRead => "VFIO_USER_REGION_READ",
            Self::RegionWrite => "VFIO_USER_REGION_WRITE",
            Self::DeviceReset => "VFIO_USER_DEVICE_RESET",
        }
    }
}

/// Message id, command, size, flags, error: what every message begins with.
const HEADER_LEN: usize = 16;
const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const FLAG_NO_REPLY: u32 = 1 << 4;
const FLAG_ERROR: u32 = 1 << 5;

/// The longest answer that is read; none of those asked for here comes near it.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// Messages that a server may send on its own while an answer is awaited.
const UNASKED_MAX: usize = 64;
/// A server that takes longer has hung. Its reset may close files and join threads.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The protocol's version that this client speaks.
const MAJOR: u16 = 0;
const MINOR: u16 = 1;
/// One descriptor a message; transfers no longer than a register.
const CAPABILITIES: &str = r#"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":4096}}"#;

/// An answer without its header.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) file: Option<File>,
}

/// A connection to a server whose version fits.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Closed by the server, or given up since it doesn't keep to the protocol.
    gone: AtomicBool,
    /// The server stopped answering, which is not the same: it may still run.
    hung: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    next_id: u16,
}

impl Client {
    /// Connects, and settles the version.
    pub(super) fn connect(path: &Path) -> Result<Self, BusError> {
        let fail = |source| BusError::ServerMissing { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(fail)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(fail)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(fail)?;
        let client = Self {
            path: path.to_owned(),
            connection: Mutex::new(Connection { stream, next_id: 0 }),
            gone: AtomicBool::new(false),
            hung: AtomicBool::new(false),
        };
        client.negotiate()?;
        Ok(client)
    }

    fn negotiate(&self) -> Result<(), BusError> {
        let mut body = Vec::new();
        body.extend(MAJOR.to_ne_bytes());
        body.extend(MINOR.to_ne_bytes());
        body.extend(CAPABILITIES.as_bytes());
        body.push(0);
        let answer = self.ask(Command::Version, &body, None)?.body;
        let word = |at: usize| {
            answer.get(at..)?.first_chunk().map(|bytes: &[u8; 2]| u16::from_ne_bytes(*bytes))
        };
        match word(0).zip(word(2)) {
            Some((MAJOR, minor)) if minor <= MINOR => Ok(()),
            Some((major, minor)) => {
                let found = format!("{major}.{minor}");
                Err(BusError::ServerVersion { path: self.path.clone(), found })
            }
            None => Err(self.nonsense(Command::Version, "it is too short")),
        }
    }

    /// What the device behind this socket is called.
    pub(super) fn name(&self) -> String {
        format!("vfio-user:{}", self.path.display())
    }

    /// Where its socket is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether it ended because the server doesn't answer: then it may be running still.
    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    /// Sends one message, with a descriptor if there is one, and waits for the answer.
    pub(super) fn ask(
        &self,
        command: Command,
        body: &[u8],
        fd: Option<&dyn AsRawFd>,
    ) -> Result<Answer, BusError> {
        let mut connection = self.lock();
        if self.is_gone() {
            return Err(self.lost(command, None));
        }
        match connection.exchange(command, body, fd) {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(errno)) => Err(BusError::ServerRefused {
                path: self.path.clone(),
                what: command.name(),
                source: io::Error::from_raw_os_error(errno),
            }),
            Err(Failure::Lost(source)) => {
                let hung = source.kind() == io::ErrorKind::WouldBlock;
                self.hung.store(hung, Ordering::Relaxed);
                self.gone.store(true, Ordering::Relaxed);
                Err(self.lost(command, Some(source)))
            }
            Err(Failure::Nonsense(why)) => {
                drop(connection);
                Err(self.nonsense(command, why))
            }
        }
    }

    /// An answer whose contents make no sense: nothing more is asked of such a server.
    pub(super) fn nonsense(&self, command: Command, why: &'static str) -> BusError {
        self.gone.store(true, Ordering::Relaxed);
        self.hung.store(true, Ordering::Relaxed); // it still runs, whatever it does
        BusError::ServerAnswer { path: self.path.clone(), what: command.name(), why }
    }

    fn lost(&self, command: Command, source: Option<io::Error>) -> BusError {
        let source = match source {
            // What a read timeout is called says little.
            Some(error) if error.kind() == io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
            ),
            Some(error) => error,
            None => io::Error::new(io::ErrorKind::NotConnected, "the connection has ended before"),
        };
        BusError::ServerGone { path: self.path.clone(), what: command.name(), source }
    }

    /// Notices that the server has gone, without asking it anything. Doesn't wait.
    pub(super) fn look(&self) {
        if self.is_gone() {
            return;
        }
        // Whoever holds the lock will notice, too.
        let Ok(mut connection) = self.connection.try_lock() else { return };
        if connection.stream.set_nonblocking(true).is_err() {
            return;
        }
        let failure = connection.take_unasked();
        let _ = connection.stream.set_nonblocking(false);
        if let Some(why) = failure {
            tracing::debug!("{}: {why}", self.path.display());
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // After a panic in the middle of an exchange the next one finds an answer that isn't its
        // own, and ends the connection.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
enum Failure {
    /// There is one, and it is an error number.
    Refused(i32),
    /// The connection has ended, or nothing came.
    Lost(io::Error),
    /// It isn't an answer to what was asked.
    Nonsense(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Connection {
    fn exchange(
        &mut self,
        command: Command,
        body: &[u8],
        fd: Option<&dyn AsRawFd>,
    ) -> Result<Answer, Failure> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.send(id, command as u16, TYPE_COMMAND, 0, body, fd)?;
        for _ in 0..UNASKED_MAX {
            let (header, answer) = self.receive()?;
            if header.flags & TYPE_MASK == TYPE_COMMAND {
                self.decline(&header)?;
                continue;
            }
            if header.flags & TYPE_MASK != TYPE_REPLY
                || header.id != id
                || header.command != command as u16
            {
                return Err(Failure::Nonsense("it answers another question"));
            }
            if header.flags & FLAG_ERROR != 0 {
                return Err(Failure::Refused(header.error));
            }
            return Ok(answer);
        }
        Err(Failure::Nonsense("commands of its own come instead of it"))
    }

    /// Servers may ask their client to read or write memory for them. All of it is theirs to map,
    /// so none has a reason to.
    fn decline(&mut self, header: &Header) -> io::Result<()> {
        if header.flags & FLAG_NO_REPLY != 0 {
            return Ok(());
        }
        self.send(header.id, header.command, TYPE_REPLY | FLAG_ERROR, libc::ENOTSUP, &[], None)
    }

    fn send(
        &mut self,
        id: u16,
        command: u16,
        flags: u32,
        error: i32,
        body: &[u8],
        fd: Option<&dyn AsRawFd>,
    ) -> io::Result<()> {
        let len = (HEADER_LEN + body.len()) as u32;
        let mut message = Vec::with_capacity(HEADER_LEN + body.len());
        message.extend(id.to_ne_bytes());
        message.extend(command.to_ne_bytes());
        message.extend(len.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(error.to_ne_bytes());
        message.extend(body);
        let Some(fd) = fd else { return self.stream.write_all(&message) };
        let fds: [RawFd; 1] = [fd.as_raw_fd()];
        let sent = self.stream.send_with_fds(&[message.as_slice()], &fds).map_err(os_error)?;
        // The descriptor went with the first byte.
        self.stream.write_all(message.get(sent..).unwrap_or_default())
    }

    fn receive(&mut self) -> Result<(Header, Answer), Failure> {
        let mut file = None;
        let mut head = [0; HEADER_LEN];
        self.fill(&mut head, &mut file)?;
        let header = Header::read(&head);
        let len = (header.len as usize)
            .checked_sub(HEADER_LEN)
            .filter(|len| *len <= ANSWER_LEN_MAX)
            .ok_or(Failure::Nonsense("its length can't be"))?;
        let mut body = vec![0; len];
        self.fill(&mut body, &mut file)?;
        Ok((header, Answer { body, file }))
    }

    /// Reads all of `bytes`, and keeps the first descriptor that comes with them.
    fn fill(&mut self, bytes: &mut [u8], file: &mut Option<File>) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.recv_with_fd(rest).map_err(os_error) {
                Ok((0, _)) => {
                    let what = "the server has closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok((count, got)) => {
                    done += count;
                    *file = file.take().or(got);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// With the stream non-blocking: the end of the connection, or something that nobody asked
    /// for; nothing, if nothing is there.
    fn take_unasked(&mut self) -> Option<String> {
        let mut first = [0; 1];
        match self.stream.recv_with_fd(&mut first).map_err(os_error) {
            Ok((0, _)) => Some("the server has closed the connection".to_owned()),
            Ok(_) => Some("the server sends what nobody asked for; given up".to_owned()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

fn os_error(error: vmm_sys_util::errno::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

#[derive(Debug)]
struct Header {
    id: u16,
    command: u16,
    len: u32,
    flags: u32,
    error: i32,
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            id: u16::from_ne_bytes([a, b]),
            command: u16::from_ne_bytes([c, d]),
            len: u32::from_ne_bytes([e, f, g, h]),
            flags: u32::from_ne_bytes([i, j, k, l]),
            error: i32::from_ne_bytes([m, n, o, p]),
        }
    }
}
