//! Checksums and long TCP frames, through the header in front of each frame (virtio 1.3, 5.1.6).

use packetboat::mbuf::{Burst, Checksum, Mbuf, MbufPool, RxFlags, TxFlags, TxLengths, TxRequest};
use packetboat::net::{InternetSum, ipv4_pseudo_header, ipv6_pseudo_header};
use packetboat::port::Offloads;

use crate::backend::{
    ALL, F_CSUM, F_GUEST_CSUM, F_GUEST_TSO, F_HOST_TSO, F_MRG_RXBUF, HEADER_BYTES, OFFLOADS,
};
use crate::loopback::all_kinds;
use crate::rig::{Rig, Setup, bytes_of, frame, mbuf_of, memory, none, probe};

fn everything() -> Offloads {
    Offloads {
        rx_checksum: true,
        rx_lro: true,
        tx_checksum: true,
        tx_segment: true,
        ..Offloads::default()
    }
}

fn checksums() -> Offloads {
    Offloads { rx_checksum: true, tx_checksum: true, ..Offloads::default() }
}

const SETUP: Setup = Setup {
    offered: ALL | OFFLOADS,
    arguments: "",
    mbufs: 512,
    descriptors: 64,
    pairs: 1,
    server: false,
    offloads: everything,
    interrupts: false,
};

/// A packet whose layer 4 checksum is the sum of its pseudo-header, as one that isn't filled in.
#[derive(Clone, Copy)]
struct Packet {
    ipv6: bool,
    tcp: bool,
    payload: usize,
}

impl Packet {
    fn l3(self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    fn l4(self) -> usize {
        if self.tcp { 20 } else { 8 }
    }

    fn start(self) -> usize {
        14 + self.l3()
    }

    fn offset(self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    fn seed(self, bytes: &[u8], len: usize) -> InternetSum {
        let protocol = if self.tcp { 6 } else { 17 };
        match self.ipv6 {
            true => ipv6_pseudo_header(bytes[22..54].try_into().unwrap(), protocol, len as u32),
            false => ipv4_pseudo_header(bytes[26..34].try_into().unwrap(), protocol, len as u16),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let (protocol, len) = (if self.tcp { 6 } else { 17 }, self.l4() + self.payload);
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match self.ipv6 {
            true => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend((len as u16).to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend((0..32).map(|nth| nth * 7));
            }
            false => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend((20 + len as u16).to_be_bytes());
                bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
                let sum = packetboat::net::internet_checksum(&bytes[14..34]).to_bytes();
                bytes[24..26].copy_from_slice(&sum);
            }
        }
        match self.tcp {
            true => bytes.extend(b"\0\x50\x04\0SEQ.ACK.\x50\x10\x10\0\0\0\0\0"),
            false => {
                bytes.extend(b"\0\x35\x04\0");
                bytes.extend((len as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
        }
        bytes.extend(frame(self.payload, self.payload as u32));
        let seed = self.seed(&bytes, len).folded().to_bytes();
        let at = self.start() + self.offset();
        bytes[at..at + 2].copy_from_slice(&seed);
        bytes
    }

    /// What a header says of it, cut into segments of so many bytes or not (0).
    fn says(self, segment: u16) -> [u8; 10] {
        let kind = match (segment, self.ipv6) {
            (0, _) => 0,
            (_, false) => 1,
            (_, true) => 4,
        };
        let headers = if segment == 0 { 0 } else { self.start() + self.l4() };
        let mut says = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, word) in [(2, headers), (4, segment.into()), (6, self.start()), (8, self.offset())]
        {
            says[at..at + 2].copy_from_slice(&(word as u16).to_le_bytes());
        }
        says
    }

    fn request(self, segment: u16) -> TxRequest {
        let version = if self.ipv6 { TxFlags::IPV6 } else { TxFlags::IPV4 };
        let kind = match (segment, self.tcp) {
            (0, true) => TxFlags::TCP_CHECKSUM,
            (0, false) => TxFlags::UDP_CHECKSUM,
            _ => TxFlags::TCP_SEGMENT,
        };
        let lengths = TxLengths::new(14, self.l3() as u16, self.l4() as u8).unwrap();
        TxRequest { flags: version | kind, lengths: lengths.segment(segment) }
    }
}

fn packets() -> Vec<(Packet, u16)> {
    let mut packets = Vec::new();
    for ipv6 in [false, true] {
        for tcp in [false, true] {
            for payload in [1, 6, 1400, 1401] {
                packets.push((Packet { ipv6, tcp, payload }, 0));
            }
        }
        for payload in [1449, 9000, 65_000] {
            packets.push((Packet { ipv6, tcp: true, payload }, 1448));
        }
    }
    packets
}

#[test]
fn a_frame_that_comes_in_unfinished_goes_out_with_the_same_wish() {
    for setup in all_kinds() {
        let setup =
            Setup { offered: setup.offered | OFFLOADS, arguments: setup.arguments, ..SETUP };
        let mergeable = setup.offered & F_MRG_RXBUF != 0;
        let setup = match mergeable {
            true => setup,
            // Nothing to join long frames in: it says so.
            false => Setup { offloads: checksums, ..setup },
        };
        let mut rig = Rig::running(setup);
        for (packet, segment) in packets() {
            if segment != 0 && !mergeable {
                continue;
            }
            let (bytes, says) = (packet.bytes(), packet.says(segment));
            assert!(rig.back_end().receive_as(0, says, &bytes), "{setup:?}");
            let mut burst = rig.received(0);
            assert_eq!(burst.len(), 1, "{:?}", rig.rx());
            let mbuf = &burst.as_slice()[0];
            assert_eq!(mbuf.rx_flags().l4_checksum(), Checksum::None);
            assert_eq!(mbuf.rx_flags().contains(RxFlags::LRO), segment != 0);
            assert!(mbuf.tx_flags().contains(packet.request(segment).flags));
            assert_eq!(mbuf.tx_lengths().segment_len_bytes(), segment);
            rig.queues.tx[0].send(&mut burst);
            assert!(burst.is_empty());
            let sent = rig.back_end().transmitted_raw(0);
            assert_eq!(sent.len(), 1, "{:?}", rig.tx());
            assert_eq!(sent[0][..10], says, "{setup:?}");
            assert_eq!(sent[0][HEADER_BYTES..], bytes, "with its IPv4 checksum, and the seed");
            rig.queues.tx[0].reclaim();
        }
        assert_eq!((rig.rx().dropped(), rig.tx().dropped()), (0, 0));
        rig.finish();
    }
}

/// What a port that has no offloads for sending needs: the frame finished by the program.
#[test]
fn a_frame_that_comes_in_unfinished_can_be_finished_in_software() {
    let mut rig = Rig::running(Setup {
        offloads: || Offloads { rx_checksum: true, ..Offloads::default() },
        ..SETUP
    });
    let agreed = rig.back_end().features();
    assert_eq!((agreed & F_GUEST_CSUM, agreed & (F_CSUM | F_GUEST_TSO)), (F_GUEST_CSUM, 0));
    for (packet, _) in packets().into_iter().filter(|(_, segment)| *segment == 0) {
        let bytes = packet.bytes();
        assert!(rig.back_end().receive_as(0, packet.says(0), &bytes));
        let mut burst = rig.received(0);
        burst.iter_mut().for_each(|mbuf| mbuf.fill_checksums().unwrap());
        rig.queues.tx[0].send(&mut burst);
        let sent = rig.back_end().transmitted(0); // asks for nothing
        let mut sum = packet.seed(&sent[0], packet.l4() + packet.payload);
        sum.add(&sent[0][packet.start()..]);
        assert_eq!(sum.checksum().get(), 0);
        // Without that, it is refused: nothing leaves with a checksum that isn't one.
        assert!(rig.back_end().receive_as(0, packet.says(0), &bytes));
        let before = rig.tx().bad_request;
        rig.queues.tx[0].send(&mut rig_received(&mut rig.queues.rx[0]));
        assert_eq!((rig.tx().bad_request, rig.back_end().transmitted(0).len()), (before + 1, 0));
    }
    rig.finish();
}

fn rig_received(rx: &mut Box<dyn packetboat::port::RxQueue>) -> Burst {
    let mut burst = Burst::new();
    rx.receive(&mut burst);
    assert_eq!(burst.len(), 1);
    burst
}

#[test]
fn what_the_device_has_checked_is_noted_and_what_it_has_no_name_for_is_finished() {
    let mut rig = Rig::running(SETUP);
    let tcp = Packet { ipv6: false, tcp: true, payload: 100 };
    assert!(rig.back_end().receive_as(0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &tcp.bytes()));
    let burst = rig.received(0);
    assert_eq!(burst.as_slice()[0].rx_flags().l4_checksum(), Checksum::Good);
    assert!(!burst.as_slice()[0].requests_any());
    drop(burst);
    assert!(rig.back_end().receive_as(0, [0; 10], &tcp.bytes()));
    let burst = rig.received(0);
    assert_eq!(burst.as_slice()[0].rx_flags().l4_checksum(), Checksum::Unknown);
    drop(burst);
    // A checksum at a place that is none of TCP's or UDP's: over 60 bytes from 40 on, at 42.
    let bytes = frame(100, 3);
    let says = [1, 0, 0, 0, 0, 0, 40, 0, 2, 0];
    assert!(rig.back_end().receive_as(0, says, &bytes));
    let burst = rig.received(0);
    let found = bytes_of(&burst.as_slice()[0]);
    let mut sum = InternetSum::new();
    sum.add(&bytes[40..]);
    assert_eq!(found[42..44], sum.checksum_not_zero().to_bytes());
    assert_eq!((&found[..42], &found[44..]), (&bytes[..42], &bytes[44..]));
    assert!(!burst.as_slice()[0].requests_any());
    drop(burst);
    rig.finish();
}

#[test]
fn headers_that_make_no_sense_cost_their_frame_and_are_counted() {
    let tcp = Packet { ipv6: false, tcp: true, payload: 3000 };
    let good = tcp.says(1448);
    let with = |at: usize, value: u8| {
        let mut says = good;
        says[at] = value;
        says
    };
    let udp = Packet { ipv6: false, tcp: false, payload: 3000 };
    let short = Packet { payload: 4, ..tcp };
    let cases = [
        ("cut without a checksum", with(0, 0), tcp.bytes()),
        ("cut without a checksum, valid", with(0, 2), tcp.bytes()),
        ("the other IP", with(1, 4), tcp.bytes()),
        ("of no kind", with(1, 2), tcp.bytes()),
        ("UDP fragments", with(1, 3), udp.bytes()),
        ("with ECN, which wasn't agreed on", with(1, 0x81), tcp.bytes()),
        ("segments of nothing", [1, 1, 54, 0, 0, 0, 34, 0, 16, 0], tcp.bytes()),
        ("TCP segments of UDP", udp.says(1448), udp.bytes()),
        ("beyond its end", [1, 0, 0, 0, 0, 0, 200, 0, 16, 0], short.bytes()),
        ("at its end", [1, 0, 0, 0, 0, 0, 40, 0, 17, 0], short.bytes()),
        ("far beyond", [1, 0, 0, 0, 0, 0, 255, 255, 255, 255], short.bytes()),
    ];
    for arguments in ["", ",packed=on"] {
        let mut rig = Rig::running(Setup { arguments, ..SETUP });
        for (number, (what, says, bytes)) in (1..).zip(&cases) {
            // Between two good ones, which aren't harmed.
            assert!(rig.back_end().receive_as(0, good, &tcp.bytes()));
            assert!(rig.back_end().receive_as(0, *says, bytes), "{what}");
            assert!(rig.back_end().receive_as(0, good, &tcp.bytes()));
            let burst = rig.received(0);
            assert_eq!(burst.len(), 2, "{what}");
            assert_eq!(burst.as_slice().iter().filter(|mbuf| mbuf.requests_any()).count(), 2);
            let rx = rig.rx();
            assert_eq!((rx.bad_request, rx.packets, rx.dropped()), (number, 2 * number, number));
            assert_eq!(rx.bytes, rx.packets * tcp.bytes().len() as u64);
        }
        rig.finish();
    }
}

/// A frame's way out with these wishes: the header that the device sees, if it is sent.
fn sent(rig: &mut Rig, mbuf: Mbuf) -> Option<Vec<u8>> {
    let (before, mut burst) = (rig.tx().bad_request, Burst::new());
    burst.push(mbuf).unwrap();
    rig.queues.tx[0].send(&mut burst);
    assert!(burst.is_empty());
    let mut frames = rig.back_end().transmitted_raw(0);
    rig.queues.tx[0].reclaim();
    assert_eq!(rig.tx().bad_request - before, u64::from(frames.is_empty()));
    frames.pop()
}

fn asking(pool: &MbufPool, bytes: &[u8], request: TxRequest) -> Mbuf {
    let mut mbuf = mbuf_of(pool, bytes);
    mbuf.request(request).unwrap();
    mbuf.prepare_checksums().unwrap();
    mbuf
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    let tcp = Packet { ipv6: false, tcp: true, payload: 3000 };
    let six = Packet { ipv6: true, ..tcp };
    for (offered, offloads, allowed) in [
        // Plain, checksum, segments of IPv4, of IPv6.
        (ALL | OFFLOADS, none as fn() -> Offloads, [true, false, false, false]),
        (ALL | OFFLOADS, checksums, [true, true, false, false]),
        (ALL | OFFLOADS & !(1 << 12), everything, [true, true, true, false]),
        (ALL | OFFLOADS & !(1 << 11), everything, [true, true, false, true]),
        (ALL | OFFLOADS, everything, [true; 4]),
    ] {
        for arguments in ["", ",packed=on,indirect=off"] {
            let mut rig = Rig::running(Setup { offered, offloads, arguments, ..SETUP });
            let pool = rig.pool.clone();
            let frames = [
                mbuf_of(&pool, &tcp.bytes()),
                asking(&pool, &tcp.bytes(), tcp.request(0)),
                asking(&pool, &tcp.bytes(), tcp.request(1448)),
                asking(&pool, &six.bytes(), six.request(1448)),
            ];
            for (mbuf, allowed) in frames.into_iter().zip(allowed) {
                assert_eq!(sent(&mut rig, mbuf).is_some(), allowed, "{arguments}");
            }
            let mut tagged = mbuf_of(&pool, &tcp.bytes());
            tagged.insert_vlan(7);
            assert_eq!(sent(&mut rig, tagged), None, "no tags");
            rig.finish();
        }
    }
}

#[test]
fn lengths_that_do_not_fit_the_frame_are_refused() {
    let mut rig = Rig::running(SETUP);
    let pool = rig.pool.clone();
    let tcp = Packet { ipv6: false, tcp: true, payload: 1000 };
    let flags = TxFlags::IPV4 | TxFlags::TCP_CHECKSUM;
    let cut = TxFlags::IPV4 | TxFlags::TCP_SEGMENT;
    for (what, flags, l2, l3, l4) in [
        ("layer 3 elsewhere", flags, 18, 20, 20),
        ("layer 3 shorter than it says", flags, 14, 16, 20),
        ("layer 3 longer than it says", flags, 14, 24, 20),
        ("the other IP", TxFlags::IPV6 | TxFlags::TCP_CHECKSUM, 14, 40, 20),
        ("no layer 2", flags, 0, 20, 20),
        ("a TCP header that is none", cut, 14, 20, 12),
        ("SCTP", TxFlags::IPV4 | TxFlags::SCTP_CHECKSUM, 14, 20, 12),
        ("UDP datagrams", TxFlags::IPV4 | TxFlags::UDP_SEGMENT, 14, 20, 8),
        ("a tunnel", flags | TxFlags::OUTER_IPV4 | TxFlags::TUNNEL_VXLAN, 14, 20, 20),
    ] {
        let mut mbuf = mbuf_of(&pool, &tcp.bytes());
        let lengths = TxLengths::new(l2, l3, l4).unwrap().segment(500);
        mbuf.request(TxRequest { flags, lengths }).unwrap();
        assert_eq!(sent(&mut rig, mbuf), None, "{what}");
    }
    // Cut off since it was asked for: within its headers, and behind them.
    for left in [33, 40, 54] {
        let mut mbuf = mbuf_of(&pool, &tcp.bytes());
        mbuf.request(tcp.request(500)).unwrap();
        mbuf.trim(mbuf.len_bytes() - left).unwrap();
        assert_eq!(sent(&mut rig, mbuf), None, "{left} bytes left");
    }
    // One that others read can't be made ready.
    let mut mbuf = asking(&pool, &tcp.bytes(), tcp.request(500));
    let clone = mbuf.share(&pool).unwrap();
    assert_eq!(sent(&mut rig, clone), None);
    assert!(sent(&mut rig, std::mem::replace(&mut mbuf, pool.alloc().unwrap())).is_some());
    drop(mbuf);
    rig.finish();
}

/// The header has a descriptor, and a place, of its own then.
#[test]
fn frames_without_headroom_ask_all_the_same() {
    for setup in all_kinds() {
        let offered = setup.offered | OFFLOADS & !F_GUEST_TSO;
        let offloads = || Offloads { rx_lro: false, ..everything() };
        let mut rig =
            Rig::running(Setup { offered, arguments: setup.arguments, offloads, ..SETUP });
        let pool = rig.pool.clone();
        let tcp = Packet { ipv6: false, tcp: true, payload: 500 };
        // Several at a time, each with its own header.
        let mut burst = Burst::new();
        for segment in 1..=5_u16 {
            let mut bytes = tcp.bytes();
            let mut mbuf = pool.alloc().unwrap();
            mbuf.prepend(100).unwrap();
            mbuf.append(bytes.len() - 100).unwrap();
            mbuf.data_mut().unwrap().copy_from_slice(&bytes);
            mbuf.prepend(20).unwrap();
            mbuf.adj(20).unwrap();
            let gap = mbuf.headroom_bytes();
            mbuf.prepend(gap).unwrap();
            // 28 bytes more in front: it becomes the destination address, and more of the source.
            bytes.splice(0..0, vec![0; gap]);
            mbuf.data_mut().unwrap().copy_from_slice(&bytes);
            assert_eq!(mbuf.headroom_bytes(), 0);
            let lengths = TxLengths::new(14 + gap as u8, 20, 20).unwrap().segment(100 * segment);
            let flags = TxFlags::IPV4 | TxFlags::TCP_SEGMENT;
            mbuf.request(TxRequest { flags, lengths }).unwrap();
            mbuf.prepare_checksums().unwrap();
            burst.push(mbuf).unwrap();
        }
        rig.queues.tx[0].send(&mut burst);
        assert!(burst.is_empty(), "{:?}", rig.tx());
        let sent = rig.back_end().transmitted_raw(0);
        let sizes: Vec<u16> =
            sent.iter().map(|bytes| u16::from_le_bytes([bytes[4], bytes[5]])).collect();
        assert_eq!(sizes, [100, 200, 300, 400, 500], "{setup:?}");
        assert!(sent.iter().all(|bytes| bytes[0] == 1 && bytes[1] == 1));
        rig.finish();
    }
}

#[test]
fn what_is_not_offered_is_said_when_it_is_asked_for() {
    for (offered, arguments, offloads, what) in [
        (ALL | OFFLOADS & !F_CSUM, "", checksums as fn() -> Offloads, "transmit checksum"),
        (ALL | OFFLOADS & !F_GUEST_CSUM, "", checksums, "receive checksum"),
        (ALL | OFFLOADS & !F_HOST_TSO, "", everything, "segmentation"),
        (ALL | OFFLOADS & !F_GUEST_TSO, "", everything, "joining"),
        (ALL | OFFLOADS, ",mrg-rxbuf=off", everything, "joining"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { offered, arguments, ..SETUP };
        let (port, _back_end, _) = probe(&memory(), &setup, &folder);
        let config = packetboat::port::PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            offloads: offloads(),
            ..Default::default()
        };
        let error = port.unwrap().configure(&config).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}
