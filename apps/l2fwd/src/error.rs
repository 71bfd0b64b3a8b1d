//! What can end a run, and how it is told.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use packetboat::eal::EalError;
use packetboat::mbuf::MbufPoolError;
use packetboat::port::PortError;

use crate::lanes::TooFewLcores;
use crate::portmap::PortMapError;

/// Why a run didn't start, or didn't end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Ports and options don't fit.
    #[error(transparent)]
    PortMap(#[from] PortMapError),
    /// `-q` and `-l` don't fit.
    #[error(transparent)]
    TooFewLcores(#[from] TooFewLcores),
    /// The file for `--stats-json` can't be written.
    #[error(
        "--stats-json {}: can't be written: {source}; name a file in a directory that exists and \
         that this user may write to", .path.display()
    )]
    StatsFile {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing to forward between.
    #[error(
        "no ports: {found}; hand network devices over with `scripts/devbind.sh -b vfio-pci \
         BDF…` (`scripts/devbind.sh -s` lists them), or name them with -a"
    )]
    NoPorts {
        /// What was looked at.
        found: &'static str,
    },
    /// A device was named that no linked driver knows.
    #[error(
        "-a {device} has ids {ids}, and no driver of this program supports it; linked are: \
         {linked}. Leave the -a out, or name a device that one of these drives"
    )]
    NoDriver {
        /// The device.
        device: String,
        /// `vendor:device`.
        ids: String,
        /// The drivers there are.
        linked: String,
    },
    /// `--vdev` names a kind of device that no linked driver makes.
    #[error("--vdev {vdev}: no driver of this program makes such a device; it makes: {linked}")]
    NoVirtualDriver {
        /// As given.
        vdev: String,
        /// The kinds there are.
        linked: String,
    },
    /// Lcores, memory, devices.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// A port has fewer receive queues than `--rxq`.
    #[error(
        "port {port}: --rxq asks for {wanted} receive queues, and {device} has {most}; use --rxq \
         {most}, or a device with more (in QEMU: queues=N for the netdev and mq=on)"
    )]
    RxQueues {
        /// The port's number.
        port: u16,
        /// Its device.
        device: String,
        /// As `--rxq` says.
        wanted: u16,
        /// As many as it has.
        most: u16,
    },
    /// A port has fewer transmit queues than lcores that send to it.
    #[error(
        "port {port}: {wanted} lcores send to it, each by a transmit queue of its own, and \
         {device} has {most}; use fewer lcores with -l, or more queues for each with -q"
    )]
    TxQueues {
        /// The port's number.
        port: u16,
        /// Its device.
        device: String,
        /// Lcores that send to it.
        wanted: u16,
        /// As many as it has.
        most: u16,
    },
    /// A port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Mbufs.
    #[error("{source}; ask for fewer with --mbufs, or for more memory with -m")]
    Pool {
        /// Why there is no pool.
        source: MbufPoolError,
    },
    /// Ctrl-C can't be listened to.
    #[error("Ctrl-C and SIGTERM can't be caught: {0}")]
    Signals(#[from] ctrlc::Error),
    /// The kernel wants a device back.
    #[error(
        "port {port}: device {device} is being taken away (unplugged, or unbound from vfio-pci); \
         forwarding has ended and the device is let go. Start again when it is back: \
         `scripts/devbind.sh -s` shows what there is"
    )]
    Removed {
        /// The port's number.
        port: u16,
        /// Its device.
        device: String,
    },
    /// A device that can't go on until it is reset.
    #[error(
        "port {port}: {device}: {what}. Forwarding has ended and the device was reset; start again \
         to go on with it, and if this happens again, look into the device (for a virtual one: its \
         hypervisor's log)"
    )]
    Fault {
        /// The port's number.
        port: u16,
        /// Its device.
        device: String,
        /// What it did.
        what: String,
    },
    /// An lcore ended by itself.
    #[error("lcore {lcore} ended before it was told to; this is a bug, please report it")]
    LcoreEnded {
        /// The lcore.
        lcore: u32,
    },
    /// Some mbufs are nowhere.
    #[error(
        "{missing} mbufs were not returned to their pools; the lines above say why. Their memory \
         goes back to the machine with the end of this program"
    )]
    NotReturned {
        /// How many.
        missing: usize,
    },
}

impl Error {
    /// 2 if another command line would mend it whatever the machine, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::PortMap(_) | Self::TooFewLcores(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Tells people: one line for the error, one for each cause that it doesn't tell of itself.
pub(crate) fn print(error: &Error) {
    let mut told = error.to_string();
    eprintln!("packetboat-l2fwd: error: {told}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            eprintln!("  because: {text}");
            told = text;
        }
        cause = error.source();
    }
}
