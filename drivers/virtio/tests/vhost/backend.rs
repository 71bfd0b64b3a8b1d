//! A vhost-user back end in this process: the protocol by the `vhost` crate, split rings by
//! `virtio-queue`, packed rings by [`crate::packed`].
//!
//! It moves when the test calls it; only the socket has a thread.

use std::fs::File;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::packed::Packed;

pub(crate) const HEADER_BYTES: usize = 12;
pub(crate) const F_MRG_RXBUF: u64 = 1 << 15;
pub(crate) const F_MQ: u64 = 1 << 22;
pub(crate) const F_INDIRECT: u64 = 1 << 28;
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
pub(crate) const F_PROTOCOL: u64 = 1 << 30;
pub(crate) const F_VERSION_1: u64 = 1 << 32;
pub(crate) const F_PACKED: u64 = 1 << 34;
pub(crate) const F_IN_ORDER: u64 = 1 << 35;
/// All that it knows.
pub(crate) const ALL: u64 = F_MRG_RXBUF
    | F_MQ
    | F_INDIRECT
    | F_EVENT_IDX
    | F_PROTOCOL
    | F_VERSION_1
    | F_PACKED
    | F_IN_ORDER;

/// Checksums and long TCP frames, both ways; not in [`ALL`], as they are taken when asked for.
pub(crate) const F_CSUM: u64 = 1 << 0;
pub(crate) const F_GUEST_CSUM: u64 = 1 << 1;
pub(crate) const F_GUEST_TSO: u64 = 1 << 7 | 1 << 8;
pub(crate) const F_HOST_TSO: u64 = 1 << 11 | 1 << 12;
pub(crate) const OFFLOADS: u64 = F_CSUM | F_GUEST_CSUM | F_GUEST_TSO | F_HOST_TSO;

const QUEUES: usize = 4;

/// The test's hand on it.
pub(crate) struct BackEnd {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    offered: u64,
    features: u64,
    socket: Option<UnixStream>,
    memory: Option<GuestMemoryMmap>,
    regions: Vec<VhostUserMemoryRegion>,
    queues: Vec<Ring>,
}

/// One queue.
#[derive(Default)]
struct Ring {
    size: u16,
    /// Descriptors, used, available: guest addresses.
    areas: [u64; 3],
    base: u32,
    kicked: bool,
    enabled: bool,
    split: Option<Queue>,
    packed: Option<Packed>,
    /// What it rings, if there is anything.
    call: Option<File>,
    event_index: bool,
    /// Calls so far.
    calls: u64,
}

impl Ring {
    /// Calls the driver, if it wants to be called for what was just completed.
    fn call(&mut self, memory: &GuestMemoryMmap) {
        let driver_area = GuestAddress(self.areas[2]);
        let wanted = match &mut self.split {
            // By the oracle; without event indexes it leaves the flag to its user.
            Some(queue) if self.event_index => queue.needs_notification(memory).unwrap(),
            Some(_) => memory.read_obj::<u16>(driver_area).unwrap() & 1 == 0,
            None => memory.read_obj::<u32>(driver_area).unwrap() >> 16 & 3 == 0,
        };
        if let Some(call) = &mut self.call
            && wanted
        {
            call.write_all(&1_u64.to_ne_bytes()).unwrap();
            self.calls += 1;
        }
    }
}

/// Where connections come from.
pub(crate) enum Meeting {
    /// The front end connects.
    Listen(UnixListener),
    /// We connect.
    Connect(PathBuf),
}

impl Meeting {
    pub(crate) fn listen(path: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        Self::Listen(UnixListener::bind(path).unwrap())
    }
}

impl BackEnd {
    /// Serves one connection of `meeting`, on a thread.
    pub(crate) fn serve(meeting: Meeting, offered: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            offered,
            features: 0,
            socket: None,
            memory: None,
            regions: Vec::new(),
            queues: (0..QUEUES).map(|_| Ring::default()).collect(),
        }));
        let its_state = state.clone();
        let thread = std::thread::spawn(move || {
            let stream = match meeting {
                Meeting::Listen(listener) => listener.accept().unwrap().0,
                Meeting::Connect(path) => connect(&path),
            };
            its_state.lock().unwrap().socket = Some(stream.try_clone().unwrap());
            let mut handler = BackendReqHandler::from_stream(stream, its_state.clone());
            while handler.handle_request().is_ok() {}
            // As one that dies: it lets go of the memory before its end is closed.
            let mut state = its_state.lock().unwrap();
            state.memory = None;
            state.queues = (0..QUEUES).map(|_| Ring::default()).collect();
            state.socket = None;
        });
        Self { state, thread: Some(thread) }
    }

    /// Dies.
    pub(crate) fn kill(mut self) {
        if let Some(socket) = self.lock().socket.take() {
            // Reading ends, and with it the thread; closing is what the front end sees.
            socket.shutdown(Shutdown::Read).unwrap();
        }
        self.thread.take().unwrap().join().unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn features(&self) -> u64 {
        self.lock().features
    }

    /// Queues that are enabled and known.
    pub(crate) fn ready(&self) -> usize {
        self.lock().queues.iter().filter(|ring| ring.enabled && ring.kicked).count()
    }

    /// Puts a frame into receive queue `pair`, over as many buffers as it takes; whether there were
    /// enough.
    pub(crate) fn receive(&self, pair: usize, frame: &[u8]) -> bool {
        self.lock().receive(2 * pair, [0; 10], frame)
    }

    /// The same, with what its header says before `num_buffers`.
    pub(crate) fn receive_as(&self, pair: usize, says: [u8; 10], frame: &[u8]) -> bool {
        self.lock().receive(2 * pair, says, frame)
    }

    /// Takes all frames of transmit queue `pair`.
    pub(crate) fn transmitted(&self, pair: usize) -> Vec<Vec<u8>> {
        let mut frames = self.transmitted_raw(pair);
        for frame in &mut frames {
            let header: Vec<u8> = frame.drain(..HEADER_BYTES).collect();
            assert_eq!(header, [0; HEADER_BYTES], "asks for nothing");
        }
        frames
    }

    /// The same, with their headers in front.
    pub(crate) fn transmitted_raw(&self, pair: usize) -> Vec<Vec<u8>> {
        self.lock().transmitted(2 * pair + 1)
    }

    /// What the packed ring of a queue is like, to lie with.
    pub(crate) fn with_packed<T>(
        &self,
        queue: usize,
        act: impl FnOnce(&mut Packed, &GuestMemoryMmap) -> T,
    ) -> T {
        let state = &mut *self.lock();
        let memory = state.memory.as_ref().unwrap();
        act(state.queues[queue].packed.as_mut().unwrap(), memory)
    }

    /// Writes an entry of a split queue's used ring and its index, as they are.
    pub(crate) fn lie_split(&self, queue: usize, at: u16, id: u32, len: u32, index: u16) {
        let state = &*self.lock();
        let (ring, memory) = (&state.queues[queue], state.memory.as_ref().unwrap());
        let entry = ring.areas[1] + 4 + 8 * u64::from(at % ring.size);
        memory.write_obj(id, GuestAddress(entry)).unwrap();
        memory.write_obj(len, GuestAddress(entry + 4)).unwrap();
        memory.write_obj(index, GuestAddress(ring.areas[1] + 2)).unwrap();
    }

    /// Times that it has called for a queue.
    pub(crate) fn calls(&self, queue: usize) -> u64 {
        self.lock().queues[queue].calls
    }

    /// Waits until it has been told of so many queues.
    pub(crate) fn wait_for(&self, queues: usize) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.ready() < queues {
            assert!(Instant::now() < until, "the front end doesn't come: {} queues", self.ready());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn connect(path: &Path) -> UnixStream {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A header that says something, for a frame in `count` buffers.
pub(crate) fn header(says: [u8; 10], count: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..10].copy_from_slice(&says);
    header[10..].copy_from_slice(&count.to_le_bytes());
    header
}

impl State {
    fn guest(&self, user: u64) -> Result<u64> {
        let region = self.regions.iter().find(|region| {
            (region.user_addr..region.user_addr + region.memory_size).contains(&user)
        });
        region
            .map(|region| user - region.user_addr + region.guest_phys_addr)
            .ok_or(Error::InvalidParam)
    }

    fn mergeable(&self) -> bool {
        self.features & F_MRG_RXBUF != 0
    }

    fn receive(&mut self, queue: usize, says: [u8; 10], frame: &[u8]) -> bool {
        let mergeable = self.mergeable();
        let ring = &mut self.queues[queue];
        let Some(memory) = &self.memory else { return false };
        if !ring.enabled || !ring.kicked {
            return false;
        }
        if let Some(packed) = &mut ring.packed {
            let done = packed.receive(memory, says, frame, mergeable);
            if done {
                ring.call(memory);
            }
            return done;
        }
        let Some(split) = &mut ring.split else { return false };
        // As many buffers as the frame takes, or none.
        let (mut rest, mut buffers) = (HEADER_BYTES + frame.len(), Vec::new());
        while rest != 0 {
            let Some(chain) = split.pop_descriptor_chain(memory) else { break };
            let head = chain.head_index();
            let parts: Vec<_> = chain.collect();
            assert!(
                parts.iter().all(virtio_queue::desc::split::Descriptor::is_write_only),
                "receive buffers are written to"
            );
            let room: usize = parts.iter().map(|part| part.len() as usize).sum();
            let used = room.min(rest);
            rest -= used;
            buffers.push((head, parts[0].addr(), used));
        }
        if rest != 0 || buffers.len() > 1 && !mergeable {
            for _ in &buffers {
                split.go_to_previous_position();
            }
            return false;
        }
        let mut bytes = header(says, buffers.len() as u16).to_vec();
        bytes.extend(frame);
        let mut bytes = &bytes[..];
        for (head, at, len) in buffers {
            memory.write_slice(&bytes[..len], at).unwrap();
            bytes = &bytes[len..];
            split.add_used(memory, head, len as u32).unwrap();
        }
        ring.call(memory);
        true
    }

    fn transmitted(&mut self, queue: usize) -> Vec<Vec<u8>> {
        let ring = &mut self.queues[queue];
        let Some(memory) = &self.memory else { return Vec::new() };
        let mut frames = Vec::new();
        if let Some(packed) = &mut ring.packed {
            while let Some(frame) = packed.transmitted(memory) {
                frames.push(frame);
            }
        }
        if let Some(split) = &mut ring.split {
            while let Some(chain) = split.pop_descriptor_chain(memory) {
                let head = chain.head_index();
                let mut bytes = Vec::new();
                for part in chain {
                    assert!(!part.is_write_only(), "what is sent is read");
                    let mut buffer = vec![0; part.len() as usize];
                    memory.read_slice(&mut buffer, part.addr()).unwrap();
                    bytes.extend(buffer);
                }
                split.add_used(memory, head, 0).unwrap();
                frames.push(bytes);
            }
        }
        frames
    }

    /// A ring begins with its kick, as the protocol says.
    fn begin(&mut self, index: usize) -> Result<()> {
        let packed = self.features & F_PACKED != 0;
        let event_index = self.features & F_EVENT_IDX != 0;
        let ring = &mut self.queues[index];
        let [descriptors, used, available] = ring.areas;
        ring.event_index = event_index;
        if packed {
            assert_eq!(ring.base & 0xffff, 0x8000, "at the beginning, wrap counter 1");
            ring.packed = Some(Packed::new(descriptors, ring.size));
            return Ok(());
        }
        let mut queue = Queue::new(ring.size).map_err(|_| Error::InvalidParam)?;
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(used);
        queue.set_used_ring_address(low, high);
        queue.set_size(ring.size);
        queue.set_event_idx(event_index);
        queue.set_next_avail(ring.base as u16);
        queue.set_next_used(ring.base as u16);
        queue.set_ready(true);
        assert!(queue.is_valid(self.memory.as_ref().unwrap()), "the ring lies in shared memory");
        ring.split = Some(queue);
        Ok(())
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        self.queues.get_mut(index as usize).ok_or(Error::InvalidParam)
    }
}

impl VhostUserBackendReqHandlerMut for State {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let ranges: Vec<_> = regions
            .iter()
            .zip(files)
            .map(|(region, file)| {
                let offset = FileOffset::new(file, region.mmap_offset);
                let start = GuestAddress(region.guest_phys_addr);
                (start, region.memory_size as usize, Some(offset))
            })
            .collect();
        self.regions = regions.to_vec();
        self.memory = Some(GuestMemoryMmap::from_ranges_with_files(ranges).unwrap());
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.ring(index)?.size = num.try_into().map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let areas = [self.guest(descriptor)?, self.guest(used)?, self.guest(available)?];
        self.ring(index)?.areas = areas;
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index)?;
        *ring = Ring::default();
        Ok(VhostUserVringState::new(index, 0))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        assert!(fd.is_some());
        self.ring(index.into())?.kicked = true;
        self.begin(index.into())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, _index: u8, _fd: Option<File>) -> Result<()> {
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64 / 2)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        Ok(())
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("not offered"))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("not offered"))
    }
}
