//! Queues that are stopped and started while frames move, and interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use packetboat::mbuf::Burst;
use packetboat::port::{Offloads, Rss, Sleeper};

use crate::packet::Packet;
use crate::rig::{Rig, Setup, wait_until};

/// Frames of so many flows, for as long as it isn't told to stop.
fn traffic(rig: &Rig, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (cable, stop) = (rig.cable.clone(), stop.clone());
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            if cable.waiting() < 64 {
                let mut packet = Packet::udp4(30);
                packet.ports[0] = count as u16;
                cable.put(packet.bytes());
                count += 1;
            } else {
                std::thread::yield_now();
            }
        }
        count
    })
}

/// Forwards what comes in on a queue, until it was `count` frames.
fn forward(rig: &mut Rig, queue: usize, count: usize) {
    let mut seen = 0;
    wait_until("frames on a queue", || {
        let mut burst = Burst::new();
        rig.rx[queue].receive(&mut burst);
        seen += burst.len();
        rig.tx[queue].send(&mut burst);
        seen >= count
    });
}

#[test]
fn queues_stop_and_start_under_traffic() {
    let rss = Some(Rss::default());
    let mut rig = Setup::new(Offloads { rss, ..Offloads::default() }).queues(2).moving().start();
    let stop = Arc::new(AtomicBool::new(false));
    let source = traffic(&rig, &stop);
    for round in 0..6 {
        let queue = round % 2;
        forward(&mut rig, 0, 300);
        forward(&mut rig, 1, 300);
        rig.port.run_rx(rig.rx[queue].as_mut(), false).unwrap();
        let before = rig.port.stats().rx[queue];
        forward(&mut rig, 1 - queue, 300);
        let mut burst = Burst::new();
        rig.rx[queue].receive(&mut burst);
        assert!(burst.is_empty());
        assert_eq!(rig.port.stats().rx[queue], before);
        rig.port.run_rx(rig.rx[queue].as_mut(), true).unwrap();
        forward(&mut rig, queue, 300);
        // A transmit queue sends all it has before it stops, and takes nothing then.
        rig.port.run_tx(rig.tx[queue].as_mut(), false).unwrap();
        let sent = rig.softnic.stat(&format!("tx_queue_{queue}_frames"));
        assert_eq!(sent, rig.port.stats().tx[queue].packets);
        burst.push(rig.mbuf(&[1; 60])).unwrap();
        rig.tx[queue].send(&mut burst);
        assert_eq!(burst.len(), 1);
        rig.port.run_tx(rig.tx[queue].as_mut(), true).unwrap();
        rig.tx[queue].send(&mut burst);
        assert!(burst.is_empty());
    }
    stop.store(true, Ordering::Relaxed);
    let put = source.join().unwrap();
    wait_until("the cable to be empty", || rig.cable.waiting() == 0);
    for queue in 0..2 {
        while {
            let mut burst = Burst::new();
            rig.rx[queue].receive(&mut burst);
            !burst.is_empty()
        } {}
    }
    std::thread::sleep(Duration::from_millis(20));
    // What came in was received, or missed while a queue was off or its ring empty. What a queue had
    // in its ring when it was turned off is neither: the driver takes such frames for nothing.
    let stats = rig.port.stats().rx_total();
    let (received, missed) = (rig.softnic.stat("rx_frames"), rig.softnic.stat("rx_missed"));
    assert!(received + missed <= put && received + missed + 1 >= put);
    assert!(missed > 0, "a queue that is off takes nothing");
    assert!(stats.packets <= received && stats.packets + 6 * 128 >= received);
    rig.end();
}

#[test]
fn a_transmit_queue_that_cannot_send_goes_on_later() {
    let mut rig = Setup::new(Offloads::default()).moving().start();
    rig.say("link down");
    let mut burst = Burst::new();
    for n in 0..40 {
        burst.push(rig.mbuf(&[n; 60])).unwrap();
    }
    rig.tx[0].send(&mut burst);
    let error = rig.port.run_tx(rig.tx[0].as_mut(), false).unwrap_err().to_string();
    assert!(error.contains("transmit queue 0 doesn't come to its end"), "{error}");
    rig.say("link up");
    burst.push(rig.mbuf(&[40; 60])).unwrap();
    rig.tx[0].send(&mut burst);
    let mut sent = Vec::new();
    wait_until("41 frames", || {
        sent.extend(rig.cable.take());
        sent.len() >= 41
    });
    assert_eq!(sent, (0..=40).map(|n| vec![n; 60]).collect::<Vec<_>>());
    rig.port.run_tx(rig.tx[0].as_mut(), false).unwrap();
    rig.end();
}

#[test]
fn frames_that_had_not_left_when_the_port_stops_are_counted() {
    let mut rig = Rig::new(Offloads::default());
    rig.send(0, (0..10).map(|n| rig.mbuf(&[n; 60])).collect::<Vec<_>>());
    rig.say("link down");
    let chain = rig.chain(&[9; 300], 100, 100);
    rig.send(0, [rig.mbuf(&[1; 60]), chain, rig.mbuf(&[2; 60])]);
    let Rig { mut port, rx, tx, pool, cable, .. } = rig;
    port.stop(packetboat::port::Queues { rx, tx }).unwrap();
    assert_eq!(cable.take().len(), 10);
    let stats = port.stats().tx_total();
    assert_eq!((stats.packets, stats.in_flight, stats.dropped()), (13, 3, 0));
    assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
}

/// The queue's eventfd rings once a queue was armed, for the first frame and no other.
#[test]
fn an_armed_queue_rings_once() {
    let rss = Some(Rss { table: Some(vec![1]), ..Rss::default() });
    let mut rig =
        Setup::new(Offloads { rss, ..Offloads::default() }).queues(2).interrupts().start();
    let sleeper =
        |rig: &Rig, queue: usize| Sleeper::new([rig.rx[queue].as_ref()]).unwrap().unwrap();
    let (other, mine) = (sleeper(&rig, 0), sleeper(&rig, 1));
    let short = Duration::from_millis(5);
    rig.deliver(Packet::tcp4(10).bytes());
    assert!(!mine.sleep(short), "it isn't armed");
    assert_eq!(rig.receive(1).len(), 1);
    rig.rx[1].disarm_interrupt();
    for _ in 0..3 {
        rig.rx[1].arm_interrupt();
        let _ = mine.sleep(short); // what came in while it was off may ring now
        rig.rx[1].disarm_interrupt();
        assert_eq!(rig.receive(1).len(), 0);
        rig.rx[1].arm_interrupt();
        for _ in 0..3 {
            rig.deliver(Packet::tcp4(10).bytes());
        }
        assert!(mine.sleep(Duration::from_secs(5)));
        assert!(!mine.sleep(short), "once");
        rig.rx[1].disarm_interrupt();
        assert_eq!(rig.receive(1).len(), 3);
    }
    assert!(!other.sleep(short), "another queue's");
    rig.end();
}
