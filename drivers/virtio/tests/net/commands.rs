//! Commands, and a queue that is reset alone.

use packetboat::mbuf::Burst;
use packetboat::net::MacAddress;
use packetboat::port::{Offloads, PortConfig, PortError, Rss, RssHash};
use virtio_bindings::virtio_net as net;

use crate::device::{COMMANDS, CTRL_VLAN, KNOWN, Options, RING_RESET, bits};
use crate::rig::{Rig, bytes_of, config, frame, mbuf_of};

const ALL: u64 = KNOWN | COMMANDS | CTRL_VLAN;

fn offering(offered: u64) -> Options {
    Options { offered, ..Options::default() }
}

fn is_unsupported(result: Result<(), PortError>, feature: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, PortError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains(feature), "{error}");
}

#[test]
fn addresses_are_told_to_the_device() {
    let mut rig = Rig::running(offering(ALL), 256, 64);
    let own = MacAddress([2, 0, 0, 0, 0, 0x77]);
    rig.port.set_mac(own).unwrap();
    assert_eq!(rig.device.commanded().mac, Some(own.0));
    assert_eq!(rig.port.info().mac, own);
    let (station, group) = ([2, 0, 0, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]);
    let other = [2, 0, 0, 0, 0, 2];
    for address in [station, group, other, station] {
        rig.port.filter_mac(MacAddress(address), true).unwrap();
    }
    assert_eq!(rig.device.commanded().addresses, [vec![other, station], vec![group]]);
    rig.port.filter_mac(MacAddress(other), false).unwrap();
    assert_eq!(rig.device.commanded().addresses, [vec![station], vec![group]]);
    let most = rig.port.capabilities().mac_filters as u8;
    let mut add = |n| rig.port.filter_mac(MacAddress([6, 0, 0, 0, 0, n]), true);
    (2..most).for_each(|n| add(n).unwrap());
    assert!(add(most).unwrap_err().to_string().contains("64"));
    assert_eq!(rig.device.commanded().addresses[0].len(), 63);
    // A device that was started anew has forgotten them, and so has the port.
    rig.stop().unwrap();
    rig.start().unwrap();
    rig.port.filter_mac(MacAddress(other), true).unwrap();
    assert_eq!(rig.device.commanded().addresses, [vec![other], vec![]]);
    rig.finish();

    let mut rig = Rig::running(offering(KNOWN & !bits(&[net::VIRTIO_NET_F_CTRL_RX])), 256, 64);
    is_unsupported(rig.port.set_mac(own), "VIRTIO_NET_F_CTRL_MAC_ADDR");
    is_unsupported(rig.port.filter_mac(own, true), "VIRTIO_NET_F_CTRL_RX");
    assert_eq!(rig.port.capabilities().mac_filters, 0);
    rig.finish();
}

fn running_with(options: Options, wanted: PortConfig) -> Rig {
    let mut rig = Rig::new(options, 512);
    rig.port.configure(&wanted).unwrap();
    rig.start().unwrap();
    rig
}

#[test]
fn vlans_are_filtered_where_that_was_asked_for() {
    let offloads = Offloads { rx_vlan_filter: true, ..Offloads::default() };
    let wanted = PortConfig { offloads, ..config(1, 64, 64) };
    let mut rig = running_with(offering(ALL), wanted.clone());
    assert!(rig.device.driver_features() & CTRL_VLAN != 0);
    for (vlan, on) in [(7, true), (4095, true), (7, false)] {
        rig.port.filter_vlan(vlan, on).unwrap();
    }
    assert_eq!(rig.device.commanded().vlans.into_iter().collect::<Vec<_>>(), [4095]);
    rig.finish();
    // Else the device isn't told of it at all: it would drop what is tagged.
    let mut rig = Rig::running(offering(ALL), 256, 64);
    assert_eq!(rig.device.driver_features() & CTRL_VLAN, 0);
    let error = rig.port.filter_vlan(7, true).unwrap_err().to_string();
    assert!(error.contains("rx_vlan_filter"), "{error}");
    rig.finish();
    let mut rig = Rig::new(offering(KNOWN), 256);
    let error = rig.port.configure(&wanted).unwrap_err().to_string();
    assert!(error.contains("VLAN"), "{error}");
    rig.port.configure(&config(1, 64, 64)).unwrap();
    rig.start().unwrap();
    is_unsupported(rig.port.filter_vlan(7, true), "VIRTIO_NET_F_CTRL_VLAN");
    rig.finish();
}

#[test]
fn a_device_that_has_moved_is_answered_and_the_network_told() {
    let mut rig = Rig::running(offering(ALL), 256, 64);
    rig.port.link().unwrap();
    assert_eq!(rig.device.commanded().announcements, 0);
    let own = [2, 0, 0, 0, 0, 0x77];
    rig.port.set_mac(MacAddress(own)).unwrap();
    let request = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let mut expected = [&[0xff; 6], &own[..], &request, &own, &[0; 4], &own].concat();
    expected.resize(60, 0);
    for round in 1..=3 {
        rig.device.want_announcement();
        assert!(rig.port.link().unwrap().up);
        rig.port.link().unwrap();
        assert_eq!(rig.device.commanded().announcements, round);
        // By the one who polls the queue: when it has nothing to send, or before what it has.
        if round == 1 {
            rig.queues.tx[0].reclaim();
            assert_eq!(rig.device.transmitted(0), [expected.clone()]);
        } else {
            let other = frame(60, round);
            let mut burst = Burst::new();
            burst.push(mbuf_of(&rig.pool, &other)).unwrap();
            rig.queues.tx[0].send(&mut burst);
            assert!(burst.is_empty());
            assert_eq!(rig.device.transmitted(0), [expected.clone(), other]);
        }
        rig.queues.tx[0].reclaim();
        assert_eq!(rig.device.transmitted(0), [] as [Vec<u8>; 0]);
    }
    assert_eq!(rig.tx_stats().packets, 5);
    rig.finish();
}

#[test]
fn an_announcement_waits_for_room_and_goes_with_the_port() {
    let mut rig = Rig::running(offering(ALL), 256, 8);
    let full = |rig: &mut Rig| {
        let mut burst = Burst::new();
        (0..8).for_each(|n| burst.push(mbuf_of(&rig.pool, &frame(60, n))).unwrap());
        rig.queues.tx[0].send(&mut burst);
        assert!(burst.is_empty());
    };
    full(&mut rig);
    rig.device.want_announcement();
    rig.port.link().unwrap();
    for _ in 0..3 {
        rig.queues.tx[0].reclaim();
    }
    assert_eq!(rig.device.transmitted(0).len(), 8);
    rig.queues.tx[0].reclaim();
    let sent = rig.device.transmitted(0);
    assert_eq!((sent.len(), &sent[0][12..14]), (1, &[0x80, 0x35][..]));
    // One that nobody was there to send goes back to its pool.
    full(&mut rig);
    rig.device.want_announcement();
    rig.port.link().unwrap();
    rig.finish();
}

#[test]
fn several_queues_are_spread_by_rss_where_it_is_offered() {
    let options = || Options { queue_pairs: 3, ..offering(ALL) };
    let rig = running_with(options(), config(3, 64, 64));
    let told = rig.device.commanded().rss.unwrap();
    assert_eq!(told.table, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
    assert_eq!((told.types, told.tx_queues, told.key.len()), (0x3f, 3, 40));
    assert_eq!(rig.device.active_pairs(), 3);
    rig.finish();

    let rss = Rss { key: Some(vec![9; 40]), table: Some(vec![1, 0]), hash: RssHash::IPV4 };
    let offloads = Offloads { rss: Some(rss), ..Offloads::default() };
    let rig = running_with(options(), PortConfig { offloads, ..config(2, 64, 64) });
    let told = rig.device.commanded().rss.unwrap();
    assert_eq!((told.types, told.tx_queues, told.key), (1, 2, vec![9; 40]));
    assert_eq!(told.table, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
    rig.finish();

    // One queue takes no RSS; and a device without gets its pairs by MQ.
    let rig = running_with(options(), config(1, 64, 64));
    assert_eq!((rig.device.commanded().rss, rig.device.active_pairs()), (None, 1));
    rig.finish();
    let without = Options { queue_pairs: 3, ..offering(KNOWN) };
    let mut rig = running_with(without, config(3, 64, 64));
    assert_eq!((rig.device.commanded().rss, rig.device.active_pairs()), (None, 3));
    rig.stop().unwrap();
    let offloads = Offloads { rss: Some(Rss::default()), ..Offloads::default() };
    let error = rig.port.configure(&PortConfig { offloads, ..config(2, 64, 64) }).unwrap_err();
    assert!(error.to_string().contains("RSS"), "{error}");
    rig.finish();
}

/// Frames both ways.
fn still_works(rig: &mut Rig) {
    for number in 0..100 {
        assert!(rig.device.receive(0, &frame(60, number)));
        let mut burst = rig.received(0);
        assert_eq!(bytes_of(&burst.as_slice()[0]), frame(60, number));
        rig.queues.tx[0].send(&mut burst);
        let mut sent = Vec::new();
        assert_eq!(rig.device.transmit(0, 10, |bytes| sent.push(bytes.to_vec())), 1);
        assert_eq!(sent, [frame(60, number)]);
    }
}

fn poll(rig: &mut Rig) {
    drop(rig.received(0));
    rig.queues.tx[0].reclaim();
}

#[test]
fn a_queue_that_breaks_down_is_reset_alone() {
    for (queue, in_flight) in [(0, 0), (1, 3)] {
        let mut rig = Rig::running(offering(KNOWN | RING_RESET), 256, 64);
        still_works(&mut rig);
        let resets = rig.device.function_resets();
        for round in 1..=3 {
            poll(&mut rig); // what was sent before is accounted for
            let mut burst = Burst::new();
            for number in 0..3 {
                burst.push(mbuf_of(&rig.pool, &frame(60, number))).unwrap();
            }
            rig.queues.tx[0].send(&mut burst);
            if queue == 0 {
                rig.device.transmit(0, 10, |_| ());
            }
            rig.device.move_used_index(queue, 200);
            poll(&mut rig);
            assert_eq!(rig.port.fault(), None, "it is mended without a restart");
            rig.port.link_changed();
            assert_eq!(rig.device.queue_resets(), vec![queue; round]);
            poll(&mut rig);
            rig.port.link_changed();
            poll(&mut rig);
            still_works(&mut rig);
            assert_eq!(rig.tx_stats().in_flight, in_flight * round as u64);
        }
        assert_eq!((rig.device.function_resets(), rig.device.status()), (resets, 0x0f));
        rig.finish();
    }
}

#[test]
fn a_queue_that_breaks_down_again_and_again_is_a_fault() {
    let mut rig = Rig::running(offering(KNOWN | RING_RESET), 256, 64);
    let mut rounds = 0;
    while rig.port.fault().is_none() {
        rig.device.move_used_index(0, 200);
        for _ in 0..2 {
            poll(&mut rig);
            rig.port.link_changed();
        }
        poll(&mut rig);
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(rig.device.queue_resets().len(), 5);
    assert!(rig.port.fault().unwrap().contains("6 times"), "{:?}", rig.port.fault());
    rig.stop().unwrap();
    rig.start().unwrap();
    assert_eq!(rig.port.fault(), None);
    still_works(&mut rig);
    rig.finish();
}
