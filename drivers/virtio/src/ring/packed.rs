//! The packed virtqueue (virtio 1.3, 2.8): one ring of descriptors that both sides write, each with
//! flags that say whose it is.

use packetboat::dma::{Array, Cell};
use packetboat::memory::Iova;
use packetboat::mmio::order_dma_all;
use packetboat::port::PortError;

use super::ids::Ids;
use super::{Broken, Doorbell, FULL, QueueMemory, Ring, Straight, Used, flags};

/// `VIRTQ_DESC_F_AVAIL` and `VIRTQ_DESC_F_USED` (2.8.1).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// `RING_EVENT_FLAGS_ENABLE`, `_DISABLE` and `_DESC` (2.8.10), in the flags of an event suppression
/// structure: the upper half of its word.
const ENABLE: u32 = 0;
const DISABLE: u32 = 1;
const DESC: u32 = 2;

/// A packed virtqueue whose driver side is ours. `IN_ORDER`: the device has agreed to that.
///
/// Each descriptor takes an id, even where a chain of them uses one only: so place and number of
/// ids go together, and both wrap counters are a bit of a count (2.8.1): the size is a power of two.
#[derive(Debug)]
pub(crate) struct PackedRing<const IN_ORDER: bool> {
    /// `struct pvirtq_desc` (2.8.13) in two words: address; length, id and flags. The second one is
    /// read and written in one go, so that its flags never come without the rest.
    descriptors: Array<u64>,
    driver_events: Cell<u32>,
    device_events: Cell<u32>,
    doorbell: Doorbell,
    /// Descriptors that the device was shown so far, of those that were handed out.
    shown: u16,
    /// `IN_ORDER`: the id that the batch under way ends with, and its length.
    batch: Option<Used>,
    ids: Ids<IN_ORDER>,
    /// Length and flags of each buffer, if all have the same.
    room: u64,
    /// Each id is its place: see [`Straight`].
    straight: bool,
}

#[inline(always)]
fn second_word(len: u32, id: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48
}

impl<const IN_ORDER: bool> PackedRing<IN_ORDER> {
    /// The flags of a descriptor that is made available `taken`-th.
    #[inline(always)]
    fn available(&self, taken: u16) -> u16 {
        if taken & self.ids.size() == 0 { AVAIL } else { USED }
    }

    /// Writes the next descriptor, and with it makes it available.
    #[inline(always)]
    fn describe(&mut self, at: Iova, len_and_flags: u64, id: u16) {
        let place = 2 * usize::from(self.ids.taken); // the array masks it
        let second =
            len_and_flags | u64::from(id) << 32 | u64::from(self.available(self.ids.taken)) << 48;
        self.descriptors.write(place, at.0);
        self.descriptors.store_release(place + 1, second);
        self.ids.taken = self.ids.taken.wrapping_add(1);
    }

    /// Makes a chain of parts available, each with its flags: the first one last (2.8.6).
    fn chain(&mut self, count: u16, parts: impl Iterator<Item = (Iova, u32, u16)>) -> u16 {
        let first = self.next_id();
        let mut head = None;
        let mut before = first;
        for (number, (at, len, own)) in (1..=count).zip(parts) {
            let id = self.next_id();
            let more = if number == count { 0 } else { flags::NEXT };
            let second = second_word(len, first, own | more | self.available(self.ids.taken));
            let place = 2 * usize::from(self.ids.taken & self.ids.mask());
            self.descriptors.write(place, at.0);
            if number == 1 {
                head = Some((place, second));
            } else {
                self.ids.follow(before, id);
                self.descriptors.store_release(place + 1, second);
            }
            before = id;
            self.ids.taken = self.ids.taken.wrapping_add(1);
        }
        if let Some((place, second)) = head {
            self.descriptors.store_release(place + 1, second);
        }
        first
    }

    /// Writes our part as it is when nothing is available.
    fn begin(&mut self) {
        // Polled: no interrupts.
        self.driver_events.store_release(DISABLE << 16);
        self.ids.begin();
        self.shown = 0;
        self.straight = true;
        self.batch = None;
    }

    /// The second word of the descriptor that is used next, if the device is done with it.
    #[inline(always)]
    fn next_used(&self) -> Option<u64> {
        // The array masks it.
        let place = 2 * usize::from(self.ids.returned) + 1;
        let second = self.descriptors.load_acquire(place);
        let used = if self.ids.returned & self.ids.size() == 0 { 0 } else { AVAIL | USED };
        ((second >> 48) as u16 & (AVAIL | USED) == used).then_some(second)
    }
}

impl<const IN_ORDER: bool> Ring for PackedRing<IN_ORDER> {
    const NAME: &'static str = if IN_ORDER { "packed in-order" } else { "packed" };
    const IN_ORDER: bool = IN_ORDER;
    const COUNTS: bool = false;
    const SURVIVES_BAD_ID: bool = false;

    fn new(
        memory: &QueueMemory,
        doorbell: Doorbell,
        _event_index: bool,
        room_bytes: u32,
    ) -> Result<Self, PortError> {
        let (area, size, layout) = (&memory.area, memory.size, memory.layout());
        let count = usize::from(size);
        let mut ring = Self {
            descriptors: area.array(0, 2 * count)?,
            driver_events: area.cell(layout.driver)?,
            device_events: area.cell(layout.device)?,
            doorbell,
            shown: 0,
            batch: None,
            ids: Ids::new(size),
            straight: true,
            room: second_word(room_bytes, 0, flags::WRITE),
        };
        ring.begin();
        Ok(ring)
    }

    fn restart(&mut self) {
        for word in 0..2 * usize::from(self.ids.size()) {
            self.descriptors.write(word, 0);
        }
        self.device_events.store_release(0);
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

    /// There is no count of them.
    #[inline(always)]
    fn completed(&mut self) -> Result<u16, Broken> {
        Ok(self.has_more(1).into())
    }

    #[inline(always)]
    fn has_more(&self, left: u16) -> bool {
        left != 0 && (self.next_used().is_some() || IN_ORDER && self.batch.is_some())
    }

    #[inline(always)]
    fn take_used(&mut self) -> Option<Used> {
        let unpack =
            |second: u64| Used { id: u32::from((second >> 32) as u16), len: second as u32 };
        if !IN_ORDER {
            return self.next_used().map(unpack);
        }
        let last = match self.batch {
            Some(last) => last,
            None => self.next_used().map(unpack)?,
        };
        let expected = u32::from(self.ids.used_place());
        // A batch ends among those that the device has; what says something else is this buffer's
        // own, and a lie.
        let ahead = (last.id as u16).wrapping_sub(expected as u16) & self.ids.mask();
        if ahead == 0 || ahead >= self.ids.outstanding() || last.id > u32::from(self.ids.mask()) {
            self.batch = None;
            Some(last)
        } else {
            self.batch = Some(last);
            Some(Used { id: expected, len: FULL })
        }
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
        let id = self.next_id();
        self.describe(at, self.room, id);
        id
    }

    #[inline(always)]
    fn offer_data(&mut self, at: Iova, len: u32) -> u16 {
        let id = self.next_id();
        self.describe(at, u64::from(len), id);
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
        let id = self.next_id();
        let len = u32::from(count) * super::DESCRIPTOR_BYTES as u32;
        self.describe(at, second_word(len, 0, flags::INDIRECT), id);
        id
    }

    fn offer_command(&mut self, command: (Iova, u32), answer: (Iova, u32)) -> u16 {
        let parts = [(command.0, command.1, 0), (answer.0, answer.1, flags::WRITE)];
        self.chain(2, parts.into_iter())
    }

    fn give_back_chain(&mut self, id: u16, count: u16) {
        self.ids.give_back_chain(id, count);
    }

    /// The entries follow one another, without NEXT (2.8.7).
    fn table_entry(_number: u16, _count: u16, at: Iova, len: u32) -> [u64; 2] {
        [at.0, second_word(len, 0, 0)]
    }

    fn listen(&mut self, on: bool) {
        self.driver_events.store_release(if on { ENABLE } else { DISABLE } << 16);
        if on {
            order_dma_all();
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        // Each descriptor was shown when it was written. The device may just be going to sleep: it
        // asks for notifications, then looks at the ring once more (2.8.21.3.1).
        order_dma_all();
        let events = self.device_events.load_acquire();
        let shown = std::mem::replace(&mut self.shown, self.ids.taken);
        let wanted = match events >> 16 & 3 {
            DISABLE => false,
            // Whether the place that it waits for is among the new ones.
            DESC => {
                let mask = self.ids.mask();
                let place = events as u16 & 0x7fff;
                let wrap = events & 0x8000 != 0;
                // The count that this place and wrap counter stand for, nearest to ours.
                let pass = if wrap == (self.ids.taken & self.ids.size() == 0) {
                    0
                } else {
                    self.ids.size()
                };
                let at = (self.ids.taken & !mask).wrapping_sub(pass).wrapping_add(place & mask);
                self.ids.taken.wrapping_sub(at).wrapping_sub(1) < self.ids.taken.wrapping_sub(shown)
            }
            _ => true,
        };
        if wanted {
            self.doorbell.ring();
        }
    }

    fn publish_quietly(&mut self) {
        self.shown = self.ids.taken;
    }

    fn ring(&self) {
        self.doorbell.ring();
    }
}

impl<const IN_ORDER: bool> Straight for PackedRing<IN_ORDER> {
    #[inline(always)]
    fn is_straight(&self) -> bool {
        self.straight && (!IN_ORDER || self.batch.is_none())
    }

    #[inline(always)]
    fn used_run(&self, most: u16) -> impl Iterator<Item = u32> {
        let place = self.used_place();
        let used = if self.ids.returned & self.ids.size() == 0 { 0 } else { AVAIL | USED };
        let mut expected = place as u32 | u32::from(used) << 16;
        // Its id and the two flags, compared in one go.
        let mask = u32::from(AVAIL | USED) << 16 | 0xffff;
        self.descriptors.run::<2>(2 * place + 1, most.into()).map_while(move |second| {
            let found = (second >> 32) as u32 & mask == expected;
            expected = expected.wrapping_add(1);
            found.then_some(second as u32)
        })
    }

    #[inline(always)]
    fn next_length(&self) -> Option<u32> {
        let second = self.next_used()?;
        ((second >> 32) as u16 == self.ids.used_place()).then_some(second as u32)
    }

    #[inline(always)]
    fn used_place(&self) -> usize {
        usize::from(self.ids.used_place())
    }

    #[inline(always)]
    fn took(&mut self, count: u16) {
        self.ids.returned = self.ids.returned.wrapping_add(count);
    }

    #[inline(always)]
    fn free_run(&self) -> (usize, usize) {
        self.ids.free_run()
    }

    #[inline(always)]
    fn room_run(&mut self, count: usize) -> impl FnMut(Iova) {
        let (place, _) = self.free_run();
        let mut second = second_word(0, place as u16, self.available(self.ids.taken)) | self.room;
        let mut pairs = self.descriptors.pairs(place, count);
        move |at| {
            pairs.publish(at.0, second);
            second = second.wrapping_add(1 << 32); // the next id
        }
    }

    #[inline(always)]
    fn data_run(&mut self, count: usize) -> impl FnMut(Iova, u32) {
        let (place, _) = self.free_run();
        let mut second = second_word(0, place as u16, self.available(self.ids.taken));
        let mut pairs = self.descriptors.pairs(place, count);
        move |at, len| {
            pairs.publish(at.0, second | u64::from(len));
            second = second.wrapping_add(1 << 32); // the next id
        }
    }

    #[inline(always)]
    fn offered(&mut self, count: u16) {
        self.ids.taken = self.ids.taken.wrapping_add(count);
    }

    #[inline(always)]
    fn offer_next(&mut self, at: Iova, len: u32) -> usize {
        let place = self.ids.taken & self.ids.mask();
        self.describe(at, u64::from(len), place);
        usize::from(place)
    }
}
