//! Receive side scaling: queue and hash are what the key, the table and the fields say.

use packetboat::port::{Offloads, Rss, RssHash};

use crate::packet::{Kind, Packet};
use crate::rig::Setup;

/// Microsoft's example of a key.
const EXAMPLE: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Toeplitz, bit by bit: the key is shifted along, and added where the input has a 1.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
    (0..8 * input.len())
        .filter(|n| bit(input, *n) == 1)
        .fold(0, |hash, n| hash ^ (0..32).fold(0, |word, m| word << 1 | u32::from(bit(key, n + m))))
}

fn input(packet: &Packet, with_ports: bool) -> Vec<u8> {
    let mut input = packet.ip_addresses();
    if with_ports {
        input.extend(packet.ports.iter().flat_map(|port| port.to_be_bytes()));
    }
    input
}

/// Flows of each kind, and whether their ports are hashed.
fn flows() -> Vec<(Packet, RssHash, RssHash)> {
    let mut flows = Vec::new();
    for n in 0..40_u16 {
        for (v6, kind, with_ports) in [
            (false, Kind::Tcp, RssHash::IPV4_TCP),
            (false, Kind::Udp, RssHash::IPV4_UDP),
            (true, Kind::Tcp, RssHash::IPV6_TCP),
            (true, Kind::Udp, RssHash::IPV6_UDP),
        ] {
            let mut packet = Packet::new(kind, v6, 20);
            packet.ports = [n.wrapping_mul(7919), 443 + n];
            packet.addresses = [n as u8 * 3, n as u8];
            flows.push((packet, with_ports, if v6 { RssHash::IPV6 } else { RssHash::IPV4 }));
        }
    }
    flows
}

fn check(rss: Rss, queues: u16) {
    let offloads = Offloads { rx_classify: true, rss: Some(rss.clone()), ..Offloads::default() };
    let mut rig = Setup::new(offloads).queues(queues).start();
    let key = rss.key.unwrap_or(EXAMPLE.to_vec());
    let table = rss.table.unwrap_or((0..queues).collect());
    let hashed = if rss.hash == RssHash::default() { RssHash::ALL } else { rss.hash };
    let mut used = vec![0; usize::from(queues)];
    for (packet, with_ports, addresses) in flows() {
        rig.deliver(packet.bytes());
        let hash = if hashed.contains(with_ports) {
            Some(toeplitz(&key, &input(&packet, true)))
        } else if hashed.contains(addresses) {
            Some(toeplitz(&key, &input(&packet, false)))
        } else {
            None
        };
        let queue = hash.map_or(0, |hash| usize::from(table[hash as usize % 128 % table.len()]));
        let found = rig.receive(queue);
        assert_eq!(found.len(), 1, "queue {queue} for {packet:?}");
        assert_eq!(found[0].rss_hash(), hash, "{packet:?}");
        used[queue] += 1;
    }
    assert!(used.iter().filter(|count| **count > 0).count() > 1, "{used:?}");
    rig.end();
}

#[test]
fn hashes_and_queues_follow_key_and_table() {
    check(Rss::default(), 4);
    let key: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(83) ^ 0x2e).collect();
    check(Rss { key: Some(key.clone()), ..Rss::default() }, 16);
    // A table that leaves queues out, and one that is repeated.
    let table = (0..128).map(|n| [3, 1, 1, 0][n * 7 % 4]).collect();
    check(Rss { key: Some(key.clone()), table: Some(table), ..Rss::default() }, 4);
    check(Rss { key: Some(key), table: Some(vec![2, 0]), ..Rss::default() }, 3);
}

#[test]
fn only_the_fields_asked_for_are_hashed() {
    for hash in [
        RssHash::IPV4,
        RssHash::IPV4_TCP,
        RssHash::IPV4_UDP | RssHash::IPV6,
        RssHash::IPV6_TCP | RssHash::IPV6_UDP,
    ] {
        check(Rss { hash, ..Rss::default() }, 4);
    }
}

#[test]
fn the_judge_agrees_with_the_published_hashes() {
    let hash = |source: [u8; 4], destination: [u8; 4], ports: [u16; 2]| {
        let addresses = [source, destination].concat();
        let ports: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        (toeplitz(&EXAMPLE, &addresses), toeplitz(&EXAMPLE, &[addresses.clone(), ports].concat()))
    };
    let found = hash([66, 9, 149, 187], [161, 142, 100, 80], [2794, 1766]);
    assert_eq!(found, (0x323e_8fc2, 0x51cc_c178));
    let found = hash([199, 92, 111, 2], [65, 69, 140, 83], [14230, 4739]);
    assert_eq!(found, (0xd718_262a, 0xc626_b0ea));
}
