//! The back end goes away and comes back.

use std::time::Duration;

use packetboat::mbuf::Burst;

use crate::backend::{ALL, F_MRG_RXBUF};
use crate::rig::{Rig, Setup, bytes_of, frame, mbuf_of, none};

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

/// What an application does all the time: it polls its queues, and now and then asks for the link.
/// Frames that arrive are counted.
fn poll(rig: &mut Rig) -> usize {
    rig.port.link_changed();
    rig.queues.tx[0].reclaim();
    rig.received(0).len()
}

fn link(rig: &mut Rig) -> bool {
    rig.port.link().unwrap().up
}

#[test]
fn ten_times_over_frames_in_flight_are_counted_and_the_rings_begin_anew() {
    for server in [false, true] {
        for arguments in ["", ",packed=on", ",in-order=off", ",packed=on,in-order=off"] {
            let mut rig = Rig::running(Setup { server, arguments, ..SETUP });
            let (mut received, mut sent, mut lost) = (0, 0, 0);
            for round in 0..10_u32 {
                // Some way into the rings: a different one each time.
                for number in 0..5 + round {
                    assert!(rig.back_end().receive(0, &frame(60, number)));
                    let mut burst = rig.received(0);
                    assert_eq!(bytes_of(&burst.as_slice()[0]), frame(60, number));
                    rig.queues.tx[0].send(&mut burst);
                    assert_eq!(rig.back_end().transmitted(0).len(), 1);
                }
                received += 5 + u64::from(round);
                sent += 5 + u64::from(round);
                // Two that it has taken in and the driver hasn't; three that it never sends.
                for number in 0..2 {
                    assert!(rig.back_end().receive(0, &frame(100, number)));
                }
                let mut burst = Burst::new();
                for number in 0..3 {
                    burst.push(mbuf_of(&rig.pool, &frame(70, number))).unwrap();
                }
                rig.queues.tx[0].send(&mut burst);
                assert!(burst.is_empty());
                sent += 3;
                lost += 3;
                rig.back_end.take().unwrap().kill();
                assert!(!link(&mut rig), "noticed at the next look");
                let mut late = 0;
                for _ in 0..5 {
                    late += poll(&mut rig);
                }
                assert_eq!(late, 2, "what was whole arrives");
                received += 2;
                // While there is nobody, frames stay with who sends them.
                burst.push(mbuf_of(&rig.pool, &frame(70, 9))).unwrap();
                rig.queues.tx[0].send(&mut burst);
                assert_eq!(burst.len(), 1);
                drop(burst);
                rig.next_back_end(ALL);
                rig.until_up();
                rig.back_end().wait_for(2);
                assert_eq!(rig.tx().in_flight, lost);
            }
            assert_eq!((rig.rx().packets, rig.tx().packets), (received, sent));
            assert_eq!(rig.port.fault(), None);
            rig.finish();
        }
    }
}

#[test]
fn a_back_end_that_can_less_is_not_taken_and_the_next_one_is() {
    let mut rig = Rig::running(SETUP);
    rig.back_end.take().unwrap().kill();
    rig.next_back_end(ALL & !F_MRG_RXBUF);
    for _ in 0..300 {
        poll(&mut rig);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!link(&mut rig));
    rig.next_back_end(ALL);
    rig.until_up();
    rig.finish();
}

#[test]
fn a_port_whose_back_end_is_gone_can_be_stopped() {
    let mut rig = Rig::running(SETUP);
    let mut burst = Burst::new();
    burst.push(mbuf_of(&rig.pool, &frame(70, 1))).unwrap();
    rig.queues.tx[0].send(&mut burst);
    rig.back_end.take().unwrap().kill();
    rig.finish();
}
