//! The order in which things start, and stop.

use std::sync::Arc;

use super::error::EalError;
use super::lcore::{self, Lcore, LcoreHandle, LcoreThread};
use super::lcores::Lcores;
use super::options::Options;
use super::service::{RunningServices, Services};
use super::stop::StopFlag;
use crate::bus::vfio::Container;
use crate::bus::{Device, SelectedDevice, Vdev, scan};
use crate::memory::{IovaModeRequest, Memory, Size};
use crate::sys::cpu;
use crate::sys::sysroot::SysRoot;

/// What a run will use. Making it takes nothing from the machine.
#[derive(Debug)]
pub struct Plan {
    options: Options,
    root: SysRoot,
    lcores: Lcores,
    devices: Vec<SelectedDevice>,
}

impl Plan {
    /// Looks for lcores and devices, and checks the options against them.
    ///
    /// # Errors
    /// If `-l` names a CPU that isn't there or not allowed, or `-a` or `-b` a device that isn't.
    /// Sockets that `-a` names are connected to, as only their servers know what they are.
    pub fn make(options: &Options) -> Result<Self, EalError> {
        Self::make_on(options, SysRoot::default())
    }

    /// The same on a machine whose `/sys` and `/proc` stand in `root`.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_on(options: &Options, root: SysRoot) -> Result<Self, EalError> {
        let lcores = lcore::choose(options, &root)?.into_iter().collect();
        let devices = match options.looks_for_pci() {
            false => Vec::new(),
            true => {
                let selection = options.selection();
                let functions = selection.apply(&scan(&root))?.into_iter().map(SelectedDevice::Pci);
                let sockets = selection.connect()?.into_iter().map(SelectedDevice::VfioUser);
                functions.chain(sockets).collect()
            }
        };
        Ok(Self { options: options.clone(), root, lcores, devices })
    }

    /// The lcores, by what they are for.
    #[must_use]
    pub fn lcores(&self) -> &Lcores {
        &self.lcores
    }

    /// The devices: PCI functions in order of their addresses, then sockets as `-a` orders them.
    #[must_use]
    pub fn devices(&self) -> &[SelectedDevice] {
        &self.devices
    }

    /// The devices of `--vdev`, in the order given.
    #[must_use]
    pub fn vdevs(&self) -> &[Vdev] {
        &self.options.vdev
    }

    /// Whether `-a` named this device, so that leaving it out would be a surprise.
    #[must_use]
    pub fn is_named(&self, device: &SelectedDevice) -> bool {
        use crate::bus::Place;
        match device {
            SelectedDevice::Pci(selected) => {
                let here = Place::Pci(selected.function.address);
                self.options.allow.iter().any(|entry| entry.place == here)
            }
            SelectedDevice::VfioUser(_) => true,
        }
    }

    /// Whether all devices are in VFIO's hands. [`Self::start`] asks this first; an application
    /// may ask before it looks at anything else.
    ///
    /// # Errors
    /// If one has another driver, or none, with the command that hands it over.
    pub fn check_devices(&self) -> Result<(), EalError> {
        for device in &self.devices {
            if let SelectedDevice::Pci(selected) = device {
                selected.function.check_bound_to_vfio()?;
            }
        }
        Ok(())
    }

    /// Reserves memory, `needed_bytes` at least, and opens VFIO if there are devices of the kernel's.
    ///
    /// # Errors
    /// If a device isn't in VFIO's hands, there is too little memory, or there is no VFIO. What was
    /// taken until then is given back.
    pub fn start(self, needed_bytes: u64) -> Result<Eal, EalError> {
        self.check_devices()?;
        let kernels = |device: &SelectedDevice| matches!(device, SelectedDevice::Pci(_));
        let has_kernels = self.devices.iter().any(kernels);
        let mut config = self.options.memory_config(
            needed_bytes,
            self.lcores.cpus().collect(),
            self.root.clone(),
        );
        config.iova_mode = iova_mode(config.iova_mode, has_kernels);
        let memory = Memory::reserve(&config)?;
        tracing::debug!(
            "{} of memory in {} segments, IOVA mode {}; {} are needed",
            Size(memory.len_bytes()),
            memory.segments().len(),
            memory.iova_mode(),
            Size(needed_bytes)
        );
        let container = if !has_kernels {
            None
        } else {
            // How much of it may be locked is for the kernel to say, when the first device is opened:
            // without an IOMMU nothing is, and a device that can't be had is the better reason.
            Some(Container::new(&self.root, Arc::clone(&memory))?)
        };
        if self.options.main_lcore.is_some()
            && let Some(Lcore { id: lcore, cpu, .. }) = self.lcores.main()
        {
            cpu::pin_current_thread(cpu).map_err(|source| EalError::Pin { lcore, cpu, source })?;
        }
        Ok(Eal { lcores: self.lcores, container, memory })
    }
}

/// Only the kernel's devices may need physical addresses. Those behind sockets are told of memory by
/// its files, as many pieces as it is contiguous in: by virtual addresses, few.
fn iova_mode(asked: IovaModeRequest, kernels_devices: bool) -> IovaModeRequest {
    match asked {
        IovaModeRequest::Auto if !kernels_devices => IovaModeRequest::Va,
        _ => asked,
    }
}

/// What a run has: memory, the IOMMU's view of it, lcores.
///
/// Devices and pools keep what they need of it alive, so the order in which an application drops
/// them and this doesn't matter.
#[derive(Debug)]
pub struct Eal {
    lcores: Lcores,
    container: Option<Arc<Container>>,
    memory: Arc<Memory>,
}

impl Eal {
    /// [`Plan::make`] and [`Plan::start`] in one, for applications with nothing to check between.
    ///
    /// # Errors
    /// As both of them.
    pub fn start(options: &Options, needed_bytes: u64) -> Result<Self, EalError> {
        Plan::make(options)?.start(needed_bytes)
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The lcores, by what they are for.
    #[must_use]
    pub fn lcores(&self) -> &Lcores {
        &self.lcores
    }

    /// Opens a device of the plan; the memory is mapped for it then.
    ///
    /// # Errors
    /// If it can't be had: each reason has its own error.
    pub fn open(&self, device: &SelectedDevice) -> Result<Box<dyn Device>, EalError> {
        match device {
            SelectedDevice::Pci(selected) => {
                let container = self
                    .container
                    .as_ref()
                    .ok_or_else(|| EalError::NoContainer { device: device.to_string() })?;
                Ok(Box::new(container.open(&selected.function)?))
            }
            SelectedDevice::VfioUser(selected) => Ok(Box::new(selected.server.open(&self.memory)?)),
        }
    }

    /// A thread that is that lcore, pinned to its CPU, waiting for work.
    ///
    /// # Errors
    /// If the thread can't be had, or not there, or another thread is that lcore.
    pub fn lcore(&self, lcore: Lcore) -> Result<LcoreThread, EalError> {
        LcoreThread::start(lcore)
    }

    /// Runs on each worker what `work` makes for it. The threads are all there before the first
    /// of them starts to work.
    ///
    /// # Errors
    /// As [`lcore`](Self::lcore); nothing runs then.
    pub fn launch_workers<T, F>(
        &self,
        mut work: impl FnMut(Lcore) -> F,
    ) -> Result<Vec<LcoreHandle<T>>, EalError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let threads =
            self.lcores.workers().map(LcoreThread::start).collect::<Result<Vec<_>, _>>()?;
        let launch = |thread: LcoreThread| {
            let work = work(thread.lcore());
            thread.launch(work)
        };
        Ok(threads.into_iter().map(launch).collect())
    }

    /// Runs services on the lcores that `-S` keeps for them, until `stop` is set.
    ///
    /// # Errors
    /// If there are services and no such lcore, or as [`lcore`](Self::lcore).
    pub fn start_services(
        &self,
        services: Services,
        stop: &StopFlag,
    ) -> Result<RunningServices, EalError> {
        services.start(self.lcores.service(), stop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lcore::wait_all;
    use super::*;

    #[test]
    fn devices_behind_sockets_need_no_physical_addresses() {
        use IovaModeRequest::{Auto, Pa, Va};
        assert!(matches!(iova_mode(Auto, false), Va));
        assert!(matches!(iova_mode(Auto, true), Auto));
        assert!(matches!((iova_mode(Pa, false), iova_mode(Va, true)), (Pa, Va)));
    }

    #[test]
    fn without_devices_a_run_needs_no_vfio() {
        let options = Options { no_pci: true, no_huge: true, ..Options::default() };
        let plan = Plan::make(&options).unwrap();
        assert!(plan.devices().is_empty());
        assert_eq!(plan.lcores().main(), plan.lcores().application().first().copied());
        let eal = plan.start(3 << 20).unwrap();
        assert_eq!(eal.memory().len_bytes(), 3 << 20);
        let lcore = Lcore { id: 102, ..eal.lcores().main().unwrap() };
        assert_eq!(eal.lcore(lcore).unwrap().launch(|| 7).join().unwrap(), 7);
    }

    #[test]
    fn what_is_launched_on_workers_runs_on_each_of_them_and_nowhere_else() {
        let cpu = cpu::allowed(&SysRoot::default()).unwrap()[0];
        let lcores = (0..4).map(|nth| format!("{}@{cpu}", 103 + nth)).collect::<Vec<_>>();
        let options = Options {
            no_pci: true,
            no_huge: true,
            lcores: Some(lcores.join(",").parse().unwrap()),
            main_lcore: Some(104),
            service_lcores: "106".parse().unwrap(),
            ..Options::default()
        };
        let eal = Plan::make(&options).unwrap().start(1 << 20).unwrap();
        let ids = |lcores: &[Lcore]| lcores.iter().map(|lcore| lcore.id).collect::<Vec<_>>();
        assert_eq!(ids(eal.lcores().application()), [103, 104, 105]);
        assert_eq!(ids(eal.lcores().service()), [106]);
        let handles = eal
            .launch_workers(|lcore| move || (lcore.id, crate::sys::lcore_id::current()))
            .unwrap();
        assert_eq!(wait_all(handles).unwrap(), [(103, Some(103)), (105, Some(105))]);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_before_anything_is_taken() {
        let allow = vec!["dead:be:1f.7".parse().unwrap()];
        let error = Plan::make(&Options { allow, ..Options::default() }).unwrap_err();
        assert!(error.to_string().starts_with("-a dead:be:1f.7: "), "{error}");
    }

    #[test]
    fn a_device_in_the_kernels_hands_is_an_error_before_anything_is_taken() {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("/proc/self/status", "Cpus_allowed_list:\t0\n");
        let device = "/sys/bus/pci/devices/0000:03:00.0";
        write(&format!("{device}/vendor"), "0x1af4\n");
        write(&format!("{device}/device"), "0x1041\n");
        write(&format!("{device}/class"), "0x020000\n");
        let options = Options { allow: vec!["03:00.0".parse().unwrap()], ..Options::default() };
        let error = |root: &SysRoot| {
            let plan = Plan::make_on(&options, root.clone()).unwrap();
            assert!(plan.is_named(&plan.devices()[0]));
            plan.start(0).unwrap_err().to_string()
        };
        let mend = "`scripts/devbind.sh -b vfio-pci 0000:03:00.0`";
        let unbound = error(&root);
        assert!(unbound.contains("no driver") && unbound.contains(mend), "{unbound}");
        let link = root.path(format!("{device}/driver"));
        std::os::unix::fs::symlink("../../drivers/virtio-pci", link).unwrap();
        let bound = error(&root);
        assert!(bound.contains("virtio-pci") && bound.contains(mend), "{bound}");
    }
}
