//! The function's configuration space, with virtio's capabilities (virtio 1.3, 4.1.4).

use super::Options;

/// The BAR that all virtio registers are in.
pub(super) const BAR: u8 = 4;
pub(super) const BAR_LEN_BYTES: u64 = 0x4000;

/// Where in the BAR, in bytes.
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const NOTIFY_LEN_BYTES: u64 = 0x1000;
/// From one queue's doorbell to the next.
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;

/// What its capability list is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capabilities {
    /// As it should be.
    Modern,
    /// The good ones stand behind ones to be passed over: of a type that nobody knows, and in a
    /// BAR number that is reserved.
    WithStrangers,
    /// None of virtio's: a legacy device.
    Legacy,
    /// The common configuration reaches beyond its BAR.
    BeyondBar,
    /// The common configuration is too short for its registers.
    Short,
    /// The list leads back to itself.
    Loop,
}

pub(super) fn build(options: &Options) -> [u8; 256] {
    let mut space = [0; 256];
    space[0..2].copy_from_slice(&0x1af4_u16.to_le_bytes());
    space[2..4].copy_from_slice(&0x1041_u16.to_le_bytes());
    space[0x06] = 0x10; // there is a capability list
    space[0x0b] = 0x02; // class: network
    let mut list = List { space: &mut space, link: 0x34, next: 0x40 };
    if options.msix_vectors != 0 {
        let at = list.add(0x11, 12);
        list.put(at + 2, &(options.msix_vectors - 1).to_le_bytes());
        list.put(at + 4, &1_u32.to_le_bytes()); // the table, in BAR 1
        list.put(at + 8, &0x801_u32.to_le_bytes()); // pending bits, in BAR 1
    }
    let (mut common_at, mut common_len) = (COMMON as u32, 64);
    match options.capabilities {
        Capabilities::Legacy => return space,
        Capabilities::Modern | Capabilities::Loop => {}
        Capabilities::WithStrangers => {
            list.virtio(9, BAR, 0, 0x100);
            list.virtio(1, 6, 0, 56);
            list.virtio(4, 7, 0, 8);
        }
        Capabilities::BeyondBar => common_at = BAR_LEN_BYTES as u32 - 8,
        Capabilities::Short => common_len = 20,
    }
    list.virtio(1, BAR, common_at, common_len);
    let notify = list.virtio(2, BAR, NOTIFY as u32, NOTIFY_LEN_BYTES as u32);
    list.put(notify + 16, &(NOTIFY_MULTIPLIER as u32).to_le_bytes());
    list.virtio(3, BAR, ISR as u32, 1);
    let device = list.virtio(4, BAR, DEVICE as u32, 0x100);
    if options.capabilities == Capabilities::Loop {
        list.put(device + 1, &[0x40]);
    }
    space
}

/// The list of capabilities while it is written.
struct List<'a> {
    space: &'a mut [u8; 256],
    /// Where the pointer to the next capability goes.
    link: usize,
    /// Where the next capability goes.
    next: usize,
}

impl List<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.space[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn add(&mut self, id: u8, len_bytes: usize) -> usize {
        let at = self.next;
        self.space[self.link] = at as u8;
        self.space[at] = id;
        self.link = at + 1;
        self.next = at + len_bytes.next_multiple_of(4);
        at
    }

    /// `struct virtio_pci_cap`, with room for the notification's multiplier.
    fn virtio(&mut self, kind: u8, bar: u8, offset: u32, len_bytes: u32) -> usize {
        let at = self.add(0x09, 20);
        self.put(at + 2, &[20, kind, bar]);
        self.put(at + 8, &offset.to_le_bytes());
        self.put(at + 12, &len_bytes.to_le_bytes());
        at
    }
}
