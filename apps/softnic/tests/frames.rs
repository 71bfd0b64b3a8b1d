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

use client::{Forwarder, Softnic};
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;
use packetboat_softnic::registers::at;

const TRAPPED: Manner = Manner { share_pages: false, busy: false };
const SHARED: Manner = Manner { share_pages: true, busy: false };

/// Forwards until the generator has its frames back, or nothing has moved for a second.
fn forward(softnic: &Softnic, frames: u64, share: bool, ring: u32) -> (client::Client, Forwarder) {
    let mut client = softnic.client();
    let mut forwarder = Forwarder::new(&mut client, ring, share);
    let mut last = Instant::now();
    while forwarder.forwarded < frames && last.elapsed() < Duration::from_secs(1) {
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
        let (mut client, _) = forward(&softnic, frames, manner.share_pages, 256);
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
    let (mut client, forwarder) = forward(&softnic, 100_000, true, 64);
    let (received, missed) = (softnic.stat("rx_frames"), softnic.stat("rx_missed"));
    assert_eq!(softnic.stat("gen_sent"), 100_000);
    assert_eq!(received + missed, 100_000);
    assert_eq!(forwarder.forwarded, received);
    assert_eq!(softnic.stat("gen_received"), received);
    assert_eq!(u64::from(client.read(at::RXMPC)), missed);
    assert_eq!(u64::from(client.read(at::GPRC)), received + missed);
}
