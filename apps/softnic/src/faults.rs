//! What is to go wrong, on command.

use std::fmt;

/// Bits that a wrong address differs in: far outside what anybody maps.
pub const WRONG_ADDRESS: u64 = 0x4000_0000_0000;

/// One lie about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The descriptor is used but never written back.
    Withhold,
    /// The length is 65,535, whatever the buffer holds.
    Length,
    /// The next descriptor is written back instead.
    Place,
    /// Good checksums are called bad, and bad ones good.
    Checksum,
    /// The frame goes to, or is taken from, another address.
    Address,
}

impl Lie {
    /// All of them, by the names that the control socket knows.
    pub const ALL: [(&'static str, Self); 5] = [
        ("withhold", Self::Withhold),
        ("length", Self::Length),
        ("place", Self::Place),
        ("checksum", Self::Checksum),
        ("address", Self::Address),
    ];
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, lie)| lie == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

#[derive(Clone, Copy, Debug)]
struct Order {
    lie: Lie,
    transmit: bool,
    queue: Option<u32>,
    left: u64,
}

/// The orders that are open.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    orders: Vec<Order>,
    stuck: Vec<(bool, u32)>, // (transmit, queue)
    told: u64,
}

impl Faults {
    /// The next `count` frames of a queue, or of any, are lied about.
    pub fn order(&mut self, lie: Lie, transmit: bool, queue: Option<u32>, count: u64) {
        self.orders.push(Order { lie, transmit, queue, left: count });
    }

    /// A queue does nothing until it is freed or the device is reset.
    pub fn stick(&mut self, transmit: bool, queue: u32) {
        self.stuck.push((transmit, queue));
    }

    /// Whether a queue does nothing.
    #[inline]
    pub fn is_stuck(&self, transmit: bool, queue: u32) -> bool {
        !self.stuck.is_empty() && self.stuck.contains(&(transmit, queue))
    }

    /// All goes well again.
    pub fn clear(&mut self) {
        self.orders.clear();
        self.stuck.clear();
    }

    /// Stuck queues work again: that is what a reset is for.
    pub fn reset(&mut self) {
        self.stuck.clear();
    }

    /// How many frames were lied about.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// The lie to be told about the next frame of a queue.
    #[inline]
    pub fn lie(&mut self, queue: u32, transmit: bool) -> Option<Lie> {
        if self.orders.is_empty() {
            return None;
        }
        let at = self.orders.iter().position(|order| {
            order.transmit == transmit && order.queue.is_none_or(|wanted| wanted == queue)
        })?;
        let order = &mut self.orders[at];
        let lie = order.lie;
        order.left = order.left.saturating_sub(1);
        if order.left == 0 {
            self.orders.remove(at);
        }
        self.told += 1;
        Some(lie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_for_its_frames_its_queue_and_its_direction() {
        let mut faults = Faults::default();
        faults.order(Lie::Length, false, Some(1), 2);
        assert_eq!(faults.lie(0, false), None);
        assert_eq!(faults.lie(1, true), None);
        assert_eq!(faults.lie(1, false), Some(Lie::Length));
        assert_eq!(faults.lie(1, false), Some(Lie::Length));
        assert_eq!(faults.lie(1, false), None);
        assert_eq!(faults.told(), 2);
    }

    #[test]
    fn a_reset_frees_a_stuck_queue() {
        let mut faults = Faults::default();
        faults.stick(true, 3);
        assert!(faults.is_stuck(true, 3) && !faults.is_stuck(false, 3));
        faults.reset();
        assert!(!faults.is_stuck(true, 3));
    }
}
