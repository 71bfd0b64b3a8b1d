//! What reaches the mbuf: checksum results, tags, packet types, frames in several buffers.

use packetboat::mbuf::{Checksum, Mbuf, RxFlags};
use packetboat::port::Offloads;

use crate::packet::{Kind, Packet, padded};
use crate::rig::{Rig, Setup, bytes};

fn checks(mbuf: &Mbuf) -> (Checksum, Checksum) {
    (mbuf.rx_flags().ip_checksum(), mbuf.rx_flags().l4_checksum())
}

#[test]
fn checksums_are_found_good_bad_or_unknown() {
    use Checksum::{Bad, Good, Unknown};
    let mut rig = Rig::new(Offloads { rx_checksum: true, ..Offloads::default() });
    for kind in [Kind::Tcp, Kind::Udp, Kind::Sctp] {
        for v6 in [false, true] {
            for tag in [None, Some(7)] {
                let packet = Packet { tag, ..Packet::new(kind, v6, 301) };
                let frame = packet.bytes();
                let ip = if v6 { Unknown } else { Good };
                let mbuf = rig.received(frame.clone()).unwrap();
                assert_eq!((checks(&mbuf), bytes(&mbuf)), ((ip, Good), frame.clone()));
                let mut wrong = frame.clone();
                *wrong.last_mut().unwrap() ^= 1;
                // The 82599 may call a UDP frame bad that has no checksum at all.
                let l4 = if kind == Kind::Udp { Unknown } else { Bad };
                let mbuf = rig.received(wrong).unwrap();
                assert_eq!(checks(&mbuf), (ip, l4), "{packet:?}");
                if !v6 {
                    let mut wrong = frame;
                    wrong[packet.l2_len() + 8] ^= 1; // time to live
                    let mbuf = rig.received(wrong).unwrap();
                    assert_eq!(checks(&mbuf), (Bad, Good), "{packet:?}");
                }
            }
        }
    }
    let mbuf = rig.received(vec![2; 60]);
    assert!(mbuf.is_none(), "not to this address");
    let mut other = Packet::tcp4(50).bytes();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mbuf = rig.received(other).unwrap();
    assert_eq!(checks(&mbuf), (Unknown, Unknown));
    drop(mbuf);
    // A UDP frame without a checksum isn't a bad one.
    let mut without = Packet::udp4(50).bytes();
    without[40..42].fill(0);
    let mbuf = rig.received(without).unwrap();
    assert_ne!(checks(&mbuf).1, Bad);
    drop(mbuf);
    // Of each of three kinds, with and without a tag: layer 4 of both versions, and IPv4's header.
    assert_eq!(rig.softnic.stat("rx_bad_checksums"), 18);
    let counted = rig.port.extended_stats();
    assert!(counted.contains(&("rx_checksum_errors".to_owned(), 18)));
    rig.end();
}

#[test]
fn packet_types_are_noted() {
    let mut rig = Rig::new(Offloads { rx_classify: true, ..Offloads::default() });
    for (packet, wanted) in [
        (Packet::tcp4(10), "ether ipv4 tcp"),
        (Packet { l3_options: 8, ..Packet::udp4(10) }, "ether ipv4ext udp"),
        (Packet::new(Kind::Sctp, true, 10), "ether ipv6 sctp"),
        (Packet { l3_options: 8, ..Packet::new(Kind::Tcp, true, 10) }, "ether ipv6ext tcp"),
    ] {
        let mbuf = rig.received(packet.bytes()).unwrap();
        assert_eq!(mbuf.packet_type().to_string(), wanted);
    }
    rig.end();
}

#[test]
fn tags_are_taken_out_where_asked_for_and_left_elsewhere() {
    let mut rig = Rig::new(Offloads { rx_vlan_strip: true, ..Offloads::default() });
    for tag in [0, 5, 0x2fff, 0xefff] {
        for kind in [Kind::Tcp, Kind::Udp] {
            let tagged = Packet { tag: Some(tag), ..Packet::new(kind, false, 100) };
            let mbuf = rig.received(tagged.bytes()).unwrap();
            let untagged = Packet { tag: None, ..tagged };
            assert_eq!((mbuf.vlan(), bytes(&mbuf)), (Some(tag), untagged.bytes()));
            assert!(mbuf.rx_flags().contains(RxFlags::VLAN_STRIPPED));
            drop(mbuf);
            let mbuf = rig.received(untagged.bytes()).unwrap();
            assert_eq!((mbuf.vlan(), bytes(&mbuf)), (None, untagged.bytes()));
        }
    }
    rig.end();
    let mut rig = Rig::new(Offloads::default());
    let tagged = Packet { tag: Some(5), ..Packet::tcp4(100) }.bytes();
    let mbuf = rig.received(tagged.clone()).unwrap();
    assert_eq!((mbuf.vlan(), bytes(&mbuf)), (None, tagged));
    drop(mbuf);
    rig.end();
}

/// A frame of `len` bytes to the NIC.
fn frame(len: usize, tag: Option<u16>) -> Vec<u8> {
    let empty = Packet { tag, ..Packet::udp4(0) };
    let frame = Packet { tag, ..Packet::udp4(len - empty.header_len()) }.bytes();
    assert_eq!(frame.len(), len);
    frame
}

#[test]
fn frames_of_up_to_9728_bytes_with_crc_come_in_chains() {
    let offloads = Offloads { rx_scatter: true, rx_checksum: true, ..Offloads::default() };
    let mut rig = Setup::new(offloads.clone()).mtu(9706).start();
    assert_eq!(rig.port.capabilities().mtu, Some((68, 9706)));
    for len in [60, 2047, 2048, 2049, 4096, 4097, 6144, 9013, 9014, 9720, 9724] {
        for tag in [None, Some(9)] {
            let frame = frame(len, tag);
            let mbuf = rig.received(frame.clone()).unwrap_or_else(|| panic!("{len} bytes"));
            assert_eq!((mbuf.len_bytes(), mbuf.segment_count()), (len, len.div_ceil(2048)));
            assert_eq!((bytes(&mbuf), checks(&mbuf).1), (frame, Checksum::Good));
        }
    }
    assert!(rig.received(frame(9725, None)).is_none());
    assert_eq!(rig.softnic.stat("rx_too_long"), 1);
    // Many in a row: chains over the ring's end, and lengths that follow each other.
    for n in 0..300 {
        let frame = frame(60 + n * 2311 % 9600, None);
        let mbuf = rig.received(frame.clone()).unwrap();
        assert_eq!(bytes(&mbuf), frame);
    }
    assert_eq!(rig.port.stats().rx_total().dropped(), 0);
    rig.end();
}

#[test]
fn the_mtu_is_what_the_device_takes() {
    // Header and CRC, and 4 bytes for a tag that need not be there in jumbo mode.
    for (mtu, scatter, longest) in [(1500, false, 1514), (2000, false, 2018), (4000, true, 4018)] {
        let offloads = Offloads { rx_scatter: scatter, ..Offloads::default() };
        let mut rig = Setup::new(offloads).mtu(mtu).start();
        assert!(rig.received(frame(longest, None)).is_some(), "{mtu}");
        assert!(rig.received(frame(usize::from(mtu) + 18, Some(1))).is_some(), "{mtu}");
        assert!(rig.received(frame(longest + 1, None)).is_none(), "{mtu}");
        let counted = rig.port.extended_stats();
        assert!(counted.contains(&("rx_oversize_errors".to_owned(), 1)), "{counted:?}");
        rig.end();
    }
}

#[test]
fn short_frames_are_padded_on_the_wire_and_arrive_so() {
    let mut rig = Rig::new(Offloads::default());
    let mbuf = rig.received(Packet::udp4(1).bytes()).unwrap();
    assert_eq!(bytes(&mbuf), padded(Packet::udp4(1).bytes()));
    drop(mbuf);
    rig.end();
}
