//! QEMU's `-netdev stream`: over a unix socket, each frame after its length in 4 bytes, big-endian.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest frame that QEMU takes on this netdev (`NET_BUFSIZE`: 4096 + 65536).
const MAX_FRAME_BYTES: usize = 69_632;

/// Connects to a socket on which QEMU listens, waiting up to `timeout` for it to appear.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let end = Instant::now() + timeout;
    loop {
        match UnixStream::connect(path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Takes frames out of a byte stream; keeps a part of one across reads that time out.
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: Vec<u8>,
    /// First byte in `buffer` that hasn't been handed out.
    start: usize,
}

/// What a read brought.
pub(crate) enum Event<'a> {
    /// A whole frame.
    Frame(&'a [u8]),
    /// The socket's read timeout passed.
    Nothing,
    /// QEMU closed the connection.
    Closed,
}

impl<R: Read> FrameReader<R> {
    /// A reader that expects the length of a frame next.
    pub(crate) fn new(from: R) -> Self {
        Self { from, buffer: Vec::with_capacity(2 * MAX_FRAME_BYTES), start: 0 }
    }

    /// The next frame.
    ///
    /// # Errors
    /// What the socket reports, and `InvalidData` for a length that QEMU never sends.
    pub(crate) fn next(&mut self) -> io::Result<Event<'_>> {
        loop {
            if let Some(len_bytes) = self.whole()? {
                let at = self.start + 4;
                self.start = at + len_bytes;
                return Ok(Event::Frame(&self.buffer[at..at + len_bytes]));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let filled = self.buffer.len();
            self.buffer.resize(filled + MAX_FRAME_BYTES, 0);
            let read = self.from.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(Event::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(Event::Nothing);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Length of the frame at `start` if the buffer holds all of it.
    fn whole(&self) -> io::Result<Option<usize>> {
        let rest = &self.buffer[self.start..];
        let Some((length, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len_bytes = u32::from_be_bytes(*length) as usize;
        if len_bytes > MAX_FRAME_BYTES {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "wanted a frame of at most {MAX_FRAME_BYTES} bytes, found a length of {len_bytes}"
                ),
            ));
        }
        Ok((body.len() >= len_bytes).then_some(len_bytes))
    }
}

/// Writes one frame.
///
/// # Errors
/// What the socket reports; after an error the stream can't be used on, a part may have been sent.
pub(crate) fn write_frame(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    to.write_all(&(frame.len() as u32).to_be_bytes())?;
    to.write_all(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        for len_bytes in [60usize, 1514, 0, 61] {
            write_frame(&mut bytes, &vec![len_bytes as u8; len_bytes]).expect("to a vector");
        }
        for step in [1, 3, 64, 4000] {
            let mut reader = FrameReader::new(Trickle { bytes: &bytes, step });
            let mut lens = Vec::new();
            loop {
                match reader.next().expect("valid") {
                    Event::Frame(frame) => {
                        assert!(frame.iter().all(|&byte| byte == frame.len() as u8));
                        lens.push(frame.len());
                    }
                    Event::Nothing => {}
                    Event::Closed => break,
                }
            }
            assert_eq!(lens, [60, 1514, 0, 61], "in steps of {step}");
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let bytes = [0xff; 64];
        assert!(FrameReader::new(&bytes[..]).next().is_err());
    }

    /// Gives `step` bytes a read, and a timeout between any two reads.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.step = self.step.wrapping_neg();
            if self.step > usize::MAX / 2 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len_bytes = self.step.min(self.bytes.len()).min(into.len());
            into[..len_bytes].copy_from_slice(&self.bytes[..len_bytes]);
            self.bytes = &self.bytes[len_bytes..];
            Ok(len_bytes)
        }
    }
}
