//! QEMU's stream format over a unix socket: a length of four bytes, big endian, then the frame.
//! (`-netdev stream`; the peer may also be a virtio NIC's netdev, or packetboat-wire.)

use std::io::{self, Read, Write};
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::{FrameBuffer, MAX_FRAME_LEN, Wire};

const READ_AHEAD: usize = 64 << 10;
const PENDING_OUT: usize = 256 << 10;

/// A stream of frames. While nobody is connected, frames sent are lost, as without a cable.
#[derive(Debug)]
pub struct Stream {
    listener: Option<UnixListener>,
    peer: Option<UnixStream>,
    frame: FrameBuffer,
    out: Vec<u8>,
    out_is_cut: bool, // part of what was in `out` has gone already
    looked: bool,     // for a peer that waits, since the last flush: once a burst is enough
    incoming: Vec<u8>,
    from: usize, // bytes of `incoming` already used
    sent: u64,
    received: u64,
    lost: u64,
}

impl Stream {
    /// Waits for a peer at `path`; one that goes may come again.
    ///
    /// # Errors
    /// When the path can't be used.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let listener = crate::server::listen(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::new(Some(listener), None))
    }

    /// Connects to a peer that listens at `path`.
    ///
    /// # Errors
    /// When nobody does.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(Self::new(None, Some(stream)))
    }

    fn new(listener: Option<UnixListener>, peer: Option<UnixStream>) -> Self {
        Self {
            listener,
            peer,
            frame: FrameBuffer::new(),
            out: Vec::with_capacity(PENDING_OUT + MAX_FRAME_LEN + 4),
            out_is_cut: false,
            looked: false,
            incoming: Vec::with_capacity(2 * READ_AHEAD),
            from: 0,
            sent: 0,
            received: 0,
            lost: 0,
        }
    }

    /// Sends what is pending, as much as the peer takes.
    fn push(&mut self) {
        while !self.out.is_empty() {
            let Some(peer) = &mut self.peer else { return };
            match peer.write(&self.out) {
                Ok(len) => {
                    self.out.drain(..len);
                    self.out_is_cut = !self.out.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It went unnoticed; the next one may be there already, and gets what is whole.
                Err(_) => {
                    let whole = if self.out_is_cut { Vec::new() } else { take(&mut self.out) };
                    self.hang_up();
                    if self.greet() {
                        self.out = whole;
                    }
                }
            }
        }
    }

    /// Takes a peer that waits to be, if there is none; whether there is one now.
    fn greet(&mut self) -> bool {
        if self.peer.is_none()
            && let Some(listener) = &self.listener
            && let Ok((peer, _)) = listener.accept()
            && peer.set_nonblocking(true).is_ok()
        {
            self.peer = Some(peer);
        }
        self.peer.is_some()
    }

    fn hang_up(&mut self) {
        self.peer = None;
        self.out.clear();
        self.out_is_cut = false;
        self.incoming.clear();
        self.from = 0;
    }

    /// The frame that `incoming` begins with, if all of it is there.
    fn whole(&self) -> Option<(usize, usize)> {
        let rest = self.incoming.get(self.from..)?;
        let (len, body) = rest.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*len) as usize;
        (body.len() >= len || len > MAX_FRAME_LEN).then_some((self.from + 4, len))
    }

    fn pull(&mut self) {
        self.greet();
        let Some(peer) = &mut self.peer else { return };
        self.incoming.drain(..self.from);
        self.from = 0;
        let have = self.incoming.len();
        self.incoming.resize(have + READ_AHEAD, 0);
        let read = peer.read(self.incoming.get_mut(have..).unwrap_or(&mut []));
        self.incoming.truncate(have + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => self.hang_up(),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.hang_up(),
            _ => {}
        }
    }
}

impl Wire for Stream {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        if self.out.len() >= PENDING_OUT {
            self.push();
        }
        (self.out.len() < PENDING_OUT).then_some(&mut self.frame)
    }

    fn has_room(&mut self, _frames: usize) -> bool {
        self.room().is_some()
    }

    fn commit(&mut self) {
        if self.peer.is_none() && (std::mem::replace(&mut self.looked, true) || !self.greet()) {
            self.lost += 1;
            return;
        }
        let frame = self.frame.bytes();
        self.out.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(0).to_be_bytes());
        self.out.extend_from_slice(frame);
        self.sent += 1;
    }

    fn front(&mut self) -> Option<&[u8]> {
        if self.whole().is_none() {
            self.pull();
        }
        let (at, len) = self.whole()?;
        if len > MAX_FRAME_LEN {
            self.hang_up(); // no frame: the peer speaks something else
            return None;
        }
        self.incoming.get(at..at + len)
    }

    fn pop(&mut self) {
        if let Some((at, len)) = self.whole() {
            self.from = at + len;
            self.received += 1;
        }
    }

    fn flush(&mut self) {
        self.looked = false;
        self.push();
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.peer {
            Some(peer) => Some(peer.as_fd()),
            None => self.listener.as_ref().map(AsFd::as_fd),
        }
    }

    fn report(&self) -> String {
        format!(
            "stream_connected {}\nstream_sent {}\nstream_received {}\nstream_lost {}\n",
            u8::from(self.peer.is_some()),
            self.sent,
            self.received,
            self.lost
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, Stream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let stream = Stream::listen(&path).unwrap();
        let peer = UnixStream::connect(&path).unwrap();
        (folder, stream, peer)
    }

    fn send(stream: &mut Stream, frame: &[u8]) {
        let room = stream.room().unwrap();
        room.set_len(frame.len()).copy_from_slice(frame);
        stream.commit();
        stream.flush();
    }

    #[test]
    fn a_frame_goes_to_the_peer_that_came_in_place_of_one_that_went() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire");
        let mut wire = Stream::listen(&path).unwrap();
        let first = UnixStream::connect(&path).unwrap();
        let send = |wire: &mut Stream| {
            wire.room().unwrap().set_len(60).fill(7);
            wire.commit();
            wire.flush();
        };
        send(&mut wire); // nobody has asked for frames yet
        drop(first);
        let mut second = UnixStream::connect(&path).unwrap();
        send(&mut wire);
        let mut got = [0; 64];
        second.read_exact(&mut got).unwrap();
        assert_eq!((&got[..4], &got[4..]), (&[0, 0, 0, 60][..], &[7; 60][..]));
        assert_eq!((wire.sent, wire.lost), (2, 0));
    }

    #[test]
    fn frames_go_both_ways_however_they_are_cut() {
        let (_folder, mut stream, mut peer) = pair();
        for piece in [&[0, 0][..], &[0, 3, 1], &[2, 3, 0, 0, 0, 1, 9]] {
            peer.write_all(piece).unwrap();
            stream.pull();
        }
        assert_eq!(stream.front(), Some(&[1, 2, 3][..]));
        stream.pop();
        assert_eq!(stream.front(), Some(&[9][..]));
        stream.pop();
        assert_eq!(stream.front(), None);
        send(&mut stream, &[5; 60]);
        let mut found = [0; 64];
        peer.read_exact(&mut found).unwrap();
        assert_eq!(found[..5], [0, 0, 0, 60, 5]);
    }

    #[test]
    fn a_peer_that_goes_or_sends_nonsense_can_be_followed_by_another() {
        let (folder, mut stream, mut peer) = pair();
        peer.write_all(&[0xff; 8]).unwrap();
        assert_eq!(stream.front(), None);
        let mut peer = UnixStream::connect(folder.path().join("s")).unwrap();
        peer.write_all(&[0, 0, 0, 1, 7]).unwrap();
        assert_eq!(stream.front(), Some(&[7][..]));
        stream.pop();
        drop(peer);
        assert_eq!(stream.front(), None);
        send(&mut stream, &[5; 60]);
        assert_eq!(stream.lost, 1);
    }
}
