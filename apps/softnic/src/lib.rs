//! softnic: an Intel 82599 in software, behind a vfio-user socket.
//!
//! Reading order: `device` is a NIC, its registers and what they set going; `rx` and `tx` move
//! frames between a client's memory and a `wire`; `server` speaks vfio-user with the client; `nic`
//! has the two threads of each.
#![forbid(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "fields of registers, descriptors and headers are cut out of wider words everywhere"
)]

pub mod control;
pub mod counters;
pub mod crc;
pub mod device;
pub mod eeprom;
pub mod faults;
pub mod filters;
pub mod i2c;
pub mod interrupts;
pub mod memory;
pub mod nic;
pub mod offload;
pub mod options;
pub mod packet;
pub mod pause;
pub mod pcapng;
pub mod pci;
pub mod plugs;
pub mod record;
pub mod registers;
pub mod rss;
pub mod rx;
pub mod server;
pub mod statistics;
pub mod tx;
pub mod wire;
