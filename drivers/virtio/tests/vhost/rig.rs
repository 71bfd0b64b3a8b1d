//! A port and its back end, and the accounts that must be even in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Offloads, Port, PortConfig, PortError, QueueStats, Queues};
use packetboat_virtio::VHOST_USER;
use tempfile::TempDir;

use crate::backend::{BackEnd, Meeting};

pub(crate) struct Rig {
    pub(crate) back_end: Option<BackEnd>,
    pub(crate) port: Box<dyn Port>,
    pub(crate) pool: MbufPool,
    pub(crate) queues: Queues,
    pub(crate) socket: PathBuf,
    pub(crate) server: bool,
    _folder: TempDir,
}

/// What a rig is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) offered: u64,
    pub(crate) arguments: &'static str,
    pub(crate) mbufs: usize,
    pub(crate) descriptors: u16,
    pub(crate) pairs: u16,
    /// The front end listens.
    pub(crate) server: bool,
    /// What the port shall do for the program.
    pub(crate) offloads: fn() -> Offloads,
    /// Whether receive queues can wake an lcore.
    pub(crate) interrupts: bool,
}

/// Nothing.
pub(crate) fn none() -> Offloads {
    Offloads::default()
}

pub(crate) fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(16)).unwrap()
}

/// A port on a back end that waits for it, or comes to it.
pub(crate) fn probe(
    memory: &Arc<Memory>,
    setup: &Setup,
    folder: &TempDir,
) -> (Result<Box<dyn Port>, PortError>, BackEnd, PathBuf) {
    let socket = folder.path().join("x.sock");
    let meeting = match setup.server {
        true => Meeting::Connect(socket.clone()),
        false => Meeting::listen(&socket),
    };
    let back_end = BackEnd::serve(meeting, setup.offered);
    let server = if setup.server { ",server" } else { "" };
    let vdev = format!("vhost-user,path={}{server}{}", socket.display(), setup.arguments);
    (VHOST_USER.probe(&vdev.parse().unwrap(), memory), back_end, socket)
}

impl Rig {
    pub(crate) fn running(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory();
        let (port, back_end, socket) = probe(&memory, &setup, &folder);
        let mut port = port.unwrap();
        let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", setup.mbufs) };
        let pool = MbufPool::new(&memory, &config).unwrap();
        let config = PortConfig {
            number: 7,
            rx_queues: setup.pairs,
            tx_queues: setup.pairs,
            rx_descriptors: Some(setup.descriptors),
            tx_descriptors: Some(setup.descriptors),
            offloads: (setup.offloads)(),
            rx_interrupts: setup.interrupts,
            ..PortConfig::default()
        };
        port.configure(&config).unwrap();
        let queues = port.start(&vec![pool.clone(); setup.pairs.into()]).unwrap();
        back_end.wait_for(2 * usize::from(setup.pairs));
        let (socket, server) = (socket, setup.server);
        let back_end = Some(back_end);
        Self { back_end, port, pool, queues, socket, server, _folder: folder }
    }

    pub(crate) fn back_end(&self) -> &BackEnd {
        self.back_end.as_ref().unwrap()
    }

    pub(crate) fn received(&mut self, pair: usize) -> Burst {
        let mut burst = Burst::new();
        self.queues.rx[pair].receive(&mut burst);
        burst
    }

    pub(crate) fn rx(&self) -> QueueStats {
        self.port.stats().rx_total()
    }

    pub(crate) fn tx(&self) -> QueueStats {
        self.port.stats().tx_total()
    }

    /// One more back end comes, after the last one has gone.
    pub(crate) fn next_back_end(&mut self, offered: u64) {
        let meeting = match self.server {
            true => Meeting::Connect(self.socket.clone()),
            false => Meeting::listen(&self.socket),
        };
        self.back_end = Some(BackEnd::serve(meeting, offered));
    }

    /// Polls until the port is up again.
    pub(crate) fn until_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let up = self.port.link().unwrap().up;
            self.port.link_changed();
            self.queues.tx[0].reclaim();
            drop(self.received(0));
            if up {
                break; // and the queues have seen that the gate is open
            }
            assert!(Instant::now() < until, "it doesn't come back");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops, and looks at the accounts: nothing lost, nothing out.
    pub(crate) fn finish(mut self) {
        self.port.stop(std::mem::take(&mut self.queues)).unwrap();
        assert_eq!(self.pool.objects().in_use(), 0, "mbufs still out");
        assert_eq!(self.pool.leaked(), 0, "mbufs leaked");
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
pub(crate) fn bytes_of(mbuf: &Mbuf) -> Vec<u8> {
    let mut bytes = vec![0; mbuf.len_bytes()];
    assert_eq!(mbuf.copy_to(0, &mut bytes), bytes.len());
    bytes
}

/// A frame of `bytes`, in segments of at most 2,000 bytes.
pub(crate) fn mbuf_of(pool: &MbufPool, bytes: &[u8]) -> Mbuf {
    let mut whole: Option<Mbuf> = None;
    for part in bytes.chunks(2000) {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.append(part.len()).unwrap().copy_from_slice(part);
        match &mut whole {
            None => whole = Some(mbuf),
            Some(whole) => whole.chain(mbuf).map_err(|(error, _)| error).unwrap(),
        }
    }
    whole.unwrap()
}
