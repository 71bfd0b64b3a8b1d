//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, Parser};
use packetboat::eal::Options as EalOptions;
use packetboat::mbuf::{DEFAULT_DATA_ROOM_BYTES, HEADROOM_BYTES, MAX_BURST};
use packetboat::port::Offloads;

use crate::portmap::{PortMap, PortMask};

/// The longest packet that fits into one mbuf with its Ethernet header and two tags.
pub(crate) const LONGEST_IN_ONE_MBUF: u16 = DEFAULT_DATA_ROOM_BYTES - HEADROOM_BYTES - 22;

const EXAMPLES: &str = "\
Examples:
  Hand two NICs over, reserve hugepages, forward between the NICs on two cores:
    scripts/devbind.sh -b vfio-pci 0000:01:00.0 0000:02:00.0
    scripts/hugepages.sh --reserve 64M
    packetboat-l2fwd -l 1,2 -a 0000:01:00.0 -a 0000:02:00.0 -- -p 0x3

  Four ports, crosswise, addresses left as they are, statistics each second:
    packetboat-l2fwd -l 0-3 -- -p 0xf --portmap=\"(0,3),(1,2)\" -P --no-mac-updating -T 1

  Two receive queues per port on two cores, counters for a program to read:
    packetboat-l2fwd -l 1,2 --rxq 2 --stats-json /run/l2fwd.json

A lone -- between EAL options and l2fwd's own is allowed, as with DPDK, and not needed.
Ctrl-C or SIGTERM stops it. Exit code: 0 after a clean stop, 2 for a wrong command line, else 1.";

const ABOUT: &str = "\
Forwards frames between pairs of NIC ports, in userspace: cores poll the receive queues, and what
comes in by one port of a pair leaves by the other. The NICs are reached through VFIO, memory is
on hugepages; DPDK's l2fwd is the model.";

/// The whole command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "packetboat-l2fwd", version, about = ABOUT, long_about = None)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What every application has.
    #[command(flatten)]
    pub(crate) eal: EalOptions,
    /// l2fwd's own.
    #[command(flatten)]
    pub l2fwd: Options,
}

/// l2fwd's own options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "l2fwd options")]
#[group(skip)]
pub(crate) struct Options {
    /// Ports to use, as a hexadecimal mask: bit N stands for port N. Ports are numbered in the
    /// order of their devices' addresses [default: all]
    #[arg(short = 'p', long, value_name = "MASK")]
    pub(crate) portmask: Option<PortMask>,

    /// Receive every frame, not only those sent to the port's own address
    #[arg(short = 'P', long)]
    pub(crate) promiscuous: bool,

    /// Receive queues (with one per port: ports) that an lcore polls at most [default: spread
    /// evenly over the lcores]
    #[arg(short = 'q', long = "queues-per-lcore", value_name = "NQ",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) queues_per_lcore: Option<u16>,

    /// Receive queues of each port
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) rxq: u16,

    /// Seconds between statistics; 0: only at the end
    #[arg(short = 'T', long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) period: u32,

    /// Rewrite addresses: to 02:00:00:00:00:PORT, from the outgoing port's own [default]
    #[arg(long, overrides_with = "no_mac_updating")]
    pub(crate) mac_updating: bool,

    /// Leave addresses as they are
    #[arg(long, overrides_with = "mac_updating")]
    pub(crate) no_mac_updating: bool,

    /// Pairs of ports that forward to each other [default: (0,1),(2,3) and so on, of the ports
    /// enabled]
    #[arg(long, value_name = "(A,B),…")]
    pub(crate) portmap: Option<PortMap>,

    /// Descriptors of each receive queue [default: the driver's choice]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rxd: Option<u16>,

    /// Descriptors of each transmit queue [default: the driver's choice]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) txd: Option<u16>,

    /// Frames that are taken from a queue at a time, and gathered before they are sent
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=MAX_BURST as i64))]
    pub(crate) burst: u16,

    /// Mbufs on each NUMA node that has ports [default: what descriptors, caches and bursts need]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) mbufs: Option<u32>,

    /// The longest packet behind an Ethernet header, in bytes. Longer ones than an mbuf holds are
    /// received in several [default: the driver's choice, usually 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub(crate) mtu: Option<u16>,

    /// Receive frames in several mbufs where they don't fit into one
    #[arg(long)]
    pub(crate) scatter: bool,

    /// Let the NIC check IP and TCP/UDP checksums of received frames
    #[arg(long)]
    pub(crate) rx_checksum: bool,

    /// Let the NIC join received TCP segments into frames of up to 64 KiB, which are cut again when
    /// they leave; checks checksums, too
    #[arg(long, requires = "tso")]
    pub(crate) lro: bool,

    /// Let the NIC take VLAN tags out of received frames
    #[arg(long)]
    pub(crate) vlan_strip: bool,

    /// Let the NIC fill in checksums of frames that ask for it
    #[arg(long)]
    pub(crate) tx_checksum: bool,

    /// Let the NIC cut long TCP frames that ask for it; fills in checksums, too
    #[arg(long)]
    pub(crate) tso: bool,

    /// Sleep while nothing comes in, until the NIC rings; for ports whose driver can
    #[arg(long)]
    pub(crate) interrupt_mode: bool,

    /// Wait, up to a second, for room in a transmit queue instead of dropping what it has none for
    #[arg(long)]
    pub(crate) lossless: bool,

    /// Print the registers of each port's device once it is started
    #[arg(long)]
    pub(crate) dump_regs: bool,

    /// Write counters to this file as JSON, each period and at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_json: Option<PathBuf>,

    /// Draw statistics as a table in place, even if standard output is no terminal
    #[arg(long)]
    pub(crate) table: bool,
}

impl Options {
    /// Whether Ethernet addresses are rewritten.
    pub(crate) fn rewrites_addresses(&self) -> bool {
        !self.no_mac_updating
    }

    /// Whether frames may come in whose checksums are still to be filled in.
    pub(crate) fn rx_unfinished(&self) -> bool {
        self.rx_checksum || self.lro
    }

    /// What ports shall do for the program.
    pub(crate) fn offloads(&self) -> Offloads {
        Offloads {
            rx_checksum: self.rx_unfinished(),
            rx_lro: self.lro,
            rx_vlan_strip: self.vlan_strip,
            rx_scatter: self.scatter || self.mtu.is_some_and(|mtu| mtu > LONGEST_IN_ONE_MBUF),
            tx_checksum: self.tx_checksum || self.tso,
            tx_segment: self.tso,
            ..Offloads::default()
        }
    }

    /// Frames in a burst.
    pub(crate) fn burst_len(&self) -> usize {
        usize::from(self.burst)
    }
}

/// Reads this program's command line; if it can't be read, or asks for help or the version, says
/// so and ends the program (exit code 2, or 0).
pub(crate) fn parse() -> Arguments {
    Arguments::parse_from(without_separator(std::env::args_os()))
}

/// Without the first lone `--`, which says nothing here: no option of one kind has the name of one
/// of the other, and there are no other arguments.
fn without_separator(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(at) = arguments.iter().position(|argument| argument == OsStr::new("--")) {
        arguments.remove(at);
    }
    arguments
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::CommandFactory as _;

    use super::*;

    pub(crate) fn parse(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("packetboat-l2fwd").chain(line.split(' '));
        let words = without_separator(words.filter(|word| !word.is_empty()).map(OsString::from));
        Arguments::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_line_for_dpdks_l2fwd_is_read_with_and_without_separator() {
        for line in [
            "-l 0,1 -a 01:00.0 -a 02:00.0 -m 64 -- -p 0x3 -P -q 1 -T 1 --portmap=(0,1)",
            "-l 0,1 -a 01:00.0 -a 02:00.0 -m 64 -p 3 -P -q 1 -T 1 --portmap (0,1)",
        ] {
            let Arguments { eal, l2fwd } = parse(line).unwrap();
            assert_eq!((eal.allow.len(), eal.memory), (2, Some(64)));
            assert!(l2fwd.promiscuous && l2fwd.rewrites_addresses());
            assert_eq!((l2fwd.queues_per_lcore, l2fwd.period, l2fwd.rxq), (Some(1), 1, 1));
            assert_eq!(l2fwd.portmask.map(|mask| mask.to_string()).as_deref(), Some("0x3"));
            assert!(l2fwd.portmap.is_some());
        }
    }

    #[test]
    fn long_frames_bring_their_checksums() {
        let offloads = |line| parse(line).unwrap().l2fwd.offloads();
        let lro = offloads("--lro --tso");
        assert!(lro.rx_lro && lro.rx_checksum && lro.tx_segment && lro.tx_checksum);
        assert_eq!(offloads(""), Offloads::default());
        assert!(!offloads("--rx-checksum").tx_checksum);
    }

    #[test]
    fn the_last_word_on_addresses_counts() {
        let rewrites = |line| parse(line).unwrap().l2fwd.rewrites_addresses();
        assert!(rewrites(""));
        assert!(!rewrites("--no-mac-updating"));
        assert!(rewrites("--no-mac-updating --mac-updating"));
        assert!(!rewrites("--mac-updating --no-mac-updating"));
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_option() {
        for (line, option) in [
            ("-p 0", "--portmask"),
            ("-p zz", "--portmask"),
            ("--portmap (0,0)", "--portmap"),
            ("-q 0", "--queues-per-lcore"),
            ("--rxq 0", "--rxq"),
            ("-T -1", "-1"),
            ("--burst 129", "--burst"),
            ("--rxd 65536", "--rxd"),
            ("--txd 0", "--txd"),
            ("--lro", "--tso"),
            ("--mbufs 0", "--mbufs"),
            ("stray", "stray"),
            ("-- -- -p 3", "-p"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(option), "{line}: {error}");
        }
    }
}
