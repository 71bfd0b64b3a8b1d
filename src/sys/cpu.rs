//! CPUs: which there are, which this process may use, and putting a thread on one.
#![expect(unsafe_code, reason = "sched_setaffinity and prctl")]

use super::idlist;
use super::sysroot::SysRoot;
use std::ffi::CString;
use std::io;

/// The CPUs that this process may run on (affinity mask and cpuset), ascending. Read it before
/// the main thread is pinned: it is the main thread's mask.
///
/// # Errors
/// `/proc/self/status` can't be read or has no `Cpus_allowed_list` line.
pub fn allowed(root: &SysRoot) -> io::Result<Vec<u32>> {
    let status = root.read("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.ok_or_else(|| invalid("/proc/self/status: no line Cpus_allowed_list"))?;
    idlist::parse(list).map_err(|error| invalid(format!("/proc/self/status: {error}")))
}

/// The CPUs that are switched on, ascending.
///
/// # Errors
/// `/sys/devices/system/cpu/online` can't be read.
pub fn online(root: &SysRoot) -> io::Result<Vec<u32>> {
    let path = "/sys/devices/system/cpu/online";
    idlist::parse(&root.read(path)?).map_err(|error| invalid(format!("{path}: {error}")))
}

/// The NUMA node of a CPU; `None` on a kernel without NUMA or if there is no such CPU.
pub fn node_of(root: &SysRoot, cpu: u32) -> Option<u32> {
    let names = root.entries(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    names.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// Puts the calling thread on one CPU, for good.
///
/// # Errors
/// As sched_setaffinity(2): `EINVAL` if the CPU doesn't exist or isn't allowed.
pub fn pin_current_thread(cpu: u32) -> io::Result<()> {
    let index = cpu as usize;
    let mut mask = vec![0_usize; index / WORD_BITS + 1];
    mask[index / WORD_BITS] = 1 << (index % WORD_BITS);
    // SAFETY: the kernel reads exactly the bytes of `mask`, which lives across the call; a mask
    // of any length is allowed. Thread 0 is the calling one.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const WORD_BITS: usize = usize::BITS as usize;

/// Names the calling thread, as `top -H` and `/proc/PID/task/TID/comm` show it. The kernel keeps
/// 15 bytes; the rest is cut at a character's boundary.
///
/// # Errors
/// `InvalidInput` for a name with a NUL byte.
pub fn name_current_thread(name: &str) -> io::Result<()> {
    let end = (0..=name.len().min(15)).rfind(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let name = CString::new(&name[..end])?;
    // SAFETY: PR_SET_NAME reads a NUL-terminated string of at most 16 bytes, which `name` is.
    if unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tree_of_two_nodes_is_read() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        fs::create_dir_all(root.path("/sys/devices/system/cpu/cpu3/node1")).unwrap();
        fs::create_dir_all(root.path("/sys/devices/system/cpu/cpu0/topology")).unwrap();
        fs::write(root.path("/sys/devices/system/cpu/online"), "0-3\n").unwrap();
        fs::create_dir_all(root.path("/proc/self")).unwrap();
        fs::write(root.path("/proc/self/status"), "Name: x\nCpus_allowed_list:\t1-2\n").unwrap();
        assert_eq!(online(&root).unwrap(), [0, 1, 2, 3]);
        assert_eq!(allowed(&root).unwrap(), [1, 2]);
        assert_eq!(node_of(&root, 3), Some(1));
        assert_eq!(node_of(&root, 0), None);
        assert_eq!(node_of(&root, 9), None);
    }

    #[test]
    fn a_thread_is_pinned_and_named() {
        let cpu = *allowed(&SysRoot::default()).unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_current_thread(cpu).unwrap();
            name_current_thread("lcore-worker-with-a-long-name").unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("Name:\tlcore-worker-wi\n"), "{status}");
            assert!(status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")), "{status}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error() {
        let error = pin_current_thread(60_000).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
