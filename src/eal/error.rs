//! What can go wrong before and around the lcores.

use std::io;

use crate::bus::BusError;
use crate::memory::MemoryError;
use crate::sys::lcore_id::{ClaimError, MAX_LCORES};

/// Why the environment can't be made, or an lcore can't run.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// An lcore's CPU isn't in this machine, or is switched off.
    #[error(
        "-l/--lcores: lcore {lcore} is to run on CPU {cpu}, and this machine has no such CPU; \
         those that are on: {online} (`lscpu -e` lists them). Use some of {allowed}, such as \
         `-l {allowed}`"
    )]
    NoSuchCpu {
        /// The lcore.
        lcore: u32,
        /// Its CPU.
        cpu: u32,
        /// CPUs that are on.
        online: String,
        /// CPUs that this process may use.
        allowed: String,
    },
    /// An lcore's CPU is there, and this process may not run on it.
    #[error(
        "-l/--lcores: lcore {lcore} is to run on CPU {cpu}, and this process may use CPUs \
         {allowed} only (its affinity mask or its cpuset): use `-l {allowed}`, or widen the mask, \
         as with `taskset -c {online} PROGRAM`"
    )]
    CpuNotAllowed {
        /// The lcore.
        lcore: u32,
        /// Its CPU.
        cpu: u32,
        /// CPUs that are on.
        online: String,
        /// CPUs that this process may use.
        allowed: String,
    },
    /// An lcore number that per-lcore storage has no room for.
    #[error(
        "-l/--lcores: lcore {lcore} is wanted, and lcores are numbered 0 to {last}; give CPU \
         {cpu} a lower number: `-l 0@{cpu}`",
        last = MAX_LCORES - 1
    )]
    LcoreOutOfRange {
        /// The lcore.
        lcore: u32,
        /// Its CPU.
        cpu: u32,
    },
    /// `--main-lcore` isn't in `-l`.
    #[error("--main-lcore {main}: no such lcore in -l; it has {lcores}. Choose one of these")]
    NoSuchMain {
        /// As given.
        main: u32,
        /// The lcores there are.
        lcores: String,
    },
    /// An lcore in `-S` isn't in `-l`.
    #[error(
        "-S/--service-lcores: lcore {service} is to run services, and -l has {lcores} only; add it \
         there, or choose one of these"
    )]
    NoSuchService {
        /// As given.
        service: u32,
        /// The lcores there are.
        lcores: String,
    },
    /// `--main-lcore` is in `-S`, too.
    #[error("--main-lcore {main}: -S has this lcore for services; take it from one of the two")]
    MainIsService {
        /// As given.
        main: u32,
    },
    /// `-S` has all lcores.
    #[error(
        "-S/--service-lcores: all lcores ({lcores}) are to run services, and none is left for the \
         application; add one to -l, or take one from -S"
    )]
    OnlyServices {
        /// The lcores there are.
        lcores: String,
    },
    /// Services, and no lcore for them.
    #[error(
        "{count} services ({first} and so on) need an lcore, and there is none: name one with \
         -S/--service-lcores, such as `-l 0-1 -S 1`"
    )]
    NoServiceLcore {
        /// How many.
        count: usize,
        /// The first one's name.
        first: String,
    },
    /// The CPUs can't be listed.
    #[error("the CPUs that this process may use can't be read: {0}; is /proc mounted?")]
    Cpus(#[source] io::Error),
    /// No thread to be had.
    #[error(
        "lcore {lcore}: no thread for it: {source}; look at `ulimit -u` and the cgroup's pids.max"
    )]
    Thread {
        /// The lcore.
        lcore: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The CPU went away since it was looked for.
    #[error(
        "lcore {lcore}: its thread can't be put on CPU {cpu}: {source}; see Cpus_allowed_list in \
         /proc/self/status"
    )]
    Pin {
        /// The lcore.
        lcore: u32,
        /// Its CPU.
        cpu: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another thread is that lcore.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// What ran on an lcore panicked; what it had is lost.
    #[error("lcore {lcore} died: {message}; this is a bug of this program, please report it")]
    LcorePanicked {
        /// The lcore.
        lcore: u32,
        /// What the panic said.
        message: String,
    },
    /// Opening a device before there was VFIO for it.
    #[error("{device}: no VFIO container is open: the plan this run started with had no devices")]
    NoContainer {
        /// The device.
        device: String,
    },
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Devices.
    #[error(transparent)]
    Bus(#[from] BusError),
}
