//! The options that every application has; habits of DPDK's users where they make sense.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};

use super::log::LogLevel;
use crate::bus::{AllowEntry, PciAddress, Selection, Vdev};
use crate::memory::{Backing, IovaModeRequest, MemoryConfig};
use crate::sys::idlist;
use crate::sys::sysroot::SysRoot;

/// The EAL options. An application flattens them into its own.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "EAL options")]
#[group(skip)]
pub struct Options {
    /// Lcores to run on: CPUs, as in 0,2 or 0-3; or numbers of your own with @CPU behind, as in
    /// 0@2,1@3 [default: every CPU that this process may use]
    #[arg(short = 'l', long = "lcores", value_name = "LIST")]
    pub lcores: Option<LcoreList>,

    /// The lcore on whose CPU control work runs (link, statistics, signals) [default: wherever
    /// the kernel finds a CPU]
    #[arg(long, value_name = "LCORE")]
    pub main_lcore: Option<u32>,

    /// Those of the lcores that run services (background work that the application has
    /// registered) and nothing else, as in 2,3 [default: none]
    #[arg(short = 'S', long, value_name = "LIST", default_value_t, hide_default_value = true)]
    pub service_lcores: IdList,

    /// Use this device, and no other than those allowed: a PCI address, or vfio-user:PATH for a
    /// device in software behind that socket; may be given several times [default: every network
    /// device bound to vfio-pci]
    #[arg(short = 'a', long, value_name = "DEVICE[,KEY=VALUE…]", action = ArgAction::Append)]
    pub allow: Vec<AllowEntry>,

    /// Leave this device alone; may be given several times
    #[arg(short = 'b', long, value_name = "BDF", action = ArgAction::Append)]
    pub block: Vec<PciAddress>,

    /// Make a device that isn't on a bus, such as vhost-user,path=/run/x.sock; may be given several
    /// times. Without -a, no PCI device is used then
    #[arg(long, value_name = "KIND[,KEY=VALUE…]", action = ArgAction::Append)]
    pub vdev: Vec<Vdev>,

    /// Look for no PCI devices at all
    #[arg(long, conflicts_with_all = ["allow", "block"])]
    pub no_pci: bool,

    /// MiB of hugepage memory to reserve [default: what is needed]
    #[arg(short = 'm', long, value_name = "MIB")]
    pub memory: Option<u64>,

    /// MiB to reserve on NUMA node 0, 1, and so on
    #[arg(long, value_name = "MIB,…", value_delimiter = ',', conflicts_with = "memory")]
    pub socket_mem: Vec<u64>,

    /// Take hugepages as files on this hugetlbfs mount [default: without files]
    #[arg(long, value_name = "DIR", conflicts_with = "no_huge")]
    pub huge_dir: Option<PathBuf>,

    /// Use normal pages instead of hugepages
    #[arg(long)]
    pub no_huge: bool,

    /// The addresses that devices use: virtual, physical, or whichever fits this machine
    #[arg(long, value_name = "auto|va|pa", default_value = "auto", value_parser = iova_mode)]
    pub iova_mode: IovaModeRequest,

    /// The lowest address that memory is placed at
    #[arg(long, value_name = "ADDRESS", default_value = "0x100000000", value_parser = address)]
    pub base_virtaddr: u64,

    /// What names of files in --huge-dir begin with
    #[arg(long, value_name = "PREFIX", default_value = "packetboat")]
    pub file_prefix: String,

    /// What is logged to standard error: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value_t)]
    pub log_level: LogLevel,
}

impl Default for Options {
    /// What holds when no option is given.
    fn default() -> Self {
        let MemoryConfig { iova_mode, base_virtaddr, file_prefix, .. } = MemoryConfig::default();
        Self {
            lcores: None,
            main_lcore: None,
            service_lcores: IdList::default(),
            allow: Vec::new(),
            block: Vec::new(),
            vdev: Vec::new(),
            no_pci: false,
            memory: None,
            socket_mem: Vec::new(),
            huge_dir: None,
            no_huge: false,
            iova_mode,
            base_virtaddr,
            file_prefix,
            log_level: LogLevel::default(),
        }
    }
}

impl Options {
    /// What `-a` and `-b` select.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection { allow: self.allow.clone(), block: self.block.clone() }
    }

    /// Whether PCI devices may be used: unless `--no-pci` says no, or only a `--vdev` is given.
    #[must_use]
    pub fn looks_for_pci(&self) -> bool {
        !self.no_pci && (self.vdev.is_empty() || !self.allow.is_empty())
    }

    /// What they say about memory, for an application that needs `needed_bytes` and runs on
    /// `cpus`.
    #[must_use]
    pub fn memory_config(&self, needed_bytes: u64, cpus: Vec<u32>, root: SysRoot) -> MemoryConfig {
        let backing = match &self.huge_dir {
            Some(dir) => Backing::HugeDir(dir.clone()),
            None if self.no_huge => Backing::NoHuge,
            None => Backing::Memfd,
        };
        MemoryConfig {
            backing,
            total_mib: self.memory,
            socket_mib: self.socket_mem.clone(),
            needed_bytes,
            base_virtaddr: self.base_virtaddr,
            iova_mode: match self.iova_mode {
                // Nobody who does DMA by physical addresses is there.
                IovaModeRequest::Auto if !self.looks_for_pci() => IovaModeRequest::Va,
                mode => mode,
            },
            file_prefix: self.file_prefix.clone(),
            cpus,
            root,
            ..MemoryConfig::default()
        }
    }
}

/// The value of `-S`: lcores, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdList(pub Vec<u32>);

impl FromStr for IdList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| format!("wanted lcores such as 2 or 1-3, found {part:?}");
        idlist::parse(text).map(Self).map_err(|error| wrong(&error.part))
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&idlist::format(&self.0))
    }
}

/// The value of `-l`: lcores and the CPUs they run on, in order of the lcores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LcoreList(Vec<(u32, u32)>);

impl LcoreList {
    /// Each lcore with its CPU.
    #[must_use]
    pub fn pairs(&self) -> &[(u32, u32)] {
        &self.0
    }
}

impl FromStr for LcoreList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once('@') {
                Some((lcore, cpu)) => {
                    let number = |text: &str| text.trim().parse::<u32>().ok();
                    let pair = number(lcore).zip(number(cpu));
                    pairs.push(pair.ok_or_else(|| {
                        format!("{part:?}: wanted LCORE@CPU, two numbers, as in 0@2")
                    })?);
                }
                None if part.is_empty() => {
                    return Err("an lcore is missing: wanted a list such as 0,2 or 0-3".to_owned());
                }
                None => {
                    let ids = idlist::parse(part).map_err(|error| error.to_string())?;
                    pairs.extend(ids.into_iter().map(|id| (id, id)));
                }
            }
        }
        pairs.sort_unstable();
        match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(twice) => Err(format!("lcore {} is given twice; give each once", twice[0].0)),
            None => Ok(Self(pairs)),
        }
    }
}

impl fmt::Display for LcoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (lcore, cpu)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match lcore == cpu {
                true => write!(f, "{comma}{lcore}")?,
                false => write!(f, "{comma}{lcore}@{cpu}")?,
            }
        }
        Ok(())
    }
}

fn iova_mode(text: &str) -> Result<IovaModeRequest, String> {
    match text {
        "auto" => Ok(IovaModeRequest::Auto),
        "va" => Ok(IovaModeRequest::Va),
        "pa" => Ok(IovaModeRequest::Pa),
        _ => Err("wanted auto, va or pa".to_owned()),
    }
}

/// An address, in hexadecimal with `0x` in front or in decimal.
fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16)
        }
        _ => text.parse(),
    };
    parsed.map_err(|_| "wanted an address such as 0x100000000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        eal: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let all = std::iter::once(&"program").chain(arguments);
        Program::try_parse_from(all).map(|program| program.eal).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_the_defaults_of_memory_hold() {
        let config = parse(&[]).unwrap().memory_config(7, vec![], SysRoot::default());
        let defaults = MemoryConfig::default();
        assert_eq!(config.backing, defaults.backing);
        assert_eq!(config.base_virtaddr, defaults.base_virtaddr);
        assert_eq!(config.iova_mode, defaults.iova_mode);
        assert_eq!(config.file_prefix, defaults.file_prefix);
        assert_eq!((config.total_mib, config.needed_bytes), (None, 7));
    }

    #[test]
    fn options_reach_the_memory_and_the_selection() {
        let options = parse(&[
            "--socket-mem=64,32",
            "--huge-dir",
            "/mnt/huge",
            "--iova-mode=pa",
            "--base-virtaddr=0x200000000",
            "--file-prefix=x",
            "-a",
            "03:00.0,queues=2",
            "-a",
            "0000:04:00.0",
            "-b",
            "05:00.0",
        ])
        .unwrap();
        let config = options.memory_config(0, vec![1], SysRoot::default());
        assert_eq!(config.backing, Backing::HugeDir("/mnt/huge".into()));
        assert_eq!(config.socket_mib, [64, 32]);
        assert_eq!(config.iova_mode, IovaModeRequest::Pa);
        assert_eq!((config.base_virtaddr, config.file_prefix.as_str()), (8 << 30, "x"));
        assert_eq!(config.cpus, [1]);
        let selection = options.selection();
        assert_eq!((selection.allow.len(), selection.block.len()), (2, 1));
        assert_eq!(selection.allow[0].arguments[0].value, "2");
        assert_eq!(
            parse(&["--no-huge"]).unwrap().memory_config(0, vec![], SysRoot::default()).backing,
            Backing::NoHuge
        );
    }

    #[test]
    fn lcores_are_read_and_written() {
        let list = |text: &str| text.parse::<LcoreList>();
        assert_eq!(list("0-2,5").unwrap().pairs(), [(0, 0), (1, 1), (2, 2), (5, 5)]);
        assert_eq!(list("1@3,0@2").unwrap().to_string(), "0@2,1@3");
        assert_eq!(list("1, 0").unwrap().to_string(), "0,1");
        for (text, part) in [
            ("", "missing"),
            ("0,,1", "missing"),
            ("0,0", "twice"),
            ("0-2,1@5", "twice"),
            ("a@1", "LCORE@CPU"),
            ("3-1", "3-1"),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_error_names_the_option() {
        for (arguments, option) in [
            (&["-l", "x"][..], "--lcores"),
            (&["-a", "eth0"], "--allow"),
            (&["-b", "1"], "--block"),
            (&["--vdev", "path=x"], "--vdev"),
            (&["-m", "-1"], "-1"),
            (&["-m", "64", "--socket-mem", "1"], "--socket-mem"),
            (&["--no-huge", "--huge-dir", "/x"], "--huge-dir"),
            (&["--iova-mode", "ca"], "--iova-mode"),
            (&["--base-virtaddr", "0xg"], "--base-virtaddr"),
            (&["--log-level", "loud"], "--log-level"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(option), "{arguments:?}: {error}");
        }
    }
}
