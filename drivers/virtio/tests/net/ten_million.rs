//! Forwarding between two ports for long, with rings and pools as small as they can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use packetboat::mbuf::{Burst, MbufPool, MbufPoolConfig};
use packetboat::port::{Port, Queues};
use packetboat_virtio::DRIVER;

use crate::device::{NetDevice, Options};
use crate::rig::{config, memory};

/// Two ports on one pool, as an application has them.
struct Bridge {
    devices: [NetDevice; 2],
    ports: [Box<dyn Port>; 2],
    pool: MbufPool,
}

impl Bridge {
    fn new(mbufs: usize, descriptors: u16) -> (Self, [Queues; 2]) {
        let memory = memory();
        let devices = ["0000:00:00.0", "0000:00:01.0"]
            .map(|name| NetDevice::new(&memory, Options { name, ..Options::default() }));
        let config_of = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", mbufs) };
        let pool = MbufPool::new(&memory, &config_of).unwrap();
        let mut ports =
            [0, 1].map(|number| DRIVER.probe(devices[number].function(), &memory).unwrap());
        let queues = [0, 1].map(|number| {
            ports[number].configure(&config(1, descriptors, descriptors)).unwrap();
            ports[number].start(std::slice::from_ref(&pool)).unwrap()
        });
        (Self { devices, ports, pool }, queues)
    }

    /// Stops, and compares all accounts: `sent` and `arrived` frames from and at each wire.
    fn settle(mut self, queues: [Queues; 2], sent: [u64; 2], arrived: [u64; 2]) {
        for (number, queues) in queues.into_iter().enumerate() {
            self.ports[number].stop(queues).unwrap();
            let stats = self.ports[number].stats();
            let (rx, tx) = (stats.rx_total(), stats.tx_total());
            assert_eq!(rx.packets, sent[number]);
            assert_eq!(tx.packets, arrived[number]);
            assert_eq!(rx.dropped() + tx.dropped(), 0);
        }
        assert_eq!(sent, [arrived[1], arrived[0]], "lost between the ports");
        assert_eq!((self.pool.objects().in_use(), self.pool.leaked()), (0, 0));
        for device in &self.devices {
            assert_eq!(device.violations(), Vec::<String>::new());
        }
    }
}

/// What an application's lcore does in one round. What can't be sent waits in its burst.
fn forward(queues: &mut [Queues; 2], waiting: &mut [Burst; 2]) {
    for (from, burst) in waiting.iter_mut().enumerate() {
        if burst.is_empty() {
            queues[from].rx[0].receive(burst);
        }
        queues[1 - from].tx[0].send(burst);
    }
}

/// Frames of one direction: numbered, of mixed lengths, checked where they arrive.
#[derive(Default)]
struct Stream {
    buffer: Vec<u8>,
    sent: u64,
    arrived: u64,
}

impl Stream {
    fn len_of(number: u64) -> usize {
        // 60 to 1514, mostly short.
        if number.is_multiple_of(16) { 60 + (number / 16 % 1455) as usize } else { 60 }
    }

    /// Makes the next frame ready in the buffer.
    fn prepare(&mut self) {
        self.buffer.resize(Self::len_of(self.sent), 0);
        self.buffer[..8].copy_from_slice(&self.sent.to_le_bytes());
        let last = self.buffer.len() - 1;
        self.buffer[last] = self.sent as u8 ^ 0x5a;
    }

    fn check(&mut self, frame: &[u8]) {
        assert_eq!(frame[..8], self.arrived.to_le_bytes(), "lost, doubled or out of order");
        assert_eq!(frame.len(), Self::len_of(self.arrived));
        assert_eq!(frame[frame.len() - 1], self.arrived as u8 ^ 0x5a);
        self.arrived += 1;
    }

    /// The wire at `from` gives what there is room for, up to `total`; the one at `to` takes.
    fn run(&mut self, from: &NetDevice, to: &NetDevice, total: u64) {
        while self.sent < total {
            self.prepare();
            if !from.receive(0, &self.buffer) {
                break;
            }
            self.sent += 1;
        }
        to.transmit(0, usize::MAX, |frame| self.check(frame));
    }
}

/// `total` frames in all, device and driver taking turns.
fn take_turns(total: u64, mbufs: usize, descriptors: u16) -> Duration {
    let (bridge, mut queues) = Bridge::new(mbufs, descriptors);
    let [left, right] = &bridge.devices;
    let mut streams = [Stream::default(), Stream::default()];
    let mut waiting = [Burst::with_limit(2), Burst::with_limit(2)];
    let start = Instant::now();
    let (mut idle, mut before) = (0, 0);
    while streams.iter().any(|stream| stream.arrived < total / 2) {
        streams[0].run(left, right, total / 2);
        streams[1].run(right, left, total / 2);
        forward(&mut queues, &mut waiting);
        let arrived = streams[0].arrived + streams[1].arrived;
        idle = if arrived == before { idle + 1 } else { 0 };
        assert!(idle < 1_000, "deadlock after {arrived} frames: {:?}", bridge.pool);
        before = arrived;
    }
    let took = start.elapsed();
    let (sent, arrived) =
        (streams.each_ref().map(|s| s.sent), [streams[1].arrived, streams[0].arrived]);
    bridge.settle(queues, sent, arrived);
    took
}

/// Two receive rings of 2, and one more mbuf: all that is between a deadlock and going on.
#[test]
fn the_smallest_rings_and_pools_go_on_for_ever() {
    for mbufs in [5, 6, 8, 12] {
        take_turns(20_000, mbufs, 2);
    }
    take_turns(20_000, 32, 4);
}

#[test]
#[ignore = "in release: cargo test --release -p packetboat-virtio -- --ignored ten_million"]
fn ten_million_frames_through_the_smallest_rings() {
    const FRAMES: u64 = 10_000_000;
    let took = take_turns(FRAMES, 6, 2);
    println!("{FRAMES} frames in {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Device and driver on threads of their own: what single turns can't show, the order in which
/// each sees the other's writes.
#[test]
fn device_and_driver_at_the_same_time() {
    const FRAMES: u64 = 200_000;
    let (bridge, mut queues) = Bridge::new(300, 64);
    let stop = Arc::new(AtomicBool::new(false));
    let wires = {
        let (devices, stop) = (bridge.devices.clone(), stop.clone());
        std::thread::spawn(move || {
            let [left, right] = &devices;
            let mut streams = [Stream::default(), Stream::default()];
            let limit = Instant::now() + Duration::from_secs(50);
            // As many as get through in the time; at least some, or it's a deadlock.
            while streams.iter().any(|stream| stream.arrived < FRAMES / 2) {
                let total = if Instant::now() < limit { FRAMES / 2 } else { 0 };
                streams[0].run(left, right, total);
                streams[1].run(right, left, total);
                let done = streams.iter().all(|stream| stream.arrived == stream.sent);
                if total == 0 && done {
                    break;
                }
                assert!(Instant::now() < limit + Duration::from_secs(10), "frames are stuck");
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Release);
            streams
        })
    };
    let mut waiting = [Burst::with_limit(32), Burst::with_limit(32)];
    while !stop.load(Ordering::Acquire) && !wires.is_finished() {
        forward(&mut queues, &mut waiting);
        std::thread::yield_now();
    }
    let streams = wires.join().unwrap();
    assert!(streams.iter().all(|stream| stream.arrived > 1_000), "hardly any got through");
    bridge.settle(
        queues,
        streams.each_ref().map(|s| s.sent),
        [streams[1].arrived, streams[0].arrived],
    );
}
