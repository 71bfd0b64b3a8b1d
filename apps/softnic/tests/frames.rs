//! Frames through softnic, by a client in this process: all there, whole, and counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod client;

use std::time::{Duration, Instant};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use client::{Forwarder, Softnic};
use packetboat_softnic::control::Control;
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;
use packetboat_softnic::registers::at;

const TRAPPED: Manner = Manner { share_pages: false, busy: false };
const SHARED: Manner = Manner { share_pages: true, busy: false };

/// Forwards until the generator has its frames back, or nothing has moved for `patience`.
fn forward(
    softnic: &Softnic,
    frames: u64,
    share: bool,
    ring: u32,
    patience: Duration,
) -> (client::Client, Forwarder) {
    let mut client = softnic.client();
    let mut forwarder = Forwarder::new(&mut client, ring, share);
    let mut last = Instant::now();
    while forwarder.forwarded < frames && last.elapsed() < patience {
        if forwarder.poll(&mut client) > 0 {
            last = Instant::now();
        } else {
            std::thread::yield_now();
        }
    }
    (client, forwarder)
}

#[test]
fn a_waiting_wire_loses_nothing_with_shared_pages_and_with_trapped_ones() {
    for (manner, frames) in [(SHARED, 200_000), (TRAPPED, 5_000)] {
        let wire = format!("gen:size=60-1514,flows=16,frames={frames}");
        let softnic = Softnic::start(&wire, WhenFull::Wait, manner);
        // On a machine that is busy elsewhere a thread may stand still for seconds.
        let patience = Duration::from_secs(20);
        let (mut client, _) = forward(&softnic, frames, manner.share_pages, 256, patience);
        let state = || {
            let mut device = softnic.nic.device();
            device.dump() + &device.wire().report()
        };
        assert_eq!(softnic.stat("gen_received"), frames, "{}", state());
        for name in ["gen_lost", "gen_reordered", "gen_corrupt", "gen_duplicates", "rx_missed"] {
            assert_eq!(softnic.stat(name), 0, "{name}");
        }
        assert_eq!(u64::from(client.read(at::GPTC)), frames);
        assert_eq!(client.read(at::GPTC), 0, "it clears when read");
    }
}

#[test]
fn a_dropping_wire_counts_each_frame_that_it_drops() {
    let softnic = Softnic::start("gen:frames=100000", WhenFull::Drop, SHARED);
    let (mut client, forwarder) = forward(&softnic, 100_000, true, 64, Duration::from_secs(3));
    let (received, missed) = (softnic.stat("rx_frames"), softnic.stat("rx_missed"));
    assert_eq!(softnic.stat("gen_sent"), 100_000);
    assert_eq!(received + missed, 100_000);
    assert_eq!(forwarder.forwarded, received);
    assert_eq!(softnic.stat("gen_received"), received);
    assert_eq!(u64::from(client.read(at::RXMPC)), missed);
    assert_eq!(u64::from(client.read(at::GPRC)), received + missed);
}

/// Status, length and tag of a receive descriptor.
fn written_back(forwarder: &Forwarder, n: usize) -> u64 {
    forwarder.memory.word(16 * n + 8).load(Ordering::Acquire)
}

#[test]
fn with_full_rings_a_doorbell_does_it_all() {
    let softnic = Softnic::with("gen:size=60", WhenFull::Drop, TRAPPED, true);
    let mut client = softnic.client();
    let mut forwarder = Forwarder::new(&mut client, 64, false);
    // The receiver was switched on after the first RDT.
    assert_eq!(softnic.stat("rx_frames"), 0);
    Control::new(vec![Arc::clone(&softnic.nic)]).command(&["fill"]).unwrap();
    assert_eq!(softnic.stat("rx_frames"), 63, "all that were free");
    assert!((0..63).all(|n| written_back(&forwarder, n) & 1 == 1));
    for round in 1..10 {
        assert_eq!(forwarder.poll(&mut client), 32, "no batch is partial");
        assert_eq!(softnic.stat("tx_frames"), 32 * round);
        assert_eq!(softnic.stat("rx_frames"), 63 + 32 * round);
    }
    assert_eq!(softnic.stat("rx_missed"), 0);
    assert_eq!(softnic.stat("gen_lost"), 0);
}

#[test]
fn faults_happen_once_and_are_seen() {
    // Each doorbell brings frames, so that it is known which of them was lied about.
    let say = |softnic: &Softnic, line: &str| {
        let control = Control::new(vec![Arc::clone(&softnic.nic)]);
        control.command(&line.split(' ').collect::<Vec<_>>()).unwrap()
    };
    let set_up = |line: &str| {
        let softnic = Softnic::with("gen:size=60", WhenFull::Drop, TRAPPED, true);
        let mut client = softnic.client();
        let forwarder = Forwarder::new(&mut client, 64, false);
        say(&softnic, line);
        client.write(at::RDT, 63);
        (softnic, client, forwarder)
    };
    let good = 60 << 32 | 3;
    let shape = |word: u64| word & 0xffff_0000_0003;

    let (_softnic, _client, ring) = set_up("fault length");
    assert_eq!(written_back(&ring, 0) >> 32 & 0xffff, 0xffff);
    assert_eq!(shape(written_back(&ring, 1)), good);

    let (_softnic, _client, ring) = set_up("fault withhold rx queue 0 count 2");
    assert_eq!((written_back(&ring, 0), written_back(&ring, 1)), (0, 0));
    assert_eq!(shape(written_back(&ring, 2)), good);

    let (_softnic, _client, ring) = set_up("fault place");
    assert_eq!(written_back(&ring, 0), 0);

    let (_softnic, _client, ring) = set_up("fault checksum");
    assert_ne!(written_back(&ring, 0) >> 31 & 1, 0, "the good IPv4 checksum is called bad");
    assert_eq!(written_back(&ring, 1) >> 31 & 1, 0);

    let (softnic, _client, _ring) = set_up("fault address");
    assert_eq!((softnic.stat("dma_faults"), softnic.stat("rx_missed")), (1, 1));

    let (softnic, mut client, _ring) = set_up("stick rx 0");
    assert_eq!(softnic.stat("rx_frames"), 0);
    say(&softnic, "free");
    client.write(at::RDT, 63);
    assert_eq!(softnic.stat("rx_frames"), 63);

    let (softnic, mut client, _ring) = set_up("link down");
    assert_eq!((softnic.stat("rx_frames"), client.read(at::LINKS)), (0, 0));

    let (softnic, mut client, mut ring) = set_up("fault withhold tx");
    ring.poll(&mut client);
    assert_eq!((softnic.stat("tx_frames"), ring.forwarded), (32, 0), "the first holds them all up");

    say(&softnic, "reset");
    assert_eq!((client.read(at::RXCTRL), client.read(at::RDT)), (0, 0));
    say(&softnic, "hangup");
    assert_eq!(client.region(0, 0, 4).map(|_| ()), Err(None));
}
