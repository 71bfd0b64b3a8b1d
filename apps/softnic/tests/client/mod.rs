//! A small vfio-user client and driver: enough to hold softnic to its word, in tests and measurements.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by tests, which use parts of it"
)]

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

use packetboat::sys::memfd;
use packetboat_softnic::device::{Device, Identity, WhenFull};
use packetboat_softnic::nic::{Manner, Nic};
use packetboat_softnic::registers::at;
use packetboat_softnic::wire::Wire;
use packetboat_softnic::{plugs, server};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

pub const IOVA: u64 = 0x1_0000_0000;

/// A softnic of one NIC, in this process.
pub struct Softnic {
    pub nic: Arc<Nic>,
    pub folder: tempfile::TempDir,
    threads: Vec<JoinHandle<()>>,
}

impl Softnic {
    /// With both of its threads.
    pub fn start(wire: &str, when_full: WhenFull, manner: Manner) -> Self {
        let mut softnic = Self::still(wire, when_full, manner);
        softnic.move_frames();
        softnic
    }

    /// From now on frames move by themselves.
    pub fn move_frames(&mut self) {
        let nic = Arc::clone(&self.nic);
        self.threads.push(std::thread::spawn(move || nic.move_frames()));
    }

    /// Without the thread that moves frames: whoever measures moves them.
    pub fn still(wire: &str, when_full: WhenFull, manner: Manner) -> Self {
        Self::with(wire, when_full, manner, false)
    }

    /// With rings that are filled and emptied inside doorbells, or not.
    pub fn with(wire: &str, when_full: WhenFull, manner: Manner, full_rings: bool) -> Self {
        let wire = plugs::plug(&[wire.to_owned()]).unwrap().remove(0);
        Self::plugged(wire, when_full, manner, full_rings)
    }

    /// Plugged into any wire.
    pub fn plugged(
        wire: Box<dyn Wire>,
        when_full: WhenFull,
        manner: Manner,
        full_rings: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity {
            device_id: 0x10fb,
            mac: [2, 0, 0, 0, 0, 1],
            when_full,
            trust_clients: false,
            full_rings,
        };
        let device = Device::new(identity, wire).unwrap();
        let nic = Arc::new(Nic::new("nic 0".into(), device, manner).unwrap());
        let listener = server::listen(&folder.path().join("s")).unwrap();
        let server = Arc::clone(&nic);
        let threads = vec![std::thread::spawn(move || server::serve(&server, &listener))];
        Self { nic, folder, threads }
    }

    pub fn stream(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("s")).unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(self.stream())
    }

    pub fn stat(&self, name: &str) -> u64 {
        let device = self.nic.device();
        let text = device.tally.lines() + &device.wire().report();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }
}

impl Drop for Softnic {
    fn drop(&mut self) {
        self.nic.stop();
        for thread in self.threads.drain(..) {
            let done = thread.join();
            assert!(done.is_ok() || std::thread::panicking(), "a thread of softnic panicked");
        }
    }
}

/// A client that has agreed on the version.
pub struct Client {
    pub stream: UnixStream,
    id: u16,
}

/// `Err`: the error number, or `None` if the connection is over.
pub type Answer = Result<(Vec<u8>, Vec<OwnedFd>), Option<u32>>;

pub fn message(id: u16, command: u16, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&command.to_le_bytes());
    for word in [16 + body.len() as u32, flags, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

pub fn receive(stream: &UnixStream) -> Answer {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0u8; 16];
    let mut pieces = [IoSliceMut::new(&mut header)];
    let received = recvmsg(stream, &mut pieces, &mut control, RecvFlags::WAITALL);
    if !received.is_ok_and(|received| received.bytes == 16) {
        return Err(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(4) as usize - 16];
    let mut from = stream;
    from.read_exact(&mut body).map_err(|_| None)?;
    if word(8) & 0x20 != 0 { Err(Some(word(12))) } else { Ok((body, fds)) }
}

impl Client {
    pub fn new(stream: UnixStream) -> Self {
        let mut client = Self { stream, id: 0 };
        let mut body = vec![0, 0, 1, 0];
        body.extend_from_slice(b"{}\0");
        client.ask(1, &body, &[]).unwrap();
        client
    }

    pub fn ask(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
        self.id = self.id.wrapping_add(1);
        if !send(&self.stream, &message(self.id, command, 0, body), fds) {
            return Err(None);
        }
        receive(&self.stream)
    }

    pub fn map(&mut self, iova: u64, len: u64, memory: BorrowedFd<'_>) -> Result<(), Option<u32>> {
        let mut body = words(&[32, 3]);
        for word in [0, iova, len] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        self.ask(2, &body, &[memory]).map(|_| ())
    }

    pub fn region(&mut self, region: u32, offset: u64, count: u32) -> Answer {
        let mut body = offset.to_le_bytes().to_vec();
        body.extend_from_slice(&words(&[region, count]));
        self.ask(9, &body, &[])
    }

    pub fn read(&mut self, offset: u32) -> u32 {
        let (body, _) = self.region(0, u64::from(offset), 4).unwrap();
        u32::from_le_bytes(body[16..20].try_into().unwrap())
    }

    pub fn write_region(&mut self, region: u32, offset: u64, bytes: &[u8]) {
        let mut body = offset.to_le_bytes().to_vec();
        body.extend_from_slice(&words(&[region, bytes.len() as u32]));
        body.extend_from_slice(bytes);
        self.ask(10, &body, &[]).unwrap();
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        self.write_region(0, u64::from(offset), &value.to_le_bytes());
    }

    /// Bus master and transmitter on, promiscuous. The receiver comes last, when it has a queue.
    pub fn switch_on(&mut self) {
        self.write_region(7, 4, &[6, 0]);
        self.write(at::FCTRL, 0x700);
        self.write(at::HLREG0, 0x407);
        self.write(at::MAXFRS, 9728 << 16);
        self.write(at::DMATXCTL, 1);
    }
}

/// Memory that both sides see.
pub struct Memory {
    pub region: MmapRegion,
    pub file: OwnedFd,
}

impl Memory {
    pub fn new(len: usize) -> Self {
        let file = memfd::create("client", None).unwrap();
        memfd::allocate(file.as_fd(), len as u64).unwrap();
        memfd::seal_size(file.as_fd()).unwrap();
        Self::of(file, len)
    }

    pub fn of(file: OwnedFd, len: usize) -> Self {
        let offset = FileOffset::new(std::fs::File::from(file.try_clone().unwrap()), 0);
        Self { region: MmapRegion::from_file(offset, len).unwrap(), file }
    }

    pub fn word(&self, at: usize) -> &AtomicU64 {
        self.region.get_atomic_ref(at).unwrap()
    }

    pub fn register(&self, at: u32) -> &AtomicU32 {
        self.region.get_atomic_ref(at as usize).unwrap()
    }

    pub fn fill(&self, at: usize, bytes: &[u8]) {
        self.region.get_slice(at, bytes.len()).unwrap().copy_from(bytes);
    }
}

pub const BUFFER: usize = 2048;

/// One queue pair that sends each frame on that it gets: buffers go from ring to ring.
pub struct Forwarder {
    pub memory: Memory,
    pages: Option<Memory>,
    ring: u32,
    rx_next: u32,
    tx_next: u32,
    tx_done: u32,
    pub forwarded: u64,
}

impl Forwarder {
    pub fn new(client: &mut Client, ring: u32, share: bool) -> Self {
        let len = (2 * ring as usize * 16 + ring as usize * BUFFER).next_multiple_of(4096);
        let memory = Memory::new(len);
        client.map(IOVA, len as u64, memory.file.as_fd()).unwrap();
        client.switch_on();
        for (base, at) in [(at::RDBAL, 0), (at::TDBAL, ring * 16)] {
            client.write(base, IOVA as u32 + at);
            client.write(base + 4, (IOVA >> 32) as u32);
            client.write(base + 8, ring * 16);
            client.write(base + 0x28, 1 << 25);
        }
        client.write(at::SRRCTL, 2 | 1 << 25);
        let pages = share.then(|| {
            let (_, mut fds) = client.ask(5, &words(&[4096, 0, 0, 0, 0, 0, 0, 0]), &[]).unwrap();
            Memory::of(fds.pop().unwrap(), 128 << 10)
        });
        let forwarder =
            Self { memory, pages, ring, rx_next: 0, tx_next: 0, tx_done: 0, forwarded: 0 };
        for n in 0..ring {
            forwarder.lend(n);
        }
        forwarder.bell(client, at::RDT, ring - 1);
        client.write(at::RXCTRL, 1);
        forwarder
    }

    fn lend(&self, n: u32) {
        let at = n as usize * 16;
        let buffer = IOVA + u64::from(2 * self.ring * 16) + u64::from(n) * BUFFER as u64;
        self.memory.word(at).store(buffer, Ordering::Relaxed);
        self.memory.word(at + 8).store(0, Ordering::Relaxed);
    }

    fn bell(&self, client: &mut Client, offset: u32, value: u32) {
        match &self.pages {
            Some(pages) => pages.register(offset).store(value, Ordering::Release),
            None => client.write(offset, value),
        }
    }

    /// Pretends that frames of 60 bytes have come, so that something goes round: the device skips
    /// their descriptors.
    pub fn inject(&mut self, client: &mut Client, count: u32) {
        client.write(at::RXCTRL, 0);
        client.write(at::RXDCTL, 0);
        client.write(at::RDH, count);
        client.write(at::RXDCTL, 1 << 25);
        for n in 0..count {
            let buffer = 2 * self.ring as usize * 16 + n as usize * BUFFER;
            self.memory.fill(buffer, &[0x55; 60]);
            self.memory.fill(buffer, &[2, 0, 0, 0, 0, 1]);
            self.memory.word(n as usize * 16 + 8).store(1 | 60 << 32, Ordering::Release);
        }
        client.write(at::RXCTRL, 1);
    }

    /// Up to 32 frames. A buffer is lent again when its frame has left: the rings go in step.
    pub fn poll(&mut self, client: &mut Client) -> u32 {
        let mut count = 0;
        while count < 32 {
            let at = self.rx_next as usize * 16;
            let status = self.memory.word(at + 8).load(Ordering::Acquire);
            if status & 1 == 0 || (self.tx_next + 1) % self.ring == self.tx_done {
                break;
            }
            let len = status >> 32 & 0xffff;
            let buffer =
                IOVA + u64::from(2 * self.ring * 16) + u64::from(self.rx_next) * BUFFER as u64;
            let out = (self.ring + self.tx_next) as usize * 16;
            self.memory.word(out).store(buffer, Ordering::Relaxed);
            let command = len | 0x2b30_0000 | len << 46;
            self.memory.word(out + 8).store(command, Ordering::Relaxed);
            self.memory.word(at + 8).store(0, Ordering::Relaxed);
            self.rx_next = (self.rx_next + 1) % self.ring;
            self.tx_next = (self.tx_next + 1) % self.ring;
            count += 1;
        }
        if count > 0 {
            self.bell(client, at::TDT, self.tx_next);
        }
        let before = self.tx_done;
        while self.tx_done != self.tx_next {
            let out = (self.ring + self.tx_done) as usize * 16;
            if self.memory.word(out + 8).load(Ordering::Acquire) >> 32 & 1 == 0 {
                break;
            }
            self.lend(self.tx_done);
            self.tx_done = (self.tx_done + 1) % self.ring;
            self.forwarded += 1;
        }
        if self.tx_done != before {
            self.bell(client, at::RDT, (self.tx_done + self.ring - 1) % self.ring);
        }
        count
    }
}

pub fn connect(path: &Path) -> Client {
    Client::new(UnixStream::connect(path).unwrap())
}
