//! What the device does with its queues: frames in, frames out, commands, and lies.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_net as net;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{NetDevice, State};

/// `struct virtio_net_hdr` with `num_buffers` (5.1.6).
pub(crate) const HEADER_BYTES: usize = 12;

/// A chain of descriptors that the device took from a queue and hasn't given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buffer {
    /// The first descriptor's number.
    pub(crate) id: u16,
    /// Address, length, and whether the device may write there.
    pub(crate) parts: Vec<(u64, usize, bool)>,
}

impl Buffer {
    fn len_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.1).sum()
    }

    /// Writes `bytes` over the parts, as far as they go.
    fn write(&self, memory: &GuestMemoryMmap, bytes: &[u8]) {
        let mut rest = bytes;
        for &(address, len, _) in &self.parts {
            let (now, later) = rest.split_at(len.min(rest.len()));
            memory.write_slice(now, GuestAddress(address)).unwrap();
            rest = later;
        }
    }

    fn read_into(&self, memory: &GuestMemoryMmap, bytes: &mut Vec<u8>) {
        bytes.clear();
        for &(address, len, _) in &self.parts {
            let from = bytes.len();
            bytes.resize(from + len, 0);
            memory.read_slice(&mut bytes[from..], GuestAddress(address)).unwrap();
        }
    }
}

pub(crate) const fn rx(pair: usize) -> usize {
    2 * pair
}
pub(crate) const fn tx(pair: usize) -> usize {
    2 * pair + 1
}

impl NetDevice {
    /// A frame comes in from the wire on `pair`: true if there was room for it.
    pub(crate) fn receive(&self, pair: usize, frame: &[u8]) -> bool {
        let (mut state, memory) = (self.0.state(), &self.0.memory);
        let needed = HEADER_BYTES + frame.len();
        let mergeable = state.negotiated(net::VIRTIO_NET_F_MRG_RXBUF);
        let mut buffers = Vec::with_capacity(1);
        let mut room = 0;
        while room < needed && (mergeable || buffers.is_empty()) {
            let Some(buffer) = state.take(rx(pair), memory) else { break };
            room += buffer.len_bytes();
            buffers.push(buffer);
        }
        if room < needed {
            for _ in &buffers {
                state.queues[rx(pair)].queue.go_to_previous_position();
            }
            return false;
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[10..12].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
        bytes.extend_from_slice(frame);
        let mut rest = &bytes[..];
        let mut used = Vec::with_capacity(buffers.len());
        for buffer in &buffers {
            let (now, later) = rest.split_at(buffer.len_bytes().min(rest.len()));
            buffer.write(memory, now);
            used.push((u32::from(buffer.id), now.len() as u32));
            rest = later;
        }
        state.complete(rx(pair), &used, memory);
        true
    }

    /// Sends what the driver gave on `pair` out to the wire, up to `most` frames; returns how many.
    pub(crate) fn transmit(&self, pair: usize, most: usize, mut wire: impl FnMut(&[u8])) -> usize {
        let (mut state, memory) = (self.0.state(), &self.0.memory);
        let mut bytes = Vec::new();
        for sent in 0..most {
            let Some(buffer) = state.take(tx(pair), memory) else { return sent };
            buffer.read_into(memory, &mut bytes);
            state.check_sent(&bytes);
            wire(bytes.get(HEADER_BYTES..).unwrap_or(&[]));
            state.complete(tx(pair), &[(buffer.id.into(), 0)], memory);
        }
        most
    }

    /// All that the driver gave on `pair`.
    pub(crate) fn transmitted(&self, pair: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.transmit(pair, usize::MAX, |frame| frames.push(frame.to_vec()));
        frames
    }

    /// Takes a buffer from queue `index` and keeps it.
    pub(crate) fn take(&self, index: usize) -> Option<Buffer> {
        self.0.state().take(index, &self.0.memory)
    }

    /// The frame in a buffer that was taken from a transmit queue.
    pub(crate) fn sent_frame(&self, buffer: &Buffer) -> Vec<u8> {
        let mut bytes = Vec::new();
        buffer.read_into(&self.0.memory, &mut bytes);
        self.0.state().check_sent(&bytes);
        bytes.split_off(HEADER_BYTES)
    }

    /// Writes into a buffer that was taken, from its start.
    pub(crate) fn write(&self, buffer: &Buffer, bytes: &[u8]) {
        buffer.write(&self.0.memory, bytes);
    }

    /// Says of descriptors that it is done with them, in one go; true or not.
    pub(crate) fn complete(&self, index: usize, used: &[(u32, u32)]) {
        self.0.state().complete(index, used, &self.0.memory);
    }

    /// Moves the used index of queue `index` by `by` without writing entries.
    pub(crate) fn move_used_index(&self, index: usize, by: u16) {
        let mut state = self.0.state();
        let queue = &mut state.queues[index].queue;
        let next = queue.next_used().wrapping_add(by);
        queue.set_next_used(next);
        self.0.memory.store(next, GuestAddress(queue.used_ring() + 2), Ordering::Release).unwrap();
    }

    /// Asks not to be rung for queue `index`, as a device that polls.
    pub(crate) fn poll(&self, index: usize) {
        self.0.state().queues[index].queue.disable_notification(&self.0.memory).unwrap();
    }

    /// Scribbles over what is the driver's to write: the descriptors and the available ring's
    /// entries of queue `index`.
    pub(crate) fn scribble(&self, index: usize, byte: u8) {
        let state = self.0.state();
        let queue = &state.queues[index].queue;
        let size = usize::from(queue.size());
        let put = |len, at| {
            self.0.memory.write_slice(&vec![byte; len], GuestAddress(at)).unwrap();
        };
        put(16 * size, queue.desc_table());
        put(2 * size, queue.avail_ring() + 4);
    }
}

impl State {
    fn take(&mut self, index: usize, memory: &GuestMemoryMmap) -> Option<Buffer> {
        let pairs = usize::from(self.active_pairs);
        if !self.may_dma() || (index < self.queues.len() - 1 && index / 2 >= pairs) {
            return None;
        }
        let queue = self.queues.get_mut(index).filter(|queue| queue.enabled)?;
        let chain = match queue.queue.iter(memory) {
            Ok(mut chains) => chains.next()?,
            Err(error) => {
                self.violated(format!("queue {index}: {error}"));
                return None;
            }
        };
        let id = chain.head_index();
        let parts: Vec<_> =
            chain.map(|part| (part.addr().0, part.len() as usize, part.is_write_only())).collect();
        let buffer = Buffer { id, parts };
        self.check_buffer(index, &buffer);
        Some(buffer)
    }

    /// What the specification wants of buffers in receive and transmit queues.
    fn check_buffer(&mut self, index: usize, buffer: &Buffer) {
        if index == self.queues.len() - 1 && index.is_multiple_of(2) {
            return; // the control queue's
        }
        let receiving = index.is_multiple_of(2);
        if buffer.parts.is_empty() || buffer.parts.iter().any(|part| part.1 == 0) {
            self.violated(format!("queue {index}: an empty descriptor or chain"));
        }
        if buffer.parts.iter().any(|part| part.2 != receiving) {
            self.violated(format!("queue {index}: a descriptor for the wrong direction"));
        }
        // 5.1.6.3.1; with mergeable buffers the header must fit.
        let mergeable = self.negotiated(net::VIRTIO_NET_F_MRG_RXBUF);
        let least = if mergeable { HEADER_BYTES } else { 1526 };
        if receiving && buffer.len_bytes() < least {
            self.violated(format!("a receive buffer of {} bytes", buffer.len_bytes()));
        }
    }

    fn check_sent(&mut self, bytes: &[u8]) {
        // No offload was negotiated: the header says so (5.1.6.2.1), and there is a frame.
        if bytes.len() <= HEADER_BYTES || bytes[..HEADER_BYTES].iter().any(|&byte| byte != 0) {
            self.violated(format!("a frame sent as {} bytes, or with a header", bytes.len()));
        }
    }

    fn complete(&mut self, index: usize, used: &[(u32, u32)], memory: &GuestMemoryMmap) {
        if !self.may_dma() {
            return;
        }
        let queue = &mut self.queues[index].queue;
        if let &[(id, len)] = used
            && id < u32::from(queue.size())
        {
            queue.add_used(memory, id as u16, len).unwrap();
            return self.interrupt(index, memory);
        }
        // Together, as the buffers of one frame have to be; and ids that the oracle would refuse.
        let mut next = queue.next_used();
        for &(id, len) in used {
            let at = queue.used_ring() + 4 + 8 * u64::from(next % queue.size());
            memory.write_slice(&id.to_le_bytes(), GuestAddress(at)).unwrap();
            memory.write_slice(&len.to_le_bytes(), GuestAddress(at + 4)).unwrap();
            next = next.wrapping_add(1);
        }
        queue.set_next_used(next);
        memory.store(next, GuestAddress(queue.used_ring() + 2), Ordering::Release).unwrap();
        self.interrupt(index, memory);
    }

    /// Rings the queue's vector, if it has one and the driver wants to be interrupted (2.7.7).
    fn interrupt(&self, index: usize, memory: &GuestMemoryMmap) {
        let queue = &self.queues[index];
        let flags: u16 = memory.read_obj(GuestAddress(queue.queue.avail_ring())).unwrap();
        if let Some(vector) = self.vectors.get(usize::from(queue.vector))
            && flags & 1 == 0
        {
            vector.write(1).unwrap();
        }
    }

    /// The control queue (5.1.6.5).
    pub(super) fn answer_commands(&mut self, index: usize, memory: &GuestMemoryMmap) {
        if self.faults.ignores_commands {
            return;
        }
        while let Some(buffer) = self.take(index, memory) {
            let part = |writable: bool| Buffer {
                id: buffer.id,
                parts: buffer.parts.iter().filter(|part| part.2 == writable).copied().collect(),
            };
            let mut command = Vec::new();
            part(false).read_into(memory, &mut command);
            let answer = if self.faults.refuses_commands { false } else { self.obey(&command) };
            part(true).write(memory, &[u8::from(!answer)]);
            let id = u32::from(buffer.id) + u32::from(self.faults.answers_wrong_id);
            self.complete(index, &[(id, 1)], memory);
        }
    }

    fn obey(&mut self, command: &[u8]) -> bool {
        const RX: u8 = net::VIRTIO_NET_CTRL_RX as u8;
        const MQ: u8 = net::VIRTIO_NET_CTRL_MQ as u8;
        const MAC: u8 = net::VIRTIO_NET_CTRL_MAC as u8;
        const VLAN: u8 = net::VIRTIO_NET_CTRL_VLAN as u8;
        const ANNOUNCE: u8 = net::VIRTIO_NET_CTRL_ANNOUNCE as u8;
        match *command {
            [RX, 0, on @ (0 | 1)] => self.promiscuous = on == 1,
            [RX, 1, on @ (0 | 1)] => self.all_multicast = on == 1,
            [MAC, 1, a, b, c, d, e, f] if self.negotiated(net::VIRTIO_NET_F_CTRL_MAC_ADDR) => {
                self.commanded.mac = Some([a, b, c, d, e, f]);
            }
            [MAC, 0, ref tables @ ..] => {
                let mut rest = tables;
                for group in 0..2 {
                    let (count, behind) = rest.split_first_chunk().unwrap();
                    let (addresses, behind) =
                        behind.split_at(6 * u32::from_le_bytes(*count) as usize);
                    self.commanded.addresses[group] = addresses.as_chunks().0.to_vec();
                    rest = behind;
                }
                if !rest.is_empty() {
                    self.violated("addresses behind the last one");
                }
            }
            [VLAN, what @ (0 | 1), low, high] if self.negotiated(net::VIRTIO_NET_F_CTRL_VLAN) => {
                let vlan = u16::from_le_bytes([low, high]);
                let vlans = &mut self.commanded.vlans;
                return if what == 0 { vlans.insert(vlan) } else { vlans.remove(&vlan) };
            }
            [ANNOUNCE, 0] if self.negotiated(net::VIRTIO_NET_F_GUEST_ANNOUNCE) => {
                self.announce = false;
                self.commanded.announcements += 1;
            }
            [MQ, 1, ref rss @ ..] if self.negotiated(net::VIRTIO_NET_F_RSS) => {
                let word = |at: usize| u16::from_le_bytes([rss[at], rss[at + 1]]);
                let entries = usize::from(word(4)) + 1;
                let table: Vec<u16> = (0..entries).map(|entry| word(8 + 2 * entry)).collect();
                let behind = 8 + 2 * entries;
                let key = rss[behind + 3..].to_vec();
                let right = entries.is_power_of_two()
                    && entries <= 16
                    && usize::from(rss[behind + 2]) == key.len()
                    && table.iter().all(|queue| usize::from(*queue) * 2 < self.queues.len() - 1);
                if !right {
                    return false;
                }
                let tx_queues = word(behind);
                self.active_pairs = tx_queues.max(table.iter().max().unwrap() + 1);
                let types = u32::from_le_bytes(*rss.first_chunk().unwrap());
                self.commanded.rss = Some(super::RssTold { types, table, tx_queues, key });
            }
            [MQ, 0, low, high] if self.negotiated(net::VIRTIO_NET_F_MQ) => {
                let pairs = u16::from_le_bytes([low, high]);
                if pairs == 0 || usize::from(pairs) * 2 >= self.queues.len() {
                    return false;
                }
                self.active_pairs = pairs;
            }
            _ => {
                self.violated(format!("command {command:?}"));
                return false;
            }
        }
        true
    }
}
