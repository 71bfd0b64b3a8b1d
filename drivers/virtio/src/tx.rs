//! Sending: lend frames to the device, and give those that it is done with back to their pools.

use std::sync::Arc;

use packetboat::dma::{Area, Array, Slots, Table};
use packetboat::mbuf::{Burst, Lent, Mbuf, Quiesced};
use packetboat::memory::{Iova, Memory};
use packetboat::port::{PortError, QueueCounters, TxDrop, TxQueue};

use crate::gate::{Found, Passage};
use crate::header::{HEADER_BYTES, PLAIN};
use crate::offload::{Agreed, header_for};
use crate::ring::{DESCRIPTOR_BYTES, Straight, Used};

/// Frames are taken back once the device has so many.
const CLEAN_AT: u16 = 64;

/// A transmit queue on a ring of one kind.
///
/// A frame with room in front gets the device's header there, and is one descriptor. One without,
/// or a chain, takes one for each segment, the header's own first where it has to be; or one for a
/// table of them, if the device knows such.
#[derive(Debug)]
pub(crate) struct VirtioTx<R> {
    ring: R,
    /// What was lent, by id.
    lent: Slots<Lent>,
    /// Descriptors of each frame, by id: 1, or as many as its chain takes.
    counts: Table<u16>,
    /// Frames with more than one that the device has.
    chains: u16,
    /// The ring is looked through for completed frames once fewer descriptors than this are free.
    clean_below: u16,
    done: Burst,
    /// [`PLAIN`] for frames without room for one; it is never written to.
    header: Area,
    tables: Option<Tables>,
    offloads: Offloads,
    counters: Arc<QueueCounters>,
    passage: Passage,
}

/// What frames may ask for. One that asks for something is never sent the straight way.
#[derive(Debug)]
pub(crate) struct Offloads {
    pub(crate) agreed: Agreed,
    /// If anything is agreed on.
    pub(crate) headers: Option<Headers>,
}

/// Headers of frames that ask for something and have no room for one, one for each id.
#[derive(Debug)]
pub(crate) struct Headers {
    bytes: Array<u8>,
    area: Area,
}

impl Headers {
    /// From one to the next.
    const LEN_BYTES: usize = 16;

    pub(crate) fn new(
        memory: &Arc<Memory>,
        name: &str,
        node: Option<u32>,
        queue_size: u16,
    ) -> Result<Self, PortError> {
        let len = usize::from(queue_size) * Self::LEN_BYTES;
        let area = Area::new(memory, name, len, 64, node)?;
        Ok(Self { bytes: area.array(0, len)?, area })
    }

    /// What the device may read.
    pub(crate) fn area(&self) -> &Area {
        &self.area
    }

    /// Writes header `id`; returns where it stands.
    fn write(&mut self, id: u16, header: [u8; HEADER_BYTES as usize]) -> Iova {
        let start = usize::from(id) * Self::LEN_BYTES;
        for (number, byte) in header.into_iter().enumerate() {
            self.bytes.write(start + number, byte);
        }
        self.area.iova(start)
    }
}

/// Tables of descriptors, one for each id (virtio 1.3, 2.7.5.3).
#[derive(Debug)]
pub(crate) struct Tables {
    words: Array<u64>,
    area: Area,
}

impl Tables {
    /// Entries of each: a frame of 64 KiB in buffers of 2 KiB.
    const ENTRIES: u16 = 32;
    const LEN_BYTES: usize = DESCRIPTOR_BYTES * Self::ENTRIES as usize;

    pub(crate) fn new(
        memory: &Arc<Memory>,
        name: &str,
        node: Option<u32>,
        queue_size: u16,
    ) -> Result<Self, PortError> {
        let count = usize::from(queue_size);
        let area = Area::new(memory, name, count * Self::LEN_BYTES, 4096, node)?;
        Ok(Self { words: area.array(0, count * Self::LEN_BYTES / 8)?, area })
    }

    /// What the device may read.
    pub(crate) fn area(&self) -> &Area {
        &self.area
    }

    /// Writes table `id`; returns where it stands.
    fn write(&mut self, id: u16, entries: impl Iterator<Item = [u64; 2]>) -> Iova {
        let start = usize::from(id) * Self::LEN_BYTES;
        for (number, [first, second]) in entries.take(usize::from(Self::ENTRIES)).enumerate() {
            let at = start / 8 + 2 * number;
            self.words.write(at, first);
            self.words.write(at + 1, second);
        }
        self.area.iova(start)
    }
}

/// There are too few free descriptors for the next frame.
struct Full;

/// A frame that wasn't sent.
enum Unsent {
    /// There is no room for it now.
    Later(Mbuf),
    /// It never will be.
    Dropped(TxDrop),
}

impl<R: Straight> VirtioTx<R> {
    /// `header` is an area of at least [`HEADER_BYTES`] zero bytes.
    pub(crate) fn new(
        ring: R,
        header: Area,
        tables: Option<Tables>,
        offloads: Offloads,
        counters: Arc<QueueCounters>,
        passage: Passage,
    ) -> Self {
        let size = ring.size();
        Self {
            ring,
            lent: Slots::new(usize::from(size)),
            counts: Table::new(usize::from(size), |_| 1),
            chains: 0,
            clean_below: size - CLEAN_AT.min(size / 2) + 1,
            done: Burst::new(),
            header,
            tables,
            offloads,
            counters,
            passage,
        }
    }

    /// Takes back what the device is done with.
    #[inline(always)]
    fn take_completed(&mut self) {
        match self.ring.completed() {
            Ok(0) => {}
            Ok(completed) => self.take_frames(completed),
            Err(_) => self.break_down(),
        }
    }

    #[inline(never)]
    fn take_frames(&mut self, completed: u16) {
        let mut left = if R::COUNTS { completed } else { self.ring.outstanding() };
        while left != 0 {
            if self.ring.is_straight() && self.chains == 0 {
                let taken = self.take_straight(left);
                left -= taken;
                if taken != 0 && self.ring.has_more(left) {
                    continue;
                }
                if taken != 0 {
                    break;
                }
            }
            if !self.take_one() {
                break;
            }
            left -= 1;
        }
        self.done.clear();
    }

    /// Takes back frames of one descriptor each, side by side, for as long as all is as it should
    /// be; returns how many.
    #[inline(always)]
    fn take_straight(&mut self, left: u16) -> u16 {
        let Self { ring, lent, done, .. } = self;
        let mut places = lent.run(ring.used_place(), left.into());
        let mut used = ring.done_run(left);
        let taken = done.fill(left.into(), || {
            used.next()?;
            places.next()?.take().map(Lent::take_back)
        });
        drop(used);
        if done.room() == 0 {
            done.clear();
        }
        ring.took(taken as u16);
        taken as u16
    }

    /// Takes one frame back, or a lie; whether to go on.
    #[inline(never)]
    fn take_one(&mut self) -> bool {
        let Some(Used { id, .. }) = self.ring.take_done() else { return false };
        let expected = self.ring.is_expected(id);
        if !expected {
            self.ring.bend();
        }
        let known = expected || id < u32::from(self.ring.size());
        let frame = if known { self.lent.take(id as usize) } else { None };
        let Some(frame) = frame else {
            self.ring.bend();
            self.counters.tx_dropped(TxDrop::BadId);
            if !R::SURVIVES_BAD_ID {
                self.break_down();
            }
            return R::SURVIVES_BAD_ID;
        };
        self.give_back(id as u16);
        if let Err(mbuf) = self.done.push(frame.take_back()) {
            self.done.clear();
            drop(mbuf);
        }
        true
    }

    /// Frees the descriptors of a frame that may have several.
    fn give_back(&mut self, id: u16) {
        match self.counts.get(usize::from(id)) {
            1 => self.ring.give_back(id),
            count => {
                self.counts.set(usize::from(id), 1);
                self.chains -= 1;
                self.ring.give_back_chain(id, count);
            }
        }
    }

    /// Sends plain frames, side by side, for as long as all is as it should be; returns how many.
    #[inline(always)]
    fn send_straight(&mut self, burst: &mut Burst, bytes: &mut u64) -> u64 {
        let Self { ring, lent, .. } = self;
        let (place, free) = ring.free_run();
        let mut places = lent.run(place, free);
        let mut describe = ring.data_run(free);
        let mut sum = 0;
        let sent = burst.take_front(free, |mbuf| {
            let (frame, at, len) = mbuf.lend_plain(PLAIN)?;
            sum += u64::from(len);
            describe(at, len);
            if let Some(place) = places.next() {
                // Empty, so there is nothing to be dropped.
                std::mem::forget(place.replace(frame));
            }
            Ok(())
        });
        drop(describe);
        ring.offered(sent as u16);
        *bytes += sum - sent as u64 * u64::from(HEADER_BYTES);
        sent as u64
    }

    /// Sends a plain frame that is alone, on a straight ring with room to spare; whether it was that. When
    /// there is little to do frames come alone, and what else is done once a burst falls on each. The
    /// counters come first, so that nothing is kept until the device was rung.
    #[inline(always)]
    fn send_alone(&mut self, burst: &mut Burst) -> bool {
        let spare = self.ring.free() >= self.clean_below; // it is more than 0
        if !spare || !self.passage.is_open() || !self.ring.is_straight() {
            return false;
        }
        let Self { ring, lent, .. } = self;
        let mut bytes = 0;
        let sent = burst.take_front(1, |mbuf| {
            let (frame, at, len) = mbuf.lend_plain(PLAIN)?;
            bytes = u64::from(len - u32::from(HEADER_BYTES));
            lent.fill(ring.offer_next(at, len), frame);
            Ok(())
        });
        if sent == 0 {
            return false;
        }
        self.counters.packets.add(1);
        self.counters.bytes.add(bytes);
        self.ring.publish();
        true
    }

    /// Sends, if the gate is open.
    #[inline(never)]
    fn send_all(&mut self, burst: &mut Burst) {
        if self.may_work() {
            self.send_frames(burst);
        }
    }

    /// Whether the gate is open, or was found to be.
    #[inline(always)]
    fn may_work(&mut self) -> bool {
        self.passage.is_open() || self.wait()
    }

    /// Sends as many as there are descriptors for.
    #[inline(always)]
    fn send_frames(&mut self, burst: &mut Burst) {
        // A frame may need a descriptor more than it has segments, for the header.
        let free = self.ring.free();
        if free < self.clean_below || usize::from(free) < 2 * burst.len() {
            self.take_completed();
        }
        let (mut packets, mut bytes) = (0, 0);
        loop {
            // For one alone, walking side by side doesn't pay.
            if burst.len() >= 2 && self.ring.is_straight() {
                packets += self.send_straight(burst, &mut bytes);
            }
            if burst.is_empty() || self.ring.free() == 0 {
                break;
            }
            match self.send_one(burst) {
                Ok(Some(len)) => {
                    bytes += u64::from(len);
                    packets += 1;
                }
                Ok(None) => {}
                Err(Full) => break,
            }
        }
        if packets != 0 {
            self.ring.publish();
            self.counters.packets.add(packets);
            self.counters.bytes.add(bytes);
        }
    }

    /// Sends the frame in front, whatever it is: its length, or none if it was dropped.
    #[inline(always)]
    fn send_one(&mut self, burst: &mut Burst) -> Result<Option<u32>, Full> {
        let Some(mbuf) = burst.pop_front() else { return Err(Full) };
        let mbuf = match mbuf.lend_plain(PLAIN) {
            Ok((frame, at, len)) => {
                let id = self.ring.offer_data(at, len);
                self.lent.fill(usize::from(id), frame);
                return Ok(Some(len - u32::from(HEADER_BYTES)));
            }
            Err(mbuf) => mbuf,
        };
        match self.lend_any(mbuf) {
            Ok(len) => Ok(Some(len)),
            Err(Unsent::Later(mbuf)) => {
                let _ = burst.push_front(mbuf); // it has just left that place
                Err(Full)
            }
            Err(Unsent::Dropped(why)) => {
                self.counters.tx_dropped(why);
                Ok(None)
            }
        }
    }

    /// Any other frame than a plain one. Returns its length.
    #[cold]
    fn lend_any(&mut self, mut mbuf: Mbuf) -> Result<u32, Unsent> {
        let len = mbuf.len_bytes();
        if len == 0 {
            return Err(Unsent::Dropped(TxDrop::BadLength));
        }
        let asks = mbuf.requests_any();
        let header = match asks {
            false => PLAIN,
            true => header_for(&mut mbuf, self.offloads.agreed)
                .map_err(|_| Unsent::Dropped(TxDrop::BadRequest))?,
        };
        // With headroom of its own a frame needs no descriptor for the header.
        let headed = mbuf.headroom_bytes() >= usize::from(HEADER_BYTES) && mbuf.is_writable();
        let parts =
            mbuf.segments().filter(|segment| !segment.is_empty()).count() + usize::from(!headed);
        let in_table = parts > 1
            && parts <= usize::from(Tables::ENTRIES.min(self.ring.size()))
            && self.tables.is_some();
        let needed = if in_table { 1 } else { parts };
        if needed > usize::from(self.ring.size()) {
            return Err(Unsent::Dropped(TxDrop::TooManySegments));
        }
        if needed > usize::from(self.ring.free()) {
            return Err(Unsent::Later(mbuf));
        }
        let count = parts as u16; // at most the ring's size
        let headed = headed
            && mbuf.prepend(header.len()).map(|place| place.copy_from_slice(&header)).is_ok();
        let frame = mbuf.lend();
        let apart = match &mut self.offloads.headers {
            _ if headed => None,
            Some(headers) if asks => Some(headers.write(self.ring.next_id(), header)),
            _ => Some(self.header.iova(0)),
        };
        let parts = apart
            .map(|at| (at, HEADER_BYTES))
            .into_iter()
            .chain(frame.segments())
            .filter(|&(_, len)| len != 0)
            .map(|(at, len)| (at, u32::from(len)));
        let id = match &mut self.tables {
            Some(tables) if in_table => {
                let id = self.ring.next_id();
                let entries = (0..)
                    .zip(parts)
                    .map(|(number, (at, len))| R::table_entry(number, count, at, len));
                let at = tables.write(id, entries);
                self.ring.offer_table(at, count)
            }
            _ if count == 1 => {
                let (at, len) = frame.data_iova();
                self.ring.offer_data(at, u32::from(len))
            }
            _ => {
                let id = self.ring.offer_chain(count, parts);
                self.counts.set(usize::from(id), count);
                self.chains += 1;
                id
            }
        };
        self.lent.fill(usize::from(id), frame);
        Ok(len as u32)
    }

    #[cold]
    fn break_down(&mut self) {
        self.passage.block();
        self.counters.broken.add(1);
    }

    /// The gate isn't open, or has been closed and opened; whether it is open.
    #[cold]
    fn wait(&mut self) -> bool {
        match self.passage.look() {
            Found::Closed => self.park(),
            Found::Open => self.send_handed_in(),
            Found::Wait => {}
        }
        self.passage.is_open()
    }

    /// There is no device: the ring begins anew.
    fn park(&mut self) {
        // What the device has completed before it went was sent; nobody knows of the rest. Sent
        // again, a frame might arrive twice.
        self.take_completed();
        let mut lost = 0;
        for frame in self.lent.drain() {
            drop(frame.take_back());
            lost += 1;
        }
        self.counters.in_flight.add(lost);
        self.counts = Table::new(usize::from(self.ring.size()), |_| 1);
        self.chains = 0;
        self.ring.restart();
        self.passage.park();
    }
}

impl<R: Straight> VirtioTx<R> {
    /// Sends what the port has handed in, if it has.
    fn send_handed_in(&mut self) {
        let Some(frame) = self.passage.take_frame() else { return };
        self.take_completed();
        if self.ring.free() == 0 {
            return self.passage.put_back(frame);
        }
        let mut burst = Burst::with_limit(1);
        drop(burst.push(frame)); // it is empty
        if let Ok(Some(len)) = self.send_one(&mut burst) {
            self.ring.publish();
            self.counters.packets.add(1);
            self.counters.bytes.add(len.into());
        }
    }
}

/// What a port does with its transmit queues, whatever their kind.
pub(crate) trait OwnTx: TxQueue {
    /// The device was reset: everything that it had goes back to its pools.
    fn reclaim_all(&mut self, reset: &Quiesced);
}

impl<R: Straight> OwnTx for VirtioTx<R> {
    fn reclaim_all(&mut self, reset: &Quiesced) {
        for frame in self.lent.drain() {
            drop(frame.reclaim(reset));
        }
    }
}

impl<R: Straight> TxQueue for VirtioTx<R> {
    fn send(&mut self, burst: &mut Burst) {
        if burst.len() != 1 || !self.send_alone(burst) {
            self.send_all(burst);
        }
    }

    fn reclaim(&mut self) {
        if self.may_work() {
            self.take_completed();
        }
    }
}
