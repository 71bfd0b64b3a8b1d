//! Receive queues that wake an lcore, by MSI-X.

use std::time::{Duration, Instant};

use packetboat::port::{PortConfig, RxQueue, Sleeper};

use crate::device::Options;
use crate::rig::{Rig, config, frame};

const PAIRS: u16 = 2;

fn rig() -> Rig {
    let mut rig = Rig::new(Options { queue_pairs: PAIRS, ..Options::default() }, 512);
    assert!(rig.port.capabilities().rx_interrupts);
    let wanted = PortConfig { rx_interrupts: true, ..config(PAIRS, 64, 64) };
    rig.port.configure(&wanted).unwrap();
    rig.start().unwrap();
    rig
}

#[test]
fn an_armed_queue_rings_and_another_does_not() {
    let mut rig = rig();
    let rings = |queue: &dyn RxQueue| queue.interrupt().unwrap().read().is_ok();
    for round in 0..100 {
        let (armed, other) = (round % 2, 1 - round % 2);
        assert!(rig.device.receive(armed, &frame(60, 1)));
        assert!(!rings(rig.queues.rx[armed].as_ref()), "polled");
        rig.queues.rx[armed].arm_interrupt();
        assert_eq!(rig.received(armed).len(), 1, "what came before rings nobody");
        assert!(rig.device.receive(other, &frame(60, 2)));
        assert!(rig.device.receive(armed, &frame(60, 3)));
        assert!(rings(rig.queues.rx[armed].as_ref()));
        assert!(!rings(rig.queues.rx[other].as_ref()));
        rig.queues.rx[armed].disarm_interrupt();
        assert!(rig.device.receive(armed, &frame(60, 4)));
        assert!(!rings(rig.queues.rx[armed].as_ref()), "awake");
        assert_eq!((rig.received(armed).len(), rig.received(other).len()), (2, 1));
    }
    rig.finish();
}

#[test]
fn a_sleeper_wakes_with_the_first_frame() {
    let mut rig = rig();
    let sleeper = Sleeper::new(rig.queues.rx.iter().map(Box::as_ref)).unwrap().unwrap();
    rig.queues.rx.iter_mut().for_each(|queue| queue.arm_interrupt());
    assert!(!sleeper.sleep(Duration::from_millis(20)), "nothing came");
    let device = rig.device.clone();
    let start = Instant::now();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        assert!(device.receive(1, &frame(60, 1)));
    });
    assert!(sleeper.sleep(Duration::from_secs(30)));
    assert!(start.elapsed() < Duration::from_secs(20));
    waker.join().unwrap();
    assert_eq!((rig.received(0).len(), rig.received(1).len()), (0, 1));
    rig.finish();
}

#[test]
fn a_device_without_vectors_cannot_wake_anybody() {
    for msix_vectors in [0, 1] {
        let rig = Rig::new(Options { msix_vectors, ..Options::default() }, 64);
        assert!(!rig.port.capabilities().rx_interrupts);
        rig.finish();
    }
    // Too few for all queues: it is said which.
    let mut rig = Rig::new(Options { queue_pairs: 3, ..Options::default() }, 512);
    let wanted = PortConfig { rx_interrupts: true, ..config(3, 64, 64) };
    let error = rig.port.configure(&wanted).unwrap_err().to_string();
    assert!(error.contains("3 receive queues") && error.contains("3 MSI-X vectors"), "{error}");
    rig.finish();
}
