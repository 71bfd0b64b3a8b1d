//! Opens PCI functions through VFIO, prints what they offer, and gives them back.
//!
//! ```text
//! vfio-probe [--huge] [--base-virtaddr HEX] [--memory MiB] [--await-removal] [--grow] BDF…
//! ```
//!
//! A first look at a device before there is a driver for it, and a test of `src/bus` on a real
//! kernel: all functions are opened in one container with the memory mapped, their capabilities
//! and BARs read, MSI-X turned on and off, the devices reset. With `--await-removal` it then holds
//! on until somebody asks for a device back (30 s at most). With `--grow` a heap takes pages from the
//! kernel while the devices are open, which must be mapped for them, and gives them back.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use packetboat::bus::vfio::{Container, VfioDevice};
use packetboat::bus::{AllowEntry, Device, Selection, capabilities, scan};
use packetboat::memory::heap::{Heap, HeapConfig, HeapSlice, Request};
use packetboat::memory::{AddedSegment, Backing, Memory, MemoryConfig};
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
    let (mut await_removal, mut grow) = (false, false);
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
            "--grow" => grow = true,
            entry => selection.allow.push(entry.parse::<AllowEntry>()?),
        }
    }

    let root = SysRoot::default();
    let chosen = selection.apply(&scan(&root))?;
    let memory = Memory::reserve(&memory)?;
    let container = Container::new(&root, Arc::clone(&memory))?;
    // One segment is there before the first device is.
    let early = grow.then(|| memory.add_segment(None, 2 << 20, 64)).transpose()?;
    let mut devices = Vec::new();
    for selected in &chosen {
        devices.push(container.open(&selected.function)?);
    }
    let (count, len_bytes) = container.mapped();
    println!("{} devices share {count} DMA mappings, {len_bytes} bytes", devices.len());
    for device in &devices {
        probe(device)?;
    }
    if grow {
        grow_and_shrink(&memory, &container, early)?;
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

/// A heap's pages come and go: each time the container must have mapped just what is there.
fn grow_and_shrink(
    memory: &Arc<Memory>,
    container: &Container,
    early: Option<AddedSegment>,
) -> Result<(), Box<dyn Error>> {
    let at_first = container.mapped();
    let expect = |what: &str, extents: usize, len_bytes: u64| {
        let found = container.mapped();
        println!("{what}: {} DMA mappings, {} bytes", found.0, found.1);
        let wanted = (at_first.0 + extents, at_first.1 + len_bytes);
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{what}: wanted {wanted:?}, found {found:?}"))
        }
    };
    let heap = Heap::of_kernel_pages(memory, HeapConfig::new("grows", 16 << 20))?;
    for round in 0..3 {
        let mut slices = Vec::new();
        for number in 0..4_u64 {
            slices.push(HeapSlice::from_fn(&heap, Request::new(0), 3 << 16, |index| {
                number + index as u64
            })?);
            expect("grown", slices.len(), heap.total_bytes())?;
        }
        if !slices.iter().all(|slice| slice.windows(2).all(|pair| pair[0] + 1 == pair[1])) {
            return Err("the heap's memory changed by itself".into());
        }
        drop(slices);
        expect("all but one given back", 1, heap.total_bytes())?;
        heap.trim();
        expect("trimmed", 0, 0)?;
        println!("round {round} done");
    }
    drop(early);
    let (count, len_bytes) = container.mapped();
    println!("without the early segment: {count} DMA mappings, {len_bytes} bytes");
    if (count + 1, len_bytes + (2 << 20)) != at_first {
        return Err(format!("before it were {at_first:?}").into());
    }
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
