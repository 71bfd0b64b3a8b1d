//! The socket between front end and back end: one connection, and where connections come from.

use std::io::{ErrorKind, Read};
use std::os::fd::RawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::message::{BadReply, HEADER_BYTES, Message, Request, check_reply};

/// A back end that takes longer than this for an answer has failed. QEMU and DPDK answer within
/// milliseconds, except that mapping much memory takes them longer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What went wrong with a connection. Whatever it is, the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The back end is gone.
    #[error("the back end has closed the connection")]
    Closed,
    /// No answer in time.
    #[error("the back end didn't answer {request} within {} s", ANSWER_LIMIT.as_secs())]
    Silent {
        /// What was asked.
        request: String,
    },
    /// An answer that can't be.
    #[error("the back end's answer to {request} makes no sense: {why}")]
    BadReply {
        /// What was asked.
        request: String,
        /// What is wrong.
        why: BadReply,
    },
    /// It said no.
    #[error("the back end refused {request} (answer {answer:#x})")]
    Refused {
        /// What was asked.
        request: String,
        /// What it said.
        answer: u64,
    },
    /// The socket can't be used.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

fn name(request: Request) -> String {
    format!("{request:?}")
}

/// A connection to a back end.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// REPLY_ACK was negotiated: requests without an answer of their own get one, too.
    pub(crate) acknowledged: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, acknowledged: false })
    }

    /// Sends a request that has no answer of its own; waits for the acknowledgement if there is
    /// one.
    pub(crate) fn set(&mut self, message: &Message, files: &[RawFd]) -> Result<(), SocketError> {
        self.send(message, files, self.acknowledged)?;
        if !self.acknowledged {
            return Ok(());
        }
        match u64::from_le_bytes(self.answer(message.request)?) {
            0 => Ok(()),
            answer => Err(SocketError::Refused { request: name(message.request), answer }),
        }
    }

    /// Asks, and waits for `N` bytes of answer.
    pub(crate) fn get<const N: usize>(
        &mut self,
        message: &Message,
    ) -> Result<[u8; N], SocketError> {
        self.send(message, &[], false)?;
        self.answer(message.request)
    }

    fn send(&self, message: &Message, files: &[RawFd], ack: bool) -> Result<(), SocketError> {
        let bytes = message.bytes(ack);
        let mut done = 0;
        while done < bytes.len() {
            // The descriptors go with the first byte.
            let files = if done == 0 { files } else { &[] };
            match self.stream.send_with_fds(&[&bytes[done..]], files) {
                Ok(0) => return Err(SocketError::Closed),
                Ok(count) => done += count,
                Err(error) => {
                    let source = std::io::Error::from(error);
                    match source.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                            return Err(SocketError::Closed);
                        }
                        ErrorKind::WouldBlock => {
                            return Err(SocketError::Silent { request: name(message.request) });
                        }
                        _ => {
                            let what = format!("can't send {}", name(message.request));
                            return Err(SocketError::Io { what, source });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn answer<const N: usize>(&mut self, request: Request) -> Result<[u8; N], SocketError> {
        let until = Instant::now() + ANSWER_LIMIT;
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header, request, until)?;
        check_reply(header, request, N)
            .map_err(|why| SocketError::BadReply { request: name(request), why })?;
        let mut body = [0; N];
        self.read(&mut body, request, until)?;
        Ok(body)
    }

    /// Fills `bytes`, by `until` at the latest, however slowly they come.
    fn read(
        &mut self,
        bytes: &mut [u8],
        request: Request,
        until: Instant,
    ) -> Result<(), SocketError> {
        let mut done = 0;
        while done < bytes.len() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SocketError::Silent { request: name(request) });
            }
            let result = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut bytes[done..]));
            match result {
                Ok(0) => return Err(SocketError::Closed),
                Ok(count) => done += count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    ErrorKind::ConnectionReset => return Err(SocketError::Closed),
                    _ => {
                        let what = format!("can't read the answer to {}", name(request));
                        return Err(SocketError::Io { what, source: error });
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether the back end is gone, or says something unasked, which it may not. Doesn't wait.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = self.stream.set_nonblocking(true).and_then(|()| self.stream.read(&mut byte));
        let restored = self.stream.set_nonblocking(false);
        match read {
            Err(error) => {
                !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                    || restored.is_err()
            }
            Ok(_) => true,
        }
    }

    /// Tells the back end to go, and waits until it has: it unmaps our memory before it closes its
    /// end (and if it dies, the kernel does). Whether it has.
    pub(crate) fn close(mut self, limit: Duration) -> bool {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let until = Instant::now() + limit;
        let mut bytes = [0; 64];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut bytes))
            {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    _ => return true,
                },
            }
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// The back end listens.
    Client { path: PathBuf },
    /// The back end connects to us.
    Server { path: PathBuf, listener: UnixListener },
}

impl Endpoint {
    pub(crate) fn client(path: &Path) -> Self {
        Self::Client { path: path.to_owned() }
    }

    /// Listens at `path`. A socket that a program left behind there is replaced; one that somebody
    /// listens on isn't.
    pub(crate) fn server(path: &Path) -> Result<Self, SocketError> {
        let io = |what: &str, source| SocketError::Io {
            what: format!("{what} {}", path.display()),
            source,
        };
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
        if is_socket {
            if UnixStream::connect(path).is_ok() {
                let source = std::io::Error::from(ErrorKind::AddrInUse);
                return Err(io("can't listen on", source));
            }
            std::fs::remove_file(path).map_err(|source| io("can't remove the stale", source))?;
        }
        let listener = UnixListener::bind(path).map_err(|source| io("can't listen on", source))?;
        listener.set_nonblocking(true).map_err(|source| io("can't listen on", source))?;
        Ok(Self::Server { path: path.to_owned(), listener })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Client { path } | Self::Server { path, .. } => path,
        }
    }

    /// A connection, if there is one to be had now.
    pub(crate) fn try_connect(&self) -> Result<Option<Connection>, SocketError> {
        let (stream, what) = match self {
            Self::Client { path } => (UnixStream::connect(path), "can't connect to"),
            Self::Server { listener, .. } => {
                (listener.accept().map(|(stream, _)| stream), "can't take a connection on")
            }
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    // Nobody there, or not yet.
                    ErrorKind::NotFound
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::WouldBlock
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::Interrupted => Ok(None),
                    _ => Err(SocketError::Io {
                        what: format!("{what} {}", self.path().display()),
                        source: error,
                    }),
                };
            }
        };
        let io = |source| SocketError::Io { what: "can't set the socket up".to_owned(), source };
        Connection::new(stream).map(Some).map_err(io)
    }

    /// A connection, as soon as there is one, within `limit`.
    pub(crate) fn connect(&self, limit: Duration) -> Result<Option<Connection>, SocketError> {
        let until = Instant::now() + limit;
        loop {
            match self.try_connect()? {
                Some(connection) => return Ok(Some(connection)),
                None if Instant::now() >= until => return Ok(None),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Self::Server { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}
