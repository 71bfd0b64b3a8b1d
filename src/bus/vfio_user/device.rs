//! A PCI function that a server plays.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vfio_bindings::bindings::vfio as abi;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::bar::{self, Info};
use super::client::{Client, Command};
use crate::bus::config_space::{
    CAPABILITY_MSIX, CAPABILITY_POWER, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, MSIX_CONTROL,
    POWER_CONTROL, POWER_STATE_MASK,
};
use crate::bus::vfio::region_info;
use crate::bus::{BusError, Device, PciIds, Quiesced, capabilities};
use crate::memory::{DmaListener, DmaRegion, Iova, IovaRun, ListenerError, Memory};
use crate::mmio::{Region, Width};

/// A function may take 10 ms from D3hot to D0 (PCI Power Management 1.2, 5.4).
const POWER_UP: Duration = Duration::from_millis(10);
/// The most regions and interrupt kinds that are believed.
const INDEXES_MAX: u32 = 64;
/// Room for a region's sparse areas.
const REGION_INFO_LEN: usize = 4096;

/// A connection to a server, and what its device says it is. The device isn't taken yet: no memory
/// was shown to it, and nothing changed.
#[derive(Debug)]
pub struct Server {
    client: Arc<Client>,
    ids: PciIds,
    config: Info,
    can_reset: bool,
    irqs: u32,
}

impl Server {
    /// Connects to the socket at `path`, and asks what is behind it.
    ///
    /// # Errors
    /// If nobody listens there, or the answers aren't those of a PCI function.
    pub fn connect(path: &Path) -> Result<Self, BusError> {
        let client = Arc::new(Client::connect(path)?);
        let mut body = [0; 16];
        put(&mut body, 0, 16);
        let answer = client.ask(Command::DeviceInfo, &body, None)?.body;
        let word = |at| u32_at(&answer, at);
        let (Some(flags), Some(regions), Some(irqs)) = (word(4), word(8), word(12)) else {
            return Err(client.nonsense(Command::DeviceInfo, "it is too short"));
        };
        let config_index = abi::VFIO_PCI_CONFIG_REGION_INDEX;
        if flags & abi::VFIO_DEVICE_FLAGS_PCI == 0
            || !(config_index..INDEXES_MAX).contains(&regions)
        {
            return Err(client.nonsense(Command::DeviceInfo, "the device isn't a PCI function"));
        }
        let config = info(&client, config_index)?;
        let mut server = Self {
            ids: PciIds::default(),
            config,
            can_reset: flags & abi::VFIO_DEVICE_FLAGS_RESET != 0,
            irqs,
            client,
        };
        // Vendor, device, revision and class, subsystem (PCI Local Bus 3.0, 6.1).
        let read = |offset| server.config_read(offset, Width::U32);
        let (ids, class, subsystem) = (read(0)?, read(8)?, read(0x2c)?);
        server.ids = PciIds {
            vendor: ids as u16,
            device: (ids >> 16) as u16,
            subsystem_vendor: subsystem as u16,
            subsystem_device: (subsystem >> 16) as u16,
            class: class >> 8,
            revision: class as u8,
        };
        Ok(server)
    }

    /// What the device says it is.
    #[must_use]
    pub fn ids(&self) -> PciIds {
        self.ids
    }

    /// Where its socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.client.path()
    }

    /// The device's name: `vfio-user:/path.sock`.
    #[must_use]
    pub fn name(&self) -> String {
        self.client.name()
    }

    /// Takes the device: shows it all of `memory`, powers it up, leaves its bus mastering off.
    ///
    /// # Errors
    /// If the server refuses, or goes away.
    pub fn open(self: &Arc<Self>, memory: &Arc<Memory>) -> Result<VfioUserDevice, BusError> {
        let shown = Arc::new(Shown { client: self.client.clone(), runs: Mutex::default() });
        let mut device = VfioUserDevice {
            server: self.clone(),
            memory: memory.clone(),
            shown,
            msix_vectors: 0,
            msix_enabled: Mutex::new(false),
            removal: None,
            removal_seen: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            changing: Mutex::new(()),
            bars: Mutex::default(),
        };
        device.show_memory()?;
        device.power_up()?;
        device
            .change_config(COMMAND, |command| (command | COMMAND_MEMORY) & !COMMAND_BUS_MASTER)?;
        device.msix_vectors = device.count_vectors()?;
        device.removal = device.watch_removal()?;
        Ok(device)
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        self.check_config(offset, width)?;
        let index = abi::VFIO_PCI_CONFIG_REGION_INDEX;
        bar::read(&self.client, index, u64::from(offset), width).map(|value| value as u32)
    }

    fn check_config(&self, offset: u16, width: Width) -> Result<(), BusError> {
        let (width_bytes, len_bytes) = (width.len_bytes(), self.config.region.len_bytes);
        let aligned = usize::from(offset).is_multiple_of(width_bytes) && width != Width::U64;
        if aligned && u64::from(offset) + width_bytes as u64 <= len_bytes {
            return Ok(());
        }
        Err(BusError::BadConfigAccess { device: self.name(), offset, width_bytes, len_bytes })
    }
}

/// A device behind a vfio-user socket. Dropping it resets it and takes the memory back from it.
#[derive(Debug)]
pub struct VfioUserDevice {
    server: Arc<Server>,
    memory: Arc<Memory>,
    /// What the server has mapped; hears of memory that comes and goes.
    shown: Arc<Shown>,
    msix_vectors: u16,
    msix_enabled: Mutex<bool>,
    /// Rings when the server wants the device back, if it can say so.
    removal: Option<EventFd>,
    /// It rang once: that is enough.
    removal_seen: AtomicBool,
    /// Reset, and nothing written to configuration space since.
    quiet: AtomicBool,
    /// Held while a configuration register is read, changed and written back.
    changing: Mutex<()>,
    bars: Mutex<[Option<Region>; 6]>,
}

impl VfioUserDevice {
    fn client(&self) -> &Arc<Client> {
        &self.server.client
    }

    /// Gives the server each segment's file, run by run, and those that are added later.
    fn show_memory(&self) -> Result<(), BusError> {
        for segment in self.memory.segments() {
            for run in segment.iova_runs() {
                self.shown.show(&segment.file(), run.va - segment.va(), *run)?;
            }
        }
        let shown: Arc<dyn DmaListener> = self.shown.clone();
        self.memory.add_dma_listener(Arc::downgrade(&shown)).map_err(|error| BusError::Os {
            device: self.name(),
            what: "showing it memory that was added",
            path: self.server.path().to_owned(),
            source: io::Error::other(error.to_string()),
        })
    }

    fn power_up(&self) -> Result<(), BusError> {
        let capabilities = capabilities(self)?;
        let power = capabilities.iter().find(|capability| capability.id == CAPABILITY_POWER);
        let Some(power) = power else { return Ok(()) };
        let control = power.offset + POWER_CONTROL;
        if self.config_read(control, Width::U16)? & POWER_STATE_MASK != 0 {
            self.change_config(control, |control| control & !POWER_STATE_MASK)?;
            thread::sleep(POWER_UP);
        }
        Ok(())
    }

    /// MSI-X vectors: as many as both the capability and the server speak of.
    fn count_vectors(&self) -> Result<u16, BusError> {
        let index = abi::VFIO_PCI_MSIX_IRQ_INDEX;
        let capabilities = capabilities(self)?;
        let msix = capabilities.iter().find(|capability| capability.id == CAPABILITY_MSIX);
        let Some(msix) = msix.filter(|_| index < self.server.irqs) else { return Ok(0) };
        let entries = (self.config_read(msix.offset + MSIX_CONTROL, Width::U16)? & 0x7ff) + 1;
        let count = self.count_irqs(index)?;
        Ok(u16::try_from(count.min(entries)).unwrap_or(u16::MAX))
    }

    /// How many interrupts of a kind the server speaks of.
    fn count_irqs(&self, index: u32) -> Result<u32, BusError> {
        let mut body = [0; 16];
        put(&mut body, 0, 16);
        put(&mut body, 8, index);
        let answer = self.client().ask(Command::IrqInfo, &body, None)?.body;
        u32_at(&answer, 12)
            .ok_or_else(|| self.client().nonsense(Command::IrqInfo, "it is too short"))
    }

    /// As the kernel's VFIO does it: an interrupt of its own says that the device is wanted back.
    /// A server that has none just closes the connection.
    fn watch_removal(&self) -> Result<Option<EventFd>, BusError> {
        let index = abi::VFIO_PCI_REQ_IRQ_INDEX;
        if index >= self.server.irqs || !self.count_irqs(index).is_ok_and(|count| count > 0) {
            return Ok(None);
        }
        let eventfd = self.eventfd()?;
        self.set_irqs(index, abi::VFIO_IRQ_SET_DATA_EVENTFD, 0, 1, Some(&eventfd))?;
        Ok(Some(eventfd))
    }

    fn eventfd(&self) -> Result<EventFd, BusError> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| {
            let (device, path) = (self.name(), self.server.path().to_owned());
            BusError::Os { device, what: "an eventfd for its interrupts", path, source }
        })
    }

    fn change_config(&self, offset: u16, change: impl FnOnce(u32) -> u32) -> Result<(), BusError> {
        let _alone = lock(&self.changing);
        let before = self.config_read(offset, Width::U16)?;
        let after = change(before);
        if after == before { Ok(()) } else { self.config_write(offset, Width::U16, after) }
    }

    fn set_irqs(
        &self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        eventfd: Option<&EventFd>,
    ) -> Result<(), BusError> {
        let mut body = [0; 20];
        put(&mut body, 0, 20);
        put(&mut body, 4, flags | abi::VFIO_IRQ_SET_ACTION_TRIGGER);
        put(&mut body, 8, index);
        put(&mut body, 12, start);
        put(&mut body, 16, count);
        self.client()
            .ask(Command::SetIrqs, &body, eventfd.map(|eventfd| eventfd as &dyn AsRawFd))
            .map(drop)
    }

    fn no_bar(&self, index: u8, why: &'static str) -> BusError {
        BusError::NoBar { device: self.name(), index, why }
    }
}

/// What a server has mapped.
#[derive(Debug)]
struct Shown {
    client: Arc<Client>,
    runs: Mutex<Vec<IovaRun>>,
}

impl Shown {
    /// Gives the server `run`, which stands in `file` from `file_offset` on.
    fn show(&self, file: &dyn AsRawFd, file_offset: u64, run: IovaRun) -> Result<(), BusError> {
        let mut body = [0; 32];
        put(&mut body, 0, 32);
        put(&mut body, 4, READ_WRITE);
        put_u64(&mut body, 8, file_offset);
        put_u64(&mut body, 16, run.iova.0);
        put_u64(&mut body, 24, run.len_bytes);
        self.client.ask(Command::DmaMap, &body, Some(file))?;
        lock(&self.runs).push(run);
        Ok(())
    }

    fn take_back(&self, run: &IovaRun) -> Result<(), BusError> {
        let &IovaRun { iova: Iova(iova), len_bytes, .. } = run;
        let mut body = [0; 24];
        put(&mut body, 0, 24);
        put_u64(&mut body, 8, iova);
        put_u64(&mut body, 16, len_bytes);
        self.client.ask(Command::DmaUnmap, &body, None).map(drop)
    }

    fn take_all_back(&self) {
        let runs = std::mem::take(&mut *lock(&self.runs));
        for run in runs.iter().rev() {
            if let Err(error) = self.take_back(run) {
                tracing::debug!("{error}");
                return; // it is gone, and the rest with it
            }
        }
    }
}

impl DmaListener for Shown {
    fn map(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        if self.client.is_gone() {
            return Ok(()); // nobody is there to reach it
        }
        let &DmaRegion { va, iova, len_bytes, file_offset, .. } = region;
        Ok(self.show(&region.file, file_offset, IovaRun { va, iova, len_bytes })?)
    }

    fn unmap(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        let mut runs = lock(&self.runs);
        let place = runs.iter().position(|run| (run.va, run.iova) == (region.va, region.iova));
        let Some(run) = place.map(|place| runs.swap_remove(place)) else { return Ok(()) };
        drop(runs);
        match self.take_back(&run) {
            Err(error) if !self.client.is_gone() || self.client.is_hung() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A DMA mapping's flags: the device may read and write.
const READ_WRITE: u32 = 0b11;

impl Device for VfioUserDevice {
    fn name(&self) -> String {
        self.server.name()
    }

    fn ids(&self) -> PciIds {
        self.server.ids
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        self.server.config_read(offset, width)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        self.server.check_config(offset, width)?;
        self.quiet.store(false, Ordering::Relaxed);
        let index = abi::VFIO_PCI_CONFIG_REGION_INDEX;
        bar::write(self.client(), index, u64::from(offset), width, u64::from(value))
    }

    fn bar(&self, index: u8) -> Result<Region, BusError> {
        let mut bars = lock(&self.bars);
        let slot = bars.get_mut(usize::from(index));
        let slot = slot.ok_or_else(|| self.no_bar(index, "a PCI function has BARs 0 to 5"))?;
        if let Some(region) = slot {
            return Ok(region.clone());
        }
        let which = abi::VFIO_PCI_BAR0_REGION_INDEX + u32::from(index);
        let info = info(self.client(), which)?;
        if info.region.len_bytes == 0 {
            let why = "the device doesn't have it (or it is the upper half of the one before)";
            return Err(self.no_bar(index, why));
        }
        Ok(slot.insert(bar::region(self.client(), which, &info)?).clone())
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.change_config(COMMAND, |command| {
            if on { command | COMMAND_BUS_MASTER } else { command & !COMMAND_BUS_MASTER }
        })
    }

    fn reset(&self) -> Result<Quiesced, BusError> {
        let not_quiesced = |why: String| Err(BusError::NotQuiesced { device: self.name(), why });
        let stopped = self.set_bus_master(false);
        let reset = match self.server.can_reset {
            true => self.client().ask(Command::DeviceReset, &[], None).map(drop),
            false => Ok(()),
        };
        match reset.and(stopped) {
            Ok(()) => {}
            // The server has ended, or says that it has: what doesn't run does no DMA.
            Err(_) if self.client().is_gone() && !self.client().is_hung() => {}
            Err(error) => return not_quiesced(error.to_string()),
        }
        self.quiet.store(true, Ordering::Relaxed);
        Ok(Quiesced::after_reset())
    }

    fn msix_vectors(&self) -> u16 {
        self.msix_vectors
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>, BusError> {
        let found = self.msix_vectors;
        if count > found {
            return Err(BusError::TooFewVectors { device: self.name(), wanted: count, found });
        }
        self.disable_msix()?;
        let mut enabled = lock(&self.msix_enabled);
        let mut eventfds = Vec::with_capacity(usize::from(count));
        for vector in 0..u32::from(count) {
            let eventfd = self.eventfd()?;
            // One descriptor a message is what every server takes.
            *enabled = true;
            let (index, flags) = (abi::VFIO_PCI_MSIX_IRQ_INDEX, abi::VFIO_IRQ_SET_DATA_EVENTFD);
            self.set_irqs(index, flags, vector, 1, Some(&eventfd))?;
            eventfds.push(eventfd);
        }
        Ok(eventfds)
    }

    fn disable_msix(&self) -> Result<(), BusError> {
        let mut enabled = lock(&self.msix_enabled);
        if *enabled {
            let (index, flags) = (abi::VFIO_PCI_MSIX_IRQ_INDEX, abi::VFIO_IRQ_SET_DATA_NONE);
            self.set_irqs(index, flags, 0, 0, None)?;
            *enabled = false;
        }
        Ok(())
    }

    fn removal_requested(&self) -> bool {
        if self.removal.as_ref().is_some_and(|eventfd| eventfd.read().is_ok()) {
            self.removal_seen.store(true, Ordering::Relaxed);
        }
        self.client().look();
        self.removal_seen.load(Ordering::Relaxed) || self.client().is_gone()
    }
}

impl Drop for VfioUserDevice {
    fn drop(&mut self) {
        if self.client().is_gone() {
            return;
        }
        if let Err(error) = self.disable_msix() {
            tracing::warn!("{error}");
        }
        if !self.quiet.load(Ordering::Relaxed)
            && let Err(error) = self.reset()
        {
            tracing::warn!("{error}");
        }
        self.shown.take_all_back();
    }
}

/// What the server says of region `index`.
fn info(client: &Client, index: u32) -> Result<Info, BusError> {
    let mut body = [0; 32];
    put(&mut body, 0, REGION_INFO_LEN as u32);
    put(&mut body, 8, index);
    let answer = client.ask(Command::RegionInfo, &body, None)?;
    let region =
        region_info(&answer.body).map_err(|why| client.nonsense(Command::RegionInfo, why))?;
    Ok(Info { region, file: answer.file })
}

fn put(body: &mut [u8], at: usize, value: u32) {
    if let Some(place) = body.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

fn put_u64(body: &mut [u8], at: usize, value: u64) {
    if let Some(place) = body.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
