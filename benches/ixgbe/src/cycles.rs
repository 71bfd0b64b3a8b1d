//! Cycles per frame of the driver on softnic, and what softnic itself moves, all on one core and
//! without a VM: `bench-ixgbe-cycles [ROUNDS] [--no-huge]`.
//!
//! Driver and device take turns on one thread. First softnic fills its receive rings and takes what was
//! sent; then the driver moves bursts of 32 frames of 60 bytes, both addresses rewritten. Each side's
//! time is taken apart. Queue registers are memory that both share, so that a doorbell is a store, as it
//! is on a card.
//!
//! A round counts only beside a good canary: a loop that takes longer whenever something else runs on
//! the core's other hardware thread. Rows take turns, round by round; the first one is there twice, and
//! what these two differ by is what this machine can't tell apart.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench: what goes wrong ends it")]

#[path = "../../memory/src/canary.rs"]
mod canary;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use packetboat::bus::vfio_user::Server;
use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::{Offloads, Port, PortConfig, Queues, RxQueue, TxQueue};
use packetboat::sys::lcore_id::LcoreClaim;
use packetboat::sys::tsc;
use packetboat_softnic::device::{Device, Identity, WhenFull};
use packetboat_softnic::nic::{Manner, Nic};
use packetboat_softnic::{plugs, server};

/// For each row.
const MEMORY_MIB: u64 = 32;
const BURST: usize = 32;
/// Bursts of a port in one turn: what the rings hold, with room to spare.
const BURSTS: usize = 8;
/// A round whose canary took longer than this share of its best is thrown away.
const GOOD: f64 = 1.03;

/// What a row is.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    wire: &'static str,
    full: bool,
}

const KINDS: [Kind; 4] = [
    Kind { name: "lean, generator and checker", wire: "gen:size=60,flows=64", full: false },
    Kind { name: "full, generator and checker", wire: "gen:size=60,flows=64", full: true },
    Kind { name: "lean, reflect", wire: "reflect", full: false },
    Kind { name: "lean, generator and checker, again", wire: "gen:size=60,flows=64", full: false },
];

fn main() {
    let mut rounds = 201;
    let mut huge = true;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--no-huge" => huge = false,
            number => rounds = number.parse().expect("ROUNDS"),
        }
    }
    let _lcore = LcoreClaim::claim(1).expect("no other lcore is this one");
    let mut canary = canary::Canary::calibrated();
    let mut rows: Vec<Row> = KINDS.iter().map(|kind| Row::new(*kind, huge)).collect();
    for row in &mut rows {
        for _ in 0..50 {
            row.turn(); // caches, and pages that nobody has touched yet
        }
    }
    let mut tries = 0;
    while rows.iter().any(|row| row.kept.len() < rounds) && tries < rounds * 50 {
        tries += 1;
        for row in &mut rows {
            let before = canary.ratio();
            let sample = row.turn();
            if before.max(canary.ratio()) <= GOOD && row.kept.len() < rounds {
                row.kept.push(sample);
            }
        }
    }
    println!(
        "row\trounds\tdriver cycles/frame, median\tlower quartile\tupper\tsoftnic ns/frame, median\tsoftnic Mpps\tlost or changed"
    );
    for row in &mut rows {
        row.print();
    }
}

/// Time of one turn, in ticks for a frame.
#[derive(Clone, Copy)]
struct Sample {
    driver: f64,
    device: f64,
}

/// A softnic whose frames move when it is asked to: without its thread for that.
struct Softnic {
    nic: Arc<Nic>,
    server: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
    socket: std::path::PathBuf,
}

impl Softnic {
    fn pair(wire: &str) -> Vec<Self> {
        let wires = plugs::plug(&[wire.to_owned(), wire.to_owned()]).unwrap();
        let plugged = wires.into_iter().enumerate();
        plugged
            .map(|(n, wire)| {
                let folder = tempfile::tempdir().unwrap();
                let socket = folder.path().join("nic");
                let identity = Identity {
                    device_id: 0x10fb,
                    mac: [2, 0x50, 0x42, 0, 0, n as u8],
                    when_full: WhenFull::Wait,
                    trust_clients: false,
                    full_rings: false,
                };
                let device = Device::new(identity, wire).unwrap();
                let manner = Manner { share_pages: true, busy: true };
                let nic = Arc::new(Nic::new(format!("nic {n}"), device, manner).unwrap());
                let listener = server::listen(&socket).unwrap();
                let served = Arc::clone(&nic);
                let server = std::thread::spawn(move || server::serve(&served, &listener));
                Self { nic, server: Some(server), _folder: folder, socket }
            })
            .collect()
    }

    /// Takes all that was sent, and fills all that is free.
    fn poll(&self) {
        while self.nic.device().poll() > 0 {}
    }

    fn stat(&self, name: &str) -> u64 {
        let report = self.nic.device().wire().report();
        let line = report.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// Two ports with all that belongs to them.
struct Row {
    kind: Kind,
    ports: Vec<Box<dyn Port>>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    softnics: Vec<Softnic>,
    burst: Burst,
    kept: Vec<Sample>,
}

impl Row {
    fn new(kind: Kind, huge: bool) -> Self {
        let config = match huge {
            true => MemoryConfig { total_mib: Some(MEMORY_MIB), ..MemoryConfig::default() },
            false => MemoryConfig::no_huge(MEMORY_MIB),
        };
        let memory =
            Memory::reserve(&config).expect("memory; where hugepages are wanting: --no-huge");
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("mbufs", 4096)).unwrap();
        let softnics = Softnic::pair(kind.wire);
        let mut row = Self {
            kind,
            ports: Vec::new(),
            rx: Vec::new(),
            tx: Vec::new(),
            softnics,
            burst: Burst::with_limit(BURST),
            kept: Vec::new(),
        };
        for n in 0..2 {
            let (port, mut queues) = start(&memory, &pool, &row.softnics[n].socket, n, kind.full);
            row.ports.push(port);
            row.rx.push(queues.rx.remove(0));
            row.tx.push(queues.tx.remove(0));
        }
        if kind.wire == "reflect" {
            row.inject(&pool);
        }
        row
    }

    /// A reflecting wire has no frames of its own.
    fn inject(&mut self, pool: &MbufPool) {
        for tx in &mut self.tx {
            for _ in 0..BURSTS {
                for _ in 0..BURST {
                    let mut frame = pool.alloc().unwrap();
                    frame.append(60).unwrap().fill(0xff); // to all
                    self.burst.push(frame).unwrap();
                }
                tx.send(&mut self.burst);
            }
        }
    }

    /// The device's turn, then the driver's.
    fn turn(&mut self) -> Sample {
        let start = tsc::now();
        self.softnics.iter().for_each(Softnic::poll);
        let between = tsc::now();
        // What a reflecting NIC sends comes back to itself.
        let ways = if self.kind.wire == "reflect" { [(0, 0), (1, 1)] } else { [(0, 1), (1, 0)] };
        let addresses = std::hint::black_box([0xff; 12]);
        let mut frames = 0;
        for _ in 0..BURSTS {
            for (from, to) in ways {
                self.rx[from].receive(&mut self.burst);
                frames += self.burst.len();
                for frame in self.burst.iter_mut() {
                    rewrite(frame, &addresses);
                }
                self.tx[to].send(&mut self.burst);
                assert!(self.burst.is_empty(), "{}: a full ring", self.kind.name);
            }
        }
        let end = tsc::now();
        let each = |ticks: u64| ticks as f64 / frames.max(1) as f64;
        assert_eq!(frames, 2 * BURSTS * BURST, "{}: a partial burst", self.kind.name);
        Sample { driver: each(end - between), device: each(between - start) }
    }

    fn print(&mut self) {
        if self.kept.is_empty() {
            println!("{}\t0\tno round beside a good canary: the core is shared", self.kind.name);
            return;
        }
        let quantile = |share: f64, of: fn(&Sample) -> f64| {
            let mut sorted: Vec<f64> = self.kept.iter().map(of).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[((sorted.len() - 1) as f64 * share) as usize]
        };
        let driver = |share| quantile(share, |sample| sample.driver);
        let device_ns = quantile(0.5, |sample| sample.device) * 1e9 / tsc::hz() as f64;
        let wrong = ["gen_lost", "gen_reordered", "gen_duplicates", "gen_corrupt", "gen_alien"];
        let wrong: u64 = self
            .softnics
            .iter()
            .map(|nic| wrong.iter().map(|name| nic.stat(name)).sum::<u64>())
            .sum();
        println!(
            "{}\t{}\t{:.1}\t{:.1}\t{:.1}\t{device_ns:.0}\t{:.2}\t{wrong}",
            self.kind.name,
            self.kept.len(),
            driver(0.5),
            driver(0.25),
            driver(0.75),
            1e3 / device_ns,
        );
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let queues = self.rx.drain(..).zip(self.tx.drain(..));
        for (port, (rx, tx)) in self.ports.iter_mut().zip(queues) {
            port.stop(Queues { rx: vec![rx], tx: vec![tx] }).unwrap();
        }
        self.ports.clear();
        for softnic in &mut self.softnics {
            softnic.nic.stop();
            let _ = std::os::unix::net::UnixStream::connect(&softnic.socket); // wakes it
            let _ = softnic.server.take().map(JoinHandle::join);
        }
    }
}

fn start(
    memory: &Arc<Memory>,
    pool: &MbufPool,
    socket: &Path,
    number: usize,
    full: bool,
) -> (Box<dyn Port>, Queues) {
    let device = Arc::new(Server::connect(socket).unwrap()).open(memory).unwrap();
    let mut port = packetboat_ixgbe::DRIVER.probe(Box::new(device), memory).unwrap();
    let offloads = Offloads { rx_checksum: full, rx_scatter: full, ..Offloads::default() };
    let config = PortConfig {
        number: number as u16,
        rx_queues: 1,
        tx_queues: 1,
        offloads,
        ..PortConfig::default()
    };
    port.configure(&config).unwrap();
    let queues = port.start(std::slice::from_ref(pool)).unwrap();
    (port, queues)
}

/// As l2fwd does it: both addresses in one go, known only when it runs.
#[inline(always)]
fn rewrite(frame: &mut Mbuf, addresses: &[u8; 12]) {
    if let Some(data) = frame.data_mut()
        && let Some(header) = data.first_chunk_mut::<14>()
        && let Some((place, _)) = header.split_first_chunk_mut()
    {
        *place = *addresses;
    }
}
