//! Receives, rewrites and sends bursts of 32 frames between two ports whose rings are always full,
//! for callgrind to count. `bench-ixgbe-loop [TURNS] [full]`.
//!
//! The devices move frames within the writes of tail registers, which are one call for a burst:
//! what is counted in `<… as RegionIo>::write` is theirs and is to be left out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench: what goes wrong ends it")]

#[path = "../../../drivers/ixgbe/tests/device/mod.rs"]
mod device;

use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Offloads, Port, PortConfig, Queues, RxQueue, TxQueue};
use packetboat::sys::lcore_id::LcoreClaim;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let turns: usize = arguments.next().map_or(10_000, |turns| turns.parse().unwrap());
    let full = arguments.next().is_some_and(|path| path == "full");
    let _lcore = LcoreClaim::claim(1).expect("no other lcore is this one");
    let memory = Memory::reserve(&MemoryConfig::no_huge(16)).unwrap();
    let pool = MbufPool::new(&memory, &MbufPoolConfig::new("mbufs", 4096)).unwrap();
    let mut ports: Vec<(Box<dyn Port>, Queues, device::Nic)> = (0..2)
        .map(|number| {
            let nic = device::Nic::new(&memory);
            nic.fill_rings(&[number as u8; 60]);
            let mut port = packetboat_ixgbe::DRIVER.probe(nic.function(), &memory).unwrap();
            let offloads = match full {
                true => Offloads {
                    rx_checksum: true,
                    rx_scatter: true,
                    tx_checksum: true,
                    ..Offloads::default()
                },
                false => Offloads::default(),
            };
            let config = PortConfig {
                number,
                rx_queues: 1,
                tx_queues: 1,
                offloads,
                ..PortConfig::default()
            };
            port.configure(&config).unwrap();
            let queues = port.start(std::slice::from_ref(&pool)).unwrap();
            (port, queues, nic)
        })
        .collect();
    let mut rx: Vec<Box<dyn RxQueue>> = ports.iter_mut().map(|(_, q, _)| q.rx.remove(0)).collect();
    let mut tx: Vec<Box<dyn TxQueue>> = ports.iter_mut().map(|(_, q, _)| q.tx.remove(0)).collect();
    let mut burst = Burst::with_limit(32);
    let addresses = std::hint::black_box([2, 0, 0, 0, 0, 1, 2, 0x50, 0x42, 0, 0, 7]);
    let mut frames = 0;
    for _ in 0..turns {
        for (from, to) in [(0, 1), (1, 0)] {
            frames += forward(rx[from].as_mut(), tx[to].as_mut(), &mut burst, &addresses);
        }
    }
    println!("{frames} frames");
    for ((port, _, nic), (rx, tx)) in ports.iter_mut().zip(rx.into_iter().zip(tx)) {
        println!("{} {:?}", port.paths(), nic.moved());
        port.stop(Queues { rx: vec![rx], tx: vec![tx] }).unwrap();
    }
}

/// One burst from one port to the other.
#[inline(never)]
fn forward(
    rx: &mut dyn RxQueue,
    tx: &mut dyn TxQueue,
    burst: &mut Burst,
    addresses: &[u8; 12],
) -> usize {
    rx.receive(burst);
    let frames = burst.len();
    for frame in burst.iter_mut() {
        rewrite(frame, addresses);
    }
    tx.send(burst);
    assert!(burst.is_empty(), "a full ring");
    frames
}

/// As l2fwd does it: both addresses in one go, known only when it runs.
#[inline(always)]
fn rewrite(frame: &mut Mbuf, addresses: &[u8; 12]) {
    if let Some(data) = frame.data_mut()
        && let Some(header) = data.first_chunk_mut::<14>()
        && let Some((place, _)) = header.split_first_chunk_mut()
    {
        *place = *addresses;
    }
}
