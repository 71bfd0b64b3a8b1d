//! The driver against a virtio-net PCI function in this process.
//!
//! The device's side of the queues is the rust-vmm crates' `virtio-queue` on `vm-memory`, which
//! maps the driver's memory a second time: written by others, so that driver and device can't
//! share one misreading. What the driver does wrong by the specification, the device notes, and
//! each test ends by looking at those notes and at the pools' accounts.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: clippy.toml's allowance doesn't reach helpers of integration tests"
)]

mod commands;
mod device;
mod rig;

mod interrupts;
mod lies;
mod loopback;
mod negotiation;
mod restart;
mod ten_million;
