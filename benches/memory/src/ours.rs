//! Our side of the comparison: the rows of peer/dpdk.c, by the same names, on packetboat.
//!
//! It speaks on standard input and output, one line each: `list` prints the rows; `run ROW` runs
//! one round and prints cycles per operation and how good the canary was beside it; `once ROW N`
//! runs N iterations and prints how many operations that were, for counting instructions.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod canary;
mod row;
mod rows;
mod two_cores;

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write, stdin, stdout};

use canary::Canary;
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::sys::cpu;
use packetboat::sys::lcore_id::LcoreClaim;
use row::Row;
use rows::Side;

/// As much as the peer takes.
const MEMORY_MIB: u64 = 384;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().ok_or("wanted: CPU[,CPU] [--no-huge]")?;
    let cpus = first.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let &[here, ref others @ ..] = cpus.as_slice() else { return Err("wanted a CPU".into()) };
    cpu::pin_current_thread(here)?;
    let _lcore = LcoreClaim::claim(0)?;
    let config = match arguments.next().as_deref() {
        None => MemoryConfig { total_mib: Some(MEMORY_MIB), ..MemoryConfig::default() },
        Some("--no-huge") => MemoryConfig::no_huge(MEMORY_MIB),
        Some(other) => return Err(format!("wanted CPU[,CPU] [--no-huge], found {other:?}").into()),
    };
    let side = Side::new(Memory::reserve(&config)?)?;
    let mut rows = side.rows(others.first().copied());
    let mut canary = Canary::calibrated();
    let mut out = stdout().lock();
    writeln!(out, "packetboat {}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)?;
    for line in stdin().lock().lines() {
        let line = line?;
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            ["list"] => {
                for row in &rows {
                    writeln!(out, "{}\t{}", row.name, row.unit)?;
                }
                writeln!(out, ".")?;
            }
            ["run", name] => {
                let row = find(&mut rows, name)?;
                // The other side has had the core, and its caches, meanwhile.
                (row.round)(row.iterations);
                let before = canary.ratio();
                let cycles = (row.round)(row.iterations).cycles_each();
                writeln!(out, "{cycles}\t{}", before.max(canary.ratio()))?;
            }
            ["once", name, count] => {
                let operations = (find(&mut rows, name)?.round)(count.parse()?).operations;
                once_is_done();
                writeln!(out, "{operations}")?;
            }
            _ => return Err(format!("wanted list, run ROW or once ROW N, found {line:?}").into()),
        }
        out.flush()?;
    }
    Ok(())
}

/// Not inlined: callgrind writes down its counts when this has run.
#[inline(never)]
fn once_is_done() {
    black_box(());
}

fn find<'a>(rows: &'a mut [Row], name: &str) -> Result<&'a mut Row, String> {
    rows.iter_mut().find(|row| row.name == name).ok_or_else(|| format!("no row {name:?}"))
}
