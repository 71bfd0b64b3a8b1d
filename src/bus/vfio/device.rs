//! One PCI function, opened through VFIO.

use core::ops::Range;
use core::slice;
use core::time::Duration;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use vfio_bindings::bindings::vfio as abi;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device_file::DeviceFile;
use super::info::{self, RegionInfo};
use super::{bar, calls};
use crate::bus::config_space::{
    CAPABILITY_EXPRESS, CAPABILITY_MSIX, CAPABILITY_POWER, COMMAND, COMMAND_BUS_MASTER,
    COMMAND_MEMORY, MSIX_CONTROL, MSIX_TABLE, POWER_CONTROL, POWER_STATE_MASK,
};
use crate::bus::{BusError, Capability, Device, PciFunction, PciIds, Quiesced, capabilities};
use crate::mmio::{Region, Width};

/// A function may take 10 ms from D3hot to D0 (5.4).
const POWER_UP: Duration = Duration::from_millis(10);

/// Device status in the PCI Express capability (PCI Express Base 4.0, 7.5.3.5).
const EXPRESS_STATUS: u16 = 0x0a;
const EXPRESS_TRANSACTIONS_PENDING: u32 = 1 << 5;
/// Completions time out after 50 ms by default (7.8.16), so that nothing is pending after twice
/// that unless the function is broken.
const TRANSACTIONS_END_TRIES: u32 = 100;
const TRANSACTIONS_END_STEP: Duration = Duration::from_millis(1);

/// One entry of the MSI-X table, in bytes (PCI Local Bus 3.0, 6.8.2).
const MSIX_ENTRY_LEN: u64 = 16;

/// While a driver of the kernel is being (un)bound elsewhere, a reset is answered with EAGAIN.
const RESET_TRIES: u32 = 5;
const RESET_STEP: Duration = Duration::from_millis(2);

/// A PCI function, opened through VFIO. Dropping it turns its interrupts and its bus mastering
/// off and resets it; registers that are still held keep its file open, not its DMA going.
///
/// Registers of a device that is being reset, or has lost power, may answer with SIGBUS instead
/// of all ones: don't touch them from another thread meanwhile.
pub struct VfioDevice {
    removal: Option<EventFd>,
    removal_seen: AtomicBool,
    function: PciFunction,
    config: RegionInfo,
    can_reset: bool,
    msix: Option<MsixTable>,
    msix_enabled: Mutex<bool>,
    /// Reset, and nothing written to configuration space since: its bus mastering is still off.
    quiet: AtomicBool,
    /// Held while a configuration register is read, changed and written back.
    changing: Mutex<()>,
    bars: Mutex<[Option<Region>; 6]>,
    file: Arc<DeviceFile>,
}

/// Where the MSI-X table stands.
struct MsixTable {
    vectors: u16,
    bar: u8,
    range: Range<u64>,
}

impl VfioDevice {
    /// Takes a device that has just been opened into use: powered up, its memory space on, its bus
    /// mastering off, and its removal watched.
    pub(super) fn new(file: Arc<DeviceFile>, function: PciFunction) -> Result<Self, BusError> {
        let flags = calls::device_flags(&file.file)
            .map_err(|source| file.os_error("VFIO_DEVICE_GET_INFO", source))?;
        let mut device = Self {
            removal: None,
            removal_seen: AtomicBool::new(false),
            config: region_info(&file, abi::VFIO_PCI_CONFIG_REGION_INDEX, &function)?,
            function,
            can_reset: flags & abi::VFIO_DEVICE_FLAGS_RESET != 0,
            msix: None,
            msix_enabled: Mutex::new(false),
            quiet: AtomicBool::new(false),
            changing: Mutex::new(()),
            bars: Mutex::default(),
            file,
        };
        let capabilities = capabilities(&device)?;
        device.power_up(&capabilities)?;
        device.change_config(COMMAND, Width::U16, |command| {
            (command | COMMAND_MEMORY) & !COMMAND_BUS_MASTER
        })?;
        device.msix = device.find_msix(&capabilities)?;
        device.removal = device.watch_removal()?;
        Ok(device)
    }

    /// The function as sysfs described it when it was opened.
    pub fn function(&self) -> &PciFunction {
        &self.function
    }

    /// The kernel parks a function that nobody uses in D3hot, where its registers are dead.
    fn power_up(&self, capabilities: &[Capability]) -> Result<(), BusError> {
        let Some(offset) = find(capabilities, CAPABILITY_POWER) else { return Ok(()) };
        let control = offset + POWER_CONTROL;
        let state = self.config_read(control, Width::U16)? & POWER_STATE_MASK;
        if state != 0 {
            tracing::debug!("{}: from power state D{state} to D0", self.name());
            self.change_config(control, Width::U16, |control| control & !POWER_STATE_MASK)?;
            thread::sleep(POWER_UP);
        }
        Ok(())
    }

    fn find_msix(&self, capabilities: &[Capability]) -> Result<Option<MsixTable>, BusError> {
        let Some(offset) = find(capabilities, CAPABILITY_MSIX) else { return Ok(None) };
        let control = self.config_read(offset + MSIX_CONTROL, Width::U16)?;
        let table = self.config_read(offset + MSIX_TABLE, Width::U32)?;
        let entries = u64::from(control & 0x7ff) + 1;
        let start = u64::from(table & !0b111);
        let count = calls::irq_count(&self.file.file, abi::VFIO_PCI_MSIX_IRQ_INDEX)
            .map_err(|source| self.file.os_error("VFIO_DEVICE_GET_IRQ_INFO", source))?;
        Ok(Some(MsixTable {
            vectors: u16::try_from(count).unwrap_or(u16::MAX),
            bar: (table & 0b111) as u8,
            range: start..start + entries * MSIX_ENTRY_LEN,
        }))
    }

    /// The kernel signals when it wants the device back, first at once, then every 10 s.
    fn watch_removal(&self) -> Result<Option<EventFd>, BusError> {
        let index = abi::VFIO_PCI_REQ_IRQ_INDEX;
        let file = &self.file.file;
        // Before Linux 4.0 there is no such interrupt.
        if !calls::irq_count(file, index).is_ok_and(|count| count > 0) {
            return Ok(None);
        }
        let eventfd = self.eventfd()?;
        calls::set_irqs(file, index, slice::from_ref(&eventfd))
            .map_err(|source| self.file.os_error("VFIO_DEVICE_SET_IRQS (removal)", source))?;
        Ok(Some(eventfd))
    }

    fn eventfd(&self) -> Result<EventFd, BusError> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map_err(|source| self.file.os_error("an eventfd for its interrupts", source))
    }

    fn change_config(
        &self,
        offset: u16,
        width: Width,
        change: impl FnOnce(u32) -> u32,
    ) -> Result<(), BusError> {
        let _alone = lock(&self.changing);
        let before = self.config_read(offset, width)?;
        let after = change(before);
        if after == before { Ok(()) } else { self.config_write(offset, width, after) }
    }

    /// Where in the device's file the bytes of configuration space are that are meant.
    fn config_place(&self, offset: u16, width: Width) -> Result<u64, BusError> {
        let (from, width_bytes) = (u64::from(offset), width.len_bytes());
        let aligned = usize::from(offset).is_multiple_of(width_bytes) && width != Width::U64;
        if aligned && from + width_bytes as u64 <= self.config.len_bytes {
            return Ok(self.config.file_offset + from);
        }
        let (device, len_bytes) = (self.name(), self.config.len_bytes);
        Err(BusError::BadConfigAccess { device, offset, width_bytes, len_bytes })
    }

    /// The kernel's reset of the function, tried again while it is busy.
    fn reset_function(&self) -> io::Result<()> {
        if !self.can_reset {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it has no reset of its own"));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match calls::reset(&self.file.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < RESET_TRIES => {
                    thread::sleep(RESET_STEP);
                }
                answer => return answer,
            }
        }
    }

    /// Without a reset: bus mastering is off, so nothing new starts; waits until what was under
    /// way has ended.
    fn await_transactions(&self) -> Result<(), BusError> {
        if self.config_read(COMMAND, Width::U16)? & COMMAND_BUS_MASTER != 0 {
            let why = "bus mastering stays on".to_owned();
            return Err(BusError::NotQuiesced { device: self.name(), why });
        }
        let Some(offset) = find(&capabilities(self)?, CAPABILITY_EXPRESS) else { return Ok(()) };
        for _ in 0..TRANSACTIONS_END_TRIES {
            let status = self.config_read(offset + EXPRESS_STATUS, Width::U16)?;
            // All ones: the device is gone, and what is gone does no DMA.
            if status & EXPRESS_TRANSACTIONS_PENDING == 0 || status == 0xffff {
                return Ok(());
            }
            thread::sleep(TRANSACTIONS_END_STEP);
        }
        let why = "transactions stay pending".to_owned();
        Err(BusError::NotQuiesced { device: self.name(), why })
    }
}

impl Device for VfioDevice {
    fn name(&self) -> String {
        self.function.address.to_string()
    }

    fn ids(&self) -> PciIds {
        self.function.ids
    }

    fn numa_node(&self) -> Option<u32> {
        self.function.numa_node
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        let place = self.config_place(offset, width)?;
        let mut bytes = [0; 4];
        let (asked, _) = bytes.split_at_mut(width.len_bytes());
        self.file
            .file
            .read_exact_at(asked, place)
            .map_err(|source| self.file.os_error("reading configuration space", source))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        let place = self.config_place(offset, width)?;
        self.quiet.store(false, Ordering::Relaxed);
        let bytes = value.to_le_bytes();
        let (asked, _) = bytes.split_at(width.len_bytes());
        self.file
            .file
            .write_all_at(asked, place)
            .map_err(|source| self.file.os_error("writing configuration space", source))
    }

    fn bar(&self, index: u8) -> Result<Region, BusError> {
        let mut bars = lock(&self.bars);
        let slot = bars.get_mut(usize::from(index));
        let slot = slot.ok_or_else(|| self.no_bar(index, "a PCI function has BARs 0 to 5"))?;
        if let Some(region) = slot {
            return Ok(region.clone());
        }
        let which = abi::VFIO_PCI_BAR0_REGION_INDEX + u32::from(index);
        let info = region_info(&self.file, which, &self.function)?;
        if info.len_bytes == 0 {
            let why = "the device doesn't have it (or it is the upper half of the one before)";
            return Err(self.no_bar(index, why));
        }
        let table = self.msix.as_ref().filter(|msix| msix.bar == index).map(|msix| &msix.range);
        let region = bar::region(&self.file, &info, table)?;
        Ok(slot.insert(region).clone())
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.change_config(COMMAND, Width::U16, |command| {
            if on { command | COMMAND_BUS_MASTER } else { command & !COMMAND_BUS_MASTER }
        })
    }

    fn reset(&self) -> Result<Quiesced, BusError> {
        // The kernel restores the command register after a reset, so this comes before it.
        let stopped = self.set_bus_master(false);
        match self.reset_function() {
            Ok(()) => {}
            Err(error) if stopped.is_ok() => {
                let name = self.name();
                tracing::debug!("{name}: not reset ({error}); its bus mastering is off instead");
                self.await_transactions()?;
            }
            Err(error) => {
                let why = error.to_string();
                return Err(BusError::NotQuiesced { device: self.name(), why });
            }
        }
        self.quiet.store(true, Ordering::Relaxed);
        Ok(Quiesced::after_reset())
    }

    fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, |msix| msix.vectors)
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>, BusError> {
        let found = self.msix_vectors();
        if count > found {
            return Err(BusError::TooFewVectors { device: self.name(), wanted: count, found });
        }
        // The kernel doesn't add vectors to those that are on: all are set up anew.
        self.disable_msix()?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let eventfds = (0..count).map(|_| self.eventfd()).collect::<Result<Vec<_>, BusError>>()?;
        let mut enabled = lock(&self.msix_enabled);
        calls::set_irqs(&self.file.file, abi::VFIO_PCI_MSIX_IRQ_INDEX, &eventfds)
            .map_err(|source| self.file.os_error("VFIO_DEVICE_SET_IRQS (MSI-X)", source))?;
        *enabled = true;
        Ok(eventfds)
    }

    fn disable_msix(&self) -> Result<(), BusError> {
        let mut enabled = lock(&self.msix_enabled);
        if *enabled {
            calls::set_irqs(&self.file.file, abi::VFIO_PCI_MSIX_IRQ_INDEX, &[])
                .map_err(|source| self.file.os_error("VFIO_DEVICE_SET_IRQS (MSI-X off)", source))?;
            *enabled = false;
        }
        Ok(())
    }

    fn removal_requested(&self) -> bool {
        if self.removal.as_ref().is_some_and(|eventfd| eventfd.read().is_ok()) {
            self.removal_seen.store(true, Ordering::Relaxed);
        }
        self.removal_seen.load(Ordering::Relaxed)
    }
}

impl VfioDevice {
    fn no_bar(&self, index: u8, why: &'static str) -> BusError {
        BusError::NoBar { device: self.name(), index, why }
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        if let Err(error) = self.disable_msix() {
            tracing::warn!("{error}");
        }
        if self.removal.is_some() {
            // Fails when the device is already gone, and then there is nothing to turn off.
            let index = abi::VFIO_PCI_REQ_IRQ_INDEX;
            if let Err(error) = calls::set_irqs(&self.file.file, index, &[]) {
                tracing::debug!("{}: its removal stays watched: {error}", self.name());
            }
        }
        // A reset takes over 100 ms (PCI Express Base 4.0, 6.6.2): a driver that stopped properly
        // has had it.
        if !self.quiet.load(Ordering::Relaxed)
            && let Err(error) = self.reset()
        {
            tracing::warn!("{error}");
        }
    }
}

impl core::fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "VfioDevice({})", self.function)
    }
}

fn region_info(
    file: &DeviceFile,
    index: u32,
    function: &PciFunction,
) -> Result<RegionInfo, BusError> {
    const WHAT: &str = "VFIO_DEVICE_GET_REGION_INFO";
    let answer = calls::region_info(&file.file, index);
    let answer = answer.map_err(|source| file.os_error(WHAT, source))?;
    info::region_info(&answer).map_err(|why| {
        let device = function.address.to_string();
        BusError::Malformed { device, what: WHAT, why }
    })
}

fn find(capabilities: &[Capability], id: u8) -> Option<u16> {
    capabilities.iter().find(|capability| capability.id == id).map(|capability| capability.offset)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks keep together is changed by single assignments: a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
