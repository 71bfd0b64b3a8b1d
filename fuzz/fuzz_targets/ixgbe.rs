//! A device that lies as the input says: its registers read as anything, its descriptors come back
//! as anything. The driver must not panic, loop, or lose an mbuf.
#![no_main]

#[path = "../../drivers/ixgbe/tests/device/mod.rs"]
mod device;

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig, TxFlags, TxLengths, TxRequest};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::net::MacAddress;
use packetboat::port::{FlowControl, Offloads, Port, PortConfig, Queues};

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

    /// Up to `most` values that registers shall have.
    fn lies(&mut self, most: u8) -> Vec<u32> {
        (0..self.byte().min(most)).map(|_| self.word() as u32).collect()
    }
}

/// Asks for anything; what the mbuf itself refuses isn't asked.
fn ask(mbuf: &mut Mbuf, input: &mut Input<'_>) {
    let mut flags = TxFlags::NONE;
    let choice = input.byte();
    for (bit, flag) in [
        TxFlags::IPV4,
        TxFlags::IPV6,
        TxFlags::IP_CHECKSUM,
        TxFlags::TCP_CHECKSUM,
        TxFlags::SCTP_CHECKSUM,
        TxFlags::TCP_SEGMENT,
        TxFlags::UDP_SEGMENT,
        TxFlags::OUTER_IP_CHECKSUM,
    ]
    .into_iter()
    .enumerate()
    {
        if choice >> bit & 1 != 0 {
            flags |= flag;
        }
    }
    let lengths = input.word().to_le_bytes();
    let [l2, l3, l4, segment_low, segment_high, tag, ..] = lengths;
    if let Some(lengths) = TxLengths::new(l2 & 0x7f, l3.into(), l4) {
        let lengths = lengths.segment(u16::from_le_bytes([segment_low, segment_high]));
        let _ = mbuf.request(TxRequest { flags, lengths });
        let _ = mbuf.prepare_checksums();
    }
    match tag % 8 {
        0 => mbuf.insert_vlan(tag.into()),
        1 => mbuf.insert_qinq(tag.into(), 1),
        _ => {}
    }
}

/// What the control side may be asked at any time.
fn control(port: &mut dyn Port, queues: &mut Queues, choice: u8) {
    let on = choice & 1 != 0;
    match choice >> 1 & 7 {
        0 => drop(port.set_promiscuous(on)),
        1 => drop(port.filter_mac(MacAddress([2, 0, 0, 0, 0, choice]), on)),
        2 => drop(port.filter_mac(MacAddress([3, 0, 0, 0, 0, choice]), on)),
        3 => drop(port.filter_vlan(choice.into(), on)),
        4 => drop(port.set_flow_control(FlowControl { heed: on, send: !on })),
        5 => drop((port.identify(on), port.registers())),
        6 => drop(port.run_rx(queues.rx[0].as_mut(), on)),
        _ => drop(port.run_tx(queues.tx[0].as_mut(), on)),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    // Made once: each run leaves them as it found them, or fails.
    static MADE: OnceLock<(Arc<Memory>, MbufPool)> = OnceLock::new();
    let (memory, pool) = MADE.get_or_init(|| {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", 256) };
        let pool = MbufPool::new(&memory, &config).unwrap();
        (memory, pool)
    });
    let nic = device::Nic::new(memory);
    let choice = input.byte();
    // Registers that lie while it is found and while it starts: an error at worst.
    if choice & 4 != 0 {
        nic.lie(input.lies(255));
    }
    let Ok(mut port) = packetboat_ixgbe::DRIVER.probe(nic.function(), memory) else { return };
    let full = choice & 1 != 0;
    let offloads = Offloads {
        rx_checksum: full,
        rx_scatter: full,
        rx_vlan_strip: full,
        rx_classify: full,
        tx_checksum: full,
        tx_segment: full,
        tx_vlan: full,
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
    if choice & 2 != 0 {
        nic.lie(input.lies(255));
    }
    let started = port.start(std::slice::from_ref(pool));
    nic.lie([]);
    let Ok(mut queues) = started else {
        assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
        return;
    };
    let mut burst = Burst::with_limit(32);
    while !input.0.is_empty() {
        let index = u64::from(input.byte());
        match input.byte() % 12 {
            0..=2 => nic.scribble_rx(0, index, [input.word(), input.word()]),
            3 => nic.scribble_tx(0, index, [input.word(), input.word()]),
            4 => nic.write_back(0, &[index as u8; 60], [input.word(), input.word()]),
            5 | 6 => {
                for _ in 0..index % 40 {
                    let Some(mut mbuf) = pool.alloc() else { break };
                    let len = usize::from(input.byte()) * 8;
                    if mbuf.append(len).is_err() {
                        continue;
                    }
                    if len % 3 == 1
                        && let Some(mut part) = pool.alloc()
                        && part.append(len).is_ok()
                    {
                        let _ = mbuf.chain(part);
                    }
                    if index & 64 != 0 {
                        ask(&mut mbuf, &mut input);
                    }
                    let _ = burst.push(mbuf);
                }
                queues.tx[0].send(&mut burst);
                burst.clear();
            }
            7 => {
                nic.lie(input.lies(16));
                let _ = (port.link(), port.fault(), port.extended_stats(), port.link_changed());
                nic.lie([]);
            }
            8 => {
                // Time passes: whatever hangs is noticed.
                for _ in 0..index {
                    let _ = port.fault();
                }
            }
            9 => {
                nic.lie(input.lies(64));
                control(port.as_mut(), &mut queues, index as u8);
                nic.lie([]);
            }
            10 => drop(nic.transmit(0)),
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
    // A port that hangs is started anew, as l2fwd does it.
    port.stop(queues).unwrap();
    drop(burst);
    assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
    if choice & 8 != 0
        && let Ok(queues) = port.start(std::slice::from_ref(pool))
    {
        port.stop(queues).unwrap();
        assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
    }
});
