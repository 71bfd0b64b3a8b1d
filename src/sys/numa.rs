//! NUMA nodes: which there are, and making pages come from one of them.
#![expect(unsafe_code, reason = "set_mempolicy, get_mempolicy and mbind have no libc wrappers")]

use super::idlist;
use super::mapping::Mapping;
use super::sysroot::SysRoot;
use std::io;
use std::ptr::NonNull;

/// The nodes that are online, ascending; empty on a kernel without NUMA.
pub fn online_nodes(root: &SysRoot) -> Vec<u32> {
    let list = root.read("/sys/devices/system/node/online").unwrap_or_default();
    idlist::parse(&list).unwrap_or_default()
}

/// While this lives, pages that the calling thread allocates come from one node or not at all.
/// Files take their pages by the policy of the thread that allocates them; the policy of a
/// mapping (mbind) isn't heard by fallocate on hugetlbfs.
#[derive(Debug)]
pub struct AllocationPolicy {
    previous: Policy,
    /// The policy belongs to the thread.
    _not_send: std::marker::PhantomData<*mut ()>,
}

impl AllocationPolicy {
    /// Binds the calling thread's allocations to `node`.
    ///
    /// # Errors
    /// As set_mempolicy(2): `EINVAL` for a node that isn't there, `ENOSYS` on a kernel without
    /// NUMA, `EPERM` where a container's seccomp profile forbids it.
    pub fn bind(node: u32) -> io::Result<Self> {
        let previous = Policy::of_current_thread()?;
        Policy { mode: libc::MPOL_BIND, nodes: node_mask(node) }.set()?;
        Ok(Self { previous, _not_send: std::marker::PhantomData })
    }
}

impl Drop for AllocationPolicy {
    fn drop(&mut self) {
        if let Err(error) = self.previous.set() {
            tracing::warn!("the thread's NUMA memory policy could not be restored: {error}");
        }
    }
}

/// Says that pages of `mapping` which are faulted in later shall come from `node` too.
///
/// # Errors
/// As mbind(2).
pub fn bind_mapping(mapping: &Mapping, node: u32) -> io::Result<()> {
    let nodes = node_mask(node);
    // SAFETY: the range is the mapping's own, the mask lives across the call, and its length in
    // bits is stated (the kernel reads one bit less than it is told).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.as_ptr().as_ptr(),
            mapping.len_bytes(),
            libc::MPOL_BIND,
            nodes.as_ptr(),
            nodes.len() * WORD_BITS + 1,
            0,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The node that the page at `address` is on. The page is faulted in if it wasn't yet.
///
/// # Errors
/// As get_mempolicy(2): `EFAULT` if nothing is mapped there, `ENOSYS` or `EPERM` as above.
pub fn node_of_page(address: NonNull<u8>) -> io::Result<u32> {
    let mut node: libc::c_int = -1;
    // SAFETY: `node` is room for the int that the kernel writes with MPOL_F_NODE; the address is
    // only looked up.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut node,
            std::ptr::null_mut::<libc::c_ulong>(),
            0,
            address.as_ptr(),
            MPOL_F_NODE | MPOL_F_ADDR,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(node).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

// From linux/mempolicy.h; the libc crate lacks these two.
const MPOL_F_NODE: libc::c_int = 1;
const MPOL_F_ADDR: libc::c_int = 2;

const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// Room for the node masks that get_mempolicy returns: it wants at least as many bits as the
/// kernel was built for, of which 1024 (`MAX_NUMNODES`) is the most.
const MAX_NODES: usize = 1024;

/// A thread's memory policy, as the kernel counts it.
#[derive(Debug)]
struct Policy {
    mode: libc::c_int,
    nodes: Vec<libc::c_ulong>,
}

impl Policy {
    fn of_current_thread() -> io::Result<Self> {
        let mut mode: libc::c_int = 0;
        let mut nodes: Vec<libc::c_ulong> = vec![0; MAX_NODES / WORD_BITS];
        // SAFETY: `mode` and `nodes` are room for what the kernel writes, and the mask's length
        // in bits is stated.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                nodes.as_mut_ptr(),
                nodes.len() * WORD_BITS + 1,
                std::ptr::null_mut::<u8>(),
                0,
            )
        };
        if result != 0 { Err(io::Error::last_os_error()) } else { Ok(Self { mode, nodes }) }
    }

    fn set(&self) -> io::Result<()> {
        // MPOL_DEFAULT and MPOL_LOCAL want no nodes.
        let none = self.nodes.iter().all(|word| *word == 0);
        let (mask, bits) = match none {
            true => (std::ptr::null(), 0),
            false => (self.nodes.as_ptr(), self.nodes.len() * WORD_BITS + 1),
        };
        // SAFETY: the mask is null or lives across the call with its length in bits stated.
        let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, mask, bits) };
        if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn node_mask(node: u32) -> Vec<libc::c_ulong> {
    let index = node as usize;
    let mut mask = vec![0; index / WORD_BITS + 1];
    mask[index / WORD_BITS] = 1 << (index % WORD_BITS);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::{Placement, page_len_bytes};
    use crate::sys::memfd;
    use std::os::fd::AsFd;

    #[test]
    fn nodes_of_a_tree() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        assert!(online_nodes(&root).is_empty());
        std::fs::create_dir_all(root.path("/sys/devices/system/node")).unwrap();
        std::fs::write(root.path("/sys/devices/system/node/online"), "0-1\n").unwrap();
        assert_eq!(online_nodes(&root), [0, 1]);
    }

    #[test]
    fn pages_come_from_the_node_asked_for_and_the_policy_is_restored() {
        let Some(node) = online_nodes(&SysRoot::default()).last().copied() else {
            eprintln!("this kernel has no NUMA nodes: nothing to bind to");
            return;
        };
        let len = page_len_bytes() * 4;
        let file = memfd::create("numa-test", None).unwrap();
        let bound = AllocationPolicy::bind(node).unwrap();
        assert_eq!(Policy::of_current_thread().unwrap().mode, libc::MPOL_BIND);
        memfd::allocate(file.as_fd(), len as u64).unwrap();
        drop(bound);
        assert_eq!(Policy::of_current_thread().unwrap().mode, libc::MPOL_DEFAULT);
        let mapping = Mapping::shared(file.as_fd(), 0, len, Placement::Anywhere).unwrap();
        bind_mapping(&mapping, node).unwrap();
        mapping.populate().unwrap();
        assert_eq!(node_of_page(mapping.as_ptr()).unwrap(), node);
    }

    #[test]
    fn a_node_that_is_not_there_is_an_error_and_changes_nothing() {
        assert!(AllocationPolicy::bind(900).is_err());
        assert_eq!(Policy::of_current_thread().unwrap().mode, libc::MPOL_DEFAULT);
    }
}
