//! An IOMMU context, the groups attached to it, and the memory mapped in it.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vfio_bindings::bindings::vfio as abi;

use super::calls;
use super::device::VfioDevice;
use super::device_file::{DeviceFile, Lease, Opener};
use super::group::{self, Isolation};
use super::info::{self, IommuInfo};
use super::mappings::{DmaCalls, MapFailure, Mappings, plan};
use crate::bus::{BusError, PciAddress, PciFunction, pci};
use crate::memory::{DmaListener, DmaRegion, Iova, IovaMode, IovaRun, ListenerError, Memory, Size};
use crate::sys::capability::{self, Capability};
use crate::sys::rlimit;
use crate::sys::sysroot::SysRoot;

/// The node by which containers are made.
const NODE: &str = "/dev/vfio/vfio";
const DMA_ENTRY_LIMIT: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";

/// An IOMMU context: every device opened in it can reach all of one [`Memory`], and nothing else.
///
/// The memory is mapped when the first device is opened (an IOMMU is only known then), and
/// unmapped when the last one is closed. Segments that the memory gets meanwhile are mapped when they come
/// and unmapped before they go ([`DmaListener`]).
pub struct Container {
    state: Mutex<State>,
    root: SysRoot,
    // Dropped in this order: the kernel lets go of the memory before we do.
    file: File,
    memory: Arc<Memory>,
}

#[derive(Default)]
struct State {
    groups: Vec<OpenGroup>,
    /// Settled by the first group, as long as there is one.
    isolation: Option<Isolation>,
    mappings: Mappings,
    /// The mappings of segments that came later: by themselves, so that each can go by itself.
    added: Vec<(IovaRun, Mappings)>,
}

impl State {
    fn all_mappings(&self) -> impl Iterator<Item = &Mappings> {
        std::iter::once(&self.mappings).chain(self.added.iter().map(|(_, mappings)| mappings))
    }
}

struct OpenGroup {
    number: u32,
    file: File,
    /// The members that are open.
    devices: Vec<PciAddress>,
}

impl Container {
    /// Makes a container in which devices will reach `memory`. Nothing is mapped yet.
    ///
    /// # Errors
    /// If the kernel's VFIO isn't loaded, may not be used, or is of another version.
    pub fn new(root: &SysRoot, memory: Arc<Memory>) -> Result<Arc<Self>, BusError> {
        let path = root.path(NODE);
        let remedy = format!("`chmod 0666 {}`, as udev does", path.display());
        let file = group::open_node(&path, remedy)?;
        let found = calls::api_version(&file).map_err(|source| {
            let (device, what) = ("VFIO".to_owned(), "VFIO_GET_API_VERSION");
            BusError::Os { device, what, path, source }
        })?;
        let wanted = abi::VFIO_API_VERSION;
        if u32::try_from(found) != Ok(wanted) {
            return Err(BusError::ApiVersion { found, wanted });
        }
        let state = Mutex::default();
        let container = Arc::new(Self { state, root: root.clone(), file, memory });
        let listener: Weak<dyn DmaListener> = Arc::<Self>::downgrade(&container);
        // Without a device it maps nothing yet, so this can't fail.
        if let Err(error) = container.memory.add_dma_listener(listener) {
            tracing::warn!("{error}");
        }
        Ok(container)
    }

    /// Opens a function that is bound to vfio-pci. If it is the first, maps the memory.
    ///
    /// # Errors
    /// If the function is bound otherwise, its group can't be had, the memory can't be mapped, or
    /// the device doesn't answer. Whatever was done until then is undone.
    pub fn open(self: &Arc<Self>, function: &PciFunction) -> Result<VfioDevice, BusError> {
        let address = function.address;
        // Since it was listed it may have been bound to another driver.
        let function = pci::function(&self.root, address).unwrap_or_else(|| function.clone());
        function.check_bound_to_vfio()?;
        let number = function.iommu_group.ok_or(BusError::NoGroup { address })?;
        let file = self.open_file(number, address)?;
        VfioDevice::new(Arc::new(file), function)
    }

    /// How many mappings there are now, and how many bytes they cover.
    pub fn mapped(&self) -> (usize, u64) {
        let state = self.state();
        let sum = |count: usize, mappings: &Mappings| count + mappings.len();
        let bytes = state.all_mappings().map(Mappings::len_bytes).sum();
        (state.all_mappings().fold(0, sum), bytes)
    }

    fn open_file(
        self: &Arc<Self>,
        number: u32,
        address: PciAddress,
    ) -> Result<DeviceFile, BusError> {
        // No segment comes or goes while they are mapped. This lock comes before that of the state,
        // as when the memory tells of a segment.
        let answer = self.memory.with_added(|added| self.open_in(added, number, address))?;
        // From here on the lease's drop undoes what was done; it takes the lock itself.
        let lease = Lease::new(Arc::clone(self) as _, number, address);
        match answer {
            Ok(file) => Ok(DeviceFile::new(file, lease)),
            Err(source) => Err(lease.os_error("VFIO_GROUP_GET_DEVICE_FD", source)),
        }
    }

    fn open_in(
        &self,
        added: &[DmaRegion<'_>],
        number: u32,
        address: PciAddress,
    ) -> Result<io::Result<File>, BusError> {
        let mut state = self.state();
        self.attach(&mut state, added, number, address)?;
        let Some(group) = state.groups.iter_mut().find(|group| group.number == number) else {
            return Err(BusError::NoGroup { address });
        };
        group.devices.push(address);
        Ok(calls::device_file(&group.file, &address.to_string()))
    }

    /// Opens group `number` and attaches it, unless it is already.
    fn attach(
        &self,
        state: &mut State,
        added: &[DmaRegion<'_>],
        number: u32,
        address: PciAddress,
    ) -> Result<(), BusError> {
        let isolation = group::isolation(&self.root, number);
        let node = group::node(&self.root, number, isolation);
        if let Some(group) = state.groups.iter().find(|group| group.number == number) {
            return if group.devices.contains(&address) {
                Err(group::busy(&self.root, number, node, address))
            } else {
                Ok(())
            };
        }
        if let Some(those) = state.isolation
            && those != isolation
        {
            let (this, those) = (isolation.describe(), those.describe());
            return Err(BusError::MixedIommu { address, this, those });
        }
        let kind = self.check_kind(isolation, address)?;
        let file = group::open(&self.root, number, isolation, address)?;
        let first = state.groups.is_empty();
        calls::set_container(&file, &self.file).map_err(|source| match source.raw_os_error() {
            // To a container that has its IOMMU, attaching is the moment of truth.
            Some(libc::EPERM) if !first => BusError::UnsafeInterrupts { address },
            // Newer kernels find only now that another driver owns DMA in the group.
            Some(libc::EPERM | libc::EBUSY) => group::not_viable(&self.root, number, address),
            _ => self.os_error(number, address, "VFIO_GROUP_SET_CONTAINER", source),
        })?;
        if first {
            calls::set_iommu(&self.file, kind).map_err(|source| match source.raw_os_error() {
                Some(libc::EPERM) => BusError::UnsafeInterrupts { address },
                _ => self.os_error(number, address, "VFIO_SET_IOMMU", source),
            })?;
            if isolation == Isolation::Type1V2 {
                state.mappings = self.map_memory(address)?;
                for region in added {
                    if let Err(error) = self.map_added(state, region, address) {
                        self.unmap_memory(state);
                        return Err(error);
                    }
                }
            }
            state.isolation = Some(isolation);
        }
        state.groups.push(OpenGroup { number, file, devices: Vec::new() });
        Ok(())
    }

    /// Whether this kernel and this memory do for devices of that kind; gives VFIO's number for it.
    fn check_kind(&self, isolation: Isolation, address: PciAddress) -> Result<u32, BusError> {
        let (kind, wanted, remedy) = match isolation {
            Isolation::Type1V2 => (
                abi::VFIO_TYPE1v2_IOMMU,
                "type1v2",
                "load its IOMMU driver with `modprobe vfio_iommu_type1`",
            ),
            Isolation::None => (
                abi::VFIO_NOIOMMU_IOMMU,
                "no-IOMMU",
                "allow it with `echo 1 > \
                 /sys/module/vfio/parameters/enable_unsafe_noiommu_mode` and start as root \
                 (it takes CAP_SYS_RAWIO)",
            ),
        };
        if isolation == Isolation::None && self.memory.iova_mode() == IovaMode::Va {
            return Err(BusError::NeedsPhysical { address });
        }
        match calls::check_extension(&self.file, kind) {
            Ok(true) => Ok(kind),
            Ok(false) => Err(BusError::NoIommuDriver { wanted, address, remedy }),
            Err(source) => Err(BusError::Os {
                device: address.to_string(),
                what: "VFIO_CHECK_EXTENSION",
                path: self.root.path(NODE),
                source,
            }),
        }
    }

    /// Maps all of the memory for the devices, or nothing.
    fn map_memory(&self, address: PciAddress) -> Result<Mappings, BusError> {
        let info = self.iommu_info(address)?;
        let mode = self.memory.iova_mode();
        let segments = self.memory.segments();
        let runs = segments.iter().flat_map(|segment| segment.iova_runs().iter().copied());
        let plan = plan(runs, mode, &info, || self.root.read_u64(DMA_ENTRY_LIMIT).ok())?;
        // Any process may raise its soft limit to the hard one; a refusal shows when mapping.
        if let Err(error) = rlimit::raise_memlock() {
            tracing::debug!("MEMLOCK stays as it is: {error}");
        }
        let mappings =
            Mappings::make(&plan, self).map_err(|failure| self.explain(failure, &plan, address))?;
        let (count, len_bytes) = (mappings.len(), mappings.len_bytes());
        tracing::debug!("{count} DMA mappings of {} in all, IOVA mode {mode}", Size(len_bytes));
        Ok(mappings)
    }

    /// Maps what came later, by itself.
    fn map_added(
        &self,
        state: &mut State,
        region: &DmaRegion<'_>,
        address: PciAddress,
    ) -> Result<(), BusError> {
        let run = run_of(region);
        let info = self.iommu_info(address)?;
        let limit = || self.root.read_u64(DMA_ENTRY_LIMIT).ok();
        let plan = plan([run], self.memory.iova_mode(), &info, limit)?;
        let mappings =
            Mappings::make(&plan, self).map_err(|failure| self.explain(failure, &plan, address))?;
        state.added.push((run, mappings));
        Ok(())
    }

    fn iommu_info(&self, address: PciAddress) -> Result<IommuInfo, BusError> {
        let (device, what) = (address.to_string(), "VFIO_IOMMU_GET_INFO");
        match calls::iommu_info(&self.file) {
            Ok(answer) => {
                info::iommu_info(&answer).map_err(|why| BusError::Malformed { device, what, why })
            }
            Err(source) => Err(BusError::Os { device, what, path: self.root.path(NODE), source }),
        }
    }

    /// Why the kernel refused a mapping.
    fn explain(&self, failure: MapFailure, plan: &[IovaRun], address: PciAddress) -> BusError {
        let MapFailure { run, made, source } = failure;
        match source.raw_os_error() {
            Some(libc::ENOSPC) => {
                let limit = self.root.read(DMA_ENTRY_LIMIT);
                return BusError::DmaEntryLimit {
                    need: plan.len(),
                    available: u32::try_from(made).unwrap_or(u32::MAX),
                    limit: limit.unwrap_or_else(|_| "unknown".to_owned()),
                };
            }
            Some(libc::ENOMEM) => {
                let need = plan.iter().map(|run| run.len_bytes).sum();
                if let Some(error) = self.memory_lock(need) {
                    return error;
                }
            }
            _ => {}
        }
        let IovaRun { va, iova, len_bytes } = run;
        tracing::debug!("refused: {len_bytes:#x} bytes at {va:#x} as IOVA {iova}");
        let (device, what) = (address.to_string(), "VFIO_IOMMU_MAP_DMA");
        BusError::Os { device, what, path: self.root.path(NODE), source }
    }

    /// The limit for locked memory, if it can be what stands in the way of `need` bytes more.
    fn memory_lock(&self, need_bytes: u64) -> Option<BusError> {
        if capability::has(&self.root, Capability::IpcLock).unwrap_or(false) {
            return None;
        }
        let limit_kib = rlimit::memlock().ok()?.soft_bytes? / 1024;
        let status = self.root.read("/proc/self/status").ok()?;
        let locked_kib = locked_kib(&status).unwrap_or(0);
        let need_kib = need_bytes.div_ceil(1024) + locked_kib;
        Some(BusError::MemLock { need_kib, limit_kib })
    }

    fn unmap_memory(&self, state: &mut State) {
        let added = std::mem::take(&mut state.added).into_iter().map(|(_, mappings)| mappings);
        for mut mappings in added.chain([std::mem::take(&mut state.mappings)]) {
            if let Err(error) = self.unmap(&mut mappings) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Unmaps all of `mappings`; the last error, if there is one that matters.
    fn unmap(&self, mappings: &mut Mappings) -> Result<(), BusError> {
        let mut result = Ok(());
        for error in mappings.remove(self) {
            match error {
                // When a device is unplugged, the kernel detaches its group by itself, and the
                // mappings went with it.
                BusError::Unmap { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::debug!("the kernel has let go of the DMA mappings already");
                }
                error => result = Err(error),
            }
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opener for Container {
    /// A device of group `number` was closed.
    fn release(&self, number: u32, address: PciAddress) {
        let mut state = self.state();
        let Some(group) = state.groups.iter_mut().find(|group| group.number == number) else {
            return;
        };
        group.devices.retain(|member| *member != address);
        if !group.devices.is_empty() {
            return;
        }
        // The container needs a group to unmap: with its last group the kernel forgets the IOMMU.
        if state.groups.len() == 1 {
            self.unmap_memory(&mut state);
            state.isolation = None;
        }
        state.groups.retain(|group| group.number != number);
    }

    fn os_error(
        &self,
        number: u32,
        address: PciAddress,
        what: &'static str,
        source: io::Error,
    ) -> BusError {
        let path = group::node(&self.root, number, group::isolation(&self.root, number));
        BusError::Os { device: address.to_string(), what, path, source }
    }
}

fn run_of(region: &DmaRegion<'_>) -> IovaRun {
    let &DmaRegion { va, iova, len_bytes, .. } = region;
    IovaRun { va, iova, len_bytes }
}

impl DmaListener for Container {
    fn map(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        let mut state = self.state();
        // Without an IOMMU nothing is mapped; without a device, it is when there is one.
        if state.isolation != Some(Isolation::Type1V2) {
            return Ok(());
        }
        // For the error's text; a group is here as long as a device of it is open.
        let mut devices = state.groups.iter().flat_map(|group| &group.devices);
        let Some(device) = devices.next().copied() else { return Ok(()) };
        Ok(self.map_added(&mut state, region, device)?)
    }

    fn unmap(&self, region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        let mut state = self.state();
        let run = run_of(region);
        let Some(place) = state.added.iter().position(|(known, _)| *known == run) else {
            return Ok(());
        };
        let (_, mut mappings) = state.added.swap_remove(place);
        Ok(self.unmap(&mut mappings)?)
    }
}

impl DmaCalls for Container {
    fn map(&self, run: &IovaRun) -> io::Result<()> {
        calls::map_dma(&self.file, run)
    }

    fn unmap(&self, iova: Iova, len_bytes: u64) -> io::Result<u64> {
        calls::unmap_dma(&self.file, iova, len_bytes)
    }
}

impl core::fmt::Debug for Container {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (count, len_bytes) = self.mapped();
        write!(f, "Container({count} mappings, {len_bytes} bytes)")
    }
}

/// `VmLck` of `/proc/self/status`: what the process has locked, in KiB.
fn locked_kib(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::memory::MemoryConfig;

    fn memory() -> Arc<Memory> {
        Memory::reserve(&MemoryConfig::no_huge(2)).unwrap()
    }

    #[test]
    fn without_vfio_there_is_no_container_and_the_error_says_what_to_load() {
        let tree = tempfile::tempdir().unwrap();
        let error = Container::new(&SysRoot::new(tree.path()), memory()).unwrap_err();
        assert!(matches!(error, BusError::VfioMissing { .. }));
        assert!(error.to_string().contains("`modprobe vfio-pci`"), "{error}");
    }

    #[test]
    fn a_node_that_is_not_vfio_is_refused_and_the_memory_let_go() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        fs::create_dir_all(root.path("/dev/vfio")).unwrap();
        fs::write(root.path(NODE), "").unwrap();
        let memory = memory();
        let error = Container::new(&root, Arc::clone(&memory)).unwrap_err().to_string();
        assert!(error.contains("VFIO_GET_API_VERSION failed on "), "{error}");
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[test]
    fn locked_memory_is_read() {
        assert_eq!(locked_kib("VmPeak:\t  9 kB\nVmLck:\t   12 kB\n"), Some(12));
        assert_eq!(locked_kib("VmPeak:\t  9 kB\n"), None);
    }
}
