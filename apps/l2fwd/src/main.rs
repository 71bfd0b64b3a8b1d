//! l2fwd.
#![forbid(unsafe_code)]

fn main() {}
