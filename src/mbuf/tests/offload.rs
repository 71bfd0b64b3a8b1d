//! What devices say and are asked for.

use super::*;
use crate::net::{InternetSum, internet_checksum, ipv4_pseudo_header, ipv6_pseudo_header};

/// Ethernet, IPv4 (20 bytes, TCP or UDP), then `rest`.
fn ipv4_frame(pool: &MbufPool, protocol: u8, rest: &[u8]) -> Mbuf {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend([0x45, 0]);
    bytes.extend((20 + rest.len() as u16).to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, protocol, 0xaa, 0xaa, 198, 18, 0, 1, 198, 18, 0, 2]);
    bytes.extend(rest);
    let mut frame = pool.alloc().unwrap();
    frame.append(bytes.len()).unwrap().copy_from_slice(&bytes);
    frame
}

#[test]
fn what_was_received_is_there_and_gone_with_the_frame() {
    let pool = pool(1);
    let mut frame = pool.alloc().unwrap();
    assert_eq!((frame.rx_flags(), frame.rss_hash(), frame.vlan()), (RxFlags::NONE, None, None));
    let info = RxInfo {
        flags: RxFlags::VLAN
            | RxFlags::VLAN_STRIPPED
            | RxFlags::RSS_HASH
            | RxFlags::L4_CHECKSUM_BAD,
        packet_type: PacketType::ETHERNET_VLAN | PacketType::IPV6 | PacketType::UDP,
        rss_hash: 0xdead_beef,
        vlan_tci: 0x6123,
    };
    frame.set_received(info);
    assert_eq!(frame.rx_flags(), info.flags);
    assert_eq!(frame.packet_type(), info.packet_type);
    assert_eq!((frame.rss_hash(), frame.vlan()), (Some(0xdead_beef), Some(0x6123)));
    assert_eq!(frame.rx_flags().l4_checksum(), Checksum::Bad);
    assert_eq!((frame.mark(), frame.requests_any()), (None, false));
    frame.set_received_outer_vlan(0x0fff, true);
    frame.set_received_mark(7);
    assert_eq!((frame.vlan_tci_outer(), frame.mark()), (0x0fff, Some(7)));
    assert!(frame.rx_flags().contains(info.flags | RxFlags::QINQ_STRIPPED));
    drop(frame);
    let frame = pool.alloc().unwrap();
    assert_eq!((frame.rx_flags(), frame.packet_type()), (RxFlags::NONE, PacketType::UNKNOWN));
}

#[test]
fn lengths_keep_to_their_fields() {
    let most =
        TxLengths::new(0x7f, 0x1ff, 0xff).unwrap().segment(0xffff).outer(0x7f, 0x1ff).unwrap();
    let read = |lengths: TxLengths| {
        [
            lengths.l2_len_bytes(),
            lengths.l3_len_bytes(),
            lengths.l4_len_bytes(),
            lengths.segment_len_bytes(),
            lengths.outer_l2_len_bytes(),
            lengths.outer_l3_len_bytes(),
        ]
    };
    assert_eq!(read(most), [0x7f, 0x1ff, 0xff, 0xffff, 0x7f, 0x1ff]);
    let some = TxLengths::new(14, 20, 32).unwrap().segment(1448).outer(18, 40).unwrap();
    assert_eq!(read(some), [14, 20, 32, 1448, 18, 40]);
    assert_eq!(read(most.segment(1).outer(2, 3).unwrap()), [0x7f, 0x1ff, 0xff, 1, 2, 3]);
    assert_eq!((TxLengths::new(0x80, 0, 0), TxLengths::new(0, 0x200, 0)), (None, None));
    assert_eq!((some.outer(0x80, 0), some.outer(0, 0x200)), (None, None));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let pool = pool(1);
    let mut frame = ipv4_frame(&pool, 6, &[0; 20]);
    let lengths = TxLengths::new(14, 20, 20).unwrap();
    let tcp = TxFlags::TCP_CHECKSUM;
    for flags in [
        tcp,
        tcp | TxFlags::IPV4 | TxFlags::IPV6,
        TxFlags::IPV4 | TxFlags::IPV6,
        TxFlags::IP_CHECKSUM,
        TxFlags::IP_CHECKSUM | TxFlags::IPV6,
        TxFlags::TCP_SEGMENT,
    ] {
        let lengths = lengths.segment(100);
        let error = frame.request(TxRequest { flags, lengths }).unwrap_err();
        assert!(matches!(error, OffloadError::Layer3 { .. }), "{flags:?}: {error}");
        assert!(!frame.requests_any());
    }
    let flags = TxFlags::TCP_SEGMENT | TxFlags::IPV4;
    let error = frame.request(TxRequest { flags, lengths }).unwrap_err();
    assert_eq!(error, OffloadError::Segment { segment_len_bytes: 0, l4_len_bytes: 20 });
    let no_l4 = TxLengths::new(14, 20, 0).unwrap().segment(100);
    let error = frame.request(TxRequest { flags, lengths: no_l4 }).unwrap_err();
    assert_eq!(error, OffloadError::Segment { segment_len_bytes: 100, l4_len_bytes: 0 });
    let long = TxLengths::new(14, 20, 21).unwrap().segment(100);
    let error = frame.request(TxRequest { flags, lengths: long }).unwrap_err();
    assert_eq!(error, OffloadError::Headers { headers: 55, len_bytes: 54 });

    frame.request(TxRequest { flags, lengths: lengths.segment(100) }).unwrap();
    let with = flags | tcp | TxFlags::IP_CHECKSUM;
    assert_eq!(frame.tx_flags(), with, "segmentation brings its checksums");
    assert_eq!(frame.tx_lengths().segment_len_bytes(), 100);
    frame.insert_qinq(0x1111, 0x2222);
    let lent = frame.lend();
    assert!(lent.requests_any());
    assert_eq!(lent.tx_flags(), with | TxFlags::QINQ | TxFlags::VLAN);
    assert_eq!((lent.vlan_tci(), lent.vlan_tci_outer()), (0x2222, 0x1111));
    let mut frame = lent.take_back();
    frame.request(TxRequest::default()).unwrap();
    assert_eq!(frame.tx_flags(), TxFlags::QINQ | TxFlags::VLAN, "tags stay");
    frame.clear_requests();
    assert!(!frame.requests_any());
    frame.set_received(RxInfo { flags: RxFlags::RSS_HASH, ..RxInfo::NONE });
    assert!(!frame.requests_any(), "what was received asks for nothing");
}

/// What a device does: the sum over layer 4, the seed in it, complemented.
fn filled_in(frame: &Mbuf, layer4: usize, at: usize) -> Vec<u8> {
    let mut bytes = frame.data().to_vec();
    let sum = internet_checksum(&bytes[layer4..]).to_bytes();
    bytes[layer4 + at..][..2].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_device_that_adds_up_from_the_seed_gets_the_right_checksum() {
    let pool = pool(1);
    for (flag, protocol, at, rest) in [
        (TxFlags::UDP_CHECKSUM, 17, 6, &b"\0\x35\x04\0\0\x0d\xff\xffhello"[..]),
        (TxFlags::TCP_CHECKSUM, 6, 16, &b"\0\x50\x04\0SEQ.ACK.\x50\x10\x10\0\xff\xff\0\0data"[..]),
    ] {
        let mut frame = ipv4_frame(&pool, protocol, rest);
        let lengths = TxLengths::new(14, 20, 8).unwrap();
        let flags = flag | TxFlags::IPV4 | TxFlags::IP_CHECKSUM;
        frame.request(TxRequest { flags, lengths }).unwrap();
        frame.prepare_checksums().unwrap();
        assert_eq!(frame.data()[24..26], [0, 0], "the IP header's is zero");
        let bytes = filled_in(&frame, 34, at);
        let addresses: &[u8; 8] = bytes[26..34].try_into().unwrap();
        let mut sum = ipv4_pseudo_header(addresses, protocol, rest.len() as u16);
        sum.add(&bytes[34..]);
        assert_eq!(sum.checksum().get(), 0);
    }

    // With segmentation the length isn't in the seed.
    let mut frame = ipv4_frame(&pool, 6, &[0; 40]);
    let lengths = TxLengths::new(14, 20, 20).unwrap().segment(10);
    frame.request(TxRequest { flags: TxFlags::IPV4 | TxFlags::TCP_SEGMENT, lengths }).unwrap();
    frame.prepare_checksums().unwrap();
    let addresses = frame.data()[26..34].try_into().unwrap();
    let seed = ipv4_pseudo_header(addresses, 6, 0).folded().to_bytes();
    assert_eq!(frame.data()[50..52], seed);
    drop(frame);

    // IPv6 with an extension header of 8 bytes: only what is behind it counts.
    let mut frame = pool.alloc().unwrap();
    let mut bytes = vec![0; 14];
    bytes.extend([0x60, 0, 0, 0, 0, 8 + 13, 0, 64]);
    bytes.extend((0..32).map(|nth| nth * 3));
    bytes.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    bytes.extend(b"\0\x35\x04\0\0\x0d\xff\xffhello");
    frame.append(bytes.len()).unwrap().copy_from_slice(&bytes);
    let lengths = TxLengths::new(14, 48, 8).unwrap();
    let flags = TxFlags::IPV6 | TxFlags::UDP_CHECKSUM;
    frame.request(TxRequest { flags, lengths }).unwrap();
    frame.prepare_checksums().unwrap();
    let bytes = filled_in(&frame, 62, 6);
    let mut sum: InternetSum = ipv6_pseudo_header(bytes[22..54].try_into().unwrap(), 17, 13);
    sum.add(&bytes[62..]);
    assert_eq!(sum.checksum().get(), 0);
}

#[test]
fn headers_that_end_before_the_checksum_are_an_error() {
    let pool = pool(1);
    let mut frame = ipv4_frame(&pool, 6, &[0; 16]);
    let lengths = TxLengths::new(14, 20, 8).unwrap();
    let flags = TxFlags::IPV4 | TxFlags::TCP_CHECKSUM;
    frame.request(TxRequest { flags, lengths }).unwrap();
    let error = frame.prepare_checksums().unwrap_err();
    assert_eq!(error, OffloadError::Headers { headers: 52, len_bytes: 50 });
    // Cut off since it was asked for.
    frame.trim(40).unwrap();
    let error = frame.prepare_checksums().unwrap_err();
    assert!(matches!(error, OffloadError::Headers { len_bytes: 10, .. }), "{error}");
}

/// Whether the checksums of layer 3 (if IPv4) and 4 are right, counted by hand.
fn is_right(bytes: &[u8], layer4: usize, end: usize, seed: InternetSum) -> bool {
    let ipv4 = bytes[14] >> 4 == 4;
    let mut sum = seed;
    sum.add(&bytes[layer4..end]);
    (!ipv4 || internet_checksum(&bytes[14..layer4]).get() == 0) && sum.checksum().get() == 0
}

#[test]
fn checksums_are_filled_in_without_a_device() {
    let pool = pool(4);
    for odd in [0, 1] {
        for (flag, protocol, l4, header) in [
            (TxFlags::UDP_CHECKSUM, 17, 8, &b"\0\x35\x04\0\0\x0d\xff\xff"[..]),
            (TxFlags::TCP_CHECKSUM, 6, 20, &b"\0\x50\x04\0SEQ.ACK.\x50\x10\x10\0\xff\xff\0\0"[..]),
        ] {
            let payload = vec![0xa7; 31 + odd];
            let packet = [header, &payload[..]].concat();
            let mut frame = ipv4_frame(&pool, protocol, &packet);
            let end = frame.len_bytes();
            let lengths = TxLengths::new(14, 20, l4).unwrap();
            let flags = flag | TxFlags::IPV4 | TxFlags::IP_CHECKSUM;
            frame.request(TxRequest { flags, lengths }).unwrap();
            // Padding of a short frame isn't the packet's.
            frame.append(3).unwrap().fill(0x55);
            frame.fill_checksums().unwrap();
            assert!(!frame.requests_any());
            let bytes = frame.data().to_vec();
            let addresses: &[u8; 8] = bytes[26..34].try_into().unwrap();
            let seed = ipv4_pseudo_header(addresses, protocol, packet.len() as u16);
            assert!(is_right(&bytes, 34, end, seed), "{flag:?} {odd}");
        }
    }
    // IPv6, in two segments of which the first has an odd number of bytes.
    let mut bytes = vec![0; 14];
    bytes.extend([0x60, 0, 0, 0, 0, 20 + 40, 6, 64]);
    bytes.extend((0..32).map(|nth| nth * 3));
    bytes.extend(b"\0\x50\x04\0SEQ.ACK.\x50\x10\x10\0\xff\xff\0\0");
    bytes.extend([0x9b; 40]);
    let mut frame = pool.alloc().unwrap();
    frame.append(77).unwrap().copy_from_slice(&bytes[..77]);
    let mut rest = pool.alloc().unwrap();
    rest.append(bytes.len() - 77).unwrap().copy_from_slice(&bytes[77..]);
    frame.chain(rest).map_err(|(error, _)| error).unwrap();
    let flags = TxFlags::IPV6 | TxFlags::TCP_CHECKSUM;
    let lengths = TxLengths::new(14, 40, 20).unwrap();
    frame.request(TxRequest { flags, lengths }).unwrap();
    frame.fill_checksums().unwrap();
    let mut whole = vec![0; frame.len_bytes()];
    frame.copy_to(0, &mut whole);
    let seed = ipv6_pseudo_header(whole[22..54].try_into().unwrap(), 6, 60);
    assert!(is_right(&whole, 54, whole.len(), seed));
}

#[test]
fn what_software_does_not_fill_in_stays_asked_for() {
    let pool = pool(2);
    let mut frame = ipv4_frame(&pool, 6, &[0; 40]);
    let lengths = TxLengths::new(14, 20, 20).unwrap().segment(10);
    let request = TxRequest { flags: TxFlags::IPV4 | TxFlags::TCP_SEGMENT, lengths };
    frame.request(request).unwrap();
    assert!(matches!(frame.fill_checksums(), Err(OffloadError::NotInSoftware { .. })));
    let flags = TxFlags::IPV4 | TxFlags::SCTP_CHECKSUM;
    frame.request(TxRequest { flags, lengths }).unwrap();
    assert!(matches!(frame.fill_checksums(), Err(OffloadError::NotInSoftware { .. })));
    assert_eq!(frame.tx_flags(), flags);
    let flags = TxFlags::IPV4 | TxFlags::UDP_CHECKSUM;
    frame.request(TxRequest { flags, lengths }).unwrap();
    let clone = frame.share(&pool).unwrap();
    assert_eq!(frame.fill_checksums(), Err(OffloadError::Shared));
    assert_eq!(frame.tx_flags(), flags);
    drop(clone);
    frame.trim(34).unwrap();
    assert!(matches!(frame.fill_checksums(), Err(OffloadError::Headers { .. })));
}
