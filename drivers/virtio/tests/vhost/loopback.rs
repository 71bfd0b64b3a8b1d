//! Frames both ways, over every kind of ring.

use packetboat::mbuf::{Burst, MbufPool, MbufPoolConfig};
use packetboat::port::{PortConfig, PortError};

use crate::backend::{ALL, F_IN_ORDER, F_INDIRECT, F_MRG_RXBUF, F_PACKED, F_PROTOCOL, F_VERSION_1};
use crate::rig::{Rig, Setup, bytes_of, frame, mbuf_of, memory, none, probe};

const SETUP: Setup = Setup {
    offered: ALL,
    arguments: "",
    mbufs: 256,
    descriptors: 16,
    pairs: 1,
    server: false,
    offloads: none,
    interrupts: false,
};

/// All kinds: what the back end offers decides, `packed` has to be asked for.
pub(crate) fn all_kinds() -> Vec<Setup> {
    let mut kinds = Vec::new();
    for packed in [false, true] {
        for bits in 0..8 {
            let mut offered = ALL;
            for (bit, feature) in [F_MRG_RXBUF, F_IN_ORDER, F_INDIRECT].iter().enumerate() {
                if bits >> bit & 1 == 0 {
                    offered &= !feature;
                }
            }
            let arguments = match (packed, bits & 1 == 0) {
                (true, true) => ",packed=on",
                (true, false) => ",packed=on,event-idx=on",
                (false, true) => "",
                (false, false) => ",event-idx=on",
            };
            kinds.push(Setup { offered, arguments, ..SETUP });
        }
    }
    kinds
}

#[test]
fn frames_arrive_as_they_were_sent_both_ways() {
    for setup in all_kinds() {
        let mut rig = Rig::running(setup);
        let agreed = rig.back_end().features();
        assert_eq!(agreed & F_PACKED != 0, setup.arguments.contains("packed"), "{setup:?}");
        let mergeable = agreed & F_MRG_RXBUF != 0;
        let longest = if mergeable { 9000 } else { 2048 };
        let (mut sent, mut number) = (0, 0);
        // More than enough to go round the rings, in batches that don't divide them.
        for round in 0..60_u32 {
            let frames: Vec<Vec<u8>> = (0..1 + round % 7)
                .map(|_| {
                    number += 1;
                    let len = [60, 61, 1514, longest][number as usize % 4];
                    frame(if round % 3 == 0 { 60 } else { len }, number)
                })
                .collect();
            let count = frames.iter().take_while(|f| rig.back_end().receive(0, f)).count();
            assert!(count != 0, "{setup:?}");
            let mut burst = rig.received(0);
            assert_eq!(burst.len(), count, "{setup:?}");
            for (mbuf, frame) in burst.as_slice().iter().zip(&frames) {
                assert_eq!(bytes_of(mbuf), *frame);
                assert_eq!(mbuf.port(), 7);
            }
            let mut out = Vec::new();
            while !burst.is_empty() {
                rig.queues.tx[0].send(&mut burst);
                out.extend(rig.back_end().transmitted(0));
            }
            assert_eq!(out, frames[..count], "{setup:?}");
            sent += count as u64;
        }
        assert_eq!((rig.rx().packets, rig.tx().packets), (sent, sent));
        assert_eq!(rig.rx().bytes, rig.tx().bytes);
        assert_eq!((rig.rx().dropped(), rig.tx().dropped()), (0, 0));
        rig.finish();
    }
}

#[test]
fn frames_of_64_kib_go_out_in_chains_and_longer_ones_than_the_ring_are_refused() {
    for setup in all_kinds() {
        let mut rig = Rig::running(Setup { descriptors: 64, ..setup });
        for len in [2001, 9000, 65_535] {
            let sent = frame(len, len as u32);
            for _ in 0..5 {
                let mut burst = packetboat::mbuf::Burst::new();
                burst.push(mbuf_of(&rig.pool, &sent)).unwrap();
                rig.queues.tx[0].send(&mut burst);
                assert!(burst.is_empty());
                assert_eq!(rig.back_end().transmitted(0), [&sent[..]], "{setup:?}");
                rig.queues.tx[0].reclaim();
            }
        }
        let before = rig.pool.objects().in_use();
        let mut burst = packetboat::mbuf::Burst::new();
        burst.push(mbuf_of(&rig.pool, &frame(65 * 2000, 1))).unwrap();
        rig.queues.tx[0].send(&mut burst);
        assert!(burst.is_empty());
        assert_eq!((rig.tx().bad_chain, rig.pool.objects().in_use()), (1, before), "{setup:?}");
        rig.finish();
    }
}

#[test]
fn what_a_full_ring_has_no_room_for_stays_with_the_caller() {
    for setup in all_kinds() {
        let mut rig = Rig::running(Setup { descriptors: 4, ..setup });
        let mut burst = packetboat::mbuf::Burst::new();
        for number in 0..10 {
            burst.push(mbuf_of(&rig.pool, &frame(60, number))).unwrap();
        }
        rig.queues.tx[0].send(&mut burst);
        assert_eq!(burst.len(), 6, "{setup:?}");
        let mut out = rig.back_end().transmitted(0);
        for _ in 0..3 {
            rig.queues.tx[0].send(&mut burst);
            out.extend(rig.back_end().transmitted(0));
        }
        let expected: Vec<_> = (0..10).map(|number| frame(60, number)).collect();
        assert_eq!(out, expected, "{setup:?}");
        rig.finish();
    }
}

#[test]
fn two_queue_pairs_are_apart() {
    for arguments in [",queues=2", ",queues=2,packed=on"] {
        let mut rig = Rig::running(Setup { arguments, pairs: 2, ..SETUP });
        for pair in [1, 0, 1] {
            assert!(rig.back_end().receive(pair, &frame(60, pair as u32)));
            assert!(rig.received(1 - pair).is_empty());
            let mut burst = rig.received(pair);
            assert_eq!(bytes_of(&burst.as_slice()[0]), frame(60, pair as u32));
            rig.queues.tx[pair].send(&mut burst);
            assert_eq!(rig.back_end().transmitted(pair), [frame(60, pair as u32)]);
            assert!(rig.back_end().transmitted(1 - pair).is_empty());
        }
        rig.finish();
    }
}

#[test]
fn a_port_can_be_stopped_and_started_again() {
    let mut rig = Rig::running(Setup { server: true, ..SETUP });
    for round in 0..3 {
        assert!(rig.back_end().receive(0, &frame(60, round)));
        let mut burst = rig.received(0);
        rig.queues.tx[0].send(&mut burst);
        rig.port.stop(std::mem::take(&mut rig.queues)).unwrap();
        assert_eq!(rig.pool.objects().in_use(), 0);
        rig.queues = rig.port.start(&[rig.pool.clone()]).unwrap();
        rig.back_end().wait_for(2);
    }
    rig.finish();
}

#[test]
fn a_full_burst_takes_nothing_and_loses_nothing() {
    for setup in all_kinds() {
        let mut rig = Rig::running(setup);
        let mut burst = Burst::with_limit(1);
        for count in 1..4 {
            let frames: Vec<_> = (0..count).map(|number| frame(60, number)).collect();
            assert!(frames.iter().all(|frame| rig.back_end().receive(0, frame)));
            for frame in &frames {
                for _ in 0..3 {
                    rig.queues.rx[0].receive(&mut burst);
                    assert_eq!(burst.len(), 1, "{setup:?}");
                    assert_eq!(bytes_of(&burst.as_slice()[0]), *frame, "{setup:?}");
                }
                burst.clear();
            }
        }
        rig.queues.rx[0].receive(&mut burst);
        assert_eq!((burst.len(), rig.rx().packets, rig.rx().dropped()), (0, 6, 0), "{setup:?}");
        rig.finish();
    }
}

#[test]
fn an_mtu_is_taken_where_frames_so_long_can_be_received() {
    for (arguments, longest) in [("", 65_517), (",mrg-rxbuf=off", 2030)] {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory();
        let (port, _back_end, _) = probe(&memory, &Setup { arguments, ..SETUP }, &folder);
        let mut port = port.unwrap();
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("mbufs", 64)).unwrap();
        assert_eq!(port.capabilities().mtu, Some((68, 65_517)));
        let mut try_mtu = |mtu| {
            let (rx_descriptors, tx_descriptors) = (Some(16), Some(16));
            let config = PortConfig {
                rx_queues: 1,
                tx_queues: 1,
                rx_descriptors,
                tx_descriptors,
                mtu: Some(mtu),
                ..PortConfig::default()
            };
            port.configure(&config)?;
            let queues = port.start(std::slice::from_ref(&pool))?;
            port.stop(queues)
        };
        try_mtu(longest).unwrap();
        let error = try_mtu(longest + 1).unwrap_err();
        assert!(matches!(error, PortError::Mtu { .. }), "{error}");
        assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
        try_mtu(1500).unwrap();
    }
}

#[test]
fn what_is_asked_for_and_not_offered_is_named() {
    for (offered, arguments, parts) in [
        (
            ALL & !F_PACKED,
            ",packed=on",
            &["packed=on", "VIRTIO_F_RING_PACKED", "it isn't offered"][..],
        ),
        (ALL & !F_MRG_RXBUF, ",mrg-rxbuf=on", &["mrg-rxbuf=on"]),
        (ALL & !F_VERSION_1, "", &["virtio 0.9"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { offered, arguments, ..SETUP };
        let (port, _back_end, _) = probe(&memory(), &setup, &folder);
        let error = port.err().unwrap().to_string();
        for part in parts {
            assert!(error.contains(part.trim_start_matches("VIRTIO_F_")), "{part}: {error}");
        }
    }
    // The least that a back end can offer.
    let offered = F_VERSION_1 | F_PROTOCOL;
    let rig = Rig::running(Setup { offered, ..SETUP });
    assert_eq!(rig.back_end().features(), offered);
    rig.finish();
}

#[test]
fn without_a_back_end_the_error_says_what_to_do() {
    for (server, part) in [("", "no back end listens on"), (",server", "no back end has connected")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nobody.sock");
        let vdev = format!("vhost-user,path={}{server},wait=0", path.display());
        let port = packetboat_virtio::VHOST_USER.probe(&vdev.parse().unwrap(), &memory());
        let error = port.err().unwrap().to_string();
        assert!(error.contains(part) && error.contains("wait=SECONDS"), "{error}");
        assert!(!path.exists(), "the socket is left behind");
    }
}

#[test]
fn memory_that_the_back_end_would_not_know_of_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory();
    let (port, _back_end, _) = probe(&memory, &SETUP, &folder);
    let grow = || memory.add_segment(None, 4096, 64);
    let error = grow().err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("vhost-user") && cause.contains("-m"), "{cause}");
    drop(port);
    grow().unwrap();
}
