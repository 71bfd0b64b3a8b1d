//! A row of the table: its name, and what measures a round of it.

use packetboat::sys::tsc;

/// What a round took.
pub(crate) struct Took {
    pub(crate) cycles: u64,
    pub(crate) operations: u64,
}

impl Took {
    pub(crate) fn cycles_each(&self) -> f64 {
        self.cycles as f64 / self.operations as f64
    }
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Of a round.
    pub(crate) iterations: u64,
    pub(crate) round: Box<dyn FnMut(u64) -> Took>,
}

impl Row {
    /// `work` does its operation `iterations` times, each worth `each` of the unit.
    pub(crate) fn new(
        name: String,
        unit: &'static str,
        iterations: u64,
        each: u64,
        mut work: impl FnMut(u64) + 'static,
    ) -> Self {
        let round = move |count| {
            let start = tsc::now();
            counted_part(|| work(count));
            Took { cycles: tsc::now() - start, operations: count * each }
        };
        Self { name, unit, iterations, round: Box::new(round) }
    }
}

/// Not inlined: callgrind counts what happens in here.
#[inline(never)]
pub(crate) fn counted_part<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cold]
pub(crate) fn give_up(error: &dyn std::fmt::Display) -> ! {
    eprintln!("bench-memory-ours: {error}");
    std::process::exit(1);
}
