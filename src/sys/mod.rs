//! The floor: system calls, mappings, CPUs, NUMA nodes, time. Everything above is written without
//! knowing how the kernel is asked.
//!
//! Files under `/sys`, `/proc` and `/dev` are read through a [`sysroot::SysRoot`], so that trees
//! of machines that aren't here can be tested.

pub mod arch;
pub mod capability;
pub(crate) mod copy;
pub mod cpu;
pub mod fs;
pub mod idlist;
pub mod lcore_id;
pub mod lcore_local;
#[cfg(all(test, loom))]
pub(crate) mod loom_model;
pub(crate) mod lock;
pub mod mapping;
pub mod membarrier;
pub mod memfd;
pub mod numa;
pub mod rlimit;
pub mod sync;
pub mod sysroot;
pub mod tap;
pub mod tsc;
