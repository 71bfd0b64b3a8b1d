//! A device that lies as the input says: its registers read as anything, its descriptors come back
//! as anything. The driver must not panic, loop, or lose an mbuf.
#![no_main]

#[path = "../../drivers/ixgbe/tests/device/mod.rs"]
mod device;

use libfuzzer_sys::fuzz_target;
use packetboat::mbuf::{Burst, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Offloads, PortConfig, Queues};

/// Bytes of the input, one after the other; zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", 256) };
    let pool = MbufPool::new(&memory, &config).unwrap();
    let nic = device::Nic::new(&memory);
    let choice = input.byte();
    let Ok(mut port) = packetboat_ixgbe::DRIVER.probe(nic.function(), &memory) else { return };
    let full = choice & 1 != 0;
    let offloads = Offloads {
        rx_checksum: full,
        rx_scatter: full,
        rx_vlan_strip: full,
        rx_classify: full,
        ..Offloads::default()
    };
    let config = PortConfig {
        number: 0,
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: Some(64),
        tx_descriptors: Some(64),
        offloads,
        ..PortConfig::default()
    };
    port.configure(&config).unwrap();
    // Registers that lie while it starts: an error at worst.
    if choice & 2 != 0 {
        let lies: Vec<u32> = (0..input.byte()).map(|_| input.word() as u32).collect();
        nic.lie(lies);
    }
    let started = port.start(std::slice::from_ref(&pool));
    nic.lie([]);
    let Ok(mut queues) = started else {
        assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
        return;
    };
    let mut burst = Burst::with_limit(32);
    while !input.0.is_empty() {
        let index = u64::from(input.byte());
        match input.byte() % 8 {
            0..=2 => nic.scribble_rx(0, index, [input.word(), input.word()]),
            3 => nic.scribble_tx(0, index, [input.word(), input.word()]),
            4 => nic.write_back(0, &[index as u8; 60], [input.word(), input.word()]),
            5 => {
                for _ in 0..index % 40 {
                    let Some(mut mbuf) = pool.alloc() else { break };
                    let len = usize::from(input.byte()) * 8;
                    if mbuf.append(len).is_ok() {
                        let _ = burst.push(mbuf);
                    }
                }
                queues.tx[0].send(&mut burst);
                burst.clear();
            }
            6 => {
                nic.lie((0..index % 16).map(|n| (input.word() >> n) as u32).collect::<Vec<_>>());
                let _ = (port.link(), port.fault(), port.extended_stats());
                nic.lie([]);
            }
            _ => {
                queues.rx[0].receive(&mut burst);
                for mbuf in burst.as_slice() {
                    assert!(mbuf.len_bytes() <= 9728 && mbuf.segment_count() <= 64);
                    let sum: usize = mbuf.segments().map(<[u8]>::len).sum();
                    assert_eq!(sum, mbuf.len_bytes());
                }
                burst.clear();
                queues.tx[0].reclaim();
            }
        }
    }
    port.stop(Queues { rx: queues.rx, tx: queues.tx }).unwrap();
    drop(burst);
    assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
});
