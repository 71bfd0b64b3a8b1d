//! How many frames softnic moves on one core: a client sends each generated frame back, in step with
//! the device, on one thread; what counts is the processor time that the device's part takes. So other
//! load on the machine disturbs little.
//!
//! `cargo run --release -p packetboat-softnic --example throughput [MILLION FRAMES] [SIZE]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a measurement"
)]

#[path = "../tests/client/mod.rs"]
mod client;

use client::{Forwarder, Softnic};
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let millions: u64 = arguments.next().map_or(3, |text| text.parse().expect("a number"));
    let size = arguments.next().unwrap_or_else(|| "60".to_owned());
    for (wire, what) in [
        (format!("gen:size={size}"), "generator, each frame checked when it comes back"),
        (format!("gen:size={size},frames=256"), "reflect"),
    ] {
        let wire = if what == "reflect" { "reflect".to_owned() } else { wire };
        let frames = millions * 1_000_000;
        let manner = Manner { share_pages: true, busy: true };
        let softnic = Softnic::still(&wire, WhenFull::Wait, manner);
        let mut client = softnic.client();
        let mut forwarder = Forwarder::new(&mut client, 512, true);
        if what == "reflect" {
            forwarder.inject(&mut client, 64);
        }
        let mut device_ns = 0;
        while forwarder.forwarded < frames {
            let begin = now_ns();
            softnic.nic.device().poll();
            device_ns += now_ns() - begin;
            forwarder.poll(&mut client);
            forwarder.poll(&mut client);
        }
        let each = device_ns as f64 / forwarder.forwarded as f64;
        println!(
            "{what}: {:.0} ns a frame, received and sent: {:.2} Mpps each way on one core ({size} bytes)",
            each,
            1000.0 / each
        );
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
