//! The driver against a device that is only registers and rings: start, both paths, and lies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod device;

use std::sync::Arc;

use device::{DD, EIMS, EOP, MAC, Nic};
use packetboat::mbuf::{
    Burst, Checksum, Mbuf, MbufPool, MbufPoolConfig, TxFlags, TxLengths, TxRequest,
};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::net::MacAddress;
use packetboat::port::{Offloads, Port, PortConfig, Queues, RxQueue, TxQueue};

const MBUFS: usize = 1024;

/// A started port with one queue each way.
struct Rig {
    nic: Nic,
    port: Box<dyn Port>,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    pool: MbufPool,
    _memory: Arc<Memory>,
}

impl Rig {
    fn new(offloads: Offloads) -> Self {
        Self::with_vectors(offloads, 0)
    }

    fn with_vectors(offloads: Offloads, vectors: u16) -> Self {
        let memory = Memory::reserve(&MemoryConfig::no_huge(8)).unwrap();
        let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", MBUFS) };
        let pool = MbufPool::new(&memory, &config).unwrap();
        let nic = Nic::new(&memory);
        nic.offer_vectors(vectors);
        let mut port = packetboat_ixgbe::DRIVER.probe(nic.function(), &memory).unwrap();
        let config = PortConfig {
            number: 7,
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: Some(128),
            tx_descriptors: Some(128),
            offloads,
            ..PortConfig::default()
        };
        port.configure(&config).unwrap();
        let mut queues = port.start(std::slice::from_ref(&pool)).unwrap();
        let (rx, tx) = (queues.rx.remove(0), queues.tx.remove(0));
        Self { nic, port, rx, tx, pool, _memory: memory }
    }

    fn lean() -> Self {
        Self::new(Offloads::default())
    }

    fn full() -> Self {
        Self::new(Offloads {
            rx_checksum: true,
            rx_scatter: true,
            rx_classify: true,
            rx_vlan_strip: true,
            tx_checksum: true,
            tx_segment: true,
            tx_vlan: true,
            ..Offloads::default()
        })
    }

    fn receive(&mut self) -> Burst {
        let mut burst = Burst::new();
        self.rx.receive(&mut burst);
        burst
    }

    fn frame(&self, len: usize, fill: u8) -> Mbuf {
        let mut mbuf = self.pool.alloc().unwrap();
        mbuf.append(len).unwrap().fill(fill);
        mbuf
    }

    fn send(&mut self, frames: impl IntoIterator<Item = Mbuf>) -> usize {
        let mut burst = Burst::new();
        frames.into_iter().for_each(|frame| burst.push(frame).unwrap());
        self.tx.send(&mut burst);
        burst.len()
    }

    /// Stops it: every mbuf is back.
    fn end(mut self) {
        self.port.stop(Queues { rx: vec![self.rx], tx: vec![self.tx] }).unwrap();
        assert_eq!((self.pool.objects().in_use(), self.pool.leaked()), (0, 0));
    }
}

#[test]
fn a_port_starts_moves_frames_and_stops() {
    let mut rig = Rig::lean();
    assert_eq!(rig.port.info().mac, MacAddress(MAC));
    assert_eq!(rig.port.paths(), "rx lean, tx lean");
    assert!(rig.port.link().unwrap().up);
    for round in 0..20_usize {
        for n in 0..40 {
            rig.nic.deliver(0, &vec![(round + n) as u8; 60 + n]);
        }
        let burst = rig.receive();
        assert_eq!(burst.len(), 40);
        for (n, mbuf) in burst.as_slice().iter().enumerate() {
            assert_eq!((mbuf.data(), mbuf.port()), (&vec![(round + n) as u8; 60 + n][..], 7));
        }
        assert_eq!(rig.send((0..40).map(|n| rig.frame(60 + n, n as u8)).collect::<Vec<_>>()), 0);
        let sent = rig.nic.transmit(0);
        assert_eq!(sent, (0..40).map(|n| vec![n as u8; 60 + n]).collect::<Vec<_>>());
    }
    let stats = rig.port.stats();
    assert_eq!((stats.rx_total().packets, stats.tx_total().packets), (800, 800));
    assert_eq!(stats.rx_total().bytes, stats.tx_total().bytes);
    assert_eq!(stats.rx_total().dropped() + stats.tx_total().dropped(), 0);
    rig.end();
}

#[test]
fn interrupts_are_allowed_once_their_messages_can_go_out() {
    let rig = Rig::with_vectors(Offloads::default(), 1);
    assert_ne!(rig.nic.register(EIMS), 0);
    assert_eq!(rig.nic.lost_interrupts(), 0, "a message that is lost is never followed by another");
    rig.end();
}

#[test]
fn an_eeprom_that_does_not_add_up_or_has_no_address_is_refused() {
    let probe = |change: fn(&Nic)| {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let nic = Nic::new(&memory);
        change(&nic);
        packetboat_ixgbe::DRIVER.probe(nic.function(), &memory).map(drop).unwrap_err().to_string()
    };
    let error = probe(|nic| nic.set_eeprom(0x10, 1, false));
    assert!(error.contains("add up to 0xbabb, wanted 0xbaba"), "{error}");
    let error = probe(|nic| {
        nic.set_eeprom(5, 0x3f0, false);
        nic.set_eeprom(0x3f0, 0x4000, true);
    });
    assert!(error.contains("section 5 would reach"), "{error}");
    let error = probe(Nic::pull_out);
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn lengths_that_cannot_be_cost_a_frame_each() {
    for mut rig in [Rig::lean(), Rig::full()] {
        for len in [0, 13, 2049, 0xffff] {
            rig.nic.write_back(0, b"", [0, DD | EOP | len << 32]);
        }
        rig.nic.deliver(0, &[1; 60]);
        assert_eq!(rig.receive().len(), 1);
        assert_eq!(rig.port.stats().rx_total().bad_length, 4);
        rig.end();
    }
}

#[test]
fn parts_of_a_frame_are_dropped_on_the_lean_path_and_joined_on_the_full_one() {
    let part = |last: bool| DD | if last { EOP } else { 0 } | 2048 << 32;
    for (mut rig, joins) in [(Rig::lean(), false), (Rig::full(), true)] {
        rig.nic.deliver(0, &[1; 60]);
        rig.nic.write_back(0, &[2; 2048], [0, part(false)]);
        rig.nic.write_back(0, &[3; 2048], [0, part(false)]);
        assert_eq!(rig.receive().len(), 1, "the rest isn't there yet");
        rig.nic.write_back(0, &[4; 2048], [0x5555_0000_0111, part(true) | 0x60]);
        rig.nic.deliver(0, &[5; 60]);
        let burst = rig.receive();
        let lens: Vec<_> = burst.as_slice().iter().map(Mbuf::len_bytes).collect();
        assert_eq!(lens, if joins { vec![6144, 60] } else { vec![60] });
        if joins {
            let frame = &burst.as_slice()[0];
            assert_eq!((frame.segment_count(), frame.rss_hash()), (3, Some(0x5555)));
            assert_eq!(frame.rx_flags().l4_checksum(), Checksum::Good);
            let mut bytes = vec![0; 6144];
            frame.copy_to(0, &mut bytes);
            assert!([2, 3, 4].iter().zip(bytes.chunks(2048)).all(|(n, part)| part == [*n; 2048]));
        } else {
            assert_eq!(rig.port.stats().rx_total().bad_chain, 1);
        }
        drop(burst);
        rig.end();
    }
}

#[test]
fn a_frame_that_never_ends_is_given_up() {
    let mut rig = Rig::full();
    for _ in 0..8 {
        rig.nic.write_back(0, &[2; 2048], [0, DD | 2048 << 32]);
    }
    assert!(rig.receive().is_empty());
    assert_eq!(rig.port.stats().rx_total().bad_chain, 1);
    rig.nic.write_back(0, &[2; 2048], [0, DD | EOP | 2048 << 32]);
    rig.nic.deliver(0, &[5; 60]);
    assert_eq!(rig.receive().len(), 1);
    rig.end();
}

#[test]
fn what_was_found_out_reaches_the_mbuf() {
    let mut rig = Rig::full();
    let upper = |status: u64| DD | EOP | status | 60 << 32 | 0x2064 << 48;
    rig.nic.write_back(0, &[1; 60], [0xabcd_0000_0111, upper(0x60 | 8)]);
    rig.nic.write_back(0, &[1; 60], [0x0111, upper(0x60 | 1 << 30)]);
    rig.nic.write_back(0, &[1; 60], [0, upper(0)]);
    let burst = rig.receive();
    let [good, bad, plain] = burst.as_slice() else { panic!("{} frames", burst.len()) };
    assert_eq!((good.rss_hash(), good.vlan()), (Some(0xabcd), Some(0x2064)));
    assert_eq!(good.packet_type().to_string(), "ether ipv4 tcp");
    assert_eq!(good.rx_flags().ip_checksum(), Checksum::Good);
    assert_eq!(bad.rx_flags().l4_checksum(), Checksum::Bad);
    assert_eq!((plain.rss_hash(), plain.vlan()), (None, None));
    assert_eq!(plain.rx_flags().ip_checksum(), Checksum::Unknown);
    drop(burst);
    rig.end();
}

#[test]
fn a_device_that_completes_more_than_it_has_gets_nothing() {
    let mut rig = Rig::lean();
    // Every descriptor of the ring, those that it was never given included.
    for index in 0..128 {
        rig.nic.scribble_rx(0, index, [0, DD | EOP | 60 << 32]);
    }
    let burst = rig.receive();
    assert!(burst.len() <= 128);
    drop(burst);
    // It takes back no more than was lent, and goes on lending.
    for _ in 0..4 {
        drop(rig.receive());
    }
    rig.end();
}

#[test]
fn chains_and_requests_go_the_other_way() {
    let mut rig = Rig::full();
    let mut chain = rig.frame(100, 1);
    chain.chain(rig.frame(2000, 2)).unwrap();
    let mut tagged = rig.frame(60, 3);
    tagged.insert_vlan(0x123);
    assert_eq!(rig.send([chain, tagged, rig.frame(60, 5)]), 0);
    let words: Vec<u64> = rig.nic.pending(0).iter().map(|words| words[1]).collect();
    assert_eq!(words.len(), 5, "two, a context and one, one");
    assert_eq!(words[2] >> 20 & 0xf, 2);
    assert_eq!(words[3] >> 30 & 1, 1, "the tag is asked for");
    let sent = rig.nic.transmit(0);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [2100, 60, 60]);
    let mut tcp = rig.frame(2000, 4);
    let lengths = TxLengths::new(14, 20, 20).unwrap().segment(1000);
    tcp.request(TxRequest { flags: TxFlags::IPV4 | TxFlags::TCP_SEGMENT, lengths }).unwrap();
    assert_eq!(rig.send([tcp]), 0);
    let words = rig.nic.pending(0);
    assert_eq!(words[0][1] >> 48, 1000, "the segments' length, in a context");
    assert_eq!(words[1][1] >> 46, 2000 - 54, "the payload behind the headers");
    assert_eq!(words[1][1] >> 31 & 1, 1, "to be cut");
    rig.nic.transmit(0);
    // A plain port sends no tags, and nothing of an impossible length.
    let mut plain = Rig::lean();
    let mut tagged = plain.frame(60, 3);
    tagged.insert_vlan(0x123);
    assert_eq!(plain.send([tagged, plain.frame(16, 1), plain.frame(60, 1)]), 0);
    assert_eq!(plain.nic.transmit(0).len(), 1);
    let stats = plain.port.stats().tx_total();
    assert_eq!((stats.bad_request, stats.bad_length, stats.packets), (1, 1, 1));
    plain.end();
    rig.end();
}

#[test]
fn a_full_ring_refuses_and_goes_on_when_the_device_does() {
    let mut rig = Rig::lean();
    let frames: Vec<_> = (0..128).map(|n| rig.frame(60, n as u8)).collect();
    assert_eq!(rig.send(frames), 1, "one descriptor stays free");
    assert_eq!(rig.send([rig.frame(60, 1)]), 1);
    assert_eq!(rig.nic.transmit(0).len(), 127);
    assert_eq!(rig.send([rig.frame(60, 1)]), 0);
    rig.end();
}

#[test]
fn one_queue_can_be_stopped_and_started() {
    let mut rig = Rig::lean();
    for _ in 0..3 {
        rig.nic.deliver(0, &[1; 60]);
        assert_eq!(rig.receive().len(), 1);
        assert_eq!(rig.send([rig.frame(60, 1)]), 0);
        assert_eq!(rig.nic.transmit(0).len(), 1);
        rig.port.run_rx(rig.rx.as_mut(), false).unwrap();
        rig.port.run_tx(rig.tx.as_mut(), false).unwrap();
        assert_eq!(rig.nic.register(device::RXDCTL) >> 25 & 1, 0);
        assert!(rig.receive().is_empty());
        assert_eq!(rig.send([rig.frame(60, 1)]), 1);
        rig.port.run_rx(rig.rx.as_mut(), true).unwrap();
        rig.port.run_tx(rig.tx.as_mut(), true).unwrap();
    }
    rig.end();
}

#[test]
fn filters_light_registers_and_statistics() {
    let mut rig = Rig::lean();
    let other = MacAddress([2, 0, 0, 0, 0, 9]);
    rig.port.filter_mac(other, true).unwrap();
    assert_eq!(rig.nic.register(0xa20c), 0x8000_0900);
    rig.port.filter_mac(other, false).unwrap();
    assert_eq!(rig.nic.register(0xa20c), 0);
    rig.port.filter_vlan(100, true).unwrap();
    assert_eq!((rig.nic.register(0xa00c), rig.nic.register(0x5088)), (1 << 4, 0x4000_8100));
    assert!(rig.port.filter_vlan(4095, true).is_err());
    rig.port.set_promiscuous(true).unwrap();
    assert_eq!(rig.nic.register(0x5080), 0x700);
    rig.port.identify(true).unwrap();
    rig.port.identify(false).unwrap();
    assert_eq!(rig.nic.register(0x200), 0);
    rig.nic.set_register(0x4074, 5);
    let counted = rig.port.extended_stats();
    assert!(counted.iter().any(|(name, count)| name == "rx_good_packets" && *count == 5));
    let registers = rig.port.registers().unwrap();
    assert!(registers.iter().any(|register| register.name == "RDLEN[0]" && register.value == 2048));
    assert!(!registers.iter().any(|register| register.name == "GPRC"), "reading it would clear it");
    rig.end();
}

#[test]
fn a_device_that_is_gone_is_a_fault_and_gives_all_back() {
    let mut rig = Rig::lean();
    rig.nic.deliver(0, &[1; 60]);
    rig.nic.pull_out();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(rig.port.fault().unwrap().contains("gone"));
    assert!(rig.port.removed());
    assert_eq!(rig.receive().len(), 1, "what is in memory is there");
    rig.end();
}
