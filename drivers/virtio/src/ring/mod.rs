//! Virtqueues: where they stand in memory, and the two formats of their rings.
//!
//! A ring moves ids and knows nothing of what they stand for: who lends buffers keeps the record.
//! It hands out ids in the order in which they came back, so that with a device that completes in
//! order an id stands at the same place of the ring time after time, and writing it there again
//! costs a store that changes nothing. Where that order was agreed on (`IN_ORDER`, virtio 1.3,
//! 2.7.14 and 2.8.20) ids are places, and there is no table of them at all.

mod doorbell;
mod ids;
mod memory;
mod packed;
mod split;

pub(crate) use doorbell::Doorbell;
pub(crate) use memory::{QueueAreas, QueueMemory};
pub(crate) use packed::PackedRing;
pub(crate) use split::SplitRing;

use packetboat::memory::Iova;
use packetboat::port::PortError;

/// What a device says of a buffer that it is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// As the device said, unless it is [`Self::expected`].
    pub(crate) id: u32,
    /// Bytes that it has written.
    pub(crate) len: u32,
}

/// A length that says: all of the buffer. In a batch that a device completes in one go, in order,
/// it tells only the last one's length; the others are full (2.7.14).
pub(crate) const FULL: u32 = u32::MAX;

/// The device claims to have completed more than it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// What the rings of all kinds have in common: the driver's side of a virtqueue.
pub(crate) trait Ring: std::fmt::Debug + Send + Sized + 'static {
    /// What it is called: `split`, `split in-order`.
    const NAME: &'static str;

    /// Buffers are completed in the order in which they were offered.
    const IN_ORDER: bool;

    /// [`Self::completed`] is exact. Otherwise it says whether there is one: 0 or 1.
    const COUNTS: bool;

    /// Goes on after an id that the device made up. A packed ring doesn't: there the id says how
    /// many places to pass over.
    const SURVIVES_BAD_ID: bool;

    /// In memory that is zero. All buffers of a receive ring have `room_bytes`; 0: a ring to send.
    fn new(
        memory: &QueueMemory,
        doorbell: Doorbell,
        event_index: bool,
        room_bytes: u32,
    ) -> Result<Self, PortError>;

    /// As it was when it was made: nothing available, nothing used. Only while no device has it.
    fn restart(&mut self);

    /// Entries.
    fn size(&self) -> u16;

    /// Descriptors that no buffer has.
    fn free(&self) -> u16;

    /// Buffers that the device has.
    fn outstanding(&self) -> u16;

    /// How many buffers may be taken with [`Self::take_used`] now: see [`Self::COUNTS`].
    fn completed(&mut self) -> Result<u16, Broken>;

    /// Whether there are more, where there are `left` at most.
    fn has_more(&self, left: u16) -> bool {
        left != 0
    }

    /// The next buffer that the device is done with; `None`: there is none after all. It is to be
    /// given back ([`Self::give_back`]) before the next one is taken.
    fn take_used(&mut self) -> Option<Used>;

    /// As [`Self::take_used`], for a ring to send: how much was written doesn't matter.
    fn take_done(&mut self) -> Option<Used> {
        self.take_used()
    }

    /// Whether `id` is the one that comes next if the device completes in order.
    fn is_expected(&self, id: u32) -> bool;

    /// That ids aren't places any more: see [`Straight`].
    fn bend(&mut self);

    /// Frees one descriptor: that of the buffer just taken. To be called in the order in which
    /// they were taken.
    fn give_back(&mut self, id: u16);

    /// Makes a buffer of `room_bytes` available to be written to. Returns its id. There must be
    /// a free descriptor.
    fn offer_room(&mut self, at: Iova) -> u16;

    /// Makes a buffer available to be read. There must be a free descriptor.
    fn offer_data(&mut self, at: Iova, len: u32) -> u16;

    /// Makes a chain of `count` parts (2 or more) available to be read: one id. There must be as
    /// many free descriptors, and they all come back with [`Self::give_back_chain`].
    fn offer_chain(&mut self, count: u16, parts: impl Iterator<Item = (Iova, u32)>) -> u16;

    /// The id that is given out next.
    fn next_id(&self) -> u16;

    /// As [`Self::offer_chain`], with the parts in the table `at`, which takes one descriptor.
    fn offer_table(&mut self, at: Iova, count: u16) -> u16;

    /// Makes a chain available: one part to be read, one to be written. For commands.
    fn offer_command(&mut self, command: (Iova, u32), answer: (Iova, u32)) -> u16;

    /// As [`Self::give_back`], for a chain of `count` descriptors.
    fn give_back_chain(&mut self, id: u16, count: u16);

    /// Words of an indirect table's entry: one part, to be read, of `count`.
    fn table_entry(number: u16, count: u16, at: Iova, len: u32) -> [u64; 2];

    /// Lets the device interrupt when it completes the next buffer, or not. After it was allowed to,
    /// the ring is to be looked at once more: it may have completed one before (2.7.7.1).
    fn listen(&mut self, on: bool);

    /// Shows the device all that was offered, and rings its doorbell unless it said not to.
    fn publish(&mut self);

    /// Shows the device what was offered without ringing: before DRIVER_OK it may not be rung.
    fn publish_quietly(&mut self);

    /// Rings the doorbell.
    fn ring(&self);
}

/// The common case, walked over side by side: nothing is looked up, and what would be the same each
/// time is done once for all.
///
/// A ring is *straight* while each buffer's id is its place: no device has completed out of order,
/// and no buffer took several places of a split ring. It stays so with most devices for ever.
pub(crate) trait Straight: Ring {
    /// Whether it is, and no batch is under way.
    fn is_straight(&self) -> bool;

    /// Buffers that the device has completed, from [`Self::used_place`] on, `most` at most: the
    /// length of each. It ends at the first that isn't there, or isn't the one to be expected, and
    /// where the ring begins anew.
    fn used_run(&self, most: u16) -> impl Iterator<Item = u32>;

    /// As [`Self::used_run`], for a ring to send.
    fn done_run(&self, most: u16) -> impl Iterator<Item = u32> {
        self.used_run(most)
    }

    /// The first of [`Self::used_run`], alone.
    fn next_length(&self) -> Option<u32>;

    /// The place, and so the id, of the buffer that is completed next.
    fn used_place(&self) -> usize;

    /// That so many were taken from [`Self::used_run`].
    fn took(&mut self, count: u16);

    /// The place of the next free descriptor, and how many there are side by side.
    fn free_run(&self) -> (usize, usize);

    /// Writes free descriptors, as [`Ring::offer_room`] does, `count` at most.
    fn room_run(&mut self, count: usize) -> impl FnMut(Iova);

    /// Writes free descriptors, as [`Ring::offer_data`] does, `count` at most.
    fn data_run(&mut self, count: usize) -> impl FnMut(Iova, u32);

    /// That so many were written.
    fn offered(&mut self, count: u16);

    /// As [`Ring::offer_data`], without looking an id up: returns the place.
    fn offer_next(&mut self, at: Iova, len: u32) -> usize;
}

/// Descriptor flags (2.7.5, 2.8.13).
pub(crate) mod flags {
    /// Another descriptor follows.
    pub(crate) const NEXT: u16 = 1;
    /// The device writes to it.
    pub(crate) const WRITE: u16 = 2;
    /// It is a table of descriptors.
    pub(crate) const INDIRECT: u16 = 4;
}

/// Bytes of a descriptor, of either format.
pub(crate) const DESCRIPTOR_BYTES: usize = 16;
