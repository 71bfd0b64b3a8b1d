//! What the port as a whole is told and tells: link, statistics, flow control, light, registers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use packetboat::port::{FlowControl, Offloads, Port, Rss};
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::registers::at;

use crate::packet::{Packet, padded};
use crate::rig::{Rig, Setup};

fn is_up(port: &mut Box<dyn Port>) -> bool {
    port.link().unwrap().up
}

#[test]
fn the_link_goes_down_and_up_by_interrupt_and_by_poll() {
    let mut rig = Rig::new(Offloads::default());
    let link = rig.port.link().unwrap();
    assert_eq!((link.up, link.speed_mbps, link.full_duplex), (true, Some(10_000), Some(true)));
    while rig.port.link_changed() {} // that it came up may have rung
    for round in 0..3 {
        assert!(!rig.port.link_changed(), "round {round}: nothing has happened");
        rig.say("link down");
        if round < 2 {
            assert!(rig.port.link_changed(), "round {round}: it rings");
            assert!(!rig.port.link_changed(), "round {round}: once");
        }
        assert!(!is_up(&mut rig.port));
        assert!(rig.received(Packet::tcp4(10).bytes()).is_none());
        rig.say("link up");
        assert!(rig.port.link_changed());
        assert!(is_up(&mut rig.port));
        // It waited on the cable.
        assert_eq!(rig.receive(0).len(), 1);
        let frame = rig.mbuf(&[round; 60]);
        assert_eq!(rig.sent(frame), [vec![round; 60]]);
    }
    rig.end();
}

/// Without shared pages each doorbell is a message.
#[test]
fn frames_move_with_every_register_trapped() {
    let mut setup = Setup::new(Offloads::default());
    setup.share_pages = false;
    let mut rig = setup.start();
    for n in 0..300 {
        let frame = rig.mbuf(&[n as u8; 60]);
        assert_eq!(rig.sent(frame), [[n as u8; 60]]);
        assert!(rig.received(Packet::tcp4(n).bytes()).is_some());
        if n % 100 == 99 {
            for on in [false, true] {
                rig.port.run_rx(rig.rx[0].as_mut(), on).unwrap();
                rig.port.run_tx(rig.tx[0].as_mut(), on).unwrap();
            }
        }
    }
    rig.end();
}

/// Everything the driver reports by name equals what softnic counted, or what is known to have
/// gone over the cable.
#[test]
fn statistics_by_name_equal_what_the_device_counted() {
    let rss = Some(Rss::default());
    let offloads = Offloads { rss, rx_scatter: true, ..Offloads::default() };
    let mut rig = Setup::new(offloads).queues(4).mtu(3000).start();
    let mut arrived = Vec::new();
    for n in 0..400_u16 {
        let mut packet = Packet::udp4(usize::from(n) * 11 % 2970);
        packet.ports[0] = n;
        packet.destination = match n % 10 {
            0 => [0xff; 6],
            1 => [1, 0, 0x5e, 0, 0, 1],
            2 => [2, 0, 0, 0, 9, 9],
            _ => packet.destination,
        };
        arrived.push(padded(packet.bytes()));
    }
    rig.port.set_all_multicast(true).unwrap();
    for half in arrived.chunks(200) {
        half.iter().for_each(|frame| rig.deliver(frame.clone()));
        (0..4).for_each(|queue| drop(rig.receive(queue)));
        rig.port.extended_stats(); // in two parts: they are added up
    }
    rig.deliver([&Packet::udp4(0).bytes()[..], &[0; 3000]].concat());
    // One queue's ring runs empty.
    let mut flooded = 0;
    while rig.softnic.stat("rx_missed") < 5 {
        rig.deliver(arrived[3].clone());
        flooded += 1;
    }
    let sent = [60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1514, 5000];
    for (n, len) in sent.into_iter().enumerate() {
        let mut frame = vec![[2, 3, 0xff][n % 3]; len];
        frame[12..14].copy_from_slice(&[8, 0]);
        let mbuf = rig.chain(&frame, 2000, 2000);
        rig.send(n % 4, [mbuf]);
    }
    let counted: BTreeMap<String, u64> = rig.port.extended_stats().into_iter().collect();
    let device = |name: &str| rig.softnic.stat(name);
    let good = |frame: &&Vec<u8>| frame[..6] != [2, 0, 0, 0, 9, 9];
    let received: Vec<usize> = arrived
        .iter()
        .filter(good)
        .map(Vec::len)
        .chain(std::iter::repeat_n(arrived[3].len(), flooded - 5))
        .collect();
    let with_crc = |lens: &[usize]| lens.iter().map(|len| *len as u64 + 4).sum::<u64>();
    let of_size = |lens: &[usize], from: usize, to: usize| {
        lens.iter().filter(|len| (from..=to).contains(&(*len + 4))).count() as u64
    };
    let dropped = (0..4).map(|n| counted[&format!("rx_queue_{n}_dropped")]).sum::<u64>();
    let wanted = BTreeMap::from([
        ("rx_good_packets", device("rx_frames")),
        ("rx_good_bytes", device("rx_bytes") + 4 * device("rx_frames")),
        ("rx_total_packets", device("rx_arrived")),
        ("tx_good_packets", device("tx_frames")),
        ("tx_good_bytes", device("tx_bytes") + 4 * device("tx_frames")),
        ("tx_total_packets", 12),
        ("rx_missed_packets", 0),
        ("rx_broadcast_packets", 40),
        ("rx_multicast_packets", 40),
        ("tx_broadcast_packets", 4),
        ("tx_multicast_packets", 4),
        ("rx_oversize_errors", 1),
        ("rx_checksum_errors", 0),
        ("rx_crc_errors", 0),
        ("rx_xon_packets", 0),
        ("tx_xoff_packets", 0),
        ("rx_size_64_packets", of_size(&received, 64, 64)),
        ("rx_size_65_to_127_packets", of_size(&received, 65, 127)),
        ("rx_size_128_to_255_packets", of_size(&received, 128, 255)),
        ("rx_size_256_to_511_packets", of_size(&received, 256, 511)),
        ("rx_size_512_to_1023_packets", of_size(&received, 512, 1023)),
        ("rx_size_1024_to_max_packets", of_size(&received, 1024, 9999)),
        ("tx_size_64_packets", of_size(&sent, 64, 64)),
        ("tx_size_65_to_127_packets", of_size(&sent, 65, 127)),
        ("tx_size_128_to_255_packets", of_size(&sent, 128, 255)),
        ("tx_size_256_to_511_packets", of_size(&sent, 256, 511)),
        ("tx_size_512_to_1023_packets", of_size(&sent, 512, 1023)),
        ("tx_size_1024_to_max_packets", of_size(&sent, 1024, 9999)),
    ]);
    for (name, wanted) in &wanted {
        assert_eq!(counted[*name], *wanted, "{name}");
    }
    assert_eq!(dropped, 5, "with several queues, one that is full drops for itself");
    assert_eq!(counted["rx_good_packets"], received.len() as u64);
    assert_eq!(counted["rx_good_bytes"], with_crc(&received));
    assert_eq!(counted["tx_good_bytes"], with_crc(&sent));
    (0..4).for_each(|queue| drop(rig.receive(queue)));
    assert_eq!(rig.port.stats().rx_total().packets, received.len() as u64);
    assert_eq!(rig.port.stats().tx_total().packets, 12);
    rig.end();
}

/// A pause frame, as IEEE 802.3 annex 31B lays it out.
fn pause(quanta: u16) -> Vec<u8> {
    let mut frame = vec![1, 0x80, 0xc2, 0, 0, 1, 2, 0x99, 0, 0, 0, 1, 0x88, 0x08, 0, 1];
    frame.extend(quanta.to_be_bytes());
    padded(frame)
}

fn counted(rig: &mut Rig, name: &str) -> u64 {
    let all = rig.port.extended_stats();
    all.into_iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn pause_frames_are_heeded_if_asked_for() {
    let mut rig = Rig::new(Offloads::default());
    rig.deliver(pause(0xffff));
    let frame = rig.mbuf(&[1; 60]);
    assert_eq!(rig.sent(frame).len(), 1, "not asked for");
    rig.port.set_flow_control(FlowControl { heed: true, send: false }).unwrap();
    // The longest pause is 3.3 ms: on a machine that is busy elsewhere it may be over too soon.
    let (mut held, mut tries) = (false, 0);
    while !held {
        tries += 1;
        assert!(tries < 1000, "never held");
        let start = Instant::now();
        rig.deliver(pause(0xffff));
        let frame = rig.mbuf(&[2; 60]);
        let sent = rig.sent(frame);
        if start.elapsed() < Duration::from_millis(3) {
            assert!(sent.is_empty(), "it is held");
            held = true;
            rig.deliver(pause(0));
            assert_eq!(rig.cable.take(), [[2; 60]], "it goes on when told so");
        } else {
            std::thread::sleep(Duration::from_millis(4));
            rig.settle();
            rig.cable.take();
        }
    }
    rig.deliver(pause(100));
    let frame = rig.mbuf(&[3; 60]);
    rig.send(0, [frame]);
    std::thread::sleep(Duration::from_millis(1));
    rig.settle();
    assert_eq!(rig.cable.take(), [[3; 60]], "or when the time is over");
    assert_eq!(counted(&mut rig, "rx_xoff_packets"), tries + 1);
    assert_eq!(counted(&mut rig, "rx_xon_packets"), 1);
    assert!(rig.receive(0).is_empty(), "software sees none");
    rig.end();
}

/// A queue that the other side holds back for seconds hasn't hung.
#[test]
fn a_long_pause_is_no_fault() {
    let mut rig = Rig::new(Offloads::default());
    rig.port.set_flow_control(FlowControl { heed: true, send: false }).unwrap();
    rig.deliver(pause(0xffff));
    let frame = rig.mbuf(&[1; 60]);
    rig.send(0, [frame]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2800) {
        // Without a moment in between in which it could send.
        let mut device = rig.softnic.nic.device();
        rig.cable.put(pause(0xffff));
        device.poll();
        drop(device);
        assert_eq!(rig.port.fault(), None);
    }
    rig.cable.take();
    rig.end();
}

#[test]
fn pause_frames_are_sent_when_frames_have_to_wait() {
    let mut setup = Setup::new(Offloads::default());
    setup.when_full = WhenFull::Wait;
    let mut rig = setup.start();
    let mac = rig.port.info().mac.0;
    for (send, sent) in [(false, 0), (true, 2)] {
        rig.port.set_flow_control(FlowControl { heed: false, send }).unwrap();
        (0..200).for_each(|_| rig.cable.put(Packet::tcp4(10).bytes()));
        rig.settle();
        assert!(rig.cable.waiting() > 50, "the ring is full");
        let before = rig.cable.take();
        assert_eq!(rig.receive(0).len(), 200);
        let after = rig.cable.take();
        if !send {
            assert_eq!(before.len() + after.len(), 0);
            continue;
        }
        // Again after half the time that it asked for, for as long as the ring is full.
        let mut wanted = pause(0x680);
        wanted[6..12].copy_from_slice(&mac);
        assert!(!before.is_empty() && before.iter().all(|frame| *frame == wanted));
        let last = after.last().unwrap();
        assert_eq!((last[12..18].to_vec(), &last[6..12]), (pause(0)[12..18].to_vec(), &mac[..]));
        assert!(before.len() + after.len() >= sent);
    }
    let (off, on) = (rig.softnic.stat("tx_xoff"), rig.softnic.stat("tx_xon"));
    assert!(off > 0 && on > 0);
    assert_eq!(counted(&mut rig, "tx_xoff_packets"), off);
    assert_eq!(counted(&mut rig, "tx_xon_packets"), on);
    rig.end();
}

/// What the registers say is what was asked for (82599 datasheet 3.7.7.3).
#[test]
fn flow_control_is_set_reported_and_survives_a_restart() {
    let mut rig = Rig::new(Offloads::default());
    assert_eq!(rig.port.flow_control().unwrap(), FlowControl::default());
    for (heed, send) in [(false, false), (true, false), (false, true), (true, true)] {
        let wanted = FlowControl { heed, send };
        rig.port.set_flow_control(wanted).unwrap();
        assert_eq!(rig.port.flow_control().unwrap(), wanted);
        check_flow_control(&rig, wanted);
        rig.restart();
        check_flow_control(&rig, wanted);
    }
    let registers = rig.port.registers().unwrap();
    assert!(registers.iter().any(|line| line.name == "MFLCN" && line.value == 0xa));
    rig.end();
}

fn check_flow_control(rig: &Rig, wanted: FlowControl) {
    let FlowControl { heed, send } = wanted;
    let mflcn = rig.register(at::MFLCN);
    assert_eq!(mflcn >> 3 & 1 != 0, heed, "heeded");
    assert_eq!(mflcn >> 1 & 1, 1, "pause frames never reach software");
    assert_eq!(rig.register(at::FCCFG) >> 3 & 3, u32::from(send), "sent");
    let (low, high) = (rig.register(at::FCRTL), rig.register(at::FCRTH));
    assert_eq!((low >> 31 != 0, high >> 31 != 0), (send, send));
    if send {
        let (low, high) = (low & 0x7ffe0, high & 0x7ffe0);
        assert!(low > 0 && low < high && high < 512 * 1024, "{low:#x} {high:#x}");
    }
    let pause = rig.register(at::FCTTV);
    assert!(pause & 0xffff != 0 && rig.register(at::FCRTV) & 0xffff < pause & 0xffff);
}

#[test]
fn the_light_blinks_until_it_is_told_not_to() {
    let mut rig = Rig::new(Offloads::default());
    let before = rig.register(at::LEDCTL);
    for _ in 0..2 {
        rig.port.identify(true).unwrap();
        rig.port.identify(true).unwrap();
        let blinking = rig.register(at::LEDCTL);
        // LED 2: on, and blinking (8.2.3.1.6): mode 0xe, bit 7 of its byte.
        assert_eq!(blinking >> 16 & 0xff, 0x8e);
        assert_eq!(blinking & !0xff_0000, before & !0xff_0000, "the others go on");
        rig.port.identify(false).unwrap();
        rig.port.identify(false).unwrap();
        assert_eq!(rig.register(at::LEDCTL), before);
    }
    rig.end();
}
