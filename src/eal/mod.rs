//! The environment an application runs in: its options, the order in which things start and stop,
//! and the lcores.
//!
//! ```text
//!  Options ──► Plan::make ──► Plan::start ──► Eal::open ──► Eal::lcore ──► LcoreThread::launch
//!              lcores, PCI,   memory, VFIO    a device      a thread on    the application's
//!              nothing taken                                its CPU        loop
//! ```
//!
//! [`Plan::make`] only looks: which CPUs and devices there are, and whether the options fit them.
//! An application checks its own options against that before anything is taken from the machine.
//! [`Plan::start`] then reserves memory and opens VFIO. Dropping what these return undoes it: the
//! devices are reset, then memory is unmapped for them, then the pages go back.
//!
//! **Lcores.** A forwarding loop has a thread of its own, pinned to its lcore's CPU. The thread the
//! process began with is no lcore: it runs the control plane (link, statistics, signals), wakes a
//! few times a second, and stays where the kernel puts it, unless `--main-lcore` names an lcore
//! whose CPU it shall share. With `-l 0` one CPU does both.

mod error;
mod lcore;
mod lcores;
mod log;
mod options;
mod service;
mod start;
mod stop;

pub use error::EalError;
pub use lcore::{Lcore, LcoreHandle, LcoreThread, Role, wait_all};
pub use lcores::Lcores;
pub use log::{LogLevel, start_logging};
pub use options::{IdList, LcoreList, Options};
pub use service::{RunningServices, ServiceCounts, Services};
pub use start::{Eal, Plan};
pub use stop::StopFlag;
