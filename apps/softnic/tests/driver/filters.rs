//! Which frames are received.

use packetboat::net::MacAddress;
use packetboat::port::Offloads;

use crate::packet::Packet;
use crate::rig::Rig;

fn to(destination: [u8; 6]) -> Vec<u8> {
    Packet { destination, ..Packet::tcp4(20) }.bytes()
}

fn takes(rig: &mut Rig, destination: [u8; 6]) -> bool {
    rig.received(to(destination)).is_some()
}

fn takes_tag(rig: &mut Rig, tag: u16) -> bool {
    rig.received(Packet { tag: Some(tag), ..Packet::tcp4(20) }.bytes()).is_some()
}

const OTHER: [u8; 6] = [2, 0, 0, 0, 7, 9];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 0xfb];
/// The same upper 12 bits as the group before.
const ITS_TWIN: [u8; 6] = [1, 0, 0x5e, 9, 0x0f, 0xfb];
const OTHER_GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0x10, 0xfb];

#[test]
fn its_own_address_and_broadcasts_come_and_others_do_not() {
    let mut rig = Rig::new(Offloads::default());
    let own = rig.port.info().mac;
    assert!(takes(&mut rig, own.0) && takes(&mut rig, [0xff; 6]));
    assert!(!takes(&mut rig, OTHER) && !takes(&mut rig, GROUP));
    assert_eq!(rig.softnic.stat("rx_filtered"), 2);
    rig.end();
}

#[test]
fn addresses_are_added_until_the_table_is_full() {
    let mut rig = Rig::new(Offloads::default());
    let address = |n: u8| MacAddress([2, 0, 0, 0, 8, n]);
    let count = rig.port.capabilities().mac_filters;
    assert_eq!(count, 127);
    for n in 0..count as u8 {
        assert!(!takes(&mut rig, address(n).0));
        rig.port.filter_mac(address(n), true).unwrap();
        rig.port.filter_mac(address(n), true).unwrap(); // takes no second place
        assert!(takes(&mut rig, address(n).0));
    }
    let error = rig.port.filter_mac(MacAddress(OTHER), true).unwrap_err().to_string();
    assert!(error.contains("all of its 127 address filters are taken"), "{error}");
    assert!(!takes(&mut rig, OTHER));
    rig.port.filter_mac(address(50), false).unwrap();
    rig.port.filter_mac(address(50), false).unwrap();
    rig.port.filter_mac(MacAddress(OTHER), true).unwrap();
    assert!(takes(&mut rig, OTHER) && !takes(&mut rig, address(50).0));
    assert!(takes(&mut rig, address(0).0) && takes(&mut rig, address(126).0));
    let own = rig.port.info().mac;
    assert!(takes(&mut rig, own.0));
    rig.end();
}

#[test]
fn groups_are_received_by_their_hash() {
    let mut rig = Rig::new(Offloads::default());
    rig.port.filter_mac(MacAddress(GROUP), true).unwrap();
    assert!(takes(&mut rig, GROUP) && takes(&mut rig, ITS_TWIN) && !takes(&mut rig, OTHER_GROUP));
    // Two that share a bit: it stays for as long as one of them does.
    rig.port.filter_mac(MacAddress(ITS_TWIN), true).unwrap();
    rig.port.filter_mac(MacAddress(OTHER_GROUP), true).unwrap();
    rig.port.filter_mac(MacAddress(GROUP), false).unwrap();
    assert!(takes(&mut rig, ITS_TWIN) && takes(&mut rig, OTHER_GROUP));
    rig.port.filter_mac(MacAddress(ITS_TWIN), false).unwrap();
    assert!(!takes(&mut rig, ITS_TWIN) && takes(&mut rig, OTHER_GROUP));
    rig.port.filter_mac(MacAddress(OTHER_GROUP), false).unwrap();
    assert!(!takes(&mut rig, OTHER_GROUP));
    // 300 of them: there is no table to be full.
    for n in 0..300_u16 {
        let [high, low] = n.to_be_bytes();
        rig.port.filter_mac(MacAddress([1, 0, 0x5e, 1, high, low]), true).unwrap();
    }
    assert!(takes(&mut rig, [1, 0, 0x5e, 1, 1, 43]));
    rig.end();
}

#[test]
fn all_multicast_and_promiscuous_go_on_and_off() {
    let mut rig = Rig::new(Offloads::default());
    let taken = |rig: &mut Rig| [OTHER, GROUP, [0xff; 6]].map(|address| takes(rig, address));
    assert_eq!(taken(&mut rig), [false, false, true]);
    rig.port.set_all_multicast(true).unwrap();
    assert_eq!(taken(&mut rig), [false, true, true]);
    rig.port.set_promiscuous(true).unwrap();
    assert_eq!(taken(&mut rig), [true, true, true]);
    rig.port.set_all_multicast(false).unwrap();
    assert_eq!(taken(&mut rig), [true, true, true], "promiscuous is all");
    rig.port.set_promiscuous(false).unwrap();
    assert_eq!(taken(&mut rig), [false, false, true]);
    rig.end();
}

#[test]
fn vlans_are_filtered_from_the_first_that_is_named() {
    let mut rig = Rig::new(Offloads::default());
    assert!(takes_tag(&mut rig, 5));
    for vlan in [0, 31, 32, 100, 4094] {
        rig.port.filter_vlan(vlan, true).unwrap();
    }
    assert!(rig.port.filter_vlan(4095, true).is_err());
    for tag in [0, 31, 32, 100, 4094, 0xe000 | 100] {
        assert!(takes_tag(&mut rig, tag), "{tag}");
    }
    for tag in [1, 5, 30, 33, 4093] {
        assert!(!takes_tag(&mut rig, tag), "{tag}");
    }
    let own = rig.port.info().mac;
    assert!(takes(&mut rig, own.0), "frames without a tag aren't filtered");
    rig.port.filter_vlan(100, false).unwrap();
    assert!(!takes_tag(&mut rig, 100) && takes_tag(&mut rig, 32));
    // Promiscuous means every frame.
    rig.port.set_promiscuous(true).unwrap();
    assert!(takes_tag(&mut rig, 100) && takes_tag(&mut rig, 5));
    rig.port.set_promiscuous(false).unwrap();
    assert!(!takes_tag(&mut rig, 100) && takes_tag(&mut rig, 32));
    rig.end();
}
