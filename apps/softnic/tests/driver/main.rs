//! This repository's ixgbe driver on softnic, in one process: each thing that the driver can ask of
//! the device is asked for, and what the device makes of it is judged by code that neither uses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../client/mod.rs"]
mod client;
mod filters;
mod packet;
mod port;
mod queues;
mod receive;
mod refused;
mod rig;
mod rss;
mod send;
