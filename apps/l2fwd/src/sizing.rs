//! How many mbufs, and how much memory.

use packetboat::mbuf::MbufPoolConfig;

/// Descriptors that a queue is reckoned with before its driver has been asked, and the most that
/// l2fwd takes of its own accord.
pub(crate) const USUAL_DESCRIPTORS: u16 = 1024;
/// Mbufs that an lcore may keep in its cache.
pub(crate) const CACHE_SIZE: usize = 256;

/// What takes mbufs. All numbers are sums over the ports in question.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Descriptors of all receive queues: each has an mbuf lent to the device.
    pub(crate) rx_descriptors: usize,
    /// Descriptors of all transmit queues: each may have one until the device is done with it.
    pub(crate) tx_descriptors: usize,
    /// Queues, received from or sent to.
    pub(crate) queues: usize,
    /// Lcores that forward.
    pub(crate) lcores: usize,
    /// Frames in a burst.
    pub(crate) burst_len: usize,
}

impl Demand {
    /// Mbufs with which no queue ever finds the pool empty: one for each descriptor; for each
    /// lcore its cache and a burst in hand; for each queue a transmit buffer's worth. DPDK's l2fwd
    /// reckons in the same way, but takes 8,192 at least.
    pub(crate) fn mbufs(&self) -> usize {
        let Self { rx_descriptors, tx_descriptors, queues, lcores, burst_len } = *self;
        let in_hand = lcores * (CACHE_SIZE + burst_len) + queues * burst_len;
        (rx_descriptors + tx_descriptors + in_hand).next_multiple_of(64)
    }

    /// Bytes of DMA memory for the queues themselves. Generous: rings of 64 bytes per descriptor,
    /// for sending 512 more (virtio's tables for chains), each in pages of its own.
    pub(crate) fn ring_bytes(&self) -> u64 {
        let descriptors = self.rx_descriptors + self.tx_descriptors;
        (descriptors * 64 + self.tx_descriptors * 512 + self.queues * 16 * 1024) as u64
    }
}

/// Bytes of memory for `mbufs` mbufs.
pub(crate) fn mbuf_bytes(mbufs: usize) -> u64 {
    MbufPoolConfig::new("", mbufs).memory_len_bytes() as u64
}

/// Bytes that go to alignment, to page ends and to control queues.
pub(crate) const SPARE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_has_its_mbuf() {
        let demand = Demand {
            rx_descriptors: 512,
            tx_descriptors: 512,
            queues: 4,
            lcores: 2,
            burst_len: 32,
        };
        assert_eq!(demand.mbufs(), 512 + 512 + 2 * 288 + 4 * 32);
        assert!(demand.ring_bytes() >= 1024 * 26);
        let cookies = if cfg!(debug_assertions) { 128 } else { 0 };
        let mbufs = 1000 * (128 + 128 + 2048 + cookies);
        let free_list = mbuf_bytes(1000) - mbufs;
        assert!((8 * 1024..10 * 1024).contains(&free_list), "{free_list}");
    }
}
