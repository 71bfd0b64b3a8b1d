//! Stopping, starting again, and being dropped: every mbuf comes back, or is counted as lost.

use packetboat::mbuf::Burst;
use packetboat::port::Queues;

use crate::device::{Faults, Options};
use crate::rig::{Rig, config, frame, mbuf_of};

/// Some frames at every place where one can be: come in and not received, given and not sent,
/// taken by the device and not done.
fn frames_everywhere(rig: &mut Rig, seed: u32) {
    for number in 0..5 {
        assert!(rig.device.receive(0, &frame(60, seed + number)));
    }
    let mut burst = Burst::with_limit(2);
    rig.queues.rx[0].receive(&mut burst);
    for number in 0..6 {
        let mbuf = mbuf_of(&rig.pool, &frame(100, seed + number));
        let mut long = mbuf_of(&rig.pool, &frame(100, seed + number));
        long.chain(mbuf).unwrap();
        let mut burst = Burst::new();
        burst.push(long).unwrap();
        rig.queues.tx[0].send(&mut burst);
    }
    rig.device.take(0).unwrap();
    rig.device.take(1).unwrap();
    rig.device.transmit(0, 2, |_| ());
}

#[test]
fn stopping_brings_every_mbuf_back() {
    let mut rig = Rig::new(Options::default(), 256);
    rig.port.configure(&config(1, 32, 32)).unwrap();
    for round in 0..20 {
        rig.start().unwrap();
        frames_everywhere(&mut rig, round * 100);
        rig.stop().unwrap();
        assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0), "round {round}");
        assert_eq!(rig.device.function_resets(), round + 1);
        assert!(!rig.device.receive(0, &frame(60, 0)), "a stopped device does nothing");
    }
    // Counters go on over restarts.
    assert_eq!(rig.rx_stats().packets, 20 * 2);
    assert_eq!(rig.tx_stats().packets, 20 * 6);
    rig.finish();
}

#[test]
fn sizes_and_queues_may_change_while_stopped() {
    let mut rig = Rig::new(Options { queue_pairs: 3, ..Options::default() }, 1024);
    for (queues, rx, tx) in [(1, 2, 2), (3, 64, 32), (2, 256, 4), (1, 128, 128)] {
        rig.port.configure(&config(queues, rx, tx)).unwrap();
        rig.start().unwrap();
        assert_eq!(rig.device.active_pairs(), queues);
        assert_eq!((rig.device.queue_size(0), rig.device.queue_size(1)), (rx, tx));
        assert!(rig.device.receive(usize::from(queues) - 1, &frame(60, 1)));
        assert_eq!(rig.received(usize::from(queues) - 1).len(), 1);
        rig.stop().unwrap();
    }
    rig.finish();
}

#[test]
fn queues_that_dont_come_back_cost_what_they_had_lent() {
    let mut rig = Rig::running(Options::default(), 256, 32);
    let mut burst = Burst::new();
    for number in 0..3 {
        burst.push(mbuf_of(&rig.pool, &frame(60, number))).unwrap();
    }
    rig.queues.tx[0].send(&mut burst);
    // The device may still write to what it has, so what is dropped is lost and not reused.
    rig.queues = Queues::default();
    assert_eq!((rig.pool.leaked(), rig.pool.objects().in_use()), (32 + 3, 32 + 3));
    assert!(rig.device.receive(0, &frame(1000, 7)), "and it does write");
    rig.port.stop(Queues::default()).unwrap();
    assert_eq!((rig.pool.leaked(), rig.pool.objects().in_use()), (32 + 3, 32 + 3));
    assert_eq!(rig.device.violations(), Vec::<String>::new());
}

#[test]
fn a_port_that_is_dropped_resets_its_device() {
    let mut rig = Rig::running(Options::default(), 256, 32);
    frames_everywhere(&mut rig, 1);
    let Rig { device, port, pool, mut queues } = rig;
    drop(port);
    assert_eq!((device.function_resets(), device.bus_master()), (1, false));
    // The queues are dead, not dangerous.
    let mut burst = Burst::new();
    for _ in 0..100 {
        queues.rx[0].receive(&mut burst);
        burst.clear();
        burst.push(mbuf_of(&pool, b"late")).unwrap();
        queues.tx[0].send(&mut burst);
        burst.clear();
    }
    drop(queues);
    assert!(pool.leaked() > 0, "what they had lent is lost");
    assert_eq!(device.violations(), Vec::<String>::new());
}

/// A device that can't be kept from DMA keeps what it has: better lost than written to.
#[test]
fn a_device_that_cant_be_reset_keeps_what_it_was_lent() {
    let mut rig = Rig::running(Options::default(), 128, 32);
    rig.device.set_faults(Faults { function_reset_fails: true, ..Faults::default() });
    let error = rig.stop().unwrap_err().to_string();
    assert!(error.contains("0000:00:00.0") && error.contains("reset"), "{error}");
    assert_eq!((rig.pool.leaked(), rig.pool.objects().in_use()), (32, 32));
}

#[test]
fn a_stop_works_on_a_device_that_hangs_in_its_reset() {
    let mut rig = Rig::running(Options::default(), 128, 32);
    rig.device.set_faults(Faults { reset_hangs: true, ..Faults::default() });
    rig.stop().unwrap(); // by way of the function's reset
    assert_eq!((rig.pool.leaked(), rig.pool.objects().in_use()), (0, 0));
    rig.device.set_faults(Faults::default());
    rig.start().unwrap();
    rig.finish();
}

#[test]
fn a_device_that_goes_while_running_is_noticed_and_let_go() {
    let mut rig = Rig::running(Options::default(), 128, 32);
    frames_everywhere(&mut rig, 1);
    assert_eq!(rig.port.fault(), None);
    rig.device.vanish();
    assert!(rig.port.fault().unwrap().contains("gone"));
    assert!(!rig.port.link().unwrap().up);
    let mut burst = rig.received(0);
    rig.queues.tx[0].send(&mut burst);
    burst.clear();
    assert!(rig.port.set_promiscuous(true).is_err());
    rig.stop().unwrap();
    assert_eq!((rig.pool.leaked(), rig.pool.objects().in_use()), (0, 0));
}

#[test]
fn a_device_that_asks_for_a_reset_gets_one_by_stop_and_start() {
    let mut rig = Rig::running(Options::default(), 128, 32);
    rig.device.add_status(0x40);
    assert!(rig.port.fault().unwrap().contains("reset"));
    rig.stop().unwrap();
    rig.start().unwrap();
    assert_eq!(rig.port.fault(), None);
    rig.finish();
}
