//! Before anything is taken: is what is needed there? Sums, and the commands that mend a shortage.

use super::config::{Backing, MemoryConfig};
use super::error::MemoryError;
use super::hugepages::Inventory;
use super::plan::{self, Amount, Take, Wish};
use super::size::{Size, mib_for};
use crate::sys::capability::{self, Capability};
use crate::sys::rlimit::{self, Memlock};
use crate::sys::sysroot::SysRoot;
use crate::sys::{cpu, mapping};

/// Which pages [`Memory::reserve`](super::Memory::reserve) would take, if the machine stays as it
/// is. `page_len_bytes` restricts hugepages to one size (a hugetlbfs mount has only one).
///
/// # Errors
/// Options that contradict each other or the need; too few pages, with the command that mends it.
pub fn plan(
    config: &MemoryConfig,
    page_len_bytes: Option<u64>,
    inventory: &Inventory,
) -> Result<Vec<Take>, MemoryError> {
    check_prefix(&config.file_prefix)?;
    let amount = amount(config)?;
    if config.backing == Backing::NoHuge {
        return normal_pages(&amount, &config.root, inventory);
    }
    let cpus_of_node = cpus_of_node(config);
    let wish = Wish { amount, page_len_bytes, cpus_of_node };
    plan::plan(&wish, inventory)
}

/// Whether `need_bytes` may be pinned for DMA. The soft limit is raised to the hard one first,
/// which needs no privilege; `CAP_IPC_LOCK` frees from the limit.
///
/// # Errors
/// [`MemoryError::Memlock`] with limit, need and how to raise it.
pub fn memlock_check(need_bytes: u64) -> Result<(), MemoryError> {
    let root = SysRoot::default();
    let limit = rlimit::raise_memlock().map_err(MemoryError::system("reading RLIMIT_MEMLOCK"))?;
    let exempt = capability::has(&root, Capability::IpcLock).unwrap_or(false);
    memlock_verdict(limit, exempt, locked_bytes(&root), need_bytes)
}

fn memlock_verdict(
    limit: Memlock,
    exempt: bool,
    locked_bytes: u64,
    need_bytes: u64,
) -> Result<(), MemoryError> {
    let needed = need_bytes.saturating_add(locked_bytes);
    match limit.soft_bytes {
        Some(limit) if !exempt && limit < needed => Err(MemoryError::Memlock {
            limit: Size(limit),
            needed: Size(needed),
            locked: Size(locked_bytes),
            needed_kib: needed.div_ceil(1 << 10),
        }),
        _ => Ok(()),
    }
}

/// What this process has pinned already: `VmLck` in `/proc/self/status`.
fn locked_bytes(root: &SysRoot) -> u64 {
    let status = root.read("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The amount that the options and the application ask for together.
fn amount(config: &MemoryConfig) -> Result<Amount, MemoryError> {
    let bytes = |mib: u64| mib.saturating_mul(1 << 20);
    let needed = config.needed_bytes;
    if let Some(total_mib) = config.total_mib {
        if !config.socket_mib.is_empty() {
            return Err(MemoryError::TotalAndSocket);
        }
        if bytes(total_mib) < needed.max(1) {
            return Err(MemoryError::OptionTooSmall {
                option: "-m",
                given: Size(bytes(total_mib)),
                needed: Size(needed),
                suggestion: mib_for(needed.max(1)).to_string(),
            });
        }
        return Ok(Amount::Total(bytes(total_mib)));
    }
    if config.socket_mib.is_empty() {
        let needed = if needed == 0 { MemoryConfig::DEFAULT_BYTES } else { needed };
        return Ok(Amount::Total(needed));
    }
    let amounts: Vec<u64> = config.socket_mib.iter().map(|mib| bytes(*mib)).collect();
    let sum = amounts.iter().copied().fold(0, u64::saturating_add);
    if sum < needed.max(1) {
        return Err(MemoryError::OptionTooSmall {
            option: "--socket-mem",
            given: Size(sum),
            needed: Size(needed),
            suggestion: larger_list(&config.socket_mib, mib_for(needed.max(1))),
        });
    }
    Ok(Amount::PerNode(amounts))
}

/// The same list with more on its greatest node, so that the sum is `sum_mib`.
fn larger_list(amounts_mib: &[u64], sum_mib: u64) -> String {
    let mut amounts = amounts_mib.to_vec();
    let missing = sum_mib.saturating_sub(amounts.iter().sum());
    if let Some(greatest) = amounts.iter_mut().max() {
        *greatest += missing;
    }
    amounts.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// `--no-huge`: one piece, or one for each node of `--socket-mem`.
fn normal_pages(
    amount: &Amount,
    root: &SysRoot,
    inventory: &Inventory,
) -> Result<Vec<Take>, MemoryError> {
    let page_len_bytes = mapping::page_len_bytes() as u64;
    let take =
        |node, bytes: u64| Take { node, page_len_bytes, pages: bytes.div_ceil(page_len_bytes) };
    let takes = match amount {
        Amount::Total(bytes) => vec![take(None, *bytes)],
        Amount::PerNode(amounts) => plan::on_nodes(amounts, inventory)?
            .into_iter()
            .map(|(node, bytes)| take(node, bytes))
            .collect(),
    };
    let wanted = takes.iter().map(Take::len_bytes).fold(0, u64::saturating_add);
    match available_bytes(root) {
        Some(available) if available < wanted => {
            Err(MemoryError::NormalMemory { wanted: Size(wanted), available: Size(available) })
        }
        _ => Ok(takes),
    }
}

/// Whether there are as many pages as a segment wants that comes later. Asked first, since the kernel
/// would hand out all it has, down to the last page, before it says that it isn't enough.
pub(super) fn check_later(take: &Take, normal: bool, root: &SysRoot) -> Result<(), MemoryError> {
    let wanted = take.len_bytes();
    if normal {
        return match available_bytes(root) {
            Some(available) if available < wanted => {
                Err(MemoryError::NormalMemory { wanted: Size(wanted), available: Size(available) })
            }
            _ => Ok(()),
        };
    }
    let inventory = Inventory::read(root)?;
    let pools = inventory.pools.iter().filter(|pool| {
        let node = take.node.is_none() || pool.node.is_none() || pool.node == take.node;
        node && pool.page_len_bytes == take.page_len_bytes
    });
    let free: u64 = pools.map(|pool| pool.free).sum();
    if free >= take.pages {
        return Ok(());
    }
    let (node, page) = (take.node, Size(take.page_len_bytes));
    let what = format!("only {free} such pages are free");
    let source = std::io::Error::new(std::io::ErrorKind::OutOfMemory, what);
    Err(MemoryError::Allocate { wanted: Size(wanted), page, node, source })
}

/// `MemAvailable` of `/proc/meminfo`.
fn available_bytes(root: &SysRoot) -> Option<u64> {
    let text = root.read("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The nodes of the CPUs that will use the memory, with the number of those CPUs.
fn cpus_of_node(config: &MemoryConfig) -> Vec<(u32, u64)> {
    let allowed = || cpu::allowed(&config.root).unwrap_or_default();
    let cpus = if config.cpus.is_empty() { allowed() } else { config.cpus.clone() };
    let mut counts = std::collections::BTreeMap::new();
    for node in cpus.iter().filter_map(|cpu| cpu::node_of(&config.root, *cpu)) {
        *counts.entry(node).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn check_prefix(prefix: &str) -> Result<(), MemoryError> {
    let fits = (1..=64).contains(&prefix.len()) && !prefix.contains(['/', '\0']);
    if fits { Ok(()) } else { Err(MemoryError::FilePrefix { prefix: prefix.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::hugepages::tests::tree;

    /// The plan, or the error's text, on a machine of these pools.
    fn outcome(
        pools: &[(Option<u32>, u64, u64, u64)],
        change: impl FnOnce(&mut MemoryConfig),
    ) -> Result<Vec<(Option<u32>, u64)>, String> {
        let (_tree, root) = tree(pools);
        let mut config = MemoryConfig { root, ..MemoryConfig::default() };
        change(&mut config);
        let inventory = Inventory::read(&config.root).unwrap();
        let takes = plan(&config, config.page_len_bytes, &inventory);
        let short = |takes: Vec<Take>| takes.iter().map(|take| (take.node, take.pages)).collect();
        takes.map(short).map_err(|error| error.to_string())
    }

    /// Each of `parts` must be in the message.
    fn says(outcome: Result<Vec<(Option<u32>, u64)>, String>, parts: &[&str]) {
        let text = outcome.unwrap_err();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        assert!(!text.contains("  "), "{text}");
    }

    const TWO: &[(Option<u32>, u64, u64, u64)] = &[(Some(0), 2048, 64, 64), (Some(1), 2048, 64, 3)];

    #[test]
    fn the_need_the_option_or_the_default_is_planned() {
        let one = &[(Some(0), 2048, 64, 64)];
        assert_eq!(outcome(one, |_| {}).unwrap(), [(Some(0), 32)]);
        assert_eq!(outcome(one, |c| c.needed_bytes = 5 << 20).unwrap(), [(Some(0), 3)]);
        assert_eq!(outcome(one, |c| c.total_mib = Some(128)).unwrap(), [(Some(0), 64)]);
        assert_eq!(
            outcome(TWO, |c| c.socket_mib = vec![2, 6]).unwrap(),
            [(Some(0), 1), (Some(1), 3)]
        );
        assert_eq!(outcome(TWO, |c| c.cpus = vec![3]).unwrap(), [(Some(1), 3), (Some(0), 29)]);
        // All four CPUs are allowed: half and half, as far as there are pages.
        assert_eq!(outcome(TWO, |_| {}).unwrap(), [(Some(0), 29), (Some(1), 3)]);
    }

    #[test]
    fn no_hugepages_at_all() {
        let none = &[(Some(0), 1_048_576, 0, 0), (Some(0), 2048, 0, 0)];
        says(
            outcome(none, |_| {}),
            &[
                "64 MiB of hugepages are needed, none are reserved",
                "`echo 32 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages`",
                "--no-huge",
            ],
        );
        let global = &[(None, 2048, 0, 0)];
        says(
            outcome(global, |_| {}),
            &["> /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"],
        );
        says(outcome(&[], |_| {}), &["this kernel has no hugepages", "CONFIG_HUGETLBFS"]);
    }

    #[test]
    fn too_few_in_total() {
        says(
            outcome(TWO, |c| c.total_mib = Some(200)),
            &[
                "200 MiB of hugepages are needed, 134 MiB are free",
                "node 0: 64 of 64 pages of 2 MiB; node 1: 3 of 64 pages of 2 MiB",
                "`echo 97 > /sys/devices/system/node/node0/",
            ],
        );
    }

    #[test]
    fn too_few_on_one_node() {
        says(
            outcome(TWO, |c| c.socket_mib = vec![0, 64]),
            &[
                "64 MiB of hugepages on NUMA node 1 are needed, 6 MiB are free (node 1: 3 of 64",
                "`echo 93 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages`",
            ],
        );
        says(outcome(TWO, |c| c.socket_mib = vec![0, 0, 8]), &["node 2", "has nodes 0-1"]);
    }

    #[test]
    fn one_gib_pages_are_best_reserved_at_boot() {
        let pools = &[(Some(0), 1_048_576, 1, 0), (Some(0), 2048, 64, 64)];
        says(
            outcome(pools, |c| c.page_len_bytes = Some(1 << 30)),
            &[
                "0 bytes are free (node 0: 0 of 1 pages of 1 GiB)",
                "`echo 2 > /sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages`",
                "hugepagesz=1G",
            ],
        );
        // Without the wish for them their absence is no matter.
        assert_eq!(outcome(pools, |_| {}).unwrap(), [(Some(0), 32)]);
    }

    #[test]
    fn options_that_do_not_suffice_or_contradict() {
        let contradiction = |c: &mut MemoryConfig| {
            c.total_mib = Some(64);
            c.socket_mib = vec![64];
        };
        says(outcome(TWO, contradiction), &["-m/--memory and --socket-mem"]);
        let small = |c: &mut MemoryConfig| {
            c.total_mib = Some(16);
            c.needed_bytes = (40 << 20) + 1;
        };
        says(outcome(TWO, small), &["-m gives 16 MiB", "40.0 MiB are needed", "use -m 41"]);
        let small = |c: &mut MemoryConfig| {
            c.socket_mib = vec![4, 8];
            c.needed_bytes = 40 << 20;
        };
        says(outcome(TWO, small), &["--socket-mem gives 12 MiB", "use --socket-mem 4,36"]);
        says(outcome(TWO, |c| c.total_mib = Some(0)), &["-m gives 0 bytes"]);
        says(outcome(TWO, |c| c.socket_mib = vec![0, 0]), &["--socket-mem gives 0 bytes"]);
        says(outcome(TWO, |c| c.total_mib = Some(u64::MAX)), &["needed, 134 MiB are free"]);
        for prefix in ["", "a/b", &"x".repeat(65)] {
            says(outcome(TWO, |c| c.file_prefix = prefix.to_owned()), &["--file-prefix"]);
        }
    }

    #[test]
    fn normal_pages_are_checked_against_what_is_available() {
        let no_huge = |c: &mut MemoryConfig| {
            c.backing = Backing::NoHuge;
            c.total_mib = Some(64);
            std::fs::write(c.root.path("/proc/meminfo"), "MemAvailable:  20480 kB\n").unwrap();
        };
        says(outcome(&[], no_huge), &["--no-huge", "64 MiB", "20 MiB are available", "-m"]);
        let enough = |c: &mut MemoryConfig| {
            no_huge(c);
            c.total_mib = Some(20);
        };
        assert_eq!(outcome(&[], enough).unwrap(), [(None, 5120)]);
        let absurd = |c: &mut MemoryConfig| {
            no_huge(c);
            c.total_mib = Some(u64::MAX);
        };
        says(outcome(&[], absurd), &["--no-huge", "20 MiB are available"]);
        let by_node = |c: &mut MemoryConfig| {
            c.backing = Backing::NoHuge;
            c.socket_mib = vec![0, 1];
        };
        assert_eq!(outcome(TWO, by_node).unwrap(), [(Some(1), 256)]);
    }

    #[test]
    fn memlock_counts_what_is_locked_already() {
        let limit = Memlock { soft_bytes: Some(8 << 20), hard_bytes: Some(8 << 20) };
        assert!(memlock_verdict(limit, false, 0, 8 << 20).is_ok());
        assert!(memlock_verdict(limit, true, 0, 80 << 20).is_ok());
        let unlimited = Memlock { soft_bytes: None, hard_bytes: None };
        assert!(memlock_verdict(unlimited, false, 0, 80 << 20).is_ok());
        let error = memlock_verdict(limit, false, 1 << 20, 8 << 20).unwrap_err().to_string();
        for part in ["9 MiB", "limit is 8 MiB", "`ulimit -l 9216`", "LimitMEMLOCK=", "1 MiB"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}
