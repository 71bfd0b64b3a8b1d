//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

/// An Intel 82599 in software, behind a vfio-user socket.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "packetboat-softnic",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Options {
    /// Something else than a NIC.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Where clients connect; once for each NIC.
    #[arg(long, value_name = "PATH", required = true)]
    pub socket: Vec<PathBuf>,

    /// What each NIC is plugged into.
    #[arg(long, value_name = "WIRE", required = true, help = crate::plugs::HELP)]
    pub wire: Vec<String>,

    /// MAC address of the first NIC; the others count on from it.
    #[arg(long, value_name = "MAC", default_value = "02:50:42:00:00:00")]
    pub mac: Mac,

    /// PCI device id, in hexadecimal: 10fb is the 82599ES with SFP+.
    #[arg(long, value_name = "ID", default_value = "10fb", value_parser = hexadecimal)]
    pub device_id: u16,

    /// Let clients map the pages of the queue registers. Counters that clear when read (QPRC, QPTC
    /// and their like) don't do so there: not for drivers that read them.
    #[arg(long)]
    pub share_pages: bool,

    /// Take client memory whose size isn't sealed. Such a client can kill softnic by cutting it.
    #[arg(long)]
    pub trust_clients: bool,

    /// Never sleep: each NIC keeps a core busy.
    #[arg(long)]
    pub busy: bool,

    /// Frames wait on the wire while a receive ring is full, instead of being dropped and counted.
    #[arg(long)]
    pub wait_when_full: bool,

    /// Fill every free receive descriptor inside the write of RDT, complete every transmit
    /// descriptor inside that of TDT: for counting a driver's instructions. Not with --share-pages.
    #[arg(long, conflicts_with = "share_pages")]
    pub full_rings: bool,

    /// A file of one page that counts frames and doorbells, 16 numbers of 64 bits for each of the first
    /// two NICs: received, sent, RDT writes, TDT writes, receive faults, bad descriptors.
    #[arg(long, value_name = "FILE")]
    pub counters: Option<PathBuf>,

    /// Where line commands are taken: `packetboat-softnic ctl PATH help` lists them.
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Write all frames of a NIC to a pcapng file; once for each NIC, in their order.
    #[arg(long, value_name = "FILE")]
    pub record: Vec<PathBuf>,
}

/// What softnic can do beside being a NIC.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Send a command to the control socket of a softnic that runs.
    Ctl {
        /// Its --control.
        socket: PathBuf,
        /// The command; `help` lists them.
        #[arg(required = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address `n` further on.
    pub fn plus(self, n: usize) -> [u8; 6] {
        let [a, b, c, d, e, f] = self.0;
        let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]).wrapping_add(n as u64);
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Vec<u8> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()
            .map_err(|_| format!("wanted six bytes like 02:50:42:00:00:00, found '{text}'"))?;
        let mac: [u8; 6] = bytes
            .try_into()
            .map_err(|_| format!("wanted six bytes like 02:50:42:00:00:00, found '{text}'"))?;
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(format!("wanted the address of one NIC, found '{text}'"));
        }
        Ok(Self(mac))
    }
}

fn hexadecimal(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("wanted a number like 10fb, found '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn addresses() {
        let mac: Mac = "02:00:00:00:00:ff".parse().unwrap();
        assert_eq!(mac.plus(1), [2, 0, 0, 0, 1, 0]);
        assert!("02:00".parse::<Mac>().is_err());
        assert!("ff:ff:ff:ff:ff:ff".parse::<Mac>().is_err());
    }
}
