//! A device that writes what it likes into split and packed rings: nothing may panic, hang or be
//! lost, and nothing outside the rings is believed.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use packetboat_virtio::fuzz::Playground;

static PLAYGROUND: OnceLock<Playground> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let new = || Playground::new().expect("memory to play in");
    PLAYGROUND.get_or_init(new).rings(input).expect("memory for queues");
});
