//! The vfio-user server of one NIC: one client at a time, any number one after the other.

mod message;
mod session;
mod stream;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use crate::nic::Nic;

pub use session::Session;
pub use stream::Gone;

const LOOK_FOR_STOP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Makes the socket. One that a former process has left is replaced, one that somebody listens on
/// isn't; neither is a file of another kind.
///
/// # Errors
/// When the path can't be used.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let what = "somebody listens there already";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            let what = "there is a file already, and it is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Serves clients until the NIC is stopped.
pub fn serve(nic: &Nic, listener: &UnixListener) {
    while !nic.is_stopping() {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&LOOK_FOR_STOP)), Ok(1..)) {
            continue;
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("{}: no connection: {error}", nic.name);
                continue;
            }
        };
        info!("{}: a client has come", nic.name);
        nic.set_connection(stream.try_clone().ok());
        let gone = Session::new(nic, &stream).run();
        nic.set_connection(None);
        nic.device().disconnected();
        match gone {
            Gone::Closed => info!("{}: the client has gone", nic.name),
            gone => warn!("{}: the client was sent away: {gone}", nic.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "dear").unwrap();
        assert_eq!(listen(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear");
    }
}
