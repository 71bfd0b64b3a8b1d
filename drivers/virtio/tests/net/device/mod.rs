//! A virtio-net PCI function (virtio 1.3, 4.1 and 5.1), modern only.
//!
//! [`NetDevice`] is the test's hand on it: frames in and out, and faults. The driver gets it as a
//! [`packetboat::bus::Device`]. There is no thread in it: it moves when the test calls it, except
//! that a doorbell of the control queue is answered at once.

mod config_space;
mod queues;
mod registers;

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat::bus::{BusError, Device, EventFd, PciIds, Quiesced};
use packetboat::memory::Memory;
use packetboat::mmio::{Region, Width};
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring as ring;
use virtio_queue::{Queue, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) use config_space::Capabilities;
pub(crate) use queues::{Buffer, HEADER_BYTES as RX_HEADER_BYTES};

/// What the device is; fixed when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The function's address.
    pub(crate) name: &'static str,
    /// Entries of each receive and transmit queue at most; any number.
    pub(crate) queue_size: u16,
    pub(crate) queue_pairs: u16,
    /// Feature bits that it offers.
    pub(crate) offered: u64,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    /// 0: no MSI-X capability.
    pub(crate) msix_vectors: u16,
    pub(crate) capabilities: Capabilities,
}

/// A set of feature bits.
pub(crate) const fn bits(numbers: &[u32]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < numbers.len() {
        set |= 1 << numbers[at];
        at += 1;
    }
    set
}

/// What the driver knows and this device does.
pub(crate) const KNOWN: u64 = bits(&[
    net::VIRTIO_NET_F_MTU,
    net::VIRTIO_NET_F_MAC,
    net::VIRTIO_NET_F_MRG_RXBUF,
    net::VIRTIO_NET_F_STATUS,
    net::VIRTIO_NET_F_CTRL_VQ,
    net::VIRTIO_NET_F_CTRL_RX,
    net::VIRTIO_NET_F_MQ,
    config::VIRTIO_F_VERSION_1,
    config::VIRTIO_F_ACCESS_PLATFORM,
]);
/// What the driver knows of rings.
pub(crate) const RINGS: u64 = bits(&[
    ring::VIRTIO_RING_F_INDIRECT_DESC,
    ring::VIRTIO_RING_F_EVENT_IDX,
    config::VIRTIO_F_RING_PACKED,
    config::VIRTIO_F_IN_ORDER,
]);
/// What the driver takes besides, wherever it is offered.
pub(crate) const COMMANDS: u64 = bits(&[
    net::VIRTIO_NET_F_CTRL_MAC_ADDR,
    net::VIRTIO_NET_F_GUEST_ANNOUNCE,
    net::VIRTIO_NET_F_RSS,
]);
pub(crate) const RING_RESET: u64 = bits(&[config::VIRTIO_F_RING_RESET]);
pub(crate) const CTRL_VLAN: u64 = bits(&[net::VIRTIO_NET_F_CTRL_VLAN]);
pub(crate) const MRG_RXBUF: u64 = bits(&[net::VIRTIO_NET_F_MRG_RXBUF]);

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "0000:00:00.0",
            queue_size: 256,
            queue_pairs: 1,
            offered: KNOWN,
            mac: [0x02, 0, 0, 0, 0, 0x2a],
            mtu: 1500,
            msix_vectors: 3,
            capabilities: Capabilities::Modern,
        }
    }
}

/// What the device does wrong, from now on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Takes FEATURES_OK back.
    pub(crate) refuses_features: bool,
    /// Never comes to an end of its reset.
    pub(crate) reset_hangs: bool,
    /// The function can't be reset.
    pub(crate) function_reset_fails: bool,
    /// So many more reads of the configuration generation give a new one.
    pub(crate) generation_changes: u32,
    /// Keeps a queue at its size, whatever is written.
    pub(crate) keeps_queue_size: bool,
    /// Has no vector to give for configuration changes.
    pub(crate) no_config_vector: bool,
    /// Queues' doorbells lie beyond the notification registers.
    pub(crate) doorbell_beyond: bool,
    pub(crate) ignores_commands: bool,
    pub(crate) refuses_commands: bool,
    /// Answers a command as another one than was given.
    pub(crate) answers_wrong_id: bool,
}

/// The test's hand on the device.
#[derive(Clone)]
pub(crate) struct NetDevice(Arc<Shared>);

/// The device as the driver gets it.
struct Function(Arc<Shared>);

struct Shared {
    options: Options,
    memory: GuestMemoryMmap,
    /// Reads as all ones.
    gone: AtomicBool,
    removal_requested: AtomicBool,
    kicks: AtomicU64,
    state: Mutex<State>,
}

struct State {
    config_space: [u8; 256],
    bus_master: bool,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<VirtQueue>,
    generation: u8,
    link_up: bool,
    config_vector: u16,
    vectors: Vec<EventFd>,
    active_pairs: u16,
    promiscuous: bool,
    all_multicast: bool,
    commanded: Commanded,
    /// Wants to be announced.
    announce: bool,
    /// Queues that were reset alone.
    queue_resets: Vec<usize>,
    faults: Faults,
    function_resets: u32,
    violations: Vec<String>,
}

/// What it was told by commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Commanded {
    pub(crate) mac: Option<[u8; 6]>,
    /// Of stations, and of groups.
    pub(crate) addresses: [Vec<[u8; 6]>; 2],
    pub(crate) vlans: std::collections::BTreeSet<u16>,
    pub(crate) rss: Option<RssTold>,
    pub(crate) announcements: u32,
}

/// The RSS command, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RssTold {
    pub(crate) types: u32,
    pub(crate) table: Vec<u16>,
    pub(crate) tx_queues: u16,
    pub(crate) key: Vec<u8>,
}

struct VirtQueue {
    queue: Queue,
    size: u16,
    enabled: bool,
    vector: u16,
    /// Descriptor area, driver area, device area: low and high half.
    addresses: [[u32; 2]; 3],
}

impl VirtQueue {
    fn new(max_size: u16) -> Self {
        // The oracle knows powers of two only, which is what the driver has to choose.
        let power = if max_size == 0 { 1 } else { 1 << max_size.ilog2() };
        let queue = Queue::new(power).unwrap();
        Self { queue, size: max_size, enabled: false, vector: 0xffff, addresses: [[0; 2]; 3] }
    }
}

const STATUS_DRIVER_OK: u8 = config::VIRTIO_CONFIG_S_DRIVER_OK as u8;

impl NetDevice {
    /// A device that does DMA to `memory`.
    pub(crate) fn new(memory: &Memory, options: Options) -> Self {
        let ranges: Vec<(GuestAddress, usize, Option<FileOffset>)> = memory
            .segments()
            .iter()
            .flat_map(|segment| {
                let file = Arc::new(File::from(segment.file().try_clone_to_owned().unwrap()));
                segment.iova_runs().iter().map(move |run| {
                    let offset = FileOffset::from_arc(file.clone(), run.va - segment.va());
                    (GuestAddress(run.iova.0), run.len_bytes as usize, Some(offset))
                })
            })
            .collect();
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let mut state = State {
            config_space: config_space::build(&options),
            bus_master: false,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: Vec::new(),
            generation: 0,
            link_up: true,
            config_vector: 0xffff,
            vectors: Vec::new(),
            active_pairs: 1,
            promiscuous: false,
            all_multicast: false,
            commanded: Commanded::default(),
            announce: false,
            queue_resets: Vec::new(),
            faults: Faults::default(),
            function_resets: 0,
            violations: Vec::new(),
        };
        state.reset(&options);
        Self(Arc::new(Shared {
            options,
            memory,
            gone: AtomicBool::new(false),
            removal_requested: AtomicBool::new(false),
            kicks: AtomicU64::new(0),
            state: Mutex::new(state),
        }))
    }

    /// For the driver.
    pub(crate) fn function(&self) -> Box<dyn Device> {
        Box::new(Function(self.0.clone()))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.state().faults = faults;
    }

    /// What the driver did against the specification.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.state().violations.clone()
    }

    /// After lies: a device that completes what it never took can't blame the driver for offering
    /// it again.
    pub(crate) fn forget_violations(&self) {
        self.0.state().violations.clear();
    }

    pub(crate) fn driver_features(&self) -> u64 {
        self.0.state().driver_features
    }

    pub(crate) fn status(&self) -> u8 {
        self.0.state().status
    }

    pub(crate) fn add_status(&self, bits: u8) {
        self.0.state().status |= bits;
    }

    pub(crate) fn active_pairs(&self) -> u16 {
        self.0.state().active_pairs
    }

    /// Promiscuous, and receiving all multicast frames.
    pub(crate) fn filters(&self) -> (bool, bool) {
        let state = self.0.state();
        (state.promiscuous, state.all_multicast)
    }

    pub(crate) fn commanded(&self) -> Commanded {
        self.0.state().commanded.clone()
    }

    pub(crate) fn queue_resets(&self) -> Vec<usize> {
        self.0.state().queue_resets.clone()
    }

    /// It has moved, and wants the network to know.
    pub(crate) fn want_announcement(&self) {
        self.0.state().announce = true;
    }

    pub(crate) fn bus_master(&self) -> bool {
        self.0.state().bus_master
    }

    pub(crate) fn function_resets(&self) -> u32 {
        self.0.state().function_resets
    }

    /// Entries that queue `index` was set up with.
    pub(crate) fn queue_size(&self, index: usize) -> u16 {
        self.0.state().queues[index].size
    }

    /// Doorbells rung so far.
    pub(crate) fn kicks(&self) -> u64 {
        self.0.kicks.load(Ordering::Relaxed)
    }

    /// The cable in or out; tells the driver by interrupt, if it wants to be told.
    pub(crate) fn set_link(&self, up: bool) {
        let mut state = self.0.state();
        state.link_up = up;
        state.generation = state.generation.wrapping_add(1);
        if let Some(vector) = state.vectors.get(usize::from(state.config_vector)) {
            vector.write(1).unwrap();
        }
    }

    /// Out of its slot: all reads give ones.
    pub(crate) fn vanish(&self) {
        self.0.gone.store(true, Ordering::SeqCst);
    }

    pub(crate) fn request_removal(&self) {
        self.0.removal_requested.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

impl State {
    /// The virtio device's reset (2.4): features and queues are forgotten.
    fn reset(&mut self, options: &Options) {
        self.status = 0;
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        self.config_vector = 0xffff;
        self.active_pairs = 1;
        self.promiscuous = false;
        self.all_multicast = false;
        self.commanded = Commanded::default();
        let queue = || VirtQueue::new(options.queue_size);
        self.queues = (0..2 * options.queue_pairs).map(|_| queue()).collect();
        if options.offered & bits(&[net::VIRTIO_NET_F_CTRL_VQ]) != 0 {
            self.queues.push(VirtQueue::new(64));
        }
    }

    fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        // One note each, or a loop of ten million fills the memory.
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    /// Whether it may read and write memory.
    fn may_dma(&self) -> bool {
        self.bus_master && self.status & STATUS_DRIVER_OK != 0
    }

    fn negotiated(&self, bit: u32) -> bool {
        self.driver_features & 1 << bit != 0
    }
}

impl Device for Function {
    fn name(&self) -> String {
        self.0.options.name.to_owned()
    }

    fn ids(&self) -> PciIds {
        PciIds { vendor: 0x1af4, device: 0x1041, ..PciIds::default() }
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        if self.0.is_gone() {
            return Ok((!0u64 >> (64 - 8 * width.len_bytes())) as u32);
        }
        let from = usize::from(offset);
        let state = self.0.state();
        match state.config_space.get(from..from + width.len_bytes()) {
            Some(bytes) if from.is_multiple_of(width.len_bytes()) => {
                Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
            }
            _ => Err(BusError::BadConfigAccess {
                device: self.name(),
                offset,
                width_bytes: width.len_bytes(),
                len_bytes: 256,
            }),
        }
    }

    fn config_write(&self, offset: u16, _: Width, value: u32) -> Result<(), BusError> {
        panic!("the driver wrote {value:#x} to configuration space at {offset:#x}");
    }

    fn bar(&self, index: u8) -> Result<Region, BusError> {
        if index != config_space::BAR {
            return Err(BusError::NoBar { device: self.name(), index, why: "it isn't there" });
        }
        let io = Arc::new(registers::Bar(self.0.clone()));
        Ok(Region::remote(io, config_space::BAR_LEN_BYTES))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.0.state().bus_master = on;
        Ok(())
    }

    fn reset(&self) -> Result<Quiesced, BusError> {
        let mut state = self.0.state();
        if state.faults.function_reset_fails {
            let why = "the test wants it so".to_owned();
            return Err(BusError::NotQuiesced { device: self.name(), why });
        }
        state.reset(&self.0.options);
        state.bus_master = false;
        state.function_resets += 1;
        Ok(Quiesced::after_reset())
    }

    fn msix_vectors(&self) -> u16 {
        self.0.options.msix_vectors
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>, BusError> {
        assert!(count <= self.0.options.msix_vectors, "more vectors than there are");
        let nonblocking = 0o4000; // EFD_NONBLOCK
        let vectors: Vec<_> = (0..count).map(|_| EventFd::new(nonblocking).unwrap()).collect();
        let given = vectors.iter().map(|vector| vector.try_clone().unwrap()).collect();
        self.0.state().vectors = vectors;
        Ok(given)
    }

    fn disable_msix(&self) -> Result<(), BusError> {
        self.0.state().vectors.clear();
        Ok(())
    }

    fn removal_requested(&self) -> bool {
        self.0.removal_requested.load(Ordering::SeqCst)
    }
}
