//! A TAP interface: the NIC's cable ends in this machine's kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use packetboat::sys::tap;

use super::{FrameBuffer, MAX_FRAME_LEN, Wire};

/// An open TAP interface.
#[derive(Debug)]
pub struct Tap {
    file: File,
    out: FrameBuffer,
    incoming: Vec<u8>,
    len: Option<usize>,
    sent: u64,
    received: u64,
    refused: u64,
}

impl Tap {
    /// Opens the interface `name`, or makes it.
    ///
    /// # Errors
    /// As [`tap::open`].
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self {
            file: tap::open(name)?,
            out: FrameBuffer::new(),
            incoming: vec![0; MAX_FRAME_LEN + 4],
            len: None,
            sent: 0,
            received: 0,
            refused: 0,
        })
    }
}

impl Wire for Tap {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        Some(&mut self.out)
    }

    fn commit(&mut self) {
        // An interface that is down, or whose queue is full, loses frames, as a cable to it would.
        match self.file.write_all(self.out.bytes()) {
            Ok(()) => self.sent += 1,
            Err(_) => self.refused += 1,
        }
    }

    fn front(&mut self) -> Option<&[u8]> {
        if self.len.is_none() {
            self.len = self.file.read(&mut self.incoming).ok().filter(|len| *len > 0);
        }
        self.incoming.get(..self.len?)
    }

    fn pop(&mut self) {
        self.len = None;
        self.received += 1;
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn report(&self) -> String {
        format!(
            "tap_sent {}\ntap_received {}\ntap_refused {}\n",
            self.sent, self.received, self.refused
        )
    }
}
