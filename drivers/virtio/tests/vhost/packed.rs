//! The device's side of a packed ring (virtio 1.3, 2.8), written for these tests. What it has in
//! common with the driver's misreadings is for DPDK to find (`scripts/test.sh virtio`).

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::backend::{HEADER_BYTES, header};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// `struct pvirtq_desc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) id: u16,
    pub(crate) flags: u16,
}

/// A buffer that the driver made available.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    pub(crate) id: u16,
    /// Places that it takes.
    places: u16,
    pub(crate) parts: Vec<Descriptor>,
}

/// Where the device stands.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    descriptors: u64,
    size: u16,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
}

impl Packed {
    pub(crate) fn new(descriptors: u64, size: u16) -> Self {
        Self { descriptors, size, next: 0, wrap: true, used: 0, used_wrap: true }
    }

    fn read(memory: &GuestMemoryMmap, at: u64) -> Descriptor {
        let mut bytes = [0; 16];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Descriptor {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([i, j, k, l]),
            id: u16::from_le_bytes([m, n]),
            flags: u16::from_le_bytes([o, p]),
        }
    }

    /// The next available buffer, taken.
    pub(crate) fn take(&mut self, memory: &GuestMemoryMmap) -> Option<Buffer> {
        let mut buffer = Buffer { id: 0, places: 0, parts: Vec::new() };
        loop {
            let found = Self::read(memory, self.descriptors + 16 * u64::from(self.next));
            let available =
                (found.flags & AVAIL != 0) == self.wrap && (found.flags & USED != 0) != self.wrap;
            if !available {
                assert_eq!(buffer.places, 0, "a chain ends before its end");
                return None;
            }
            buffer.places += 1;
            assert!(buffer.places <= self.size);
            buffer.id = found.id;
            self.next += 1;
            if self.next == self.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
            if found.flags & INDIRECT != 0 {
                assert_eq!((found.len % 16, found.flags & NEXT), (0, 0));
                for number in 0..u64::from(found.len / 16) {
                    buffer.parts.push(Self::read(memory, found.address + 16 * number));
                }
                return Some(buffer);
            }
            buffer.parts.push(found);
            if found.flags & NEXT == 0 {
                return Some(buffer);
            }
        }
    }

    /// Marks the buffer used; with others before it, in one go, where the order was agreed on.
    pub(crate) fn complete(
        &mut self,
        memory: &GuestMemoryMmap,
        batch: &[Buffer],
        id: u16,
        len: u32,
    ) {
        let at = self.descriptors + 16 * u64::from(self.used);
        let flags = if self.used_wrap { AVAIL | USED } else { 0 };
        memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        memory.write_obj(id, GuestAddress(at + 12)).unwrap();
        memory.write_obj(flags, GuestAddress(at + 14)).unwrap();
        for buffer in batch {
            self.used += buffer.places;
            if self.used >= self.size {
                self.used -= self.size;
                self.used_wrap = !self.used_wrap;
            }
        }
    }

    pub(crate) fn receive(
        &mut self,
        memory: &GuestMemoryMmap,
        says: [u8; 10],
        frame: &[u8],
        mergeable: bool,
    ) -> bool {
        let before = self.clone();
        let (mut rest, mut buffers) = (HEADER_BYTES + frame.len(), Vec::new());
        while rest != 0 {
            let Some(buffer) = self.take(memory) else { break };
            assert!(buffer.parts.iter().all(|part| part.flags & WRITE != 0));
            let used = (buffer.parts[0].len as usize).min(rest);
            rest -= used;
            buffers.push((buffer, used));
        }
        if rest != 0 || buffers.len() > 1 && !mergeable {
            *self = before;
            return false;
        }
        let mut bytes = header(says, buffers.len() as u16).to_vec();
        bytes.extend(frame);
        let mut bytes = &bytes[..];
        for (buffer, len) in &buffers {
            memory.write_slice(&bytes[..*len], GuestAddress(buffer.parts[0].address)).unwrap();
            bytes = &bytes[*len..];
        }
        for (buffer, len) in buffers {
            let id = buffer.id;
            self.complete(memory, &[buffer], id, len as u32);
        }
        true
    }

    pub(crate) fn transmitted(&mut self, memory: &GuestMemoryMmap) -> Option<Vec<u8>> {
        let buffer = self.take(memory)?;
        let mut bytes = Vec::new();
        for part in &buffer.parts {
            assert_eq!(part.flags & WRITE, 0, "what is sent is read");
            let mut piece = vec![0; part.len as usize];
            memory.read_slice(&mut piece, GuestAddress(part.address)).unwrap();
            bytes.extend(piece);
        }
        let id = buffer.id;
        self.complete(memory, &[buffer], id, 0);
        Some(bytes)
    }
}
