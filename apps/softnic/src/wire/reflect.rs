//! A cable whose other end leads back: what is sent comes in again, unchanged and in order.

use super::{FrameBuffer, Wire};

const SLOTS: usize = 512;

/// A bounded queue of frames. While it is full, the NIC holds what it wants to send.
#[derive(Debug)]
pub struct Reflect {
    slots: Vec<FrameBuffer>,
    first: usize,
    len: usize,
    through: u64,
}

impl Reflect {
    /// An empty queue.
    pub fn new() -> Self {
        Self { slots: vec![FrameBuffer::new(); SLOTS], first: 0, len: 0, through: 0 }
    }
}

impl Default for Reflect {
    fn default() -> Self {
        Self::new()
    }
}

impl Wire for Reflect {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        if self.len == SLOTS {
            return None;
        }
        self.slots.get_mut((self.first + self.len) % SLOTS)
    }

    fn has_room(&mut self, frames: usize) -> bool {
        self.len == 0 || self.len + frames <= SLOTS
    }

    fn commit(&mut self) {
        self.len += 1;
    }

    fn front(&mut self) -> Option<&[u8]> {
        if self.len == 0 {
            return None;
        }
        self.slots.get(self.first).map(FrameBuffer::bytes)
    }

    fn pop(&mut self) {
        self.first = (self.first + 1) % SLOTS;
        self.len -= 1;
        self.through += 1;
    }

    fn report(&self) -> String {
        format!("reflected {}\n", self.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_order_and_no_more_than_fit() {
        let mut wire = Reflect::new();
        let mut sent = 0u8;
        while let Some(room) = wire.room() {
            room.set_len(60).fill(sent);
            wire.commit();
            sent = sent.wrapping_add(1);
        }
        assert!(!wire.has_room(1));
        for n in 0..SLOTS {
            assert_eq!(wire.front(), Some(&[n as u8; 60][..]));
            wire.pop();
        }
        assert!(wire.front().is_none() && wire.has_room(SLOTS + 1));
    }
}
