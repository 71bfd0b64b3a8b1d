//! A back end that lies on a packed ring, or in order, or not at all: see `tests/net/lies.rs` for
//! split rings.

use std::time::{Duration, Instant};

use crate::backend::ALL;
use crate::rig::{Rig, Setup, frame, none};

const SETUP: Setup = Setup {
    offered: ALL,
    arguments: ",packed=on",
    mbufs: 256,
    descriptors: 16,
    pairs: 1,
    server: false,
    offloads: none,
    interrupts: false,
};
const RX: usize = 0;
const TX: usize = 1;

/// It is started anew, and works.
fn recovers(rig: &mut Rig) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        rig.port.link_changed();
        rig.queues.tx[0].reclaim();
        drop(rig.received(0));
        if rig.back_end().ready() == 2 && rig.back_end().receive(0, &frame(60, 1)) {
            let mut burst = rig.received(0);
            if burst.len() == 1 {
                rig.queues.tx[0].send(&mut burst);
                assert_eq!(rig.back_end().transmitted(0), [frame(60, 1)]);
                return;
            }
        }
        assert!(
            Instant::now() < until,
            "it doesn't work again: {:?} {:?}",
            rig.port.stats(),
            rig.port.link()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn ids_that_it_hasnt_break_the_queue_which_begins_anew() {
    for arguments in [",packed=on", ",packed=on,in-order=off"] {
        for id in [3, 16, 17, 0x8000, 0xffff] {
            let mut rig = Rig::running(Setup { arguments, ..SETUP });
            let in_order = !arguments.contains("off");
            if in_order && id == 3 {
                continue; // a batch of four
            }
            rig.back_end().with_packed(RX, |ring, memory| {
                // One that it was never given: what is expected is 0, and 3 only comes later.
                let buffer = ring.take(memory).unwrap();
                ring.complete(memory, &[buffer], id, 72);
                if id == 3 {
                    let buffer = ring.take(memory).unwrap();
                    ring.complete(memory, &[buffer], 3, 72);
                }
            });
            let frames = rig.received(0).len();
            assert!(frames <= 1);
            assert_eq!(rig.rx().bad_id, 1, "{arguments} {id}");
            recovers(&mut rig);
            rig.finish();
        }
    }
}

#[test]
fn lengths_that_cant_be_are_counted() {
    for arguments in [",packed=on", ",packed=on,in-order=off", ",packed=on,mrg-rxbuf=off"] {
        let mut rig = Rig::running(Setup { arguments, ..SETUP });
        let mut expected = 0;
        for len in [0, 11, 12, 12 + 2048 + 1, 0xffff, 0x1_000c, u32::MAX - 1] {
            rig.back_end().with_packed(RX, |ring, memory| {
                let buffer = ring.take(memory).unwrap();
                let id = buffer.id;
                ring.complete(memory, &[buffer], id, len);
            });
            assert!(rig.received(0).is_empty(), "{len:#x}");
            expected += 1;
            assert_eq!(rig.rx().bad_length, expected, "{arguments} {len:#x}");
        }
        recovers(&mut rig);
        rig.finish();
    }
}

/// With the order agreed on, one entry stands for all up to it (virtio 1.3, 2.7.14, 2.8.20).
#[test]
fn batches_that_are_completed_in_one_go_are_taken_whole() {
    // Not mergeable: the header of a full buffer is only looked at with mergeable ones.
    let mut rig = Rig::running(Setup { arguments: ",packed=on,mrg-rxbuf=off", ..SETUP });
    for round in 0..9_u64 {
        let count = 1 + round as usize % 5;
        rig.back_end().with_packed(RX, |ring, memory| {
            let batch: Vec<_> = (0..count).map(|_| ring.take(memory).unwrap()).collect();
            let last = batch.last().unwrap().id;
            ring.complete(memory, &batch, last, 12 + 60);
        });
        let mut burst = rig.received(0);
        let lens: Vec<_> = burst.as_slice().iter().map(packetboat::mbuf::Mbuf::len_bytes).collect();
        let mut expected = vec![2048; count - 1];
        expected.push(60);
        assert_eq!(lens, expected);
        rig.queues.tx[0].send(&mut burst);
        rig.back_end().with_packed(TX, |ring, memory| {
            let batch: Vec<_> = (0..count).map(|_| ring.take(memory).unwrap()).collect();
            let last = batch.last().unwrap().id;
            ring.complete(memory, &batch, last, 0);
        });
        rig.queues.tx[0].reclaim();
        assert!((13..=16).contains(&rig.pool.objects().in_use()), "all are back");
    }
    assert_eq!((rig.rx().dropped(), rig.tx().dropped()), (0, 0));
    rig.finish();
}

/// The same on a split ring: one entry, and the index moves on by the batch.
#[test]
fn batches_on_a_split_ring() {
    let mut rig = Rig::running(Setup { arguments: ",mrg-rxbuf=off", ..SETUP });
    rig.back_end().lie_split(RX, 0, 4, 12 + 60, 5);
    let burst = rig.received(0);
    let lens: Vec<_> = burst.as_slice().iter().map(packetboat::mbuf::Mbuf::len_bytes).collect();
    assert_eq!(lens, [2048, 2048, 2048, 2048, 60]);
    drop(burst);
    // An index that runs ahead of what it has is no batch.
    rig.back_end().lie_split(RX, 5, 5, 72, 5 + 17);
    assert!(rig.received(0).is_empty());
    recovers(&mut rig);
    rig.finish();
}
