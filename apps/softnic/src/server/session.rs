//! What a client asks for, command by command.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tracing::{debug, info, warn};

use super::message::{Command, Header, MAX_TRANSFER, Malformed, Reader, words};
use super::stream::{self, Gone};
use crate::device::SHARED_AREAS;
use crate::interrupts::VECTORS;
use crate::memory::MAX_MAPPINGS;
use crate::nic::Nic;
use crate::pci;
use crate::registers::{BAR_LEN_BYTES, at};

// Regions and interrupts of a PCI device, as VFIO numbers them (linux/vfio.h).
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const REGIONS: u32 = 9;
const INTX: u32 = 0;
const MSIX: u32 = 2;
const ERROR: u32 = 3;
const REQUEST: u32 = 4;
const INTERRUPTS: u32 = 5;

const DEVICE_RESETS: u32 = 1;
const DEVICE_IS_PCI: u32 = 1 << 1;
const REGION_READ: u32 = 1;
const REGION_WRITE: u32 = 1 << 1;
const REGION_MAP: u32 = 1 << 2;
const REGION_CAPS: u32 = 1 << 3;
const SPARSE_MAP: u16 = 1;
const IRQ_EVENTFD: u32 = 1;
const IRQ_NO_RESIZE: u32 = 1 << 3;
const SET_NONE: u32 = 1;
const SET_BOOL: u32 = 1 << 1;
const SET_EVENTFD: u32 = 1 << 2;
const SET_MASK: u32 = 1 << 3;
const SET_UNMASK: u32 = 1 << 4;
const SET_TRIGGER: u32 = 1 << 5;
const DMA_READ: u32 = 1;
const DMA_WRITE: u32 = 1 << 1;
const UNMAP_ALL: u32 = 1 << 1 | 1 << 2; // the protocol's text and its implementations disagree

enum Failure {
    /// The client hears the error number and stays.
    Errno(u32),
    /// The client hears EINVAL and is sent away.
    Malformed(Malformed),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno.raw_os_error().unsigned_abs())
    }
}

type Answer = Result<Vec<u8>, Failure>;

/// One client.
pub struct Session<'a> {
    nic: &'a Nic,
    stream: &'a UnixStream,
    agreed: bool,
    send_pages: bool, // the answer brings the descriptor of the shared pages
}

impl<'a> Session<'a> {
    /// Talks to the client at the other end of `stream`.
    pub fn new(nic: &'a Nic, stream: &'a UnixStream) -> Self {
        Self { nic, stream, agreed: false, send_pages: false }
    }

    /// Answers until the connection is over.
    pub fn run(mut self) -> Gone {
        let mut body = Vec::new();
        loop {
            let (header, fds) = match stream::receive(self.stream, &mut body) {
                Ok(message) => message,
                Err(gone) => return gone,
            };
            let answer = self.answer(&header, &body, fds);
            let (message, gone) = match answer {
                Ok(body) => (header.reply(&body), None),
                Err(Failure::Errno(errno)) => {
                    debug!("{}: command {} failed: errno {errno}", self.nic.name, header.number);
                    (header.error(errno), None)
                }
                Err(Failure::Malformed(malformed)) => {
                    let errno = Errno::INVAL.raw_os_error().unsigned_abs();
                    (header.error(errno), Some(Gone::Malformed(malformed)))
                }
            };
            if header.wants_reply() || gone.is_some() {
                let pages = std::mem::take(&mut self.send_pages)
                    .then(|| self.nic.device().shared_pages().try_clone_to_owned());
                let sent = match &pages {
                    Some(Ok(pages)) => stream::send(self.stream, &message, &[pages.as_fd()]),
                    _ => stream::send(self.stream, &message, &[]),
                };
                if let Err(gone) = sent {
                    return gone;
                }
            }
            if let Some(gone) = gone {
                return gone;
            }
        }
    }

    fn answer(&mut self, header: &Header, body: &[u8], fds: Vec<OwnedFd>) -> Answer {
        let mut reader = Reader(body);
        let Some(command) = header.command() else { return Err(Errno::OPNOTSUPP.into()) };
        if !self.agreed && command != Command::Version {
            return Err(Malformed::TooEarly.into());
        }
        match command {
            Command::Version => self.version(&mut reader),
            Command::DmaMap => self.dma_map(&mut reader, fds),
            Command::DmaUnmap => self.dma_unmap(&mut reader),
            Command::DeviceGetInfo => device_info(&mut reader),
            Command::DeviceGetRegionInfo => self.region_info(&mut reader),
            Command::DeviceGetRegionIoFds => Err(Errno::OPNOTSUPP.into()),
            Command::DeviceGetIrqInfo => irq_info(&mut reader),
            Command::DeviceSetIrqs => self.set_irqs(&mut reader, fds),
            Command::RegionRead => self.region_read(&mut reader),
            Command::RegionWrite => self.region_write(&mut reader),
            Command::DeviceReset => {
                info!("{}: reset by the client", self.nic.name);
                self.nic.device().function_reset();
                Ok(Vec::new())
            }
        }
    }

    fn version(&mut self, reader: &mut Reader<'_>) -> Answer {
        let (major, minor) = (reader.u16()?, reader.u16()?);
        // The capabilities are JSON. None of those that a client has changes what we do.
        let text = reader.0.strip_suffix(&[0]).unwrap_or(reader.0);
        if major != 0 || self.agreed || !text.is_ascii() {
            return Err(Malformed::Version.into());
        }
        info!("{}: version 0.{minor}, {}", self.nic.name, String::from_utf8_lossy(text));
        self.agreed = true;
        let capabilities = format!(
            r#"{{"capabilities":{{"max_msg_fds":{},"max_data_xfer_size":{MAX_TRANSFER},"max_dma_maps":{MAX_MAPPINGS},"pgsizes":4096}}}}"#,
            stream::MAX_FDS
        );
        let mut body = Vec::new();
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&minor.min(1).to_le_bytes());
        body.extend_from_slice(capabilities.as_bytes());
        body.push(0);
        Ok(body)
    }

    fn dma_map(&mut self, reader: &mut Reader<'_>, mut fds: Vec<OwnedFd>) -> Answer {
        let (_argsz, flags) = (reader.u32()?, reader.u32()?);
        let (offset, address, len) = (reader.u64()?, reader.u64()?, reader.u64()?);
        if fds.len() > 1 || flags & !(DMA_READ | DMA_WRITE) != 0 {
            return Err(Errno::INVAL.into());
        }
        let writable = flags & DMA_WRITE != 0;
        let mapped = self.nic.device().memory.map(address, len, offset, writable, fds.pop());
        mapped.map_err(|error| {
            warn!("{}: DMA_MAP refused: {error}", self.nic.name);
            Failure::Errno(error.errno())
        })?;
        Ok(Vec::new())
    }

    fn dma_unmap(&mut self, reader: &mut Reader<'_>) -> Answer {
        let whole = reader.0;
        let (_argsz, flags) = (reader.u32()?, reader.u32()?);
        let (address, len) = (reader.u64()?, reader.u64()?);
        let mut device = self.nic.device();
        if flags & UNMAP_ALL != 0 && address == 0 && len == 0 {
            device.memory.clear();
        } else {
            device.memory.unmap(address, len).map_err(|error| {
                debug!("{}: DMA_UNMAP refused: {error}", self.nic.name);
                Failure::Errno(error.errno())
            })?;
        }
        Ok(whole.get(..24).unwrap_or(whole).to_vec())
    }

    fn region_info(&mut self, reader: &mut Reader<'_>) -> Answer {
        let argsz = reader.u32()?;
        let (_flags, index) = (reader.u32()?, reader.u32()?);
        let both = REGION_READ | REGION_WRITE;
        let (flags, len) = match index {
            BAR0 if self.nic.manner.share_pages => (both | REGION_MAP | REGION_CAPS, BAR_LEN_BYTES),
            BAR0 => (both, BAR_LEN_BYTES),
            pci::MSIX_BAR => (both, pci::MSIX_BAR_LEN_BYTES),
            CONFIG => (both, pci::LEN_BYTES as u64),
            index if index < REGIONS => (0, 0),
            _ => return Err(Errno::INVAL.into()),
        };
        let mut capabilities = Vec::new();
        if flags & REGION_CAPS != 0 {
            capabilities.extend_from_slice(&SPARSE_MAP.to_le_bytes());
            capabilities.extend_from_slice(&1u16.to_le_bytes());
            capabilities.extend_from_slice(&words(&[0, SHARED_AREAS.len() as u32, 0]));
            for (offset, len) in SHARED_AREAS {
                capabilities.extend_from_slice(&offset.to_le_bytes());
                capabilities.extend_from_slice(&len.to_le_bytes());
            }
        }
        let needed = 32 + capabilities.len() as u32;
        let fits = argsz >= needed;
        let at = if fits && !capabilities.is_empty() { 32 } else { 0 };
        let mut body = words(&[needed, flags, index, at]);
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(&0u64.to_le_bytes()); // offset in the file, if there is one
        if fits {
            body.extend_from_slice(&capabilities);
            self.send_pages = flags & REGION_MAP != 0;
        }
        Ok(body)
    }

    fn set_irqs(&mut self, reader: &mut Reader<'_>, fds: Vec<OwnedFd>) -> Answer {
        let (_argsz, flags, index) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (start, count) = (reader.u32()?, reader.u32()?);
        let available = vectors_of(index);
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        // QEMU sends a descriptor for INTx although there is none.
        if index == INTX {
            return Ok(Vec::new());
        }
        if index >= INTERRUPTS || end > available || flags & (SET_MASK | SET_UNMASK) != 0 {
            return Err(Errno::INVAL.into());
        }
        if flags & SET_TRIGGER == 0 {
            return Err(Errno::INVAL.into());
        }
        let values = if flags & SET_BOOL != 0 { reader.bytes(count as usize)? } else { &[] };
        if fds.len() > count as usize && count > 0 {
            return Err(Errno::INVAL.into());
        }
        for fd in &fds {
            check_eventfd(fd)?;
        }
        let mut device = self.nic.device();
        match index {
            REQUEST => device.set_request(fds.into_iter().next()),
            ERROR => {}
            MSIX if flags & SET_EVENTFD != 0 => {
                let mut fds = fds.into_iter();
                for n in start..end {
                    device.interrupts.connect(n as usize, fds.next());
                }
            }
            MSIX if flags & SET_NONE != 0 && count == 0 => device.interrupts.disconnect(),
            MSIX => {
                for n in start..end {
                    let wanted = values.get((n - start) as usize).is_none_or(|value| *value != 0);
                    if flags & SET_NONE != 0 || wanted {
                        device.interrupts.signal(n as usize);
                    }
                }
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn region_read(&mut self, reader: &mut Reader<'_>) -> Answer {
        let whole = reader.0;
        let (offset, region, count) = (reader.u64()?, reader.u32()?, reader.u32()? as usize);
        check_range(region, offset, count)?;
        let mut body = whole.get(..16).unwrap_or(whole).to_vec();
        body.resize(16 + count, 0);
        let data = body.get_mut(16..).unwrap_or(&mut []);
        let mut device = self.nic.device();
        match region {
            BAR0 => {
                // Registers have 32 bits: what is read in part is read whole.
                for (n, word) in dwords(offset, count) {
                    let value = device.read_register(n).to_le_bytes();
                    for byte in word {
                        let at = (u64::from(n) + byte as u64).checked_sub(offset);
                        if let Some(slot) = at.and_then(|at| data.get_mut(at as usize)) {
                            *slot = value[byte];
                        }
                    }
                }
            }
            CONFIG => device.config.read(offset, data),
            _ => device.read_msix(offset, data),
        }
        Ok(body)
    }

    fn region_write(&mut self, reader: &mut Reader<'_>) -> Answer {
        let whole = reader.0;
        let (offset, region, count) = (reader.u64()?, reader.u32()?, reader.u32()? as usize);
        let data = reader.bytes(count)?;
        check_range(region, offset, count)?;
        let mut device = self.nic.device();
        match region {
            BAR0 if offset % 4 == 0 && count % 4 == 0 => {
                for (n, word) in data.chunks_exact(4).enumerate() {
                    let register = offset as u32 + 4 * n as u32;
                    let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    device.write_register(register, value);
                }
            }
            BAR0 => {
                debug!("write of {count} bytes at {offset:#x}: registers have 32 bits, ignored");
            }
            CONFIG => device.write_config(offset, data),
            _ => device.write_msix(offset, data),
        }
        drop(device);
        if region == BAR0 || region == CONFIG {
            self.nic.ring();
        }
        Ok(whole.get(..16).unwrap_or(whole).to_vec())
    }
}

fn device_info(reader: &mut Reader<'_>) -> Answer {
    reader.u32()?;
    Ok(words(&[16, DEVICE_RESETS | DEVICE_IS_PCI, REGIONS, INTERRUPTS]))
}

fn vectors_of(index: u32) -> u32 {
    match index {
        MSIX => VECTORS as u32,
        ERROR | REQUEST => 1,
        _ => 0,
    }
}

fn irq_info(reader: &mut Reader<'_>) -> Answer {
    let (_argsz, _flags, index) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if index >= INTERRUPTS {
        return Err(Errno::INVAL.into());
    }
    let flags = if vectors_of(index) > 0 { IRQ_EVENTFD | IRQ_NO_RESIZE } else { 0 };
    Ok(words(&[16, flags, index, vectors_of(index)]))
}

/// A read or a write must lie within its region.
fn check_range(region: u32, offset: u64, count: usize) -> Result<(), Failure> {
    let len = match region {
        BAR0 => BAR_LEN_BYTES,
        pci::MSIX_BAR => pci::MSIX_BAR_LEN_BYTES,
        CONFIG => pci::LEN_BYTES as u64,
        _ => 0,
    };
    let fits = offset.checked_add(count as u64).is_some_and(|end| end <= len);
    if count == 0 || count > MAX_TRANSFER || !fits {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// The registers that a range touches: offset, and which of the four bytes.
fn dwords(offset: u64, count: usize) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> {
    let end = offset + count as u64;
    (offset & !3..end).step_by(4).map(move |at| {
        let from = offset.saturating_sub(at).min(4) as usize;
        let to = (end - at).min(4) as usize;
        (at as u32, from..to)
    })
}

/// Signalling must never block: only eventfds are taken, and they are set to non-blocking.
fn check_eventfd(fd: &OwnedFd) -> Result<(), Failure> {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if !link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]") {
        return Err(Errno::INVAL.into());
    }
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    Ok(())
}

// The offset of a register is what the protocol's offsets in region 0 mean.
const _: () = assert!(at::CTRL == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_whole_registers() {
        assert_eq!(dwords(8, 4).collect::<Vec<_>>(), [(8, 0..4)]);
        assert_eq!(dwords(8, 8).collect::<Vec<_>>(), [(8, 0..4), (12, 0..4)]);
        assert_eq!(dwords(10, 4).collect::<Vec<_>>(), [(8, 2..4), (12, 0..2)]);
        assert_eq!(dwords(9, 1).collect::<Vec<_>>(), [(8, 1..2)]);
    }

    #[test]
    fn only_eventfds_are_signalled() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(check_eventfd(&writer).is_err());
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        assert!(check_eventfd(&eventfd).is_ok());
        assert!(rustix::fs::fcntl_getfl(&eventfd).unwrap().contains(OFlags::NONBLOCK));
    }
}
