//! A port of the driver on a softnic of this process, and the other end of its cable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use packetboat::bus::vfio_user::Server;
use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Offloads, Port, PortConfig, QueueStats, Queues, RxQueue, TxQueue};
use packetboat_softnic::control::Control;
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;
use packetboat_softnic::wire::{FrameBuffer, Wire};

use crate::client::Softnic;

/// Softnic's own address.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MBUFS: usize = 2048;

/// The test's end of the cable.
#[derive(Clone, Default)]
pub(crate) struct Cable(Arc<Mutex<Frames>>);

#[derive(Default)]
struct Frames {
    to_nic: VecDeque<Vec<u8>>,
    from_nic: Vec<Vec<u8>>,
}

impl Cable {
    pub(crate) fn put(&self, frame: Vec<u8>) {
        self.0.lock().unwrap().to_nic.push_back(frame);
    }

    /// What came out of the NIC since this was asked last.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap().from_nic)
    }

    /// Frames that the NIC hasn't looked at yet.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().to_nic.len()
    }
}

/// The NIC's end.
struct Plug {
    cable: Cable,
    out: FrameBuffer,
    front: Option<Vec<u8>>,
}

impl Wire for Plug {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        Some(&mut self.out)
    }

    fn commit(&mut self) {
        self.cable.0.lock().unwrap().from_nic.push(self.out.bytes().to_vec());
    }

    fn front(&mut self) -> Option<&[u8]> {
        if self.front.is_none() {
            self.front = self.cable.0.lock().unwrap().to_nic.pop_front();
        }
        self.front.as_deref()
    }

    fn pop(&mut self) {
        self.front = None;
    }

    fn discard(&mut self) {} // what is on the cable stays there

    fn patience(&self) -> Duration {
        Duration::from_millis(1)
    }
}

/// What a rig is to be like.
pub(crate) struct Setup {
    pub(crate) config: PortConfig,
    pub(crate) when_full: WhenFull,
    /// Softnic moves frames by itself, in a thread; else whenever the test looks.
    pub(crate) moving: bool,
    pub(crate) share_pages: bool,
}

impl Setup {
    pub(crate) fn new(offloads: Offloads) -> Self {
        let config = PortConfig {
            number: 3,
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: Some(128),
            tx_descriptors: Some(128),
            offloads,
            ..PortConfig::default()
        };
        Self { config, when_full: WhenFull::Drop, moving: false, share_pages: true }
    }

    pub(crate) fn queues(mut self, count: u16) -> Self {
        (self.config.rx_queues, self.config.tx_queues) = (count, count);
        self
    }

    pub(crate) fn mtu(mut self, mtu: u16) -> Self {
        self.config.mtu = Some(mtu);
        self
    }

    pub(crate) fn interrupts(mut self) -> Self {
        self.config.rx_interrupts = true;
        self
    }

    pub(crate) fn moving(mut self) -> Self {
        self.moving = true;
        self
    }

    pub(crate) fn start(self) -> Rig {
        let memory = Memory::reserve(&MemoryConfig::no_huge(8)).unwrap();
        let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", MBUFS) };
        let pool = MbufPool::new(&memory, &config).unwrap();
        let cable = Cable::default();
        let plug = Box::new(Plug { cable: cable.clone(), out: FrameBuffer::new(), front: None });
        let manner = Manner { share_pages: self.share_pages, busy: false };
        let mut softnic = Softnic::plugged(plug, self.when_full, manner, false);
        if self.moving {
            softnic.move_frames();
        }
        let socket = softnic.folder.path().join("s");
        let device = Arc::new(Server::connect(&socket).unwrap()).open(&memory).unwrap();
        let mut port = packetboat_ixgbe::DRIVER.probe(Box::new(device), &memory).unwrap();
        port.configure(&self.config).unwrap();
        let pools = vec![pool.clone(); usize::from(self.config.rx_queues)];
        let Queues { rx, tx } = port.start(&pools).unwrap();
        let moving = self.moving;
        Rig { port, rx, tx, pool, softnic, cable, moving, _memory: memory }
    }
}

/// A started port.
pub(crate) struct Rig {
    pub(crate) port: Box<dyn Port>,
    pub(crate) rx: Vec<Box<dyn RxQueue>>,
    pub(crate) tx: Vec<Box<dyn TxQueue>>,
    pub(crate) pool: MbufPool,
    pub(crate) softnic: Softnic,
    pub(crate) cable: Cable,
    moving: bool,
    _memory: Arc<Memory>,
}

impl Rig {
    pub(crate) fn new(offloads: Offloads) -> Self {
        Setup::new(offloads).start()
    }

    /// Until nothing moves any more.
    pub(crate) fn settle(&self) {
        if self.moving {
            return;
        }
        while self.softnic.nic.device().poll() > 0 {}
    }

    /// A command of the control socket.
    pub(crate) fn say(&self, line: &str) -> String {
        let control = Control::new(vec![self.softnic.nic.clone()]);
        control.command(&line.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// A register of softnic, read as software would.
    pub(crate) fn register(&self, offset: u32) -> u32 {
        self.softnic.nic.device().read_register(offset)
    }

    /// Puts a frame on the cable.
    pub(crate) fn deliver(&self, frame: Vec<u8>) {
        self.cable.put(frame);
        self.settle();
    }

    /// Everything that a queue has.
    pub(crate) fn receive(&mut self, queue: usize) -> Vec<Mbuf> {
        let mut found = Vec::new();
        loop {
            self.settle();
            let mut burst = Burst::new();
            self.rx[queue].receive(&mut burst);
            if burst.is_empty() {
                return found;
            }
            while let Some(mbuf) = burst.pop_front() {
                found.push(mbuf);
            }
        }
    }

    /// What queue 0 makes of one frame: none, if it isn't received.
    pub(crate) fn received(&mut self, frame: Vec<u8>) -> Option<Mbuf> {
        self.deliver(frame);
        let mut found = self.receive(0);
        assert!(found.len() <= 1);
        found.pop()
    }

    /// An mbuf with `bytes`.
    pub(crate) fn mbuf(&self, bytes: &[u8]) -> Mbuf {
        let mut mbuf = self.pool.alloc().unwrap();
        mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        mbuf
    }

    /// A chain: the first mbuf has `first` bytes, and each of the others up to `rest`.
    pub(crate) fn chain(&self, bytes: &[u8], first: usize, rest: usize) -> Mbuf {
        let (head, tail) = bytes.split_at(first.min(bytes.len()));
        let mut mbuf = self.mbuf(head);
        for part in tail.chunks(rest) {
            mbuf.chain(self.mbuf(part)).unwrap();
        }
        mbuf
    }

    /// Sends, and waits until all has left.
    pub(crate) fn send(&mut self, queue: usize, frames: impl IntoIterator<Item = Mbuf>) {
        let mut burst = Burst::new();
        frames.into_iter().for_each(|frame| burst.push(frame).unwrap());
        self.tx[queue].send(&mut burst);
        assert!(burst.is_empty(), "no room for {} frames", burst.len());
        self.settle();
    }

    /// What comes out of the cable for one frame.
    pub(crate) fn sent(&mut self, frame: Mbuf) -> Vec<Vec<u8>> {
        self.send(0, [frame]);
        self.cable.take()
    }

    pub(crate) fn tx_stats(&self) -> QueueStats {
        self.port.stats().tx_total()
    }

    /// Stops the port and starts it again; every mbuf is back in between.
    pub(crate) fn restart(&mut self) {
        let queues = Queues { rx: std::mem::take(&mut self.rx), tx: std::mem::take(&mut self.tx) };
        let count = queues.rx.len();
        self.port.stop(queues).unwrap();
        assert_eq!(self.pool.objects().in_use(), 0);
        let Queues { rx, tx } = self.port.start(&vec![self.pool.clone(); count]).unwrap();
        (self.rx, self.tx) = (rx, tx);
    }

    /// Stops it: every mbuf is back.
    pub(crate) fn end(self) {
        let Self { mut port, rx, tx, pool, .. } = self;
        port.stop(Queues { rx, tx }).unwrap();
        assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
    }
}

/// The data of a frame in however many mbufs.
pub(crate) fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

/// Waits for something that happens within seconds.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}
