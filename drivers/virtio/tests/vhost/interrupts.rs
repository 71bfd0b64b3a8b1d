//! Receive queues that wake an lcore, by the event that the back end calls.

use std::time::{Duration, Instant};

use packetboat::port::{RxQueue, Sleeper};

use crate::backend::ALL;
use crate::loopback::all_kinds;
use crate::rig::{Rig, Setup, frame};

const RX: usize = 0;

fn rings(queue: &dyn RxQueue) -> bool {
    queue.interrupt().unwrap().read().is_ok()
}

#[test]
fn an_armed_queue_is_called_once_and_one_that_polls_never() {
    for setup in all_kinds() {
        let mut rig = Rig::running(Setup { interrupts: true, ..setup });
        // More than once around the ring.
        for round in 0..60_u32 {
            assert!(rig.back_end().receive(0, &frame(60, 1)));
            assert!(!rings(rig.queues.rx[0].as_ref()), "polled: {setup:?}");
            rig.queues.rx[0].arm_interrupt();
            assert_eq!(rig.received(0).len(), 1, "what came before is found by the poll");
            assert!(!rings(rig.queues.rx[0].as_ref()));
            assert!(rig.back_end().receive(0, &frame(60, round)));
            assert!(rings(rig.queues.rx[0].as_ref()), "{setup:?}, round {round}");
            rig.queues.rx[0].disarm_interrupt();
            assert!(rig.back_end().receive(0, &frame(60, round)));
            assert_eq!(rig.received(0).len(), 2);
        }
        assert_eq!(rig.back_end().calls(RX), 60, "{setup:?}");
        rig.finish();
    }
    // Polling ports aren't called at all: there is nothing to call.
    let mut rig = Rig::running(all_kinds()[0]);
    assert!(rig.queues.rx[0].interrupt().is_none());
    rig.queues.rx[0].arm_interrupt();
    assert!(rig.back_end().receive(0, &frame(60, 1)));
    assert_eq!((rig.back_end().calls(RX), rig.received(0).len()), (0, 1));
    rig.finish();
}

#[test]
fn a_sleeper_wakes_with_the_first_frame_of_the_next_back_end_too() {
    for arguments in ["", ",packed=on", ",event-idx=on"] {
        let mut rig = Rig::running(Setup { arguments, interrupts: true, ..all_kinds()[0] });
        for round in 0..3 {
            let sleeper = Sleeper::new(rig.queues.rx.iter().map(Box::as_ref)).unwrap().unwrap();
            rig.queues.rx[0].arm_interrupt();
            assert!(rig.received(0).is_empty());
            assert!(!sleeper.sleep(Duration::from_millis(5)), "nothing came");
            let start = Instant::now();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    std::thread::sleep(Duration::from_millis(20));
                    assert!(rig.back_end.as_ref().unwrap().receive(0, &frame(60, round)));
                });
                assert!(sleeper.sleep(Duration::from_secs(30)));
            });
            assert!(start.elapsed() < Duration::from_secs(20));
            rig.queues.rx[0].disarm_interrupt();
            assert_eq!(rig.received(0).len(), 1);
            rig.back_end.take().unwrap().kill();
            rig.next_back_end(ALL);
            rig.until_up();
        }
        rig.finish();
    }
}
