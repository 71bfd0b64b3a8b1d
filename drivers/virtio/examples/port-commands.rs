//! A port that sends each frame back to where it came from, and takes commands meanwhile: to try what a
//! PCI device does with them. scripts/rig/scenarios/virtio-commands.sh runs it on QEMU's.
//!
//! ```text
//! port-commands [--queues N] [--vlan-filter] [--rss] [--mtu N] BDF
//! ```
//!
//! One command a line on standard input, one answer each:
//!
//! ```text
//! mac ADDRESS             the port's own address
//! also ADDRESS on|off     an address besides
//! vlan ID on|off          a VLAN (with --vlan-filter)
//! promiscuous on|off
//! multicast on|off        all of it
//! break rx|tx PAIR        makes the queue find a lie in its ring, as if the device had told it
//! counts                  frames by receive queue since the last time, and what went wrong
//! quit
//! ```
//!
//! With `--rss` it has a key and a table of its own, hashes each UDP frame itself, and counts those that
//! came to another queue than the table says.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use packetboat::bus::vfio::Container;
use packetboat::bus::{AllowEntry, Selection, scan};
use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::net::EthernetHeader;
use packetboat::port::{Offloads, Port, PortConfig, Queues, Rss, RssHash};
use packetboat::sys::lcore_id::LcoreClaim;
use packetboat::sys::sysroot::SysRoot;
use packetboat_virtio::DRIVER;

type Failure = Box<dyn Error>;

/// Descriptors of each queue: what `break` reckons with.
const DESCRIPTORS: u16 = 256;
/// From Microsoft's specification of RSS: any key will do that isn't the driver's.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
const TABLE: [u16; 4] = [1, 0, 0, 1];

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("port-commands: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut config = PortConfig {
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: Some(DESCRIPTORS),
        tx_descriptors: Some(DESCRIPTORS),
        ..PortConfig::default()
    };
    let mut selection = Selection::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().ok_or("wanted a number")?.parse().map_err(Failure::from);
        match argument.as_str() {
            "--queues" => {
                config.rx_queues = number()?;
                config.tx_queues = config.rx_queues;
            }
            "--mtu" => config.mtu = Some(number()?),
            "--vlan-filter" => config.offloads.rx_vlan_filter = true,
            "--rss" => {
                let hash = RssHash::IPV4 | RssHash::IPV4_UDP;
                let (key, table) = (Some(KEY.to_vec()), Some(TABLE.to_vec()));
                let rss = Some(Rss { key, table, hash });
                config.offloads = Offloads { rss, ..config.offloads };
            }
            entry => selection.allow.push(entry.parse::<AllowEntry>()?),
        }
    }
    let root = SysRoot::default();
    let chosen = selection.apply(&scan(&root))?;
    let function = &chosen.first().ok_or("wanted the address of a device")?.function;
    let _lcore = LcoreClaim::claim(0)?;
    let memory = Memory::reserve(&MemoryConfig::no_huge(32))?;
    let container = Container::new(&root, Arc::clone(&memory))?;
    let device = container.open(function)?;
    let mut port = DRIVER.probe(Box::new(device), &memory)?;
    let can = port.capabilities();
    config.offloads.check(&port.info().device, &can)?;
    port.configure(&config)?;
    let pool = MbufPool::new(&memory, &MbufPoolConfig::new("mbufs", 4096))?;
    let queues = port.start(&vec![pool.clone(); config.rx_queues.into()])?;
    println!("started: {}; {}", port.info().mac, port.paths());
    let mut echo = Echo {
        counts: vec![0; config.rx_queues.into()],
        rss: config.offloads.rss.is_some(),
        port,
        queues,
        memory,
        misled: 0,
        unsent: 0,
    };
    echo.work(&lines())?;
    let Echo { mut port, queues, .. } = echo;
    port.stop(queues)?;
    println!("stopped: {} mbufs out, {} leaked", pool.objects().in_use(), pool.leaked());
    Ok(())
}

/// Lines of standard input, as they come.
fn lines() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

struct Echo {
    port: Box<dyn Port>,
    queues: Queues,
    memory: Arc<Memory>,
    counts: Vec<u64>,
    rss: bool,
    /// Frames that RSS should have led to another queue.
    misled: u64,
    /// Frames for which there was no room.
    unsent: u64,
}

impl Echo {
    fn work(&mut self, lines: &Receiver<String>) -> Result<(), Failure> {
        let mut looked = Instant::now();
        let mut burst = Burst::with_limit(32);
        loop {
            for pair in 0..self.counts.len() {
                self.poll(pair, &mut burst);
            }
            if looked.elapsed() < Duration::from_millis(100) {
                continue;
            }
            looked = Instant::now();
            // As l2fwd does it: this is when queues are looked after, and announcements heard of.
            self.port.link_changed();
            self.port.link()?;
            if let Some(fault) = self.port.fault() {
                return Err(fault.into());
            }
            match lines.try_recv() {
                Ok(line) if line == "quit" => return Ok(()),
                Ok(line) => match self.obey(&line) {
                    Ok(answer) => println!("{answer}"),
                    Err(error) => println!("error: {error}"),
                },
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn poll(&mut self, pair: usize, burst: &mut Burst) {
        let (Some(rx), Some(tx)) = (self.queues.rx.get_mut(pair), self.queues.tx.get_mut(pair))
        else {
            return;
        };
        rx.receive(burst);
        if burst.is_empty() {
            return tx.reclaim();
        }
        self.counts[pair] += burst.len() as u64;
        for frame in burst.iter_mut() {
            if self.rss && expected_queue(frame).is_some_and(|queue| queue != pair) {
                self.misled += 1;
            }
            if let Some(header) = frame.view_mut::<EthernetHeader>() {
                std::mem::swap(&mut header.destination, &mut header.source);
            }
        }
        tx.send(burst);
        self.unsent += burst.len() as u64;
        burst.clear();
    }

    fn obey(&mut self, line: &str) -> Result<String, Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let on = |word| match word {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(format!("wanted on or off, found {other}")),
        };
        match *words {
            ["mac", address] => self.port.set_mac(address.parse()?)?,
            ["also", address, word] => self.port.filter_mac(address.parse()?, on(word)?)?,
            ["vlan", id, word] => self.port.filter_vlan(id.parse()?, on(word)?)?,
            ["promiscuous", word] => self.port.set_promiscuous(on(word)?)?,
            ["multicast", word] => self.port.set_all_multicast(on(word)?)?,
            ["break", way, pair] => self.lie(way == "rx", pair.parse()?)?,
            ["counts"] => {
                let stats = self.port.stats();
                let dropped = stats.rx_total().dropped() + stats.tx_total().dropped();
                let counts: Vec<String> = self.counts.iter().map(u64::to_string).collect();
                let answer = format!(
                    "by queue {}; {} misled, {} unsent, {dropped} dropped",
                    counts.join(" "),
                    self.misled,
                    self.unsent
                );
                self.counts.fill(0);
                (self.misled, self.unsent) = (0, 0);
                return Ok(answer);
            }
            _ => return Err(format!("no such command: {line}").into()),
        }
        Ok(format!("ok: {line}"))
    }

    /// Writes into a ring what no device should, and has the queue find it. The ring is in our own memory,
    /// which a program may reach through its /proc/self/mem.
    fn lie(&mut self, rx: bool, pair: u16) -> Result<(), Failure> {
        let number = 2 * pair + u16::from(!rx);
        let name = format!("{} virtqueue {number}", self.port.info().device);
        let zone = self.memory.zones().into_iter().find(|zone| zone.name == name);
        let zone = zone.ok_or_else(|| format!("there is no zone {name}"))?;
        let mem = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
        let size = u64::from(DESCRIPTORS);
        if self.port.paths().starts_with("packed") {
            // The id of each buffer that the device has: it names it when it completes the buffer.
            for descriptor in 0..size {
                mem.write_all_at(&0xfffe_u16.to_le_bytes(), zone.va + 16 * descriptor + 12)?;
            }
            return Ok(());
        }
        // The index of used entries: as if it had completed more than it was given.
        let index = zone.va + (16 * size + 6 + 2 * size).next_multiple_of(64) + 60 + 2;
        let mut bytes = [0; 2];
        mem.read_exact_at(&mut bytes, index)?;
        let lie = u16::from_le_bytes(bytes).wrapping_add(2 * DESCRIPTORS);
        mem.write_all_at(&lie.to_le_bytes(), index)?;
        // At once, before the device writes it anew.
        let mut burst = Burst::new();
        let pair = usize::from(pair);
        match rx {
            true => self.queues.rx.get_mut(pair).ok_or("no such queue")?.receive(&mut burst),
            false => self.queues.tx.get_mut(pair).ok_or("no such queue")?.reclaim(),
        }
        Ok(())
    }
}

/// The queue that a UDP frame over IPv4 belongs to.
fn expected_queue(frame: &Mbuf) -> Option<usize> {
    let data = frame.data();
    let is_udp = data.get(12..15) == Some(&[0x08, 0, 0x45]) && data.get(23) == Some(&17);
    let input = data.get(26..38).filter(|_| is_udp)?; // both addresses, both ports
    let index = toeplitz(input) as usize % TABLE.len();
    TABLE.get(index).map(|&queue| usize::from(queue))
}

/// Toeplitz, bit by bit: the key moves along, and is added where the input has a 1.
fn toeplitz(input: &[u8]) -> u32 {
    let key_bit = |at: usize| u32::from(KEY[at / 8] >> (7 - at % 8) & 1);
    let mut window = (0..32).fold(0, |window, at| window << 1 | key_bit(at));
    let mut hash = 0;
    for at in 0..8 * input.len() {
        if input[at / 8] >> (7 - at % 8) & 1 == 1 {
            hash ^= window;
        }
        window = window << 1 | key_bit(at + 32);
    }
    hash
}
