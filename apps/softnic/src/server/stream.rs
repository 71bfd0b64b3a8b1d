//! Messages and the descriptors that come with them, over a unix socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

use super::message::{HEADER_LEN, Header, Malformed};

/// The most descriptors that a message may bring.
pub(super) const MAX_FDS: usize = 16;

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum Gone {
    /// The client has closed it.
    #[error("it closed the connection")]
    Closed,
    /// It sent what is no message.
    #[error("it sent {0}")]
    Malformed(#[from] Malformed),
    /// It sent more descriptors than any message has.
    #[error("it sent more than {MAX_FDS} descriptors with one message")]
    Descriptors,
    /// The socket failed.
    #[error("its socket failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Reads one message: its header, its body into `body`, its descriptors.
///
/// # Errors
/// See [`Gone`].
pub(super) fn receive(
    stream: &UnixStream,
    body: &mut Vec<u8>,
) -> Result<(Header, Vec<OwnedFd>), Gone> {
    let mut fds = Vec::new();
    let mut header = [0; HEADER_LEN];
    fill(stream, &mut header, &mut fds)?;
    let header = Header::parse(&header)?;
    body.clear();
    body.resize(header.len - HEADER_LEN, 0);
    fill(stream, body, &mut fds)?;
    Ok((header, fds))
}

fn fill(stream: &UnixStream, mut to: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), Gone> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    while !to.is_empty() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = {
            let mut pieces = [IoSliceMut::new(to)];
            match recvmsg(stream, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
            return Err(Gone::Descriptors);
        }
        if received.bytes == 0 {
            return Err(Gone::Closed);
        }
        to = to.get_mut(received.bytes..).unwrap_or(&mut []);
    }
    Ok(())
}

/// Sends a message, and descriptors with its first byte.
///
/// # Errors
/// See [`Gone`].
pub(super) fn send(
    stream: &UnixStream,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Gone> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut rest = message;
    let mut fds = fds;
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let pieces = [io::IoSlice::new(rest)];
        match sendmsg(stream, &pieces, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or(&[]),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        fds = &[];
    }
    Ok(())
}
