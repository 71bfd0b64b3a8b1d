//! Ports and queues over real mbufs with no device behind them, for tests.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::net::MacAddress;
use packetboat::port::{
    DescriptorLimits, Link, Port, PortConfig, PortError, PortInfo, PortStats, Queues, RxQueue,
    TxQueue,
};

/// A pool of `count` mbufs in normal memory.
pub(crate) fn pool(count: usize) -> MbufPool {
    let memory = Memory::reserve(&MemoryConfig::no_huge(4)).unwrap();
    let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("test", count) };
    MbufPool::new(&memory, &config).unwrap()
}

/// A frame that tells where it came from, of a length between 60 and 1514 bytes.
pub(crate) fn frame(port: usize, number: usize) -> Vec<u8> {
    let len = 60 + number * 97 % 1455;
    (0..len).map(|at| (at * 7 + number * 31 + port * 101) as u8).collect()
}

/// Waits for something that happens within seconds.
pub(crate) fn wait_until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "it didn't happen within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What is outside of a port.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    arriving: VecDeque<Vec<u8>>,
    /// Sent, not fetched back: at most `slots`.
    in_flight: VecDeque<Mbuf>,
    slots: usize,
    held: bool,
    sent: Vec<Vec<u8>>,
}

impl Wire {
    /// A port whose transmit queue has `slots` descriptors.
    pub(crate) fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            arriving: VecDeque::new(),
            in_flight: VecDeque::new(),
            slots,
            held: false,
            sent: Vec::new(),
        })))
    }

    /// A frame comes in.
    pub(crate) fn arrive(&self, frame: Vec<u8>) {
        self.state().arriving.push_back(frame);
    }

    /// Nothing that was sent is done with until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    /// The device goes on.
    pub(crate) fn release(&self) {
        self.state().held = false;
    }

    /// Frames that went out so far.
    pub(crate) fn sent_len(&self) -> usize {
        self.state().sent.len()
    }

    /// Those frames.
    pub(crate) fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().sent)
    }

    /// The port's receive queue.
    pub(crate) fn rx(&self, pool: &MbufPool) -> Box<dyn RxQueue> {
        Box::new(Rx { wire: self.clone(), pool: pool.clone() })
    }

    /// The port's transmit queue.
    pub(crate) fn tx(&self) -> Box<dyn TxQueue> {
        Box::new(Tx { wire: self.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug)]
struct Rx {
    wire: Wire,
    pool: MbufPool,
}

impl RxQueue for Rx {
    fn receive(&mut self, burst: &mut Burst) {
        let mut state = self.wire.state();
        while burst.room() > 0 && !state.arriving.is_empty() {
            let Some(mut mbuf) = self.pool.alloc() else { return };
            let Some(frame) = state.arriving.pop_front() else { return };
            mbuf.append(frame.len()).unwrap().copy_from_slice(&frame);
            burst.push(mbuf).unwrap();
        }
    }
}

#[derive(Debug)]
struct Tx {
    wire: Wire,
}

impl TxQueue for Tx {
    fn send(&mut self, burst: &mut Burst) {
        self.reclaim();
        let mut state = self.wire.state();
        while state.in_flight.len() < state.slots {
            let Some(mbuf) = burst.pop_front() else { return };
            state.sent.push(mbuf.data().to_vec());
            state.in_flight.push_back(mbuf);
        }
    }

    fn reclaim(&mut self) {
        let mut state = self.wire.state();
        if !state.held {
            state.in_flight.clear();
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.wire.state().in_flight.clear();
    }
}

/// What can happen to a port from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    /// Its link is down.
    pub(crate) unplugged: Arc<AtomicBool>,
    /// The kernel wants it back.
    pub(crate) removed: Arc<AtomicBool>,
    /// What it did that it shouldn't.
    pub(crate) faulty: Arc<AtomicBool>,
    /// It won't start.
    pub(crate) broken: Arc<AtomicBool>,
    /// It can't be stopped.
    pub(crate) stuck: Arc<AtomicBool>,
    /// It runs.
    pub(crate) started: Arc<AtomicBool>,
}

/// Sets a fate.
pub(crate) fn set(fate: &AtomicBool, value: bool) {
    fate.store(value, Ordering::SeqCst);
}

/// Reads a fate.
pub(crate) fn is(fate: &AtomicBool) -> bool {
    fate.load(Ordering::SeqCst)
}

/// A port on a wire.
#[derive(Debug)]
pub(crate) struct TestPort {
    wire: Wire,
    fate: Fate,
    number: u16,
}

impl TestPort {
    /// A port that is stopped.
    pub(crate) fn new(number: u16, wire: &Wire, fate: &Fate) -> Self {
        Self { wire: wire.clone(), fate: fate.clone(), number }
    }

    fn error(&self, what: &str) -> PortError {
        PortError::Device { device: format!("test{}", self.number), what: what.to_owned() }
    }
}

impl Port for TestPort {
    fn info(&self) -> PortInfo {
        let limits = DescriptorLimits { min: 1, max: 64, default: 64, power_of_two: true };
        PortInfo {
            device: format!("test{}", self.number),
            driver: "test",
            mac: MacAddress([2, 0, 0, 0, 9, self.number as u8]),
            node: None,
            max_rx_queues: 1,
            max_tx_queues: 1,
            rx_descriptors: limits,
            tx_descriptors: limits,
            max_frame_bytes: 1514,
        }
    }

    fn configure(&mut self, _: &PortConfig) -> Result<(), PortError> {
        Ok(())
    }

    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
        if is(&self.fate.broken) {
            return Err(self.error("won't start"));
        }
        set(&self.fate.started, true);
        Ok(Queues { rx: vec![self.wire.rx(&pools[0])], tx: vec![self.wire.tx()] })
    }

    fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
        set(&self.fate.started, false);
        if is(&self.fate.stuck) {
            // As a driver does whose device goes on with what it was lent.
            std::mem::forget(queues);
            return Err(self.error("can't be reset"));
        }
        Ok(())
    }

    fn link(&mut self) -> Result<Link, PortError> {
        Ok(Link { up: !is(&self.fate.unplugged), speed_mbps: None, full_duplex: None })
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        if on {
            return Err(self.error("can't be promiscuous"));
        }
        Ok(())
    }

    fn set_all_multicast(&mut self, _: bool) -> Result<(), PortError> {
        Ok(())
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }

    fn fault(&self) -> Option<String> {
        is(&self.fate.faulty).then(|| "it claims what can't be".to_owned())
    }

    fn removed(&self) -> bool {
        is(&self.fate.removed)
    }
}

/// What a console writes to, to be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    /// For the console.
    pub(crate) fn writer(&self) -> Box<dyn Write> {
        Box::new(self.clone())
    }

    /// What was written since the last time.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
