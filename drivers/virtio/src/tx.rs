//! Sending: lend frames to the device, and give those that it is done with back to their pools.

use std::sync::Arc;

use packetboat::dma::{Area, Slots, Table};
use packetboat::mbuf::{Burst, Lent, Mbuf, Quiesced};
use packetboat::memory::Iova;
use packetboat::port::{QueueCounters, TxDrop, TxQueue};

use crate::header::HEADER_BYTES;
use crate::ring::{Descriptor, SplitRing, Used};

/// A frame that the device has, and how many descriptors it takes.
#[derive(Debug)]
struct Sending {
    frame: Lent,
    descriptors: u16,
}

/// A transmit queue.
///
/// A frame with room in front gets the device's header there, and is one descriptor; one without,
/// or a chain, gets one descriptor a segment, the header's own first where it has to be.
#[derive(Debug)]
pub(crate) struct VirtioTx {
    ring: SplitRing,
    /// What was lent, by its first descriptor's id.
    lent: Slots<Sending>,
    lent_count: u16,
    /// Which descriptor follows which in a chain: our own note, as the device may write to its.
    next: Table<u16>,
    /// Ids of descriptors that aren't in use, first in, first out.
    free_ids: Table<u16>,
    free_first: u16,
    free_count: u16,
    done: Burst,
    /// A header that asks for nothing, for frames without room for one; it is never written to.
    header: Iova,
    _header_area: Area,
    counters: Arc<QueueCounters>,
    broken: bool,
}

impl VirtioTx {
    /// `header` is an area of at least [`HEADER_BYTES`] zero bytes.
    pub(crate) fn new(ring: SplitRing, header: Area, counters: Arc<QueueCounters>) -> Self {
        let size = ring.size();
        Self {
            ring,
            lent: Slots::new(usize::from(size)),
            lent_count: 0,
            next: Table::new(usize::from(size), |_| 0),
            free_ids: Table::new(usize::from(size), |id| id as u16),
            free_first: 0,
            free_count: size,
            done: Burst::new(),
            header: header.iova(0),
            _header_area: header,
            counters,
            broken: false,
        }
    }

    /// The device was reset: everything that it had goes back to its pools.
    pub(crate) fn reclaim_all(&mut self, reset: &Quiesced) {
        for sending in self.lent.drain() {
            drop(sending.frame.reclaim(reset));
        }
        self.lent_count = 0;
    }

    #[inline(always)]
    fn take_id(&mut self) -> u16 {
        let id = self.free_ids.get(usize::from(self.free_first));
        self.free_first = self.free_first.wrapping_add(1);
        self.free_count -= 1;
        id
    }

    #[inline(always)]
    fn give_id(&mut self, id: u16) {
        let last = self.free_first.wrapping_add(self.free_count);
        self.free_ids.set(usize::from(last), id);
        self.free_count += 1;
    }

    /// Takes back what the device is done with.
    #[inline(always)]
    fn take_completed(&mut self) {
        let Ok(completed) = self.ring.completed(self.lent_count) else {
            return self.break_down();
        };
        for _ in 0..completed {
            let Used { id, .. } = self.ring.take_used();
            let known = id < u32::from(self.ring.size());
            let Some(sending) = known.then(|| self.lent.take(id as usize)).flatten() else {
                self.counters.tx_dropped(TxDrop::BadId);
                continue;
            };
            self.lent_count -= 1;
            let mut id = id as u16;
            for _ in 0..sending.descriptors {
                self.give_id(id);
                id = self.next.get(usize::from(id));
            }
            if let Err(mbuf) = self.done.push(sending.frame.take_back()) {
                self.done.clear();
                drop(mbuf);
            }
        }
        self.done.clear();
    }

    /// Lends one frame to the device. There must be a free descriptor for each of its segments,
    /// and one more.
    #[inline(always)]
    fn lend(&mut self, mut mbuf: Mbuf) {
        let headed = match mbuf.prepend(usize::from(HEADER_BYTES)) {
            Ok(header) => {
                header.fill(0);
                true
            }
            Err(_) => false,
        };
        let frame = mbuf.lend();
        let first = self.take_id();
        let mut descriptors = 1;
        if headed && frame.segment_count() == 1 {
            let (address, len) = frame.data_iova();
            self.ring.describe(first, Descriptor::readable(address, u32::from(len)));
        } else {
            descriptors = self.describe_chain(first, &frame, headed);
        }
        self.ring.offer(first);
        self.lent.put(usize::from(first), Sending { frame, descriptors });
        self.lent_count += 1;
    }

    /// Writes the descriptors of a frame that takes several; returns how many.
    #[cold]
    fn describe_chain(&mut self, first: u16, frame: &Lent, headed: bool) -> u16 {
        let header = (!headed).then_some((self.header, HEADER_BYTES));
        let mut parts =
            header.into_iter().chain(frame.segments()).filter(|&(_, len)| len != 0).peekable();
        let (mut id, mut count) = (first, 1);
        while let Some((address, len)) = parts.next() {
            let mut descriptor = Descriptor::readable(address, u32::from(len));
            let at = id;
            if parts.peek().is_some() {
                id = self.take_id();
                count += 1;
                self.next.set(usize::from(at), id);
                descriptor.flags |= Descriptor::NEXT;
                descriptor.next = id;
            }
            self.ring.describe(at, descriptor);
        }
        count
    }

    #[cold]
    fn break_down(&mut self) {
        self.broken = true;
        self.counters.broken.add(1);
    }
}

impl TxQueue for VirtioTx {
    fn send(&mut self, burst: &mut Burst) {
        if self.broken {
            return;
        }
        // A frame may need a descriptor more than it has segments, for the header.
        if usize::from(self.free_count) < 2 * burst.len() {
            self.take_completed();
        }
        let (mut packets, mut bytes) = (0, 0);
        while let Some(mbuf) = burst.as_slice().first() {
            let (segments, len) = (mbuf.segment_count(), mbuf.len_bytes());
            // With its own headroom a frame needs no descriptor for the header.
            let own_header = mbuf.headroom_bytes() >= usize::from(HEADER_BYTES);
            let needed = segments + usize::from(!own_header);
            if needed > usize::from(self.free_count) {
                if needed <= usize::from(self.ring.size()) {
                    break; // the caller's, to try again
                }
                self.counters.tx_dropped(TxDrop::TooManySegments);
                drop(burst.pop_front());
                continue;
            }
            let Some(mbuf) = burst.pop_front() else { break };
            if len == 0 {
                self.counters.tx_dropped(TxDrop::BadLength);
                continue;
            }
            packets += 1;
            bytes += len as u64;
            self.lend(mbuf);
        }
        if packets != 0 {
            self.ring.publish();
            self.counters.packets.add(packets);
            self.counters.bytes.add(bytes);
        }
    }

    fn reclaim(&mut self) {
        if !self.broken {
            self.take_completed();
        }
    }
}
