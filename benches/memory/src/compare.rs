//! Runs both sides of the comparison and prints the tables; `scripts/bench.sh memory` builds what
//! it needs and starts it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod bars;
mod counting;
mod side;
mod timing;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bars::BARS;
use clap::Parser;
use side::Side;
use timing::{Effort, Samples, measure, quantile};

/// Memory of each side in MiB: what all rows need at once, and the heap's headroom.
const MEMORY_MIB: &str = "384";
/// Rows with threads, for which counting instructions says nothing.
const TWO_CORES: &str = "two cores: ";

/// Measures the memory stack beside DPDK's; tables of tab-separated values on standard output.
#[derive(Parser)]
struct Options {
    /// Our side's program.
    #[arg(long)]
    ours: PathBuf,
    /// The peer's program.
    #[arg(long)]
    peer: PathBuf,
    /// CPU to measure on, and another one for the rows of two cores.
    #[arg(long, default_value = "0,1", value_name = "CPU[,CPU]")]
    cpus: String,
    /// Only rows whose name has this in it; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Rounds to keep of each row.
    #[arg(long, default_value_t = 61, value_name = "N")]
    rounds: usize,
    /// Most seconds for each row, if many rounds have to be thrown away.
    #[arg(long, default_value_t = 15, value_name = "S")]
    row_seconds: u64,
    /// Few rounds and any canary: shows that it all runs; its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Normal pages instead of hugepages.
    #[arg(long)]
    no_huge: bool,
    /// Only the table of instructions.
    #[arg(long)]
    only_instructions: bool,
    /// Only the table of cycles.
    #[arg(long, conflicts_with = "only_instructions")]
    no_instructions: bool,
    /// Folder for callgrind's files.
    #[arg(long, default_value = ".", value_name = "DIR")]
    scratch: PathBuf,
}

impl Options {
    fn our_command(&self, cpus: &str, no_huge: bool) -> Vec<String> {
        let mut command = vec![self.ours.display().to_string(), cpus.to_owned()];
        command.extend(no_huge.then(|| "--no-huge".to_owned()));
        command
    }

    /// With a prefix of its own and without files: it neither finds nor leaves anything.
    fn peer_command(&self, cpus: &str, no_huge: bool) -> Vec<String> {
        let mut command = vec![self.peer.display().to_string()];
        let prefix = format!("packetboat-bench-{}", std::process::id());
        command.extend(["-l", cpus, "--no-pci", "--no-telemetry"].map(str::to_owned));
        let pages: &[&str] = if no_huge { &["--no-huge", "--no-shconf"] } else { &["--in-memory"] };
        command.extend(pages.iter().map(|&option| option.to_owned()));
        command.extend(["-m", MEMORY_MIB, "--log-level=error"].map(str::to_owned));
        command.extend(["--file-prefix".to_owned(), prefix]);
        command
    }

    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| row.contains(text.as_str()))
    }
}

fn main() {
    if let Err(error) = run(&Options::parse()) {
        eprintln!("bench-memory-compare: {error}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if !options.only_instructions {
        cycles(options)?;
    }
    if !options.no_instructions {
        instructions(options)?;
    }
    Ok(())
}

/// The row of both sides; they must have the same.
fn rows(ours: &mut Side, peer: &mut Side) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let (mine, its) = (ours.list()?, peer.list()?);
    if mine != its {
        let lone = |of: &[(String, String)], other: &[(String, String)]| {
            of.iter().find(|row| !other.contains(row)).map_or("none", |row| &row.0).to_owned()
        };
        let (only_ours, only_its) = (lone(&mine, &its), lone(&its, &mine));
        return Err(format!(
            "wanted the same rows in the same order of both sides, found only ours: \
             {only_ours:?}, only the peer's: {only_its:?}; see src/rows.rs and peer/dpdk.c"
        )
        .into());
    }
    Ok(mine)
}

fn cycles(options: &Options) -> Result<(), Box<dyn Error>> {
    let effort = Effort {
        rounds: if options.quick { 3 } else { options.rounds },
        at_most: Duration::from_secs(options.row_seconds),
        any_canary: options.quick,
    };
    let mut ours = Side::start(&options.our_command(&options.cpus, options.no_huge))?;
    let mut peer = Side::start(&options.peer_command(&options.cpus, options.no_huge))?;
    eprintln!("cycles: {} beside {}, CPU {}", ours.title, peer.title, options.cpus);
    if options.quick {
        eprintln!("--quick: rounds are kept whatever the canary says; the figures mean nothing");
    }
    let start = Instant::now();
    let mut measured = Vec::new();
    println!("name\tunit\tours_median\tours_min\tpeer_median\tpeer_min\tratio\tcontrol");
    for (name, unit) in rows(&mut ours, &mut peer)? {
        if !options.wants(&name) {
            continue;
        }
        let samples = measure(&mut ours, &mut peer, &name, effort)?;
        println!(
            "{name}\t{unit}\t{}\t{}\t{}\t{}\t{}\t{}",
            figure(quantile(&samples.ours, 0.5)),
            figure(quantile(&samples.ours, 0.0)),
            figure(quantile(&samples.peer, 0.5)),
            figure(quantile(&samples.peer, 0.0)),
            ratio(samples.ratio()),
            ratio(samples.control()),
        );
        if samples.peer.len() < effort.rounds {
            eprintln!(
                "{name}: {} of {} rounds kept within {} s",
                samples.peer.len(),
                effort.rounds,
                options.row_seconds
            );
        }
        measured.push((name, unit, samples));
    }
    ours.end()?;
    peer.end()?;
    let rejected: usize = measured.iter().map(|row| row.2.rejected).sum();
    let kept: usize = measured.iter().map(|row| row.2.peer.len()).sum();
    eprintln!(
        "cycles: {kept} rounds of {} rows kept, {rejected} thrown away for a bad canary, {} s",
        measured.len(),
        start.elapsed().as_secs()
    );
    spread(&measured);
    reached(&measured);
    Ok(())
}

/// Rows of two cores once more, with quartiles.
fn spread(measured: &[(String, String, Samples)]) {
    println!(
        "\nname\tunit\tours_min\tours_p25\tours_median\tours_p75\t\
         peer_min\tpeer_p25\tpeer_median\tpeer_p75"
    );
    for (name, unit, samples) in measured.iter().filter(|row| row.0.starts_with(TWO_CORES)) {
        print!("{name}\t{unit}");
        for values in [&samples.ours, &samples.peer] {
            for share in [0.0, 0.25, 0.5, 0.75] {
                print!("\t{}", figure(quantile(values, share)));
            }
        }
        println!();
    }
}

/// Which bars are reached.
fn reached(measured: &[(String, String, Samples)]) {
    println!("\nbar\tlimit\trows\treached\tworst_ratio\tworst_row\tcontrol_beyond_5_percent");
    for bar in &BARS {
        let rows =
            measured.iter().map(|(name, _, samples)| (&**name, samples.ratio(), samples.control()));
        let outcome = bar.outcome(rows);
        let (worst_row, worst) = outcome.worst.unzip();
        println!(
            "{}\t{:.2}\t{}\t{}\t{}\t{}\t{}",
            bar.name,
            bar.limit,
            outcome.rows,
            outcome.reached,
            ratio(worst),
            worst_row.as_deref().unwrap_or("-"),
            outcome.unsure
        );
    }
}

fn instructions(options: &Options) -> Result<(), Box<dyn Error>> {
    // One CPU: with threads, callgrind counts how long they wait.
    let cpu = options.cpus.split(',').next().unwrap_or("0");
    // Normal pages: DPDK reserves more addresses for hugepages than valgrind has. Except for what
    // the kernel does when the heap grows, which isn't counted anyway, the instructions are the same.
    let (ours, peer) = (options.our_command(cpu, true), options.peer_command(cpu, true));
    let names: Vec<String> = {
        let (mut ours, mut peer) = (Side::start(&ours)?, Side::start(&peer)?);
        let rows = rows(&mut ours, &mut peer)?.into_iter().map(|row| row.0);
        rows.filter(|name| options.wants(name) && !(options.quick && is_slow(name))).collect()
    };
    eprintln!("instructions: {} rows under callgrind, ours, then the peer's", names.len());
    let dumps = |side| options.scratch.join(format!("callgrind.{side}.{}", std::process::id()));
    let mut counts = Vec::new();
    for (side, command) in [("ours", &ours), ("peer", &peer)] {
        let dumps = dumps(side);
        let counted = counting::count(command, &dumps, &names, iterations);
        let _ = std::fs::remove_file(&dumps);
        counts.push(counted?);
    }
    if !options.only_instructions {
        println!();
    }
    println!("name\tunit\tours_instructions\tpeer_instructions\tratio");
    if let [ours, peer] = counts.as_slice() {
        for ((name, ours), peer) in names.iter().zip(ours).zip(peer) {
            println!(
                "{name}\tinstructions\t{ours:.1}\t{peer:.1}\t{}",
                ratio(Some(ours / peer).filter(|ratio| ratio.is_finite()))
            );
        }
    }
    Ok(())
}

/// Rows whose heaps grow by hundreds of MiB, which takes callgrind a minute.
fn is_slow(row: &str) -> bool {
    row.starts_with("heap ") && (row.contains(" 65536 ") || row.contains(" 1048576 "))
}

/// Enough that a ring has gone around a few times and caches have been refilled.
fn iterations(row: &str) -> u64 {
    match row {
        row if row.starts_with("heap alloc+free") => 10,
        row if is_slow(row) => 1,
        row if row.starts_with("heap") => 4,
        row if row.starts_with("ring") => 4096,
        _ => 256,
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}
