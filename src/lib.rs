//! packetboat: a userspace packet-forwarding stack for Linux.
//!
//! Hugepages become segments ([`memory`]), segments become pools ([`mempool`]), pools hand out
//! mbufs ([`mbuf`]), a driver lends mbufs to the NIC ([`dma`]) and takes them back filled
//! ([`port`]), and an application moves them from one port to the next.
//!
//! A module may use what stands above it in this list, never what stands below.

pub mod sys;
pub mod telemetry;
pub mod net;

pub mod memory;
pub mod ring;
pub mod mempool;
pub mod mbuf;

pub mod mmio;
pub mod bus;
pub mod dma;

pub mod port;
pub mod eal;
