//! A device, the driver on it, and the accounts that must be even in the end.

use std::sync::Arc;

use packetboat::mbuf::{Burst, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Port, PortConfig, PortError, QueueStats, Queues};
use packetboat_virtio::DRIVER;

use crate::device::{NetDevice, Options};

/// The port's number in all tests.
pub(crate) const NUMBER: u16 = 5;

pub(crate) fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(8)).unwrap()
}

pub(crate) fn config(queues: u16, rx_descriptors: u16, tx_descriptors: u16) -> PortConfig {
    PortConfig {
        number: NUMBER,
        rx_queues: queues,
        tx_queues: queues,
        rx_descriptors: Some(rx_descriptors),
        tx_descriptors: Some(tx_descriptors),
        ..PortConfig::default()
    }
}

/// A port on a device of its own, and a pool.
pub(crate) struct Rig {
    pub(crate) device: NetDevice,
    pub(crate) port: Box<dyn Port>,
    pub(crate) pool: MbufPool,
    pub(crate) queues: Queues,
}

impl Rig {
    /// Probed, not configured. Mbufs have the default data room.
    pub(crate) fn new(options: Options, mbufs: usize) -> Self {
        Self::with_pool(options, &MbufPoolConfig::new("mbufs", mbufs))
    }

    pub(crate) fn with_pool(options: Options, pool: &MbufPoolConfig) -> Self {
        let memory = memory();
        let device = NetDevice::new(&memory, options);
        let port = DRIVER.probe(device.function(), &memory).unwrap();
        let pool = MbufPool::new(&memory, pool).unwrap();
        Self { device, port, pool, queues: Queues::default() }
    }

    /// Running with one queue pair of so many descriptors each.
    pub(crate) fn running(options: Options, mbufs: usize, descriptors: u16) -> Self {
        let mut rig = Self::new(options, mbufs);
        rig.port.configure(&config(1, descriptors, descriptors)).unwrap();
        rig.start().unwrap();
        rig
    }

    pub(crate) fn start(&mut self) -> Result<(), PortError> {
        let pools = vec![self.pool.clone(); 16];
        self.queues = self.port.start(&pools)?;
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result<(), PortError> {
        self.port.stop(std::mem::take(&mut self.queues))
    }

    /// What the driver's receive queue `pair` gives in one call.
    pub(crate) fn received(&mut self, pair: usize) -> Burst {
        let mut burst = Burst::new();
        self.queues.rx[pair].receive(&mut burst);
        burst
    }

    pub(crate) fn rx_stats(&self) -> QueueStats {
        self.port.stats().rx_total()
    }

    pub(crate) fn tx_stats(&self) -> QueueStats {
        self.port.stats().tx_total()
    }

    /// Stops if it is still running, and looks at the accounts: nothing lost, nothing out, no
    /// rule broken.
    pub(crate) fn finish(mut self) {
        if !self.queues.rx.is_empty() {
            self.stop().unwrap();
        }
        assert_eq!(self.pool.objects().in_use(), 0, "mbufs still out");
        assert_eq!(self.pool.leaked(), 0, "mbufs leaked");
        drop(self.port);
        assert_eq!(self.device.violations(), Vec::<String>::new(), "against the specification");
        assert!(!self.device.bus_master(), "left with bus mastering on");
    }
}

/// A frame of `len` bytes that differs from those of other seeds.
pub(crate) fn frame(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A received frame's bytes, whole.
pub(crate) fn bytes_of(mbuf: &packetboat::mbuf::Mbuf) -> Vec<u8> {
    let mut bytes = vec![0; mbuf.len_bytes()];
    assert_eq!(mbuf.copy_to(0, &mut bytes), bytes.len());
    bytes
}

/// An mbuf that holds `bytes`.
pub(crate) fn mbuf_of(pool: &MbufPool, bytes: &[u8]) -> packetboat::mbuf::Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
    mbuf
}
