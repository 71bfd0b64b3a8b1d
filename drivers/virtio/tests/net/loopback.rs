//! Frames in and out, byte by byte.

use std::collections::VecDeque;

use packetboat::mbuf::{Burst, HEADROOM_BYTES, MbufPoolConfig};
use proptest::prelude::*;

use crate::device::{Buffer, KNOWN, MRG_RXBUF, Options};
use crate::rig::{NUMBER, Rig, bytes_of, config, frame, mbuf_of};

/// Receive a frame, check it, send it back.
fn once_around(rig: &mut Rig, pair: usize, sent: &[u8]) {
    assert!(rig.device.receive(pair, sent), "no room for {} bytes", sent.len());
    let mut burst = rig.received(pair);
    assert_eq!(burst.len(), 1);
    assert_eq!(bytes_of(&burst.as_slice()[0]), sent);
    assert_eq!(burst.as_slice()[0].port(), NUMBER);
    rig.queues.tx[pair].send(&mut burst);
    assert!(burst.is_empty());
    assert_eq!(rig.device.transmitted(pair), [sent]);
    rig.queues.tx[pair].reclaim();
}

#[test]
fn all_sizes_go_around_in_single_buffers() {
    for offered in [KNOWN, KNOWN & !MRG_RXBUF] {
        let mut rig = Rig::running(Options { offered, ..Options::default() }, 64, 16);
        let mut bytes = 0;
        for len in 1..=2048 {
            once_around(&mut rig, 0, &frame(len, len as u32));
            bytes += len as u64;
        }
        let (rx, tx) = (rig.rx_stats(), rig.tx_stats());
        assert_eq!((rx.packets, rx.bytes, rx.dropped()), (2048, bytes, 0));
        assert_eq!((tx.packets, tx.bytes, tx.dropped()), (2048, bytes, 0));
        rig.finish();
    }
}

#[test]
fn long_frames_go_around_in_chains() {
    let pool = MbufPoolConfig {
        data_room_bytes: HEADROOM_BYTES + 100,
        ..MbufPoolConfig::new("small", 600)
    };
    let mut rig = Rig::with_pool(Options::default(), &pool);
    rig.port.configure(&config(1, 256, 256)).unwrap();
    rig.start().unwrap();
    // One buffer holds the header and 100 bytes, each further one 112 bytes.
    for len in (1..=2000).step_by(7).chain([99, 100, 101, 211, 212, 213, 324, 325, 9018, 25_000]) {
        once_around(&mut rig, 0, &frame(len, len as u32));
    }
    assert_eq!(rig.rx_stats().dropped() + rig.tx_stats().dropped(), 0);
    rig.finish();
}

#[test]
fn frames_without_headroom_get_a_header_of_their_own() {
    let mut rig = Rig::running(Options::default(), 64, 16);
    for room in [0, 1, 11, 12, 13] {
        let mut mbuf = mbuf_of(&rig.pool, &frame(100, room));
        mbuf.prepend(usize::from(HEADROOM_BYTES) - room as usize).unwrap().fill(0x11);
        let mut tail = mbuf_of(&rig.pool, &frame(50, room + 100));
        tail.chain(rig.pool.alloc().unwrap()).unwrap(); // an empty segment
        let mut burst = Burst::new();
        let expected = [bytes_of(&mbuf), [bytes_of(&mbuf), bytes_of(&tail)].concat()];
        let mut chain = mbuf_of(&rig.pool, &frame(100, room));
        chain.prepend(usize::from(HEADROOM_BYTES) - room as usize).unwrap().fill(0x11);
        chain.chain(tail).unwrap();
        burst.push(mbuf).unwrap();
        burst.push(chain).unwrap();
        rig.queues.tx[0].send(&mut burst);
        assert_eq!(rig.device.transmitted(0), expected, "headroom {room}");
    }
    rig.finish();
}

#[test]
fn what_cant_be_sent_is_counted_and_freed() {
    let mut rig = Rig::running(Options::default(), 64, 4);
    let mut chain = mbuf_of(&rig.pool, b"x");
    for _ in 0..4 {
        chain.chain(mbuf_of(&rig.pool, b"y")).unwrap();
    }
    let mut burst = Burst::new();
    burst.push(chain).unwrap();
    burst.push(rig.pool.alloc().unwrap()).unwrap();
    burst.push(mbuf_of(&rig.pool, b"good")).unwrap();
    rig.queues.tx[0].send(&mut burst);
    assert!(burst.is_empty());
    assert_eq!(rig.device.transmitted(0), [b"good"]);
    let stats = rig.tx_stats();
    assert_eq!((stats.packets, stats.bytes), (1, 4));
    assert_eq!((stats.bad_chain, stats.bad_length, stats.bad_id), (1, 1, 0));
    rig.finish();
}

#[test]
fn a_full_ring_leaves_the_rest_to_the_caller() {
    let mut rig = Rig::running(Options::default(), 64, 8);
    let mut burst = Burst::new();
    for number in 0..20 {
        burst.push(mbuf_of(&rig.pool, &frame(60, number))).unwrap();
    }
    rig.queues.tx[0].send(&mut burst);
    assert_eq!(burst.len(), 12);
    rig.queues.tx[0].send(&mut burst);
    assert_eq!(burst.len(), 12, "no room until the device is done with some");
    assert_eq!(rig.device.transmit(0, 3, |_| ()), 3);
    rig.queues.tx[0].send(&mut burst);
    assert_eq!(burst.len(), 9);
    let mut rest = 3;
    while rest < 20 {
        rest += rig.device.transmit(0, 5, |_| ());
        rig.queues.tx[0].send(&mut burst);
    }
    assert!(burst.is_empty());
    rig.queues.tx[0].reclaim();
    assert_eq!(rig.tx_stats().packets, 20);
    rig.finish();
}

#[test]
fn each_queue_carries_its_own_frames() {
    let mut rig = Rig::new(Options { queue_pairs: 4, ..Options::default() }, 512);
    rig.port.configure(&config(4, 16, 16)).unwrap();
    rig.start().unwrap();
    for round in 0..100 {
        let pair = (round * 7 % 4) as usize;
        once_around(&mut rig, pair, &frame(64 + round as usize, round));
    }
    let stats = rig.port.stats();
    assert!(stats.rx.iter().chain(&stats.tx).all(|queue| queue.packets == 25), "{stats:?}");
    rig.finish();
}

/// More queues of one kind: the others of the pairs stay unused.
#[test]
fn pairs_may_be_used_in_halves() {
    let mut rig = Rig::new(Options { queue_pairs: 2, ..Options::default() }, 256);
    let mut halves = config(2, 16, 16);
    halves.tx_queues = 1;
    rig.port.configure(&halves).unwrap();
    rig.start().unwrap();
    assert_eq!((rig.queues.rx.len(), rig.queues.tx.len()), (2, 1));
    for pair in [0, 1] {
        assert!(rig.device.receive(pair, &frame(60, 1)));
        assert_eq!(rig.received(pair).len(), 1);
    }
    rig.finish();
}

#[test]
fn an_empty_pool_is_counted_and_recovered_from() {
    let mut rig = Rig::running(Options::default(), 32, 16);
    let mut kept = Vec::new();
    for round in 0.. {
        if !rig.device.receive(0, &frame(60, round)) {
            break;
        }
        let mut burst = rig.received(0);
        kept.extend(std::iter::from_fn(|| burst.pop_front()));
    }
    assert_eq!(kept.len(), 32, "every mbuf was of use");
    assert!(rig.received(0).is_empty());
    assert!(rig.rx_stats().no_mbuf > 0);
    kept.truncate(31);
    rig.received(0); // finds the one that is free
    assert!(rig.device.receive(0, &frame(60, 99)));
    assert_eq!(rig.received(0).len(), 1);
    drop(kept);
    rig.finish();
}

/// As many buffers are lent as a burst took, or the device would run dry under load.
#[test]
fn a_whole_ring_in_one_burst_is_replaced_in_one_go() {
    let mut rig = Rig::running(Options::default(), 512, 128);
    for round in 0..10 {
        for number in 0..128 {
            assert!(rig.device.receive(0, &frame(60, round * 128 + number)));
        }
        assert_eq!(rig.received(0).len(), 128);
    }
    rig.finish();
}

#[test]
fn a_device_that_polls_isnt_rung() {
    let mut rig = Rig::running(Options::default(), 64, 16);
    once_around(&mut rig, 0, &frame(60, 1));
    let rung = rig.device.kicks();
    assert!(rung > 0);
    for queue in [0, 1] {
        rig.device.poll(queue);
    }
    for round in 0..50 {
        once_around(&mut rig, 0, &frame(60, round));
    }
    assert_eq!(rig.device.kicks(), rung);
    rig.finish();
}

// ---- any order, against a model -------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    /// Frames come in from the wire, of these lengths.
    Wire(Vec<usize>),
    /// The driver receives into a burst of this limit, and what it got is kept for sending.
    Receive(usize),
    /// The driver sends up to so many of what is kept.
    Send(usize),
    /// The device takes frames to be sent…
    Take(usize),
    /// …and is done with some of them, from the back or the front.
    Done(usize, bool),
    Reclaim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => proptest::collection::vec(1..3000usize, 1..12).prop_map(Step::Wire),
        3 => (1..20usize).prop_map(Step::Receive),
        3 => (1..20usize).prop_map(Step::Send),
        2 => (1..20usize).prop_map(Step::Take),
        2 => (1..20usize, any::<bool>()).prop_map(|(count, back)| Step::Done(count, back)),
        1 => Just(Step::Reclaim),
    ];
    proptest::collection::vec(step, 100..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn order_and_content_survive_any_interleaving(
        rx_power in 1..7u32,
        tx_power in 1..7u32,
        mbufs in 70..200usize,
        mergeable: bool,
        steps in steps(),
    ) {
        let offered = if mergeable { KNOWN } else { KNOWN & !MRG_RXBUF };
        let mut rig = Rig::new(Options { offered, ..Options::default() }, mbufs);
        rig.port.configure(&config(1, 1 << rx_power, 1 << tx_power)).unwrap();
        rig.start().unwrap();
        let mut on_the_wire: VecDeque<Vec<u8>> = VecDeque::new(); // in, not received yet
        let mut kept = VecDeque::new(); // received, not sent yet
        let mut given: VecDeque<Vec<u8>> = VecDeque::new(); // sent, not taken yet
        let mut taken: Vec<Buffer> = Vec::new(); // taken, not done yet
        let (mut seed, mut rx_packets, mut tx_packets) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Wire(lengths) => for len in lengths {
                    seed += 1;
                    let frame = frame(len, seed);
                    if rig.device.receive(0, &frame) {
                        prop_assert!(mergeable || len <= 2048);
                        on_the_wire.push_back(frame);
                    }
                },
                Step::Receive(limit) => {
                    let mut burst = Burst::with_limit(limit);
                    rig.queues.rx[0].receive(&mut burst);
                    prop_assert_eq!(burst.len(), limit.min(on_the_wire.len()));
                    while let Some(mbuf) = burst.pop_front() {
                        let expected = on_the_wire.pop_front().unwrap();
                        prop_assert_eq!(bytes_of(&mbuf), expected);
                        rx_packets += 1;
                        kept.push_back(mbuf);
                    }
                }
                Step::Send(most) => {
                    let mut burst = Burst::new();
                    let mut frames = VecDeque::new();
                    for mbuf in kept.drain(..most.min(kept.len())) {
                        frames.push_back((bytes_of(&mbuf), mbuf.segment_count()));
                        burst.push(mbuf).unwrap();
                    }
                    let before = rig.tx_stats().bad_chain;
                    rig.queues.tx[0].send(&mut burst);
                    let left = burst.len();
                    let mut too_long = 0;
                    while frames.len() > left {
                        let (bytes, segments) = frames.pop_front().unwrap();
                        if segments > 1 << tx_power {
                            too_long += 1;
                        } else {
                            tx_packets += 1;
                            given.push_back(bytes);
                        }
                    }
                    prop_assert_eq!(rig.tx_stats().bad_chain - before, too_long);
                    while let Some(mbuf) = burst.pop_front() {
                        kept.push_front(mbuf);
                    }
                    let mut back: Vec<_> = kept.drain(..left).collect();
                    back.reverse();
                    for mbuf in back.into_iter().rev() {
                        kept.push_front(mbuf);
                    }
                }
                Step::Take(most) => for _ in 0..most {
                    let Some(buffer) = rig.device.take(1) else { break };
                    prop_assert_eq!(rig.device.sent_frame(&buffer), given.pop_front().unwrap());
                    taken.push(buffer);
                },
                Step::Done(most, back) => for _ in 0..most.min(taken.len()) {
                    let at = if back { taken.len() - 1 } else { 0 };
                    let buffer = taken.remove(at);
                    rig.device.complete(1, &[(buffer.id.into(), 0)]);
                },
                Step::Reclaim => rig.queues.tx[0].reclaim(),
            }
            let (rx, tx) = (rig.rx_stats(), rig.tx_stats());
            prop_assert_eq!((rx.packets, rx.dropped()), (rx_packets, 0));
            prop_assert_eq!((tx.packets, tx.bad_id, tx.bad_length), (tx_packets, 0, 0));
            prop_assert!(rig.port.fault().is_none());
        }
        drop(kept);
        rig.finish();
    }
}
