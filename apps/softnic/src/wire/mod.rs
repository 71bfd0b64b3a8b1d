//! What a NIC is plugged into.

mod generator;
mod pair;
mod reflect;
mod replay;
mod stream;
mod tap;

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use generator::{Generator, Ledger, Settings, Sizes};
pub use pair::Pair;
pub use reflect::Reflect;
pub use replay::Replay;
pub use stream::Stream;
pub use tap::Tap;

/// The longest frame that a wire carries, without CRC: 82599 datasheet 7.1.1 allows 15.5 KB.
pub const MAX_FRAME_LEN: usize = 15_872;

/// Room for one frame.
#[derive(Clone, Debug, Default)]
pub struct FrameBuffer {
    data: Vec<u8>,
    len: usize,
}

impl FrameBuffer {
    /// Room without a frame.
    pub fn new() -> Self {
        Self { data: vec![0; 2048], len: 0 }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.data[..self.len]
    }

    /// The frame, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }

    /// Makes the frame `len` bytes long. What comes to it is whatever stood there.
    pub fn set_len(&mut self, len: usize) -> &mut [u8] {
        if len > self.data.len() {
            self.data.resize(len, 0);
        }
        self.len = len;
        &mut self.data[..len]
    }

    /// Makes the frame at least `len` bytes long; what comes to it is 0.
    pub fn pad_to(&mut self, len: usize) {
        let from = self.len;
        if from < len {
            self.set_len(len)[from..].fill(0);
        }
    }

    /// Puts `bytes` in at `at`.
    pub fn insert(&mut self, at: usize, bytes: &[u8]) {
        let len = self.len;
        if at <= len {
            self.set_len(len + bytes.len());
            self.data.copy_within(at..len, at + bytes.len());
            self.data[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// The other end of a NIC's cable. Frames have no CRC.
pub trait Wire: Send {
    /// Where the next frame that the NIC sends is to be put, or `None` if the wire can't take one
    /// now: then the NIC holds it.
    fn room(&mut self) -> Option<&mut FrameBuffer>;

    /// Whether so many frames find room, one after the other. A wire that is empty says yes.
    fn has_room(&mut self, _frames: usize) -> bool {
        self.room().is_some()
    }

    /// Takes what was put into [`room`](Self::room).
    fn commit(&mut self);

    /// The next frame for the NIC.
    fn front(&mut self) -> Option<&[u8]>;

    /// The NIC has taken, or refused, what [`front`](Self::front) gave.
    fn pop(&mut self);

    /// Forgets what is on its way to a NIC that doesn't listen. A wire that keeps it instead says so
    /// in its own documentation.
    fn discard(&mut self) {
        while self.front().is_some() {
            self.pop();
        }
    }

    /// Called when a burst is over.
    fn flush(&mut self) {}

    /// Becomes readable when a frame comes, if the wire has such a thing.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How long the NIC may sleep when nothing moves and [`descriptor`](Self::descriptor) doesn't wake it.
    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// A command from the control socket.
    ///
    /// # Errors
    /// What was wanted, what was found.
    fn command(&mut self, words: &[&str]) -> Result<String, String> {
        Err(format!("this wire knows no commands, found '{}'", words.join(" ")))
    }

    /// Lines for the control socket: what the wire counted.
    fn report(&self) -> String {
        String::new()
    }
}
