//! The outside world of the rig.
#![forbid(unsafe_code)]

fn main() {}
