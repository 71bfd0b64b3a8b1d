//! What the driver doesn't ask of the device: each frame is dropped and counted, and the next goes.

use packetboat::mbuf::{Mbuf, OffloadError, TxFlags, TxLengths, TxRequest};
use packetboat::port::{Offloads, QueueStats};

use crate::packet::{Packet, padded};
use crate::rig::Rig;
use crate::send::{all, ask};

const TCP4: TxFlags = TxFlags::IPV4.with(TxFlags::TCP_CHECKSUM);
const SEGMENTS: TxFlags = TxFlags::IPV4.with(TxFlags::TCP_SEGMENT);

fn request(mut mbuf: Mbuf, flags: TxFlags, lengths: TxLengths) -> Mbuf {
    mbuf.request(TxRequest { flags, lengths }).unwrap();
    mbuf
}

/// The frame is dropped: `counted` says what it was counted as. The next one goes out.
fn is_refused(rig: &mut Rig, frame: Mbuf, counted: fn(&QueueStats) -> u64, why: &str) {
    let before = rig.tx_stats();
    let good = Packet::tcp4(100);
    let next = ask(rig.mbuf(&good.unfinished()), &good, None);
    rig.send(0, [frame, next]);
    let after = rig.tx_stats();
    assert_eq!(rig.cable.take(), [padded(good.bytes())], "{why}");
    assert_eq!(counted(&after), counted(&before) + 1, "{why}");
    assert_eq!(after.dropped(), before.dropped() + 1, "{why}");
    assert_eq!(after.packets, before.packets + 1, "{why}");
}

#[test]
fn requests_that_make_no_sense_are_dropped_and_counted() {
    let mut rig = Rig::new(all());
    let lengths = |l2, l3, l4| TxLengths::new(l2, l3, l4).unwrap();
    let whole = Packet::tcp4(1000).unfinished();
    let v6 = Packet { v6: true, ..Packet::tcp4(1000) }.unfinished();
    let requests: [(&str, &[u8], TxFlags, TxLengths); 12] = [
        ("layer 2 is too short", &whole, TCP4, lengths(12, 20, 20)),
        ("layer 3 is too short", &whole, TCP4, lengths(14, 16, 20)),
        (
            "layer 3 is too short for IPv6",
            &v6,
            TxFlags::IPV6 | TxFlags::TCP_CHECKSUM,
            lengths(14, 20, 20),
        ),
        ("the frame ends before its TCP header", &whole[..50], TCP4, lengths(14, 20, 0)),
        (
            "the frame ends within its IP header",
            &whole[..33],
            TxFlags::IPV4 | TxFlags::UDP_CHECKSUM,
            lengths(14, 16, 0),
        ),
        ("segments behind half a header", &whole, SEGMENTS, lengths(14, 20, 8).segment(500)),
        ("segments behind no TCP header", &whole, SEGMENTS, lengths(14, 20, 64).segment(500)),
        ("segments of nothing", &whole[..54], SEGMENTS, lengths(14, 20, 20).segment(500)),
        ("segments too long", &whole, SEGMENTS, lengths(14, 20, 20).segment(9724 - 53)),
        (
            "segments of UDP",
            &whole,
            TxFlags::IPV4 | TxFlags::UDP_SEGMENT,
            lengths(14, 20, 8).segment(500),
        ),
        ("a tunnel", &whole, TCP4 | TxFlags::TUNNEL_VXLAN, lengths(14, 20, 20)),
        (
            "an outer checksum",
            &whole,
            TCP4 | TxFlags::OUTER_IP_CHECKSUM | TxFlags::OUTER_IPV4,
            lengths(14, 20, 20),
        ),
    ];
    for (why, frame, flags, lengths) in requests {
        let frame = request(rig.mbuf(frame), flags, lengths);
        is_refused(&mut rig, frame, |stats| stats.bad_request, why);
    }
    let mut two_tags = rig.mbuf(&whole);
    two_tags.insert_qinq(1, 2);
    is_refused(&mut rig, two_tags, |stats| stats.bad_request, "two tags");
    assert_eq!(rig.softnic.stat("tx_bad_descriptors"), 0);
    rig.end();
}

/// What the driver never sees, as the mbuf doesn't take it.
#[test]
fn segments_of_no_length_and_headers_outside_are_refused_by_the_mbuf() {
    let rig = Rig::new(all());
    let packet = Packet::tcp4(1000);
    let lengths = TxLengths::new(14, 20, 20).unwrap();
    let mut frame = rig.mbuf(&packet.unfinished());
    let none = frame.request(TxRequest { flags: SEGMENTS, lengths });
    assert!(matches!(none, Err(OffloadError::Segment { segment_len_bytes: 0, .. })), "{none:?}");
    let mut short = rig.chain(&packet.unfinished(), 53, 500);
    let outside = short.request(TxRequest { flags: SEGMENTS, lengths: lengths.segment(500) });
    assert!(matches!(outside, Err(OffloadError::Headers { .. })), "{outside:?}");
    drop((frame, short));
    rig.end();
}

#[test]
fn frames_of_too_many_or_too_few_bytes_or_mbufs_are_dropped_and_counted() {
    let mut rig = Rig::new(all());
    let packet = Packet::tcp4(4000);
    let bytes = packet.bytes();
    let many = rig.chain(&bytes, 100, 100);
    assert!(many.segment_count() > 38);
    is_refused(&mut rig, many, |stats| stats.bad_chain, "too many segments");
    let many = ask(rig.chain(&packet.unfinished(), 100, 100), &packet, Some(500));
    is_refused(&mut rig, many, |stats| stats.bad_chain, "too many segments that ask");
    let long = rig.chain(&[5; 9725], 2000, 2000);
    is_refused(&mut rig, long, |stats| stats.bad_length, "too long");
    let short = rig.mbuf(&[5; 16]);
    is_refused(&mut rig, short, |stats| stats.bad_length, "too short");
    // As many and as long as it may be.
    let bytes = &bytes[..3800];
    let frame = rig.chain(bytes, 100, 100);
    assert_eq!(frame.segment_count(), 38);
    assert_eq!(rig.sent(frame), [bytes.to_vec()]);
    let frame = rig.chain(&[5; 9724], 2000, 2000);
    assert_eq!(rig.sent(frame), [vec![5; 9724]]);
    let frame = rig.mbuf(&[5; 17]);
    assert_eq!(rig.sent(frame), [padded(vec![5; 17])]);
    rig.end();
}

#[test]
fn a_port_without_offloads_does_none() {
    let mut rig = Rig::new(Offloads { tx_checksum: true, ..Offloads::default() });
    let packet = Packet::tcp4(1000);
    let segments = ask(rig.mbuf(&packet.unfinished()), &packet, Some(500));
    is_refused(&mut rig, segments, |stats| stats.bad_request, "segments");
    let mut tagged = rig.mbuf(&packet.bytes());
    tagged.insert_vlan(5);
    is_refused(&mut rig, tagged, |stats| stats.bad_request, "a tag");
    rig.end();
    let mut rig = Rig::new(Offloads::default());
    let checksum = ask(rig.mbuf(&packet.unfinished()), &packet, None);
    rig.send(0, [checksum]);
    assert_eq!((rig.tx_stats().bad_request, rig.cable.take().len()), (1, 0));
    rig.end();
}
