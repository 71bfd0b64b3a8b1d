//! Checksums, tags and segments that the device is asked for.

use packetboat::mbuf::{Mbuf, TxFlags, TxLengths, TxRequest};
use packetboat::net::{Ipv4Header, TcpHeader, ipv4_pseudo_header, ipv6_pseudo_header};
use packetboat::port::Offloads;
use zerocopy::FromBytes;

use crate::packet::{Kind, Packet, padded};
use crate::rig::Rig;

/// Everything that can be asked for.
pub(crate) fn all() -> Offloads {
    Offloads { tx_checksum: true, tx_segment: true, tx_vlan: true, ..Offloads::default() }
}

/// Asks for the packet's checksums, and segments if there is a length for them.
pub(crate) fn ask(mut mbuf: Mbuf, packet: &Packet, segment: Option<u16>) -> Mbuf {
    let layer3 = if packet.v6 { TxFlags::IPV6 } else { TxFlags::IPV4 | TxFlags::IP_CHECKSUM };
    let layer4 = match packet.kind {
        Kind::Tcp if segment.is_some() => TxFlags::TCP_SEGMENT,
        Kind::Tcp => TxFlags::TCP_CHECKSUM,
        Kind::Udp => TxFlags::UDP_CHECKSUM,
        Kind::Sctp => TxFlags::SCTP_CHECKSUM,
    };
    let lengths =
        TxLengths::new(packet.l2_len() as u8, packet.l3_len() as u16, packet.l4_len() as u8);
    let lengths = lengths.unwrap().segment(segment.unwrap_or(0));
    mbuf.request(TxRequest { flags: layer3 | layer4, lengths }).unwrap();
    mbuf.prepare_checksums().unwrap();
    mbuf
}

/// The library's own views agree that a TCP frame without a tag is right.
fn check_by_views(frame: &[u8]) {
    let found = packetboat::net::parse(frame);
    let (l2, l3) = (usize::from(found.l2_len_bytes), usize::from(found.l3_len_bytes));
    let (network, rest) = frame[l2..].split_at(l3);
    let (pseudo, rest) = if found.packet_type.is_ipv4() {
        assert!(Ipv4Header::is_intact(network));
        let len = u16::from_be_bytes([network[2], network[3]]) - found.l3_len_bytes;
        let addresses = network[12..20].try_into().unwrap();
        (ipv4_pseudo_header(&addresses, 6, len), &rest[..usize::from(len)])
    } else {
        let len = u32::from(u16::from_be_bytes([network[4], network[5]])) + 40 - l3 as u32;
        let addresses = network[8..40].try_into().unwrap();
        (ipv6_pseudo_header(&addresses, 6, len), &rest[..len as usize])
    };
    let (header, rest) = rest.split_at(TcpHeader::LEN_BYTES);
    let header = TcpHeader::ref_from_bytes(header).unwrap();
    assert_eq!(header.computed_checksum(pseudo, rest), header.checksum);
}

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Udp, Kind::Sctp];

#[test]
fn checksums_are_filled_in() {
    let mut rig = Rig::new(all());
    for kind in KINDS {
        for (v6, l3_options) in [(false, 0), (false, 12), (true, 0), (true, 8)] {
            for len in [0, 1, 2, 5, 18, 200, 1001, 1400] {
                let packet = Packet { l3_options, ..Packet::new(kind, v6, len) };
                let mbuf = ask(rig.mbuf(&packet.unfinished()), &packet, None);
                let sent = rig.sent(mbuf);
                assert_eq!(sent, [padded(packet.bytes())], "{packet:?}");
                if kind == Kind::Tcp {
                    check_by_views(&sent[0]);
                }
            }
        }
    }
    assert_eq!(rig.tx_stats().dropped(), 0);
    rig.end();
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let mut rig = Rig::new(all());
    let mut packet = Packet::udp4(2);
    packet.payload = vec![0, 0];
    let at = 14 + 20 + 6;
    let sum = packet.bytes()[at..at + 2].to_vec();
    packet.payload = sum; // what is summed up is all ones now, and its complement 0
    assert_eq!(packet.bytes()[at..at + 2], [0xff, 0xff]);
    let mbuf = ask(rig.mbuf(&packet.unfinished()), &packet, None);
    assert_eq!(rig.sent(mbuf), [padded(packet.bytes())]);
    rig.end();
}

#[test]
fn the_ip_checksum_alone_leaves_the_rest_as_it_is() {
    let mut rig = Rig::new(all());
    let packet = Packet::tcp4(100);
    let mut frame = packet.unfinished();
    let mut mbuf = rig.mbuf(&frame);
    let lengths = TxLengths::new(14, 20, 0).unwrap();
    mbuf.request(TxRequest { flags: TxFlags::IPV4 | TxFlags::IP_CHECKSUM, lengths }).unwrap();
    mbuf.prepare_checksums().unwrap();
    frame[24..26].copy_from_slice(&packet.bytes()[24..26]);
    assert_eq!(rig.sent(mbuf), [frame]);
    rig.end();
}

#[test]
fn tags_are_inserted_alone_and_beside_checksums_and_segments() {
    let mut rig = Rig::new(all());
    let plain = Packet::tcp4(3000);
    for tag in [0x2001, 0x0fff, 0xe000] {
        let tagged = Packet { tag: Some(tag), payload: vec![7; 100], ..plain.clone() };
        let untagged = Packet { tag: None, ..tagged.clone() };
        let mut mbuf = rig.mbuf(&untagged.bytes());
        mbuf.insert_vlan(tag);
        assert_eq!(rig.sent(mbuf), [tagged.bytes()]);
        let mut mbuf = rig.mbuf(&untagged.unfinished());
        mbuf.insert_vlan(tag);
        let mbuf = ask(mbuf, &untagged, None);
        assert_eq!(rig.sent(mbuf), [tagged.bytes()]);
        let mut mbuf = rig.chain(&plain.unfinished(), 1000, 1000);
        mbuf.insert_vlan(tag);
        let mbuf = ask(mbuf, &plain, Some(1000));
        let wanted = Packet { tag: Some(tag), ..plain.clone() }.cut(1000);
        assert_eq!(rig.sent(mbuf), wanted.iter().map(Packet::bytes).collect::<Vec<_>>());
    }
    // One that is in the frame already is part of its layer 2.
    let inside = Packet { tag: Some(5), ..Packet::new(Kind::Udp, true, 77) };
    let mbuf = ask(rig.mbuf(&inside.unfinished()), &inside, None);
    assert_eq!(rig.sent(mbuf), [inside.bytes()]);
    rig.end();
}

#[test]
fn long_tcp_frames_are_cut_into_segments() {
    let mut rig = Rig::new(all());
    for v6 in [false, true] {
        for (len, segment, tcp_options) in [
            (1, 1, 0),
            (1000, 1000, 0),
            (1001, 1000, 12),
            (9000, 1448, 12),
            (60_000, 1460, 0),
            (5000, 88, 40),
            (18_000, 9000, 0),
        ] {
            for flags in [0x10, 0x19, 0x98] {
                let packet = Packet { tcp_options, flags, ..Packet::new(Kind::Tcp, v6, len) };
                // The headers in an mbuf of their own, or with some of the data.
                for first in [packet.header_len(), packet.header_len() + 300] {
                    let mbuf = rig.chain(&packet.unfinished(), first, 2000);
                    let mbuf = ask(mbuf, &packet, Some(segment));
                    let sent = rig.sent(mbuf);
                    let wanted = packet.cut(segment.into());
                    assert_eq!(sent.len(), wanted.len());
                    for (n, (sent, wanted)) in sent.iter().zip(&wanted).enumerate() {
                        assert_eq!(*sent, padded(wanted.bytes()), "segment {n} of {packet:?}");
                        check_by_views(sent);
                    }
                }
            }
        }
    }
    assert_eq!(rig.tx_stats().dropped(), 0);
    rig.end();
}

/// The device keeps one context, and the driver writes another only where it has to: frames of all
/// kinds in any order, and a queue that starts anew in between.
#[test]
fn requests_of_all_kinds_follow_each_other() {
    let mut rig = Rig::new(all());
    let mut seed = 0x9e37_79b9_u32;
    let mut random = |below: u32| {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed % below
    };
    for round in 0..60 {
        let mut wanted = Vec::new();
        let mut mbufs = Vec::new();
        for _ in 0..20 {
            let kind = KINDS[random(3) as usize];
            let len = random(1200) as usize + 1;
            let packet =
                Packet { id: random(0xffff) as u16, ..Packet::new(kind, random(2) == 1, len) };
            let mut mbuf = rig.chain(&packet.unfinished(), packet.header_len() + 40, 600);
            let tag = (random(3) == 0).then(|| random(4095) as u16);
            if let Some(tag) = tag {
                mbuf.insert_vlan(tag);
            }
            let packet = Packet { tag, ..packet };
            let untagged = Packet { tag: None, ..packet.clone() };
            match random(3) {
                0 => {
                    wanted.push(padded(packet.bytes()));
                    mbufs.push(ask(mbuf, &untagged, None));
                }
                1 if kind == Kind::Tcp => {
                    let segment = 100 + 50 * random(3) as u16;
                    wanted.extend(packet.cut(segment.into()).iter().map(|p| padded(p.bytes())));
                    mbufs.push(ask(mbuf, &untagged, Some(segment)));
                }
                _ => {
                    wanted.push(padded(packet.bytes()));
                    let mut mbuf = rig.chain(&untagged.bytes(), 100, 600);
                    if let Some(tag) = tag {
                        mbuf.insert_vlan(tag);
                    }
                    mbufs.push(mbuf);
                }
            }
        }
        for mbuf in mbufs {
            rig.send(0, [mbuf]);
        }
        assert_eq!(rig.cable.take(), wanted, "round {round}");
        if round % 7 == 6 {
            for on in [false, true] {
                rig.port.run_tx(rig.tx[0].as_mut(), on).unwrap();
            }
        }
    }
    assert_eq!(rig.tx_stats().dropped(), 0);
    rig.end();
}
