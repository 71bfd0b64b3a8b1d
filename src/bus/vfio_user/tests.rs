//! Against a server that others wrote (the `vfio_user` crate's), and against servers that lie.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vfio_bindings::bindings::vfio as abi;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion, SparseArea};

use super::Server;
use crate::bus::{BusError, Device};
use crate::memory::{Memory, MemoryConfig};
use crate::mmio::Width;
use crate::sys::memfd;

/// What the device's process saw.
#[derive(Default)]
struct Seen {
    mapped: Vec<(u64, u64, u64, File)>,
    unmapped: Vec<(u64, u64)>,
    resets: usize,
    writes: Vec<(u32, u64, Vec<u8>)>,
    irqs: Vec<(u32, u32, u32)>,
    vectors: Vec<File>,
    removal: Option<File>,
}

/// A PCI function of 64 KiB of registers, of which page 1 is shared.
struct Backend {
    config: [u8; 256],
    seen: Arc<Mutex<Seen>>,
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if region == abi::VFIO_PCI_CONFIG_REGION_INDEX {
            let from = offset as usize;
            data.copy_from_slice(&self.config[from..from + data.len()]);
        } else {
            data.fill(offset as u8);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if region == abi::VFIO_PCI_CONFIG_REGION_INDEX {
            let from = offset as usize;
            self.config[from..from + data.len()].copy_from_slice(data);
        }
        self.seen.lock().unwrap().writes.push((region, offset, data.to_vec()));
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        assert_eq!(flags, DmaMapFlags::READ_WRITE);
        self.seen.lock().unwrap().mapped.push((offset, address, size, fd.unwrap()));
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.seen.lock().unwrap().unmapped.push((address, size));
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.seen.lock().unwrap().resets += 1;
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        if index == abi::VFIO_PCI_REQ_IRQ_INDEX {
            assert_eq!((flags, start, count, fds.len()), (0x24, 0, 1, 1));
            seen.removal = fds.into_iter().next();
            return Ok(());
        }
        assert_eq!(index, abi::VFIO_PCI_MSIX_IRQ_INDEX);
        seen.irqs.push((flags, start, count));
        seen.vectors.extend(fds);
        Ok(())
    }
}

/// A socket with such a function behind it, for one client.
struct Rig {
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Seen>>,
    page: File,
    server: Option<thread::JoinHandle<()>>,
}

const BAR_LEN: u64 = 0x1_0000;

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let page = File::from(memfd::create("page", None).unwrap());
        page.set_len(0x4000).unwrap();
        let shared = page.try_clone().unwrap();
        let area = abi::vfio_region_sparse_mmap_area { offset: 0x1000, size: 0x1000 };
        let regions = (0..9)
            .map(|index| {
                let (size, flags) = match index {
                    0 => (BAR_LEN, 7),
                    7 => (256, 3),
                    _ => (0, 0),
                };
                let region_info = abi::vfio_region_info {
                    argsz: 32,
                    index,
                    size,
                    flags: flags | if index == 0 { abi::VFIO_REGION_INFO_FLAG_CAPS } else { 0 },
                    offset: if index == 0 { 0x2000 } else { 0 },
                    ..Default::default()
                };
                let sparse_areas = if index == 0 { vec![SparseArea { area }] } else { Vec::new() };
                let mmap_fd = (index == 0).then(|| shared.as_raw_fd());
                ServerRegion { region_info, sparse_areas, mmap_fd }
            })
            .collect();
        let irqs = [0, 0, 4, 0, 1].into_iter().zip(0..);
        let irqs = irqs.map(|(count, index)| IrqInfo { index, flags: 1, count });
        let path = folder.path().join("nic.sock");
        let server = vfio_user::Server::new(&path, true, irqs.collect(), regions).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0x86, 0x80, 0xfb, 0x10]);
        config[0x06] = 0x10;
        config[0x08..0x0c].copy_from_slice(&[1, 0, 0, 2]);
        config[0x2c..0x30].copy_from_slice(&[0x86, 0x80, 0x0c, 0]);
        config[0x34] = 0x40;
        config[0x40..0x48].copy_from_slice(&[0x01, 0x70, 3, 0, 3, 0, 0, 0]); // in D3hot
        config[0x70..0x7c].copy_from_slice(&[0x11, 0, 7, 0, 3, 0, 0, 0, 3, 0x20, 0, 0]);
        let mut backend = Backend { config, seen: seen.clone() };
        let server = thread::spawn(move || {
            let _shared = shared;
            let _ = server.run(&mut backend); // an error says that the client is gone
        });
        Self { folder, seen, page, server: Some(server) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("nic.sock")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && !thread::panicking()
        {
            server.join().unwrap();
        }
    }
}

fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(2)).unwrap()
}

#[test]
fn a_device_is_taken_and_given_back() {
    let rig = Rig::new();
    let memory = memory();
    let server = Arc::new(Server::connect(&rig.path()).unwrap());
    let ids = server.ids();
    assert_eq!((ids.vendor, ids.device, ids.class, ids.revision), (0x8086, 0x10fb, 0x02_0000, 1));
    assert_eq!((ids.subsystem_vendor, ids.subsystem_device), (0x8086, 0xc));
    assert!(rig.seen.lock().unwrap().mapped.is_empty(), "nothing is shown before it is taken");

    let device = server.open(&memory).unwrap();
    assert_eq!(device.name(), format!("vfio-user:{}", rig.path().display()));
    {
        let seen = rig.seen.lock().unwrap();
        let mapped: Vec<_> = seen.mapped.iter().map(|(o, a, s, _)| (*o, *a, *s)).collect();
        let segments = memory.segments().iter();
        let wanted: Vec<_> =
            segments.map(|segment| (0, segment.va(), segment.len_bytes() as u64)).collect();
        assert_eq!(mapped, wanted);
        // The file is the memory: what the device writes is seen here.
        seen.mapped[0].3.write_all_at(b"mail", 4096).unwrap();
    }
    let area = crate::dma::Area::new(&memory, "first", 8192, 4096, None).unwrap();
    let at = area.iova(0).0 - memory.segments()[0].va();
    rig.seen.lock().unwrap().mapped[0].3.write_all_at(b"boat", at).unwrap();
    assert_eq!(area.array::<[u8; 4]>(0, 1).unwrap().read(0), *b"boat");

    assert_eq!(device.config_read(0x44, Width::U16).unwrap(), 0, "it was woken");
    assert_eq!(device.config_read(4, Width::U16).unwrap(), 2, "memory on, bus master off");
    device.set_bus_master(true).unwrap();
    assert_eq!(device.config_read(4, Width::U16).unwrap(), 6);
    assert!(device.config_read(254, Width::U32).is_err());
    assert!(device.config_read(256, Width::U8).is_err());

    let _quiesced = device.reset().unwrap();
    drop(device);
    drop(server);
    let seen = rig.seen.lock().unwrap();
    assert_eq!(seen.resets, 1, "a device that was reset isn't reset again");
    assert_eq!(seen.unmapped.len(), seen.mapped.len());
}

#[test]
fn memory_that_is_added_later_is_shown_and_taken_back() {
    let rig = Rig::new();
    let memory = memory();
    let before = memory.add_segment(None, 4096, 4096).unwrap();
    let device = Arc::new(Server::connect(&rig.path()).unwrap()).open(&memory).unwrap();
    let mapped = || rig.seen.lock().unwrap().mapped.len();
    let shown = mapped();
    assert_eq!(shown, memory.segments().len() + 1);
    let added = memory.add_segment(None, 8192, 4096).unwrap();
    assert_eq!(mapped(), shown + 1);
    let (offset, iova, len) = {
        let seen = rig.seen.lock().unwrap();
        let (offset, iova, len, _) = seen.mapped.last().unwrap();
        (*offset, *iova, *len)
    };
    let segment = added.segment();
    assert_eq!((offset, iova, len), (0, segment.iova_runs()[0].iova.0, segment.len_bytes() as u64));
    drop(added);
    assert_eq!(rig.seen.lock().unwrap().unmapped, [(iova, len)]);
    drop(device);
    let mapped = mapped();
    assert_eq!(rig.seen.lock().unwrap().unmapped.len(), mapped);
    drop(before);
}

#[test]
fn shared_pages_are_memory_and_the_rest_goes_by_message() {
    let rig = Rig::new();
    let server = Arc::new(Server::connect(&rig.path()).unwrap());
    let device = server.open(&memory()).unwrap();
    let bar = device.bar(0).unwrap();
    assert_eq!(bar.len_bytes(), BAR_LEN);
    let before = rig.seen.lock().unwrap().writes.len();
    bar.register::<u32>(0x1018).unwrap().write(0x1122_3344);
    let mut bytes = [0; 4];
    rig.page.read_exact_at(&mut bytes, 0x2000 + 0x1018).unwrap();
    assert_eq!(bytes, [0x44, 0x33, 0x22, 0x11]);
    assert_eq!(rig.seen.lock().unwrap().writes.len(), before);

    bar.register::<u32>(0x2018).unwrap().write(0x5566_7788);
    let last = rig.seen.lock().unwrap().writes.pop().unwrap();
    assert_eq!(last, (0, 0x2018, vec![0x88, 0x77, 0x66, 0x55]));
    assert_eq!(bar.register::<u32>(0x2018).unwrap().read(), 0x1818_1818);
    assert!(matches!(device.bar(1), Err(BusError::NoBar { .. })));
    assert!(matches!(device.bar(6), Err(BusError::NoBar { .. })));
}

#[test]
fn interrupts_arrive_by_their_vectors_eventfd() {
    let rig = Rig::new();
    let server = Arc::new(Server::connect(&rig.path()).unwrap());
    let device = server.open(&memory()).unwrap();
    assert_eq!(device.msix_vectors(), 4, "the server has four, the capability eight");
    assert!(matches!(device.enable_msix(5), Err(BusError::TooFewVectors { found: 4, .. })));
    let eventfds = device.enable_msix(2).unwrap();
    {
        let mut seen = rig.seen.lock().unwrap();
        assert_eq!(seen.irqs, [(0x24, 0, 1), (0x24, 1, 1)]);
        seen.vectors[1].write_all(&3_u64.to_ne_bytes()).unwrap();
    }
    assert_eq!(eventfds[1].read().unwrap(), 3);
    assert!(eventfds[0].read().is_err(), "it doesn't wait, either");
    device.disable_msix().unwrap();
    device.disable_msix().unwrap();
    assert_eq!(rig.seen.lock().unwrap().irqs[2..], [(0x21, 0, 0)]);
}

#[test]
fn a_server_that_wants_its_device_back_says_so_once() {
    let rig = Rig::new();
    let server = Arc::new(Server::connect(&rig.path()).unwrap());
    let device = server.open(&memory()).unwrap();
    assert!(!device.removal_requested());
    let mut removal = rig.seen.lock().unwrap().removal.take().unwrap();
    removal.write_all(&1_u64.to_ne_bytes()).unwrap();
    assert!(device.removal_requested() && device.removal_requested());
    device.reset().expect("it is still there");
}

#[test]
fn nobody_there_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.sock");
    let error = Server::connect(&path).unwrap_err().to_string();
    for part in ["packetboat-softnic", "ls -l", "none.sock"] {
        assert!(error.contains(part), "{error}");
    }
}

/// A server of one connection that answers each message as `answer` says: header flags, error,
/// body; or hangs up.
fn scripted(
    path: &Path,
    answer: impl Fn(u16, &[u8]) -> Option<(u32, u32, Vec<u8>)> + Send + 'static,
) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 16];
        while stream.read_exact(&mut head).is_ok() {
            let len = u32::from_ne_bytes(head[4..8].try_into().unwrap()) as usize;
            let mut body = vec![0; len - 16];
            stream.read_exact(&mut body).unwrap();
            let command = u16::from_ne_bytes([head[2], head[3]]);
            let Some((flags, error, body)) = answer(command, &body) else { return };
            let mut message = head[..4].to_vec();
            message.extend(((16 + body.len()) as u32).to_ne_bytes());
            message.extend(flags.to_ne_bytes());
            message.extend(error.to_ne_bytes());
            message.extend(body);
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    })
}

const REPLY: u32 = 1;

fn connect_to(
    answer: impl Fn(u16, &[u8]) -> Option<(u32, u32, Vec<u8>)> + Send + 'static,
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("liar.sock");
    let server = scripted(&path, answer);
    let error = Server::connect(&path).unwrap_err().to_string();
    server.join().unwrap();
    error
}

#[test]
fn servers_that_lie_are_errors_that_name_the_question() {
    let version = |body: Vec<u8>| move |_: u16, _: &[u8]| Some((REPLY, 0, body.clone()));
    let error = connect_to(version(vec![1, 0, 0, 0]));
    assert!(error.contains("version 1.0"), "{error}");
    let error = connect_to(version(vec![0, 0]));
    assert!(error.contains("VFIO_USER_VERSION makes no sense: it is too short"), "{error}");
    let error = connect_to(|_, _| Some((2, 0, Vec::new())));
    assert!(error.contains("another question"), "{error}");
    let error = connect_to(|_, _| Some((REPLY | 1 << 5, 22, Vec::new())));
    assert!(error.contains("refuses VFIO_USER_VERSION: Invalid argument"), "{error}");
    let error = connect_to(|_, _| None);
    assert!(error.contains("the server is gone (VFIO_USER_VERSION"), "{error}");
    let then = |info: Vec<u8>| {
        move |command: u16, _: &[u8]| match command {
            1 => Some((REPLY, 0, vec![0, 0, 1, 0])),
            _ => Some((REPLY, 0, info.clone())),
        }
    };
    let error = connect_to(then(vec![0; 8]));
    assert!(error.contains("VFIO_USER_DEVICE_GET_INFO makes no sense"), "{error}");
    let error = connect_to(then(vec![0xff; 16]));
    assert!(error.contains("isn't a PCI function"), "{error}");
    // An answer that is only commands of the server's own.
    let error = connect_to(|_, _| Some((0, 0, Vec::new())));
    assert!(error.contains("gone") || error.contains("commands of its own"), "{error}");
}

#[test]
fn a_server_that_goes_away_is_a_device_that_was_pulled_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nic.sock");
    // Version, info, config region, then ids and capabilities of zeros; it ends at the reset.
    let server = scripted(&path, |command, body| match command {
        1 => Some((REPLY, 0, vec![0, 0, 1, 0])),
        4 => Some((REPLY, 0, [16_u32, 3, 9, 5].map(u32::to_ne_bytes).concat())),
        5 => {
            let mut info = [32_u32, 3, 7, 0].map(u32::to_ne_bytes).concat();
            info.extend(0x100_u64.to_ne_bytes());
            info.extend(0_u64.to_ne_bytes());
            Some((REPLY, 0, info))
        }
        7 => Some((REPLY, 0, [16_u32, 0, 4, 0].map(u32::to_ne_bytes).concat())),
        9 => {
            let mut answer = body[..16].to_vec();
            answer.resize(16 + body[12] as usize, 0);
            Some((REPLY, 0, answer))
        }
        10 => Some((REPLY, 0, body[..16].to_vec())),
        13 => None,
        _ => Some((REPLY, 0, Vec::new())),
    });
    let device = Arc::new(Server::connect(&path).unwrap()).open(&memory()).unwrap();
    let bar = device.bar(0).unwrap();
    assert_eq!(bar.register::<u32>(8).unwrap().read(), 0);
    assert!(!device.removal_requested());
    device.reset().expect("what doesn't run does no DMA");
    server.join().unwrap();
    let start = Instant::now();
    while !device.removal_requested() {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(bar.register::<u32>(8).unwrap().read(), u32::MAX, "as on a bus");
    bar.register::<u32>(8).unwrap().write(1);
    let error = device.config_read(0, Width::U32).unwrap_err();
    assert!(error.to_string().contains("start it again"), "{error}");
}
