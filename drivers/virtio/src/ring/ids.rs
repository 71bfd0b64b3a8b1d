//! Ids of descriptors, handed out in the order in which they came back.

use packetboat::dma::Table;

/// Which ids are free. `IN_ORDER`: an id is a place, and there is no table of them.
///
/// Both ends are counted through, modulo 2^16: the size is a power of two, so a count's lower bits
/// are a place, and the bit above them tells one time around the ring from the next.
#[derive(Debug)]
pub(super) struct Ids<const IN_ORDER: bool> {
    size: u16,
    /// Those that are free, first in, first out: from `taken` to `returned`. Of one entry, and not
    /// used, with `IN_ORDER`.
    table: Table<u16>,
    /// Which id stands behind which in a chain: our own note, as the device may write to its.
    follows: Table<u16>,
    /// Handed out so far.
    pub(super) taken: u16,
    /// `size` more than those that came back.
    pub(super) returned: u16,
}

impl<const IN_ORDER: bool> Ids<IN_ORDER> {
    /// Of `size` ids, a power of two, all of them free.
    pub(super) fn new(size: u16) -> Self {
        let count = usize::from(size);
        Self {
            size,
            table: Table::new(if IN_ORDER { 1 } else { count }, |id| id as u16),
            follows: Table::new(count, |_| 0),
            taken: 0,
            returned: size,
        }
    }

    /// All are free again, in order.
    pub(super) fn begin(&mut self) {
        (self.taken, self.returned) = (0, self.size);
        for id in 0..self.size {
            self.table.set(usize::from(id), id);
        }
    }

    #[inline(always)]
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    pub(super) fn mask(&self) -> u16 {
        self.size - 1
    }

    #[inline(always)]
    pub(super) fn free(&self) -> u16 {
        self.returned.wrapping_sub(self.taken)
    }

    /// How many the device has.
    #[inline(always)]
    pub(super) fn outstanding(&self) -> u16 {
        self.size - self.free()
    }

    /// The one that is handed out next.
    #[inline(always)]
    pub(super) fn next(&self) -> u16 {
        if IN_ORDER { self.taken & self.mask() } else { self.table.get(usize::from(self.taken)) }
    }

    #[inline(always)]
    pub(super) fn take(&mut self) -> u16 {
        let id = self.next();
        self.taken = self.taken.wrapping_add(1);
        id
    }

    /// The one that comes back next if the device completes in order: it is its place, or the one
    /// that came back to this place the last time.
    #[inline(always)]
    pub(super) fn is_expected(&self, id: u32) -> bool {
        let expected = match IN_ORDER {
            true => self.returned & self.mask(),
            false => self.table.get(usize::from(self.returned)),
        };
        id == u32::from(expected)
    }

    #[inline(always)]
    pub(super) fn give_back(&mut self, id: u16) {
        if !IN_ORDER {
            self.table.set(usize::from(self.returned), id);
        }
        self.returned = self.returned.wrapping_add(1);
    }

    /// Gives all ids of a chain back.
    pub(super) fn give_back_chain(&mut self, id: u16, count: u16) {
        let mut id = id;
        for _ in 0..count {
            self.give_back(id);
            id = self.follows.get(usize::from(id));
        }
    }

    /// Notes that `next` stands behind `id` in a chain.
    pub(super) fn follow(&mut self, id: u16, next: u16) {
        self.follows.set(usize::from(id), next);
    }

    /// Where the next one to come back stands.
    #[inline(always)]
    pub(super) fn used_place(&self) -> u16 {
        self.returned & self.mask()
    }

    /// Where the next free one stands, and how many there are side by side.
    #[inline(always)]
    pub(super) fn free_run(&self) -> (usize, usize) {
        let place = self.taken & self.mask();
        (place.into(), self.free().min(self.size - place).into())
    }
}
