//! A vhost-user back end that answers what it likes: the front end comes to an end, with an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    packetboat_virtio::fuzz::messages(input);
});
