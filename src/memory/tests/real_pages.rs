//! Real hugepages: taken, bound, given back, also by a process that is killed.
//!
//! The tests reserve a few pages if the machine has too few free and the user may; they take them
//! back afterwards. Where that is impossible they say so, and fail if `CI` is `true`.

use super::*;
use crate::memory::hugepages::Inventory;
use crate::sys::sysroot::SysRoot;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const M2: u64 = 2 << 20;
const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// Enough hugepages of the default size for one test at a time.
pub(super) struct Pages {
    /// What to write back, and what was written.
    raised: Option<(u64, u64)>,
    _alone: MutexGuard<'static, ()>,
}

impl Pages {
    /// `None` if there are none to be had; then the reason was told.
    pub(super) fn get() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = 16;
        let mut raised = None;
        if free_pages() < wanted {
            let before: u64 = std::fs::read_to_string(COUNT).unwrap().trim().parse().unwrap();
            let count = before + wanted - free_pages();
            raised = std::fs::write(COUNT, count.to_string()).is_ok().then_some((before, count));
        }
        let pages = Self { raised, _alone: alone };
        if free_pages() >= wanted {
            return Some(pages);
        }
        let text = format!(
            "{wanted} free hugepages of 2 MiB are wanted, {} are there, and {COUNT} can't be \
             raised: run as root, or `echo {wanted} > {COUNT}`",
            free_pages()
        );
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        eprintln!("not run: {text}");
        None
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some((before, count)) = self.raised {
            // Someone else's change since then is left alone.
            if std::fs::read_to_string(COUNT).is_ok_and(|now| now.trim() == count.to_string()) {
                let _ = std::fs::write(COUNT, before.to_string());
            }
        }
    }
}

pub(super) fn free_pages() -> u64 {
    let found = Inventory::read(&SysRoot::default()).unwrap();
    found.pools.iter().filter(|pool| pool.page_len_bytes == M2).map(|pool| pool.free).sum()
}

/// Waits until as many pages are free as there were; other programs may take and give meanwhile.
fn wait_for_free(wanted: u64) {
    let start = Instant::now();
    while free_pages() < wanted {
        let (free, waited) = (free_pages(), start.elapsed());
        assert!(waited < Duration::from_secs(10), "{free} pages are free, {wanted} were before");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// 8 MiB in one segment: on the node of CPU 0, unless that has too few pages.
fn config() -> MemoryConfig {
    MemoryConfig {
        total_mib: Some(8),
        cpus: vec![0],
        page_len_bytes: Some(M2),
        file_prefix: format!("boat-test-{}-", std::process::id()),
        ..MemoryConfig::default()
    }
}

#[test]
fn hugepages_are_taken_used_and_given_back() {
    let Some(_pages) = Pages::get() else { return };
    let before = free_pages();
    let memory = Memory::reserve(&config()).unwrap();
    assert_eq!(free_pages(), before - 4);
    assert_eq!(memory.len_bytes(), 8 << 20);
    for segment in memory.segments() {
        assert_eq!(segment.page_len_bytes(), M2);
        assert_eq!(segment.va() % M2, 0);
        let runs: u64 = segment.iova_runs().iter().map(|run| run.len_bytes).sum();
        assert_eq!(runs, segment.len_bytes() as u64);
    }
    // The kernel itself says that these addresses stand on hugepages, all of them present.
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", memory.segments()[0].va());
    let entry = &smaps[smaps.find(&start).unwrap()..];
    let line = entry.lines().find(|line| line.starts_with("KernelPageSize:")).unwrap();
    assert!(line.contains("2048 kB"), "{line}");
    let line = entry.lines().find(|line| line.starts_with("Shared_Hugetlb:")).unwrap();
    let private = entry.lines().find(|line| line.starts_with("Private_Hugetlb:")).unwrap();
    assert!(line.contains("8192 kB") || private.contains("8192 kB"), "{line} {private}");

    let mut zone = memory.zone(&ZoneRequest::new("all", memory.segments()[0].len_bytes())).unwrap();
    assert!(bytes_of(&zone).iter().all(|byte| *byte == 0));
    fill(&mut zone, 7);
    drop(memory);
    assert_eq!(free_pages(), before - 4);
    drop(zone);
    wait_for_free(before);
}

#[test]
fn pages_are_on_the_node_that_socket_mem_names() {
    let Some(_pages) = Pages::get() else { return };
    let pools = Inventory::read(&SysRoot::default()).unwrap().pools;
    let mut tried = 0;
    for pool in pools.iter().filter(|pool| pool.page_len_bytes == M2 && pool.free >= 4) {
        let mut socket_mib = vec![0; pool.node.unwrap_or(0) as usize];
        socket_mib.push(4);
        let config = MemoryConfig { total_mib: None, socket_mib, ..config() };
        let memory = Memory::reserve(&config).unwrap();
        // `node` is what the kernel said of each page after the fact.
        assert_eq!(memory.segments()[0].node(), pool.node);
        tried += 1;
    }
    eprintln!("tried on {tried} nodes");
    assert!(tried > 0);
}

#[test]
fn physical_addresses_are_those_of_the_pages() {
    let Some(_pages) = Pages::get() else { return };
    let config = MemoryConfig { iova_mode: IovaModeRequest::Pa, ..config() };
    let memory = match Memory::reserve(&config) {
        Err(error @ MemoryError::PhysicalUnreadable { .. }) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{error}");
            eprintln!("not run: {error}");
            return;
        }
        memory => memory.unwrap(),
    };
    assert_eq!(memory.iova_mode(), IovaMode::Pa);
    for segment in memory.segments() {
        for run in segment.iova_runs() {
            assert_eq!(run.iova.0 % M2, 0, "{run:?}");
            assert_eq!(run.len_bytes % M2, 0, "{run:?}");
        }
        let mut places: Vec<_> = segment.iova_runs().iter().map(|run| run.iova).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), segment.iova_runs().len());
    }
    let zone = memory.zone(&ZoneRequest::new("ring", 1 << 20).iova_contiguous()).unwrap();
    assert_eq!(zone.iova_runs().len(), 1);
}

#[test]
fn more_than_there_is_names_both_sums_and_takes_nothing() {
    let Some(_pages) = Pages::get() else { return };
    let before = free_pages();
    let config = MemoryConfig { total_mib: Some(1 << 30), ..config() };
    let text = Memory::reserve(&config).unwrap_err().to_string();
    for part in ["1024 TiB of hugepages are needed", "are free (", "`echo "] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    wait_for_free(before);
}

/// A hugetlbfs mount of our own; unmounted when dropped.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "hugetlbfs", "-o", options, "none"]).arg(dir.path());
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(Self { dir });
        }
        let text = format!("mounting hugetlbfs: {}", String::from_utf8_lossy(&output.stderr));
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        eprintln!("not run: {text}");
        None
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn files_in_a_huge_dir_come_and_go_with_the_memory() {
    let Some(_pages) = Pages::get() else { return };
    let Some(mount) = Mounted::new("pagesize=2M") else { return };
    let before = free_pages();
    let huge = |page_len_bytes| MemoryConfig {
        backing: Backing::HugeDir(mount.path().to_owned()),
        page_len_bytes,
        ..config()
    };
    let memory = Memory::reserve(&huge(None)).unwrap();
    assert_eq!(files_in(mount.path()), memory.segments().len());
    assert_eq!(free_pages(), before - 4);
    // A second start with the same prefix leaves the files of the first, which lives, alone.
    let second = Memory::reserve(&huge(Some(M2))).unwrap();
    assert_eq!(files_in(mount.path()), memory.segments().len() + second.segments().len());
    drop(memory);
    assert_eq!(files_in(mount.path()), second.segments().len());
    drop(second);
    assert_eq!(files_in(mount.path()), 0);
    wait_for_free(before);
    let text = Memory::reserve(&huge(Some(1 << 30))).unwrap_err().to_string();
    assert!(text.contains("1 GiB are wanted, this mount has 2 MiB"), "{text}");
}

#[test]
fn a_huge_dir_that_is_read_only_or_too_small_is_refused_and_left_empty() {
    let Some(_pages) = Pages::get() else { return };
    let before = free_pages();
    let reserve = |mount: &Mounted| {
        let backing = Backing::HugeDir(mount.path().to_owned());
        Memory::reserve(&MemoryConfig { backing, ..config() }).unwrap_err().to_string()
    };
    let Some(mount) = Mounted::new("pagesize=2M,ro") else { return };
    let text = reserve(&mount);
    assert!(text.contains("Read-only") && text.contains("remount,rw"), "{text}");
    let Some(mount) = Mounted::new("pagesize=2M,size=4M") else { return };
    let text = reserve(&mount);
    assert!(text.contains("8 MiB in pages of 2 MiB") && text.contains("size="), "{text}");
    assert_eq!(files_in(mount.path()), 0);
    wait_for_free(before);
}

/// What the children below do: take memory, say so, and wait to be killed. On its own (and
/// without a parent's orders) it does nothing; it ends with its standard input.
#[test]
#[ignore = "the body of a child process that other tests start"]
fn child_that_holds_memory() {
    let Ok(orders) = std::env::var("PACKETBOAT_TEST_HOLD") else { return };
    let (prefix, dir) = orders.split_once(' ').unwrap();
    let backing = match dir {
        "" => Backing::Memfd,
        dir => Backing::HugeDir(dir.into()),
    };
    let config = MemoryConfig { backing, file_prefix: prefix.to_owned(), ..config() };
    let _memory = Memory::reserve(&config).unwrap();
    println!("\nholding");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Starts a child that holds 8 MiB, and kills it (SIGKILL) as soon as it does.
fn hold_and_kill(prefix: &str, dir: &str, check: impl FnOnce()) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("memory::tests::real_pages::child_that_holds_memory")
        .env("PACKETBOAT_TEST_HOLD", format!("{prefix} {dir}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let holding = lines.map_while(Result::ok).any(|line| line == "holding");
    check();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(holding, "the child ended before it had the memory: {status}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
}

#[test]
fn a_killed_process_leaves_no_hugepage_behind() {
    let Some(_pages) = Pages::get() else { return };
    let before = free_pages();
    for _ in 0..5 {
        hold_and_kill("killed", "", || assert!(free_pages() <= before - 4));
        wait_for_free(before);
    }
}

#[test]
fn the_next_start_removes_the_files_of_a_killed_one() {
    let Some(_pages) = Pages::get() else { return };
    let Some(mount) = Mounted::new("pagesize=2M") else { return };
    let before = free_pages();
    hold_and_kill("killed", mount.path().to_str().unwrap(), || {});
    assert_eq!(files_in(mount.path()), 1);
    assert!(free_pages() <= before - 4, "the file keeps its pages");
    let backing = Backing::HugeDir(mount.path().to_owned());
    // Another prefix doesn't touch it, the same one does.
    let other = MemoryConfig { backing, ..config() };
    drop(Memory::reserve(&other).unwrap());
    assert_eq!(files_in(mount.path()), 1);
    let same = MemoryConfig { file_prefix: "killed".to_owned(), ..other };
    drop(Memory::reserve(&same).unwrap());
    assert_eq!(files_in(mount.path()), 0);
    wait_for_free(before);
}
