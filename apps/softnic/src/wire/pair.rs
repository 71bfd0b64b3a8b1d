//! Two NICs of this process, plugged into each other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::{FrameBuffer, Wire};

const DEPTH: usize = 1024;

/// One direction. Buffers go round: empty ones come back to the sender.
#[derive(Debug)]
struct Lane {
    full: Mutex<VecDeque<FrameBuffer>>,
    empty: Mutex<Vec<FrameBuffer>>,
    waiting: AtomicUsize,
    bell: OwnedFd,
}

impl Lane {
    fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            full: Mutex::new(VecDeque::with_capacity(DEPTH)),
            empty: Mutex::new(Vec::with_capacity(DEPTH)),
            waiting: AtomicUsize::new(0),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        }))
    }
}

/// One end. A burst is handed over with one lock.
#[derive(Debug)]
pub struct Pair {
    out: Arc<Lane>,
    back: Arc<Lane>,
    buffer: FrameBuffer,
    burst: Vec<FrameBuffer>,
    spare: Vec<FrameBuffer>,
    taken: VecDeque<FrameBuffer>,
    sent: u64,
    received: u64,
}

impl Pair {
    /// Both ends.
    ///
    /// # Errors
    /// When there are no eventfds to be had.
    pub fn new() -> io::Result<(Self, Self)> {
        let (one, other) = (Lane::new()?, Lane::new()?);
        let end = |out: &Arc<Lane>, back: &Arc<Lane>| Self {
            out: Arc::clone(out),
            back: Arc::clone(back),
            buffer: FrameBuffer::new(),
            burst: Vec::new(),
            spare: Vec::new(),
            taken: VecDeque::new(),
            sent: 0,
            received: 0,
        };
        Ok((end(&one, &other), end(&other, &one)))
    }

    fn on_their_way(&self) -> usize {
        self.out.waiting.load(Ordering::Relaxed) + self.burst.len()
    }
}

impl Wire for Pair {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        (self.on_their_way() < DEPTH).then_some(&mut self.buffer)
    }

    fn has_room(&mut self, frames: usize) -> bool {
        self.on_their_way() == 0 || self.on_their_way() + frames <= DEPTH
    }

    fn commit(&mut self) {
        if self.spare.is_empty() {
            let mut empty = self.out.empty.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *empty, &mut self.spare);
        }
        let next = self.spare.pop().unwrap_or_default();
        self.burst.push(std::mem::replace(&mut self.buffer, next));
        self.sent += 1;
    }

    fn front(&mut self) -> Option<&[u8]> {
        if self.taken.is_empty() {
            if self.back.waiting.load(Ordering::Acquire) == 0 {
                return None;
            }
            let mut full = self.back.full.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *full, &mut self.taken);
            let _ = rustix::io::read(&self.back.bell, &mut [0; 8]);
        }
        self.taken.front().map(FrameBuffer::bytes)
    }

    fn pop(&mut self) {
        if let Some(buffer) = self.taken.pop_front() {
            self.back.waiting.fetch_sub(1, Ordering::Relaxed);
            self.back.empty.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            self.received += 1;
        }
    }

    fn flush(&mut self) {
        if !self.burst.is_empty() {
            let len = self.burst.len();
            let mut full = self.out.full.lock().unwrap_or_else(PoisonError::into_inner);
            full.extend(self.burst.drain(..));
            self.out.waiting.fetch_add(len, Ordering::Release);
            drop(full);
            let _ = rustix::io::write(&self.out.bell, &1u64.to_ne_bytes());
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.back.bell.as_fd())
    }

    fn report(&self) -> String {
        format!("pair_sent {}\npair_received {}\n", self.sent, self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_sends_comes_out_at_the_other_in_order_and_no_more_than_fits() {
        let (mut a, mut b) = Pair::new().unwrap();
        let mut sent = 0u32;
        while let Some(room) = a.room() {
            room.set_len(60)[..4].copy_from_slice(&sent.to_le_bytes());
            a.commit();
            sent += 1;
        }
        assert_eq!(b.front(), None, "not before the burst is over");
        a.flush();
        assert_eq!(sent as usize, DEPTH);
        for n in 0..sent {
            assert_eq!(b.front().unwrap()[..4], n.to_le_bytes());
            b.pop();
        }
        assert_eq!(b.front(), None);
        assert!(a.room().is_some() && a.has_room(DEPTH));
    }
}
