//! A device that lies: each lie is counted, nothing else happens, and every mbuf comes back.

use packetboat::mbuf::{Burst, HEADROOM_BYTES, MAX_SEGMENTS, Mbuf, MbufPoolConfig};
use packetboat::port::QueueStats;
use proptest::prelude::*;

use crate::device::{Buffer, Faults, KNOWN, MRG_RXBUF, Options, RX_HEADER_BYTES};
use crate::rig::{Rig, bytes_of, config, frame, mbuf_of};

const DESCRIPTORS: u16 = 16;
/// What a buffer of the default pool holds: header and frame.
const BUFFER_BYTES: u32 = 12 + 2048;
const RX: usize = 0;
const TX: usize = 1;

fn rig(offered: u64) -> Rig {
    Rig::running(Options { offered, ..Options::default() }, 128, DESCRIPTORS)
}

/// Bad ids, bad lengths, bad chains.
fn drops(stats: &QueueStats) -> [u64; 3] {
    [stats.bad_id, stats.bad_length, stats.bad_chain]
}

/// The queue still works as if nothing had been: as often as it has entries, twice over.
fn still_works(rig: &mut Rig) {
    let before = (rig.rx_stats(), rig.tx_stats());
    for number in 0..2 * u32::from(DESCRIPTORS) {
        let sent = frame(200, number);
        assert!(rig.device.receive(0, &sent), "a descriptor is missing");
        let mut burst = rig.received(0);
        assert_eq!(burst.len(), 1);
        assert_eq!(bytes_of(&burst.as_slice()[0]), sent);
        rig.queues.tx[0].send(&mut burst);
        assert!(burst.is_empty());
        assert_eq!(rig.device.transmitted(0), [sent]);
        rig.queues.tx[0].reclaim();
    }
    assert_eq!(drops(&rig.rx_stats()), drops(&before.0));
    assert_eq!(drops(&rig.tx_stats()), drops(&before.1));
    assert_eq!(rig.port.fault(), None);
}

// ---- receiving ------------------------------------------------------------------------------

#[test]
fn ids_of_buffers_that_it_hasnt_are_counted() {
    let mut rig = rig(KNOWN);
    let size = u32::from(DESCRIPTORS);
    let mut expected = 0;
    for id in [size, size + 1, 0x8000, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        rig.device.complete(RX, &[(id, 100)]);
        assert!(rig.received(0).is_empty(), "{id:#x}");
        expected += 1;
        assert_eq!(drops(&rig.rx_stats()), [expected, 0, 0], "{id:#x}");
    }
    still_works(&mut rig);
    rig.finish();
}

#[test]
fn an_id_completed_twice_is_one_frame() {
    let mut rig = rig(KNOWN & !MRG_RXBUF);
    let buffer = rig.device.take(RX).unwrap();
    let entry = (u32::from(buffer.id), 72);
    rig.device.complete(RX, &[entry, entry]);
    assert_eq!(rig.received(0).len(), 1);
    assert_eq!(drops(&rig.rx_stats()), [1, 0, 0]);
    rig.device.complete(RX, &[entry, entry, entry]);
    assert!(rig.received(0).len() <= 1, "its descriptor may have been lent again");
    assert_eq!(rig.rx_stats().packets + rig.rx_stats().bad_id, 5);
    rig.finish();
}

#[test]
fn lengths_that_cant_be_are_counted() {
    for offered in [KNOWN, KNOWN & !MRG_RXBUF] {
        let mut rig = rig(offered);
        let mut expected = 0;
        for len in [0, 1, 11, 12, BUFFER_BYTES + 1, 0xffff, 0x1_0000, 0x1_000d, u32::MAX] {
            let buffer = rig.device.take(RX).unwrap();
            rig.device.write(&buffer, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            rig.device.complete(RX, &[(buffer.id.into(), len)]);
            assert!(rig.received(0).is_empty(), "{len:#x}");
            expected += 1;
            assert_eq!(drops(&rig.rx_stats()), [0, expected, 0], "{len:#x}");
        }
        for len in [13, BUFFER_BYTES] {
            let buffer = rig.device.take(RX).unwrap();
            rig.device.write(&buffer, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            rig.device.complete(RX, &[(buffer.id.into(), len)]);
            assert_eq!(rig.received(0).as_slice()[0].len_bytes(), len as usize - 12);
        }
        still_works(&mut rig);
        rig.finish();
    }
}

/// A header that claims `count` buffers, in a buffer of the device.
fn claim(rig: &Rig, count: u16) -> Buffer {
    let buffer = rig.device.take(RX).unwrap();
    let mut header = [0; RX_HEADER_BYTES];
    header[10..].copy_from_slice(&count.to_le_bytes());
    rig.device.write(&buffer, &header);
    buffer
}

#[test]
fn chains_that_arent_there_are_counted() {
    let mut rig = rig(KNOWN);
    for (round, count) in (1..).zip([0, 2, 3, 16, 17, 257, 0x8000, 0xffff]) {
        let buffer = claim(&rig, count);
        rig.device.complete(RX, &[(buffer.id.into(), 100)]);
        assert!(rig.received(0).is_empty(), "{count}");
        assert_eq!(drops(&rig.rx_stats()), [0, 0, round], "{count}");
    }
    still_works(&mut rig);
    rig.finish();
}

/// Without MRG_RXBUF the field means nothing, whatever stands in it.
#[test]
fn buffer_counts_that_werent_negotiated_are_ignored() {
    let mut rig = rig(KNOWN & !MRG_RXBUF);
    for count in [0, 1, 2, 0xffff] {
        let buffer = claim(&rig, count);
        rig.device.complete(RX, &[(buffer.id.into(), 72)]);
        assert_eq!(rig.received(0).as_slice()[0].len_bytes(), 60);
    }
    still_works(&mut rig);
    rig.finish();
}

/// One bad part costs the frame, and the next frame starts behind it.
#[test]
fn a_bad_part_costs_the_whole_frame_and_no_other() {
    let part = |buffer: &Buffer, len| (u32::from(buffer.id), len);
    let bad_ids = [99, u32::MAX];
    for bad_at in [1, 2] {
        for (bad, expected) in [
            ((bad_ids[0], 100), [1, 0, 0]),
            ((bad_ids[1], 100), [1, 0, 0]),
            ((u32::MAX - 1, BUFFER_BYTES + 1), [1, 0, 0]),
        ] {
            let mut rig = rig(KNOWN);
            let first = claim(&rig, 3);
            let other = rig.device.take(RX).unwrap();
            let mut used = vec![part(&first, BUFFER_BYTES), part(&other, 50)];
            used.insert(bad_at, bad);
            rig.device.complete(RX, &used);
            assert!(rig.device.receive(0, b"the next"));
            let burst = rig.received(0);
            assert_eq!(burst.len(), 1, "{bad:?}");
            assert_eq!(bytes_of(&burst.as_slice()[0]), b"the next");
            assert_eq!(drops(&rig.rx_stats()), expected, "{bad:?}");
            drop(burst);
            still_works(&mut rig);
            rig.finish();
        }
        for len in [BUFFER_BYTES + 1, u32::MAX] {
            let mut rig = rig(KNOWN);
            let (first, second, third) =
                (claim(&rig, 3), rig.device.take(RX).unwrap(), rig.device.take(RX).unwrap());
            let mut used =
                [part(&first, BUFFER_BYTES), part(&second, 50), part(&third, BUFFER_BYTES)];
            used[bad_at].1 = len;
            rig.device.complete(RX, &used);
            assert!(rig.device.receive(0, b"the next"));
            assert_eq!(rig.received(0).len(), 1);
            assert_eq!(drops(&rig.rx_stats()), [0, 1, 0], "{len}");
            still_works(&mut rig);
            rig.finish();
        }
    }
}

#[test]
fn chains_longer_than_an_mbuf_can_be_are_counted() {
    let options = Options { queue_size: 1024, ..Options::default() };
    let pool = MbufPoolConfig {
        data_room_bytes: HEADROOM_BYTES + 64,
        ..MbufPoolConfig::new("small", 1200)
    };
    let mut rig = Rig::with_pool(options, &pool);
    rig.port.configure(&config(1, 1024, DESCRIPTORS)).unwrap();
    rig.start().unwrap();
    let segments = MAX_SEGMENTS + 1;
    let mut used = vec![(u32::from(claim(&rig, segments as u16).id), 76)];
    for _ in 1..segments {
        used.push((rig.device.take(RX).unwrap().id.into(), 76));
    }
    rig.device.complete(RX, &used);
    assert!(rig.device.receive(0, b"the next"));
    let burst = rig.received(0);
    assert_eq!((burst.len(), drops(&rig.rx_stats())), (1, [0, 0, 1]));
    drop(burst);
    rig.finish();
}

#[test]
fn a_used_index_that_runs_ahead_breaks_the_queue_and_is_reported() {
    for by in [DESCRIPTORS + 1, 0x7fff, 0x8000, u16::MAX] {
        let mut rig = rig(KNOWN);
        assert!(rig.device.receive(0, &frame(60, 1)));
        assert_eq!(rig.received(0).len(), 1);
        rig.device.move_used_index(RX, by);
        for _ in 0..3 {
            assert!(rig.received(0).is_empty(), "{by}");
        }
        assert!(rig.port.fault().is_some(), "{by}");
        assert_eq!(rig.port.stats().rx[0].packets, 1);
        rig.stop().unwrap();
        assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
        rig.start().unwrap();
        still_works(&mut rig);
        rig.finish();
    }
}

/// Within what it was given it may claim to have used what it hasn't touched: old entries, which
/// name buffers that it may or may not have.
#[test]
fn a_used_index_that_runs_into_old_entries_does_no_harm() {
    let mut rig = rig(KNOWN);
    for number in 0..40 {
        assert!(rig.device.receive(0, &frame(60, number)));
        assert_eq!(rig.received(0).len(), 1);
    }
    rig.device.move_used_index(RX, DESCRIPTORS);
    let before = rig.rx_stats();
    let burst = rig.received(0);
    let after = rig.rx_stats();
    let told = after.packets + after.dropped() - before.packets - before.dropped();
    assert!(burst.len() as u64 == after.packets - before.packets && told > 0);
    drop(burst);
    rig.finish();
}

// ---- sending --------------------------------------------------------------------------------

fn send(rig: &mut Rig, frames: &[&[u8]]) {
    let mut burst = Burst::new();
    for bytes in frames {
        burst.push(mbuf_of(&rig.pool, bytes)).unwrap();
    }
    rig.queues.tx[0].send(&mut burst);
    assert!(burst.is_empty());
}

#[test]
fn completions_of_frames_that_it_hasnt_are_counted() {
    let mut rig = rig(KNOWN);
    let size = u32::from(DESCRIPTORS);
    let mut expected = 0;
    // One frame for each lie: more completions than frames would break the queue.
    for id in [size, 0xffff, 0x1_0000, u32::MAX] {
        send(&mut rig, &[b"held"]);
        rig.device.complete(TX, &[(id, 0)]);
        rig.queues.tx[0].reclaim();
        expected += 1;
        assert_eq!(drops(&rig.tx_stats()), [expected, 0, 0], "{id:#x}");
    }
    let held: Vec<_> = std::iter::from_fn(|| rig.device.take(TX)).collect();
    assert_eq!(held.len(), 4, "they are the device's still");
    for buffer in held {
        rig.device.complete(TX, &[(buffer.id.into(), 0)]);
    }
    still_works(&mut rig);
    rig.finish();
}

#[test]
fn a_frame_completed_twice_is_freed_once() {
    let mut rig = rig(KNOWN);
    send(&mut rig, &[b"one", b"two"]);
    let [one, two] = [(); 2].map(|()| rig.device.take(TX).unwrap());
    rig.device.complete(TX, &[(one.id.into(), 0), (one.id.into(), 0)]);
    rig.queues.tx[0].reclaim();
    assert_eq!(drops(&rig.tx_stats()), [1, 0, 0]);
    assert_eq!(rig.pool.objects().in_use(), usize::from(DESCRIPTORS) + 1, "two is out still");
    rig.device.complete(TX, &[(two.id.into(), 0)]);
    still_works(&mut rig);
    rig.finish();
}

#[test]
fn the_middle_of_a_chain_is_no_frame() {
    let mut rig = rig(KNOWN);
    let mut chain = mbuf_of(&rig.pool, b"head");
    chain.chain(mbuf_of(&rig.pool, b"middle")).unwrap();
    chain.chain(mbuf_of(&rig.pool, b"tail")).unwrap();
    let mut burst = Burst::new();
    burst.push(chain).unwrap();
    rig.queues.tx[0].send(&mut burst);
    let buffer = rig.device.take(TX).unwrap();
    let middle = (u32::from(buffer.id) + 1) % u32::from(DESCRIPTORS);
    rig.device.complete(TX, &[(middle, 0)]);
    rig.queues.tx[0].reclaim();
    assert_eq!(drops(&rig.tx_stats()), [1, 0, 0]);
    rig.device.complete(TX, &[(buffer.id.into(), 0)]);
    still_works(&mut rig);
    rig.finish();
}

/// Descriptors lie in memory that the device can write to: what the driver knows of its chains it
/// doesn't read there.
#[test]
fn scribbling_over_descriptors_changes_nothing_for_the_driver() {
    for byte in [0x00, 0x55, 0xff] {
        let mut rig = rig(KNOWN);
        let mut burst = Burst::new();
        for number in 0..5 {
            let mut chain = mbuf_of(&rig.pool, &frame(50, number));
            chain.chain(mbuf_of(&rig.pool, b"tail")).unwrap();
            burst.push(chain).unwrap();
        }
        rig.queues.tx[0].send(&mut burst);
        let taken: Vec<_> = std::iter::from_fn(|| rig.device.take(TX)).collect();
        assert_eq!(taken.len(), 5);
        rig.device.scribble(TX, byte);
        for buffer in taken.iter().rev() {
            rig.device.complete(TX, &[(buffer.id.into(), 0)]);
        }
        rig.queues.tx[0].reclaim();
        assert_eq!(rig.pool.objects().in_use(), usize::from(DESCRIPTORS));
        still_works(&mut rig);
        rig.finish();
    }
}

#[test]
fn a_transmit_index_that_runs_ahead_breaks_the_queue_and_is_reported() {
    for by in [3, DESCRIPTORS, 0x8000, u16::MAX] {
        let mut rig = rig(KNOWN);
        send(&mut rig, &[b"one", b"two"]);
        rig.device.move_used_index(TX, by);
        rig.queues.tx[0].reclaim();
        assert!(rig.port.fault().is_some(), "{by}");
        let mut burst = Burst::new();
        burst.push(mbuf_of(&rig.pool, b"three")).unwrap();
        rig.queues.tx[0].send(&mut burst);
        assert_eq!(burst.len(), 1, "stays the caller's");
        drop(burst);
        rig.stop().unwrap();
        assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
        rig.start().unwrap();
        assert_eq!(rig.port.fault(), None);
        still_works(&mut rig);
        rig.finish();
    }
}

/// A frame for which the caller has no room stays where it is, whatever the way that was taken.
#[test]
fn frames_beyond_the_bursts_limit_stay_in_the_ring() {
    for order in [[0, 1, 2, 3], [1, 0, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0]] {
        for limit in 1..=4 {
            let mut rig = rig(KNOWN);
            let mut buffers: Vec<_> = (0..4).map(|_| rig.device.take(RX).unwrap()).collect();
            buffers.iter().for_each(|buffer| rig.device.write(buffer, &[0; 12]));
            buffers.sort_by_key(|buffer| order.iter().position(|id| *id == buffer.id));
            for buffer in &buffers {
                rig.device.write(buffer, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, buffer.id as u8]);
                rig.device.complete(RX, &[(buffer.id.into(), 13)]);
            }
            let mut found = Vec::new();
            for calls in 1.. {
                let mut burst = Burst::with_limit(limit);
                rig.queues.rx[0].receive(&mut burst);
                found.extend(burst.as_slice().iter().map(|mbuf| u16::from(mbuf.data()[0])));
                if found.len() == 4 {
                    assert_eq!(calls, 4_usize.div_ceil(limit), "{order:?} {limit}");
                    break;
                }
                assert!(!burst.is_empty(), "{order:?}, {limit} at a time: lost after {found:?}");
            }
            assert_eq!(found, order);
            assert_eq!((rig.rx_stats().packets, rig.rx_stats().bytes), (4, 4));
            rig.finish();
        }
    }
}

#[test]
fn commands_answered_with_lies_fail_by_name() {
    let mut rig = rig(KNOWN);
    rig.device.set_faults(Faults { answers_wrong_id: true, ..Faults::default() });
    let error = rig.port.set_promiscuous(true).unwrap_err().to_string();
    assert!(error.contains("VIRTIO_NET_CTRL_RX_PROMISC"), "{error}");
    rig.device.set_faults(Faults::default());
    still_works(&mut rig);
    rig.finish();
}

// ---- anything at all ------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Lie {
    Complete(usize, Vec<(u32, u32)>),
    /// A buffer that it has, with any header and length.
    Header(Vec<u8>, u32),
    MoveIndex(usize, u16),
    Receive(usize),
    Send(usize),
    Transmit(usize),
    Restart,
}

fn lies() -> impl Strategy<Value = Vec<Lie>> {
    let id = prop_oneof![0..20u32, any::<u32>()];
    let len = prop_oneof![0..100u32, 2040..2080u32, any::<u32>()];
    let used = proptest::collection::vec((id, len.clone()), 1..6);
    let header = proptest::collection::vec(prop_oneof![0..4u8, any::<u8>()], 12);
    let queue = 0..2usize;
    let lie = prop_oneof![
        4 => (queue.clone(), used).prop_map(|(queue, used)| Lie::Complete(queue, used)),
        4 => (header, len).prop_map(|(header, len)| Lie::Header(header, len)),
        1 => (queue, prop_oneof![0..20u16, any::<u16>()]).prop_map(|(q, by)| Lie::MoveIndex(q, by)),
        4 => (1..40usize).prop_map(Lie::Receive),
        4 => (1..20usize).prop_map(Lie::Send),
        2 => (1..20usize).prop_map(Lie::Transmit),
        1 => Just(Lie::Restart),
    ];
    proptest::collection::vec(lie, 100..250)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever it writes: no panic, no endless loop, no frame longer than its buffers, and after
    /// a reset every mbuf is back.
    #[test]
    fn whatever_it_writes_every_mbuf_comes_back(mergeable: bool, lies in lies()) {
        let mut rig = rig(if mergeable { KNOWN } else { KNOWN & !MRG_RXBUF });
        for lie in lies {
            match lie {
                Lie::Complete(queue, used) => rig.device.complete(queue, &used),
                Lie::Header(header, len) => if let Some(buffer) = rig.device.take(RX) {
                    rig.device.write(&buffer, &header);
                    rig.device.complete(RX, &[(buffer.id.into(), len)]);
                },
                Lie::MoveIndex(queue, by) => rig.device.move_used_index(queue, by),
                Lie::Receive(limit) => {
                    let before = rig.rx_stats();
                    let mut burst = Burst::with_limit(limit);
                    rig.queues.rx[0].receive(&mut burst);
                    let after = rig.rx_stats();
                    prop_assert_eq!(after.packets - before.packets, burst.len() as u64);
                    let bytes: usize = burst.as_slice().iter().map(Mbuf::len_bytes).sum();
                    prop_assert_eq!(after.bytes - before.bytes, bytes as u64);
                    for mbuf in burst.as_slice() {
                        let most = mbuf.segment_count() * BUFFER_BYTES as usize - 12;
                        prop_assert!((1..=most).contains(&mbuf.len_bytes()));
                        prop_assert_eq!(bytes_of(mbuf).len(), mbuf.len_bytes());
                    }
                    rig.queues.tx[0].send(&mut burst);
                }
                Lie::Send(count) => {
                    let mut burst = Burst::new();
                    rig.pool.alloc_bulk(&mut burst, count);
                    for mbuf in burst.iter_mut() {
                        mbuf.append(60).unwrap();
                    }
                    rig.queues.tx[0].send(&mut burst);
                }
                Lie::Transmit(most) => {
                    rig.device.transmit(0, most, |_| ());
                }
                Lie::Restart => {
                    rig.stop().unwrap();
                    prop_assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
                    rig.device.forget_violations();
                    rig.start().unwrap();
                    still_works(&mut rig);
                }
            }
        }
        rig.stop().unwrap();
        rig.device.forget_violations();
        rig.start().unwrap();
        still_works(&mut rig);
        rig.finish();
    }
}
