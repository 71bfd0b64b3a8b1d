//! The floor: system calls, mappings, CPUs, time. Everything above is written without knowing
//! how the kernel is asked.

pub mod arch;
pub mod lcore_id;
pub mod sync;
