//! The vhost-user port against back ends in this process: no root, no DPDK, lock step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: clippy.toml's allowance doesn't reach helpers of integration tests"
)]

mod backend;
mod interrupts;
mod lies;
mod loopback;
mod offloads;
mod packed;
mod reconnect;
mod rig;
