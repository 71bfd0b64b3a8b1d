//! The split virtqueue (virtio 1.3, 2.7): a table of descriptors, a ring of those available to the
//! device, a ring of those it has used.

use packetboat::dma::{Array, Cell};
use packetboat::memory::Iova;
use packetboat::mmio::order_dma_all;
use packetboat::port::PortError;

use super::ids::Ids;
use super::{Broken, Doorbell, FULL, QueueMemory, Ring, Straight, Used, flags};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6): we poll.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (2.7.8): the device polls.
const NO_NOTIFY: u16 = 1;

/// A split virtqueue whose driver side is ours. `IN_ORDER`: the device has agreed to that.
#[derive(Debug)]
pub(crate) struct SplitRing<const IN_ORDER: bool> {
    /// `struct virtq_desc` (2.7.5) in two words: address; length, flags and next.
    descriptors: Array<u64>,
    available: Array<u16>,
    available_index: Cell<u16>,
    /// `struct virtq_used_elem` (2.7.8) in one word: id and length.
    used: Array<u64>,
    used_index: Cell<u16>,
    /// The flags that say whether to ring; with event indexes, the entry at which to.
    notify: Cell<u16>,
    /// With event indexes: where the device shall interrupt.
    used_event: Cell<u16>,
    used_flags: Cell<u16>,
    driver_flags: Cell<u16>,
    event_index: bool,
    doorbell: Doorbell,
    /// Entries made available so far, modulo 2^16, and how many of them the device was shown.
    next_available: u16,
    shown: u16,
    /// Used entries taken so far, modulo 2^16. With `IN_ORDER`, buffers: an entry may stand for
    /// several.
    next_used: u16,
    /// `IN_ORDER`: the id that the batch under way ends with, and its length.
    batch: Option<Used>,
    ids: Ids<IN_ORDER>,
    /// Length and flags of each buffer, if all have the same.
    room: u64,
    /// Each id is its place, in all three parts: see [`Straight`].
    straight: bool,
}

/// Length, flags and next of a descriptor.
#[inline(always)]
fn second_word(len: u32, flags: u16, next: u16) -> u64 {
    u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48
}

impl<const IN_ORDER: bool> SplitRing<IN_ORDER> {
    #[inline(always)]
    fn describe(&mut self, id: u16, at: Iova, second: u64) {
        let place = 2 * usize::from(id);
        self.descriptors.write(place, at.0);
        self.descriptors.write(place + 1, second);
    }

    #[inline(always)]
    fn offer(&mut self, id: u16) {
        self.available.write(usize::from(self.next_available), id);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Makes a chain of parts available, each with its flags.
    fn chain(&mut self, count: u16, parts: impl Iterator<Item = (Iova, u32, u16)>) -> u16 {
        // From here on descriptors and entries are counted apart.
        self.bend();
        let first = self.ids.take();
        let mut id = first;
        for (number, (at, len, own)) in (1..=count).zip(parts) {
            if number == count {
                self.describe(id, at, second_word(len, own, 0));
            } else {
                let next = self.ids.take();
                self.ids.follow(id, next);
                self.describe(id, at, second_word(len, own | flags::NEXT, next));
                id = next;
            }
        }
        self.offer(first);
        first
    }

    /// Writes our part as it is when nothing is available. The device's part is zero.
    fn begin(&mut self) {
        if self.event_index {
            // The flags are to be 0 (2.7.10.1). Asks for an interrupt at the entry that is always
            // the last one to come.
            self.driver_flags.store_release(0);
            self.used_event.store_release(u16::MAX);
        } else {
            self.driver_flags.store_release(NO_INTERRUPT);
        }
        self.available_index.store_release(0);
        self.next_available = 0;
        self.shown = 0;
        self.next_used = 0;
        self.batch = None;
        self.ids.begin();
        self.straight = true;
        for id in 0..self.ids.size() {
            self.available.write(usize::from(id), id);
            self.describe(id, Iova(0), self.room);
        }
    }

    /// The next buffer of a batch that the device has completed in order with one entry.
    #[inline(always)]
    fn next_of_batch(&mut self, place: u16) -> Used {
        let mask = self.ids.mask();
        let expected = u32::from(self.ids.used_place());
        let last = match self.batch {
            Some(last) => last,
            None => Self::unpack(self.used.read(usize::from(place))),
        };
        // What isn't an id says nothing of a batch: it is this buffer's own, and a lie.
        if last.id == expected || last.id > u32::from(mask) {
            self.batch = None;
            last
        } else {
            self.batch = Some(last);
            Used { id: expected, len: FULL }
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Used {
        Used { id: word as u32, len: (word >> 32) as u32 }
    }
}

impl<const IN_ORDER: bool> Ring for SplitRing<IN_ORDER> {
    const NAME: &'static str = if IN_ORDER { "split in-order" } else { "split" };
    const IN_ORDER: bool = IN_ORDER;
    const COUNTS: bool = true;
    const SURVIVES_BAD_ID: bool = true;

    fn new(
        memory: &QueueMemory,
        doorbell: Doorbell,
        event_index: bool,
        room_bytes: u32,
    ) -> Result<Self, PortError> {
        let (area, size, layout) = (&memory.area, memory.size, memory.layout());
        let count = usize::from(size);
        let notify_at = if event_index { layout.device + 4 + 8 * count } else { layout.device };
        let mut ring = Self {
            descriptors: area.array(0, 2 * count)?,
            available: area.array(layout.driver + 4, count)?,
            available_index: area.cell(layout.driver + 2)?,
            used: area.array(layout.device + 4, count)?,
            used_index: area.cell(layout.device + 2)?,
            notify: area.cell(notify_at)?,
            used_event: area.cell(layout.driver + 4 + 2 * count)?,
            used_flags: area.cell(layout.device)?,
            driver_flags: area.cell(layout.driver)?,
            event_index,
            doorbell,
            next_available: 0,
            shown: 0,
            next_used: 0,
            batch: None,
            ids: Ids::new(size),
            straight: true,
            room: match room_bytes {
                0 => 0,
                len => second_word(len, flags::WRITE, 0),
            },
        };
        ring.begin();
        Ok(ring)
    }

    fn restart(&mut self) {
        self.used_index.store_release(0);
        self.used_flags.store_release(0);
        self.notify.store_release(0);
        for place in 0..usize::from(self.ids.size()) {
            self.used.write(place, 0);
        }
        self.begin();
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.ids.size()
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.ids.free()
    }

    #[inline(always)]
    fn outstanding(&self) -> u16 {
        self.ids.outstanding()
    }

    #[inline(always)]
    fn completed(&mut self) -> Result<u16, Broken> {
        let completed = self.used_index.load_acquire().wrapping_sub(self.next_used);
        if completed <= self.ids.outstanding() { Ok(completed) } else { Err(Broken) }
    }

    #[inline(always)]
    fn take_used(&mut self) -> Option<Used> {
        let place = self.next_used;
        self.next_used = place.wrapping_add(1);
        Some(if IN_ORDER {
            self.next_of_batch(place)
        } else {
            Self::unpack(self.used.read(usize::from(place)))
        })
    }

    #[inline(always)]
    fn take_done(&mut self) -> Option<Used> {
        if !IN_ORDER {
            return self.take_used();
        }
        // The index says how many are done, the order which: the entries say nothing new.
        self.next_used = self.next_used.wrapping_add(1);
        Some(Used { id: u32::from(self.ids.used_place()), len: 0 })
    }

    #[inline(always)]
    fn is_expected(&self, id: u32) -> bool {
        self.ids.is_expected(id)
    }

    fn bend(&mut self) {
        self.straight = false;
    }

    #[inline(always)]
    fn give_back(&mut self, id: u16) {
        self.ids.give_back(id);
    }

    #[inline(always)]
    fn offer_room(&mut self, at: Iova) -> u16 {
        let id = self.ids.take();
        // Length and flags stand there since the beginning.
        self.descriptors.write(2 * usize::from(id), at.0);
        self.offer(id);
        id
    }

    #[inline(always)]
    fn offer_data(&mut self, at: Iova, len: u32) -> u16 {
        let id = self.ids.take();
        self.describe(id, at, second_word(len, 0, 0));
        self.offer(id);
        id
    }

    #[inline(always)]
    fn next_id(&self) -> u16 {
        self.ids.next()
    }

    fn offer_chain(&mut self, count: u16, parts: impl Iterator<Item = (Iova, u32)>) -> u16 {
        self.chain(count, parts.map(|(at, len)| (at, len, 0)))
    }

    fn offer_table(&mut self, at: Iova, count: u16) -> u16 {
        let id = self.ids.take();
        let len = u32::from(count) * super::DESCRIPTOR_BYTES as u32;
        self.describe(id, at, second_word(len, flags::INDIRECT, 0));
        self.offer(id);
        id
    }

    fn offer_command(&mut self, command: (Iova, u32), answer: (Iova, u32)) -> u16 {
        let parts = [(command.0, command.1, 0), (answer.0, answer.1, flags::WRITE)];
        self.chain(2, parts.into_iter())
    }

    fn give_back_chain(&mut self, id: u16, count: u16) {
        self.ids.give_back_chain(id, count);
    }

    fn table_entry(number: u16, count: u16, at: Iova, len: u32) -> [u64; 2] {
        let (more, next) = if number + 1 < count { (flags::NEXT, number + 1) } else { (0, 0) };
        [at.0, second_word(len, more, next)]
    }

    fn listen(&mut self, on: bool) {
        match (self.event_index, on) {
            (false, true) => self.driver_flags.store_release(0),
            (false, false) => self.driver_flags.store_release(NO_INTERRUPT),
            // At the next entry to be written, or at the one that is farthest away.
            (true, true) => self.used_event.store_release(self.used_index.load_acquire()),
            (true, false) => self.used_event.store_release(self.next_used.wrapping_sub(1)),
        }
        if on {
            order_dma_all();
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.available_index.store_release(self.next_available);
        // The device may just be going to sleep: it asks for notifications, then looks at the
        // index once more; we write the index, then look at what it asks (2.7.13.4.1).
        order_dma_all();
        let notify = self.notify.load_acquire();
        let shown = std::mem::replace(&mut self.shown, self.next_available);
        let wanted = if self.event_index {
            // Whether the entry that it waits for is among the new ones (2.7.10.1).
            self.next_available.wrapping_sub(notify).wrapping_sub(1)
                < self.next_available.wrapping_sub(shown)
        } else {
            notify & NO_NOTIFY == 0
        };
        if wanted {
            self.doorbell.ring();
        }
    }

    fn publish_quietly(&mut self) {
        self.available_index.store_release(self.next_available);
        self.shown = self.next_available;
    }

    fn ring(&self) {
        self.doorbell.ring();
    }
}

impl<const IN_ORDER: bool> Straight for SplitRing<IN_ORDER> {
    #[inline(always)]
    fn is_straight(&self) -> bool {
        self.straight && (!IN_ORDER || self.batch.is_none())
    }

    #[inline(always)]
    fn used_run(&self, most: u16) -> impl Iterator<Item = u32> {
        let place = self.used_place();
        let mut id = place as u32;
        self.used.run::<1>(place, most.into()).map_while(move |word| {
            let expected = word as u32 == id;
            id += 1;
            expected.then_some((word >> 32) as u32)
        })
    }

    #[inline(always)]
    fn done_run(&self, most: u16) -> impl Iterator<Item = u32> {
        let place = self.used_place();
        let mut left = usize::from(most).min(usize::from(self.ids.size()) - place);
        let mut run = self.used_run(most);
        std::iter::from_fn(move || {
            if !IN_ORDER {
                return run.next();
            }
            // The index says how many are done, the order which: the entries say nothing new.
            left = left.checked_sub(1)?;
            Some(0)
        })
    }

    #[inline(always)]
    fn next_length(&self) -> Option<u32> {
        let Used { id, len } = Self::unpack(self.used.read(usize::from(self.next_used)));
        (id == self.used_place() as u32).then_some(len)
    }

    #[inline(always)]
    fn used_place(&self) -> usize {
        usize::from(self.next_used & self.ids.mask())
    }

    #[inline(always)]
    fn took(&mut self, count: u16) {
        self.next_used = self.next_used.wrapping_add(count);
        self.ids.returned = self.ids.returned.wrapping_add(count);
    }

    #[inline(always)]
    fn free_run(&self) -> (usize, usize) {
        self.ids.free_run()
    }

    #[inline(always)]
    fn room_run(&mut self, count: usize) -> impl FnMut(Iova) {
        let (place, _) = self.free_run();
        let mut pairs = self.descriptors.pairs(place, count);
        // Length and flags, and the entry of the available ring, stand there since the beginning.
        move |at| pairs.write_first(at.0)
    }

    #[inline(always)]
    fn data_run(&mut self, count: usize) -> impl FnMut(Iova, u32) {
        let (place, _) = self.free_run();
        let mut pairs = self.descriptors.pairs(place, count);
        move |at, len| pairs.write(at.0, second_word(len, 0, 0))
    }

    #[inline(always)]
    fn offered(&mut self, count: u16) {
        self.ids.taken = self.ids.taken.wrapping_add(count);
        self.next_available = self.next_available.wrapping_add(count);
    }

    #[inline(always)]
    fn offer_next(&mut self, at: Iova, len: u32) -> usize {
        let place = self.ids.taken;
        // Its entry of the available ring stands there since the beginning.
        self.describe(place, at, second_word(len, 0, 0));
        self.offered(1);
        usize::from(place & self.ids.mask())
    }
}
