//! What can go wrong between this process and a device.
//!
//! Every text says what was wanted, what was found, and where there is one, the command or option
//! that mends it.

use std::io;
use std::path::PathBuf;

use super::PciAddress;
use crate::mmio::MmioError;

/// A device couldn't be found, reached, or made to do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    // ---- naming and finding devices ------------------------------------------------------
    /// A text that isn't a PCI address.
    #[error(
        "{text:?} isn't a PCI address: wanted DDDD:BB:DD.F or BB:DD.F in hexadecimal, such as \
         0000:03:00.0 (`scripts/devbind.sh -s` lists this machine's)"
    )]
    BadAddress {
        /// As given.
        text: String,
    },

    /// A device argument behind an address in `-a` that isn't `key` or `key=value`.
    #[error(
        "-a {entry}: {argument:?} isn't a device argument: wanted key=value, such as {entry:?} with \",queues=2\" behind the address"
    )]
    BadDeviceArgument {
        /// The whole entry, as given.
        entry: String,
        /// The part that can't be read.
        argument: String,
    },

    /// `-a` or `-b` names a function that isn't there.
    #[error(
        "{option} {address}: this machine has no such PCI function; its network functions are: \
         {found} (`scripts/devbind.sh -s` lists them)"
    )]
    NoSuchDevice {
        /// `-a` or `-b`.
        option: &'static str,
        /// The address asked for.
        address: PciAddress,
        /// The network functions that there are, for people.
        found: String,
    },

    /// The same function is allowed twice, or both allowed and blocked.
    #[error("{address} is given with {first} and again with {second}; leave one of them out")]
    GivenTwice {
        /// The function.
        address: PciAddress,
        /// `-a` or `-b`.
        first: &'static str,
        /// `-a` or `-b`.
        second: &'static str,
    },

    /// The function belongs to a driver of the kernel.
    #[error(
        "{device} is bound to the kernel's driver {driver}, wanted vfio-pci; hand it over with \
         `scripts/devbind.sh -b vfio-pci {address}`"
    )]
    KernelDriver {
        /// The function.
        address: PciAddress,
        /// The function with its name and interfaces, for people.
        device: String,
        /// The driver that has it.
        driver: String,
    },

    /// The function belongs to no driver.
    #[error(
        "{device} is bound to no driver, wanted vfio-pci; bind it with \
         `scripts/devbind.sh -b vfio-pci {address}`"
    )]
    NoDriver {
        /// The function.
        address: PciAddress,
        /// The function with its name, for people.
        device: String,
    },

    /// The function is in no IOMMU group: VFIO has nothing to offer for it.
    #[error(
        "{address} is in no IOMMU group, and VFIO works by groups: turn the IOMMU on (in the \
         firmware, and `intel_iommu=on` on the kernel's command line where Intel's is off by \
         default), or allow DMA without one, at your own risk, with \
         `scripts/devbind.sh --noiommu-mode -b vfio-pci {address}`"
    )]
    NoGroup {
        /// The function.
        address: PciAddress,
    },

    // ---- VFIO: container and group -------------------------------------------------------
    /// A node of `/dev/vfio` isn't there.
    #[error(
        "{} isn't there: load VFIO with `modprobe vfio-pci` (inside a container, hand the node \
         in: `--device {}`)",
        .path.display(), .path.display()
    )]
    VfioMissing {
        /// The node.
        path: PathBuf,
    },

    /// A node of `/dev/vfio` may not be opened by this user.
    #[error(
        "user {uid} may not open {} (owner {owner}, group {group}, mode {mode:04o}): run as \
         root, or give the node to that user with {remedy}",
        .path.display()
    )]
    NotPermitted {
        /// The node.
        path: PathBuf,
        /// Who tried: the effective user id.
        uid: u32,
        /// The node's owner.
        owner: u32,
        /// The node's group.
        group: u32,
        /// The node's permission bits.
        mode: u32,
        /// A command in backquotes.
        remedy: String,
    },

    /// The kernel's VFIO speaks another version of its interface.
    #[error(
        "the kernel's VFIO has API version {found}, wanted {wanted}: this kernel is too old or \
         too new for this program"
    )]
    ApiVersion {
        /// What the kernel says.
        found: i32,
        /// What this program was written for.
        wanted: u32,
    },

    /// The container can't drive the kind of IOMMU that is needed.
    #[error("the kernel's VFIO offers no {wanted} container, which {address} needs: {remedy}")]
    NoIommuDriver {
        /// `type1v2` or `no-IOMMU`.
        wanted: &'static str,
        /// The function that asked.
        address: PciAddress,
        /// What to do about it.
        remedy: &'static str,
    },

    /// Devices behind an IOMMU and devices without one can't share a container.
    #[error(
        "{address} {this}, but the devices opened before {those}, and one run can't have both: \
         leave one kind out with -a or -b"
    )]
    MixedIommu {
        /// The function.
        address: PciAddress,
        /// What kind it is.
        this: &'static str,
        /// What kind the others are.
        those: &'static str,
    },

    /// Without an IOMMU a device needs physical addresses.
    #[error(
        "{address} has no IOMMU in front of it, so it needs physical addresses, but memory was \
         reserved with virtual ones as IOVAs: start with --iova-mode pa"
    )]
    NeedsPhysical {
        /// The function.
        address: PciAddress,
    },

    /// The kernel won't let a process drive a device whose interrupts can't be remapped.
    #[error(
        "the kernel refuses {address} to a process because this machine can't remap its \
         interrupts; if you trust the device, allow it with \
         `echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts`"
    )]
    UnsafeInterrupts {
        /// The function.
        address: PciAddress,
    },

    /// Another process has the group open.
    #[error(
        "{address} is in use: its IOMMU group {group} ({}) is open in {holders}; `fuser -v {}` \
         shows who, and the group is free when that process ends",
        .path.display(), .path.display()
    )]
    GroupBusy {
        /// The function.
        address: PciAddress,
        /// The IOMMU group.
        group: u32,
        /// The group's node.
        path: PathBuf,
        /// The processes found to have it open, for people.
        holders: String,
    },

    /// A member of the group is bound to a driver of the kernel.
    #[error(
        "{address} can't be used yet: its IOMMU group {group} isn't viable, since other members \
         are in the kernel's hands: {others}; hand them over or take them from their driver: \
         {remedy}"
    )]
    GroupNotViable {
        /// The function.
        address: PciAddress,
        /// The IOMMU group.
        group: u32,
        /// The other members with their drivers, for people.
        others: String,
        /// A command in backquotes.
        remedy: String,
    },

    // ---- VFIO: DMA -----------------------------------------------------------------------
    /// A segment's IOVA isn't one that the IOMMU can translate.
    #[error(
        "DMA memory at IOVA {iova:#x}..{end:#x} can't be mapped: this machine's IOMMU offers \
         {offered}; start with {remedy}"
    )]
    IovaOutOfRange {
        /// Where the memory starts.
        iova: u64,
        /// Behind its last byte.
        end: u64,
        /// The ranges the kernel reports, for people.
        offered: String,
        /// The option that helps, with a value where one can be named.
        remedy: String,
    },

    /// An IOVA or length that isn't a multiple of the IOMMU's smallest page.
    #[error(
        "DMA memory at IOVA {iova:#x}, {len_bytes:#x} bytes, isn't aligned to the IOMMU's \
         smallest page of {page_len_bytes:#x} bytes: choose a --base-virtaddr that is, and \
         hugepages at least that large"
    )]
    IovaMisaligned {
        /// Where the memory starts.
        iova: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// The IOMMU's smallest page in bytes.
        page_len_bytes: u64,
    },

    /// More mappings are needed than the kernel grants one container.
    #[error(
        "{need} DMA mappings are needed, {available} are to be had (dma_entry_limit is {limit}): \
         use larger or fewer hugepages (-m), or raise the limit with \
         `echo {need} > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit` before starting"
    )]
    DmaEntryLimit {
        /// Mappings needed.
        need: usize,
        /// Mappings that the container may still make.
        available: u32,
        /// The module's parameter, for people: a number, or `unknown`.
        limit: String,
    },

    /// The process may not lock as much memory as DMA needs.
    #[error(
        "{need_kib} KiB must be locked for DMA, but the limit for locked memory (MEMLOCK) of \
         this process is {limit_kib} KiB: raise it with `ulimit -l {need_kib}` in the shell that \
         starts it, with `LimitMEMLOCK={need_kib}K` in its systemd unit, or ask for less with -m"
    )]
    MemLock {
        /// What all DMA memory together needs, in KiB.
        need_kib: u64,
        /// The soft limit, in KiB.
        limit_kib: u64,
    },

    /// The kernel unmapped less than was asked.
    #[error(
        "unmapping IOVA {iova:#x} from the device: {wanted:#x} bytes were wanted, {found:#x} went; \
         the rest may still be reached by DMA"
    )]
    UnmapShort {
        /// Where the mapping starts.
        iova: u64,
        /// Its length in bytes.
        wanted: u64,
        /// What the kernel says it unmapped, in bytes.
        found: u64,
    },

    /// The kernel refused to unmap.
    #[error("unmapping {len_bytes:#x} bytes at IOVA {iova:#x} from the device failed: {source}")]
    Unmap {
        /// Where the mapping starts.
        iova: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },

    // ---- vfio-user -----------------------------------------------------------------------
    /// `-a vfio-user:` without the path of a socket behind it.
    #[error(
        "-a {text}: wanted the path of a socket behind vfio-user:, as in vfio-user:/run/nic0.sock"
    )]
    BadSocket {
        /// As given.
        text: String,
    },

    /// The same socket is allowed twice.
    #[error("-a vfio-user:{} is given twice; leave one of them out", .path.display())]
    SocketTwice {
        /// The socket.
        path: PathBuf,
    },

    /// Nobody listens on a socket.
    #[error(
        "-a vfio-user:{}: wanted a socket that a device listens on, found: {source}; is \
         packetboat-softnic running? `ls -l {}` shows the socket, and `packetboat-softnic --help` \
         how to start one",
        .path.display(), .path.display()
    )]
    ServerMissing {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A server speaks another version of the protocol.
    #[error(
        "vfio-user:{}: the server speaks version {found} of vfio-user, wanted 0.0 or 0.1: use \
         a device of this version",
        .path.display()
    )]
    ServerVersion {
        /// The socket.
        path: PathBuf,
        /// What the server says.
        found: String,
    },

    /// A server's answer isn't one.
    #[error(
        "vfio-user:{}: the server's answer to {what} makes no sense: {why}; the connection is \
         given up",
        .path.display()
    )]
    ServerAnswer {
        /// The socket.
        path: PathBuf,
        /// The question: `VFIO_USER_DEVICE_GET_INFO`.
        what: &'static str,
        /// What is wrong with the answer.
        why: &'static str,
    },

    /// A server says no.
    #[error("vfio-user:{}: the server refuses {what}: {source}", .path.display())]
    ServerRefused {
        /// The socket.
        path: PathBuf,
        /// The question.
        what: &'static str,
        /// The server's answer.
        source: io::Error,
    },

    /// A server has gone, or hangs.
    #[error(
        "vfio-user:{}: the server is gone ({what}: {source}); start it again, and then this \
         program",
        .path.display()
    )]
    ServerGone {
        /// The socket.
        path: PathBuf,
        /// What it was asked last.
        what: &'static str,
        /// How that was noticed.
        source: io::Error,
    },

    // ---- one device ----------------------------------------------------------------------
    /// A base address register that the device doesn't have, or that VFIO doesn't hand out.
    #[error("{device}: BAR {index} was wanted, but {why}")]
    NoBar {
        /// The device's name.
        device: String,
        /// 0–5.
        index: u8,
        /// Why it can't be had.
        why: &'static str,
    },

    /// Configuration space has nothing there.
    #[error(
        "{device}: {width_bytes} bytes of configuration space at {offset:#x} were wanted; it has \
         {len_bytes:#x} bytes and is read aligned, 1, 2 or 4 at a time"
    )]
    BadConfigAccess {
        /// The device's name.
        device: String,
        /// Where, in bytes.
        offset: u16,
        /// Width of the access in bytes.
        width_bytes: usize,
        /// Length of configuration space in bytes.
        len_bytes: u64,
    },

    /// More interrupt vectors were asked for than the device has.
    #[error("{device}: {wanted} MSI-X vectors were wanted, the device has {found}")]
    TooFewVectors {
        /// The device's name.
        device: String,
        /// Asked for.
        wanted: u16,
        /// What the device has.
        found: u16,
    },

    /// The device could neither be reset nor be kept from DMA.
    #[error(
        "{device}: it could not be reset ({why}), and its bus mastering couldn't be turned off \
         either: what it was lent is given up; rebind it with \
         `scripts/devbind.sh -b vfio-pci {device}`"
    )]
    NotQuiesced {
        /// The device's name.
        device: String,
        /// What went wrong.
        why: String,
    },

    /// A device's capability list leads into its header or back to itself.
    #[error(
        "{device}: its list of PCI capabilities is broken at configuration offset {offset:#x} \
         (an entry inside the header, or a loop)"
    )]
    CapabilityList {
        /// The device's name.
        device: String,
        /// Where the list went wrong.
        offset: u32,
    },

    /// The kernel answered something that can't be.
    #[error("{device}: the kernel's answer to {what} makes no sense: {why}")]
    Malformed {
        /// The device's name.
        device: String,
        /// The question: `VFIO_IOMMU_GET_INFO`.
        what: &'static str,
        /// What is wrong with the answer.
        why: &'static str,
    },

    /// A system call failed in a way that has no story of its own.
    #[error("{device}: {what} failed on {}: {source}", .path.display())]
    Os {
        /// The device's or group's name.
        device: String,
        /// What was tried: `VFIO_DEVICE_RESET`.
        what: &'static str,
        /// The file it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A register was asked for that the device doesn't have.
    #[error("{device}: {source}")]
    Mmio {
        /// The device's name.
        device: String,
        /// Which, and what there is.
        source: MmioError,
    },
}
