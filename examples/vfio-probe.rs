//! Opens PCI functions through VFIO, prints what they offer, and gives them back.
//!
//! ```text
//! vfio-probe [--huge] [--base-virtaddr HEX] [--memory MiB] [--await-removal] BDF…
//! ```
//!
//! A first look at a device before there is a driver for it, and a test of `src/bus` on a real
//! kernel: all functions are opened in one container with the memory mapped, their capabilities
//! and BARs read, MSI-X turned on and off, the devices reset. With `--await-removal` it then holds
//! on until somebody asks for a device back (30 s at most).
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use packetboat::bus::vfio::{Container, VfioDevice};
use packetboat::bus::{AllowEntry, Device, Selection, capabilities, scan};
use packetboat::memory::{Backing, Memory, MemoryConfig};
use packetboat::mmio::Width;
use packetboat::sys::sysroot::SysRoot;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut memory = MemoryConfig::no_huge(8);
    let mut selection = Selection::default();
    let mut await_removal = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--base-virtaddr" => {
                let value = arguments.next().ok_or("--base-virtaddr: wanted an address")?;
                memory.base_virtaddr = u64::from_str_radix(value.trim_start_matches("0x"), 16)?;
            }
            "--memory" => {
                memory.total_mib = Some(arguments.next().ok_or("--memory: wanted MiB")?.parse()?);
            }
            "--huge" => memory.backing = Backing::Memfd,
            "--await-removal" => await_removal = true,
            entry => selection.allow.push(entry.parse::<AllowEntry>()?),
        }
    }

    let root = SysRoot::default();
    let chosen = selection.apply(&scan(&root))?;
    let memory = Memory::reserve(&memory)?;
    let container = Container::new(&root, memory)?;
    let mut devices = Vec::new();
    for selected in &chosen {
        devices.push(container.open(&selected.function)?);
    }
    let (count, len_bytes) = container.mapped();
    println!("{} devices share {count} DMA mappings, {len_bytes} bytes", devices.len());
    for device in &devices {
        probe(device)?;
    }
    if await_removal {
        wait_for_removal(&devices)?;
    }
    drop(devices);
    println!("closed; DMA mappings left: {}", container.mapped().0);
    Ok(())
}

fn probe(device: &VfioDevice) -> Result<(), Box<dyn Error>> {
    println!("{}", device.function());
    for capability in capabilities(device)? {
        println!("  capability {:#04x} at {:#04x}", capability.id, capability.offset);
    }
    for index in 0..6 {
        match device.bar(index) {
            Ok(bar) => {
                let first = bar.register::<u32>(0)?.read();
                println!("  BAR {index}: {bar:?}, first word {first:#010x}");
            }
            Err(error) => println!("  {error}"),
        }
    }
    let vectors = device.msix_vectors();
    let eventfds = device.enable_msix(vectors.min(4))?;
    println!("  MSI-X: {vectors} vectors, {} turned on", eventfds.len());
    if let Err(error) = device.enable_msix(vectors.saturating_add(1)) {
        println!("  one more than there are: {error}");
    }
    device.set_bus_master(true)?;
    let command = |device: &VfioDevice| device.config_read(0x04, Width::U16);
    println!("  command {:#06x} with bus mastering", command(device)?);
    let started = Instant::now();
    device.reset()?;
    println!("  command {:#06x} after a reset of {:?}", command(device)?, started.elapsed());
    Ok(())
}

fn wait_for_removal(devices: &[VfioDevice]) -> Result<(), Box<dyn Error>> {
    println!("waiting for a removal");
    for _ in 0..300 {
        if let Some(device) = devices.iter().find(|device| device.removal_requested()) {
            println!("{}: somebody wants it back", device.name());
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    Err("nobody asked for a device back within 30 s".into())
}
