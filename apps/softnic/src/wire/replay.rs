//! pcapng files: what they have comes in, what the NIC sends is written down.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::{FrameBuffer, Wire};
use crate::pcapng;
use crate::record::Recorder;

/// Frames of one file for the NIC, and a file for those that it sends. A frame waits until the NIC
/// listens.
#[derive(Debug)]
pub struct Replay {
    frames: Vec<Vec<u8>>,
    next: usize,
    rounds: u64,
    out: Option<Recorder>,
    buffer: FrameBuffer,
    sent: u64,
}

impl Replay {
    /// `rounds`: how often the frames of `incoming` are to come.
    ///
    /// # Errors
    /// When a file can't be read or written, or isn't pcapng.
    pub fn new(incoming: Option<&Path>, outgoing: Option<&Path>, rounds: u64) -> io::Result<Self> {
        let frames = match incoming {
            Some(path) => pcapng::read_frames(BufReader::new(File::open(path)?))?,
            None => Vec::new(),
        };
        let out = outgoing.map(Recorder::create).transpose()?;
        Ok(Self { frames, next: 0, rounds, out, buffer: FrameBuffer::new(), sent: 0 })
    }
}

impl Wire for Replay {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        Some(&mut self.buffer)
    }

    fn commit(&mut self) {
        self.sent += 1;
        if let Some(out) = &mut self.out {
            out.sent(self.buffer.bytes());
        }
    }

    fn front(&mut self) -> Option<&[u8]> {
        let len = self.frames.len();
        let left = len > 0 && ((self.next / len) as u64) < self.rounds;
        if left { self.frames.get(self.next % len).map(Vec::as_slice) } else { None }
    }

    fn pop(&mut self) {
        self.next += 1;
    }

    fn discard(&mut self) {}

    fn flush(&mut self) {
        if let Some(out) = &mut self.out {
            out.flush();
        }
    }

    fn report(&self) -> String {
        format!("replayed {}\nwritten {}\n", self.next, self.sent)
    }
}
