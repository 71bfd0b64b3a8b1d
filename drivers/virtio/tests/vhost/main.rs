//! The vhost-user port against back ends in this process: no root, no DPDK, lock step.

mod backend;
mod lies;
mod loopback;
mod packed;
mod reconnect;
mod rig;
