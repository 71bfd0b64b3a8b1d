#![expect(unsafe_code, reason = "VFIO's ioctls")]
//! VFIO's system calls, one function each: numbers and layouts of `linux/vfio.h`, nothing more.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_uint, c_ulong};
use vfio_bindings::bindings::vfio as abi;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{
    _IOC_NONE, ioctl, ioctl_expr, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr,
    ioctl_with_ref, ioctl_with_val,
};

use crate::memory::{Iova, IovaRun};

const GET_API_VERSION: c_ulong = request(0);
const CHECK_EXTENSION: c_ulong = request(1);
const SET_IOMMU: c_ulong = request(2);
const GROUP_GET_STATUS: c_ulong = request(3);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);
const DEVICE_GET_INFO: c_ulong = request(7);
const DEVICE_GET_REGION_INFO: c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: c_ulong = request(9);
const DEVICE_SET_IRQS: c_ulong = request(10);
const DEVICE_RESET: c_ulong = request(11);
const IOMMU_GET_INFO: c_ulong = request(12);
const IOMMU_MAP_DMA: c_ulong = request(13);
const IOMMU_UNMAP_DMA: c_ulong = request(14);

/// All of VFIO's requests are `_IO(';', 100 + n)`: neither direction nor size.
const fn request(number: c_uint) -> c_ulong {
    ioctl_expr(_IOC_NONE, abi::VFIO_TYPE as c_uint, abi::VFIO_BASE + number, 0)
}

/// An answer longer than this isn't one (the longest real ones have some hundred bytes).
const ANSWER_LEN_MAX: usize = 1 << 20;

// ---- container ---------------------------------------------------------------------------

/// `VFIO_GET_API_VERSION`.
pub(super) fn api_version(container: &File) -> io::Result<i32> {
    // SAFETY: the request takes no argument.
    checked(unsafe { ioctl(container, GET_API_VERSION) })
}

/// `VFIO_CHECK_EXTENSION`: whether the container can be of that kind (`VFIO_*_IOMMU`).
pub(super) fn check_extension(container: &File, kind: u32) -> io::Result<bool> {
    // SAFETY: the request takes a number.
    let answer = unsafe { ioctl_with_val(container, CHECK_EXTENSION, c_ulong::from(kind)) };
    checked(answer).map(|answer| answer > 0)
}

/// `VFIO_SET_IOMMU`; needs a group in the container.
pub(super) fn set_iommu(container: &File, kind: u32) -> io::Result<()> {
    // SAFETY: the request takes a number.
    checked(unsafe { ioctl_with_val(container, SET_IOMMU, c_ulong::from(kind)) }).map(drop)
}

/// `VFIO_IOMMU_GET_INFO`: a `vfio_iommu_type1_info` and its capabilities, as bytes.
pub(super) fn iommu_info(container: &File) -> io::Result<Vec<u8>> {
    ask(container, IOMMU_GET_INFO, &[0; size_of::<abi::vfio_iommu_type1_info>()])
}

/// `VFIO_IOMMU_MAP_DMA`: lets devices read and write `run`.
pub(super) fn map_dma(container: &File, run: &IovaRun) -> io::Result<()> {
    let map = abi::vfio_iommu_type1_dma_map {
        argsz: size_of::<abi::vfio_iommu_type1_dma_map>() as u32,
        flags: abi::VFIO_DMA_MAP_FLAG_READ | abi::VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: run.va,
        iova: run.iova.0,
        size: run.len_bytes,
    };
    // SAFETY: the kernel reads `map`. That devices may then write the memory behind `vaddr` at
    // any time is agreed with memory's zones, which are reached by raw pointers only, and the
    // container keeps the memory until it is unmapped.
    checked(unsafe { ioctl_with_ref(container, IOMMU_MAP_DMA, &map) }).map(drop)
}

/// `VFIO_IOMMU_UNMAP_DMA`; gives how many bytes the kernel says that it unmapped.
pub(super) fn unmap_dma(container: &File, iova: Iova, len_bytes: u64) -> io::Result<u64> {
    let mut unmap = abi::vfio_iommu_type1_dma_unmap {
        argsz: size_of::<abi::vfio_iommu_type1_dma_unmap>() as u32,
        flags: 0,
        iova: iova.0,
        size: len_bytes,
        ..Default::default()
    };
    // SAFETY: the kernel reads `unmap` and writes its `size`.
    checked(unsafe { ioctl_with_mut_ref(container, IOMMU_UNMAP_DMA, &mut unmap) })?;
    Ok(unmap.size)
}

// ---- group -------------------------------------------------------------------------------

/// `VFIO_GROUP_GET_STATUS`: whether no member is in the kernel's hands.
pub(super) fn group_is_viable(group: &File) -> io::Result<bool> {
    let mut status = abi::vfio_group_status {
        argsz: size_of::<abi::vfio_group_status>() as u32,
        ..Default::default()
    };
    // SAFETY: the kernel writes within `status`.
    checked(unsafe { ioctl_with_mut_ref(group, GROUP_GET_STATUS, &mut status) })?;
    Ok(status.flags & abi::VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub(super) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let number: c_int = container.as_raw_fd();
    // SAFETY: the kernel reads one int.
    checked(unsafe { ioctl_with_ref(group, GROUP_SET_CONTAINER, &number) }).map(drop)
}

/// `VFIO_GROUP_GET_DEVICE_FD`: opens the member `name` (`0000:03:00.0`).
pub(super) fn device_file(group: &File, name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads a NUL-terminated string.
    let number = checked(unsafe { ioctl_with_ptr(group, GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: the kernel has just opened this descriptor for us; nobody else knows of it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

// ---- device ------------------------------------------------------------------------------

/// `VFIO_DEVICE_GET_INFO`: the flags (`VFIO_DEVICE_FLAGS_*`).
pub(super) fn device_flags(device: &File) -> io::Result<u32> {
    let mut info = abi::vfio_device_info {
        argsz: size_of::<abi::vfio_device_info>() as u32,
        ..Default::default()
    };
    // SAFETY: the kernel writes within `info`.
    checked(unsafe { ioctl_with_mut_ref(device, DEVICE_GET_INFO, &mut info) })?;
    Ok(info.flags)
}

/// `VFIO_DEVICE_GET_REGION_INFO`: a `vfio_region_info` and its capabilities, as bytes.
pub(super) fn region_info(device: &File, index: u32) -> io::Result<Vec<u8>> {
    let mut question = [0; size_of::<abi::vfio_region_info>()];
    question[8..12].copy_from_slice(&index.to_ne_bytes());
    ask(device, DEVICE_GET_REGION_INFO, &question)
}

/// `VFIO_DEVICE_GET_IRQ_INFO`: how many interrupts of the kind `index` (`VFIO_PCI_*_IRQ_INDEX`)
/// the device has.
pub(super) fn irq_count(device: &File, index: u32) -> io::Result<u32> {
    let mut info = abi::vfio_irq_info {
        argsz: size_of::<abi::vfio_irq_info>() as u32,
        index,
        ..Default::default()
    };
    // SAFETY: the kernel writes within `info`.
    checked(unsafe { ioctl_with_mut_ref(device, DEVICE_GET_IRQ_INFO, &mut info) })?;
    Ok(info.count)
}

/// `VFIO_DEVICE_SET_IRQS`: interrupts 0 and up of the kind `index` count into `eventfds`; with
/// none, that kind is turned off.
pub(super) fn set_irqs(device: &File, index: u32, eventfds: &[EventFd]) -> io::Result<()> {
    const HEADER_LEN: usize = size_of::<abi::vfio_irq_set>();
    let data = if eventfds.is_empty() {
        abi::VFIO_IRQ_SET_DATA_NONE
    } else {
        abi::VFIO_IRQ_SET_DATA_EVENTFD
    };
    let argsz = (HEADER_LEN + eventfds.len() * size_of::<c_int>()) as u32;
    let flags = data | abi::VFIO_IRQ_SET_ACTION_TRIGGER;
    // argsz, flags, index, start, count; then one int for each.
    let mut set = vec![argsz, flags, index, 0, eventfds.len() as u32];
    set.extend(eventfds.iter().map(|eventfd| eventfd.as_raw_fd().cast_unsigned()));
    // SAFETY: the kernel reads `argsz` bytes, and `set` has them: 5 words and one a descriptor.
    checked(unsafe { ioctl_with_ptr(device, DEVICE_SET_IRQS, set.as_ptr()) }).map(drop)
}

/// `VFIO_DEVICE_RESET`.
pub(super) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    checked(unsafe { ioctl(device, DEVICE_RESET) }).map(drop)
}

// ---- common ------------------------------------------------------------------------------

/// Asks with a structure that starts with its own length (`argsz`), again with more room if the
/// kernel says that the answer is longer.
fn ask(file: &File, request: c_ulong, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut len = question.len();
    loop {
        let mut answer = (len as u32).to_ne_bytes().to_vec();
        answer.extend(question.iter().skip(answer.len()));
        answer.resize(len, 0);
        // SAFETY: the kernel reads and writes no more than the length that stands in the first
        // four bytes, which is that of `answer`.
        checked(unsafe { ioctl_with_mut_ptr(file, request, answer.as_mut_ptr()) })?;
        let wanted = answer.first_chunk().map_or(0, |argsz| u32::from_ne_bytes(*argsz)) as usize;
        if wanted <= len {
            return Ok(answer);
        }
        if wanted > ANSWER_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of over 1 MiB"));
        }
        len = wanted;
    }
}

fn checked(answer: c_int) -> io::Result<c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the kernel's headers give on x86-64 and aarch64.
    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(GET_API_VERSION, 0x3b64);
        assert_eq!(GROUP_GET_DEVICE_FD, 0x3b6a);
        assert_eq!(IOMMU_UNMAP_DMA, 0x3b72);
    }

    #[test]
    fn a_file_that_is_not_vfio_answers_with_an_error() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(api_version(&null).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(iommu_info(&null).is_err());
        assert!(region_info(&null, 0).is_err());
        assert!(device_file(&null, "0000:03:00.0").is_err());
        assert!(device_file(&null, "a\0b").is_err());
    }
}
