//! How many frames softnic moves: a client in the same process, on another core, sends each generated
//! frame back. `cargo run --release -p packetboat-softnic --example throughput [SECONDS] [SIZE]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a measurement"
)]

#[path = "../tests/client/mod.rs"]
mod client;

use std::time::{Duration, Instant};

use client::{Forwarder, Softnic};
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(3, |text| text.parse().expect("a number of seconds"));
    let size = arguments.next().unwrap_or_else(|| "60".to_owned());
    let wire = format!("gen:size={size}");
    let manner = Manner { share_pages: true, busy: true };
    let softnic = Softnic::start(&wire, WhenFull::Wait, manner);
    let mut client = softnic.client();
    let mut forwarder = Forwarder::new(&mut client, 512, true);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1000 {
            forwarder.poll(&mut client);
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let rate = |name| softnic.stat(name) as f64 / elapsed / 1e6;
    println!(
        "frames of {size} bytes: {:.2} Mpps to the client, {:.2} Mpps from it (each checked), {} lost, {} corrupt",
        rate("rx_frames"),
        rate("gen_received"),
        softnic.stat("gen_lost"),
        softnic.stat("gen_corrupt")
    );
}
