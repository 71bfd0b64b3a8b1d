//! While it runs: lcores forward, and the control plane looks after links, devices and reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat::eal::{Lcore, LcoreHandle, StopFlag};

use crate::console::Console;
use crate::counters::LcoreCounters;
use crate::error::Error;
use crate::forward::{Lane, forward};
use crate::json::StatsFile;
use crate::lanes;
use crate::links;
use crate::options::Options;
use crate::queues::{QueuesByPort, Shelf};
use crate::setup::Ready;
use crate::signals::Wakeups;
use crate::snapshot::{LcoreCounts, Snapshot, Span};

/// Between two looks at links and devices.
const TICK: Duration = Duration::from_millis(100);

/// Lcores forward.
pub(crate) struct Running {
    /// Ports, pools, memory.
    pub(crate) ready: Ready,
    /// Those that forward.
    pub(crate) lcores: Vec<RunningLcore>,
    /// Queues that no lcore has.
    pub(crate) spare: QueuesByPort,
    /// Ends them.
    pub(crate) stop: StopFlag,
    /// When they began.
    pub(crate) started: Instant,
}

/// An lcore that forwards.
pub(crate) struct RunningLcore {
    /// Gives its lanes back at the end.
    pub(crate) handle: LcoreHandle<Vec<Lane>>,
    /// What it does and counts; outlives it.
    pub(crate) view: LcoreView,
}

/// What an lcore does and counts.
pub(crate) struct LcoreView {
    lcore: Lcore,
    counters: Arc<LcoreCounters>,
    lanes: String,
}

impl Running {
    /// Gives each lcore its lanes, and starts it.
    pub(crate) fn launch(mut ready: Ready, queues: QueuesByPort, options: &Options) -> Self {
        let stop = StopFlag::new();
        let mut shelf = Shelf::new(queues);
        let mut lcores = Vec::new();
        let burst_len = options.burst_len();
        for (thread, plan) in std::mem::take(&mut ready.lcores) {
            let mut mine = shelf.lanes(&plan, &mut ready.ports, options);
            let counters = Arc::new(LcoreCounters::default());
            let (its_counters, its_stop) = (Arc::clone(&counters), stop.clone());
            let handle = thread.launch(move || {
                forward(&mut mine, burst_len, &its_stop, &its_counters);
                mine
            });
            let lanes = lanes::describe(&plan.lanes);
            let view = LcoreView { lcore: plan.lcore, counters, lanes };
            lcores.push(RunningLcore { handle, view });
        }
        Self { ready, lcores, spare: shelf.rest(), stop, started: Instant::now() }
    }

    /// Until somebody stops it: reports each period, looks after links and devices.
    ///
    /// # Errors
    /// If a device is being taken away or can't go on, or an lcore has ended.
    pub(crate) fn watch(
        &mut self,
        options: &Options,
        console: &mut Console,
        stats_file: Option<&StatsFile>,
        wakeups: &Wakeups,
    ) -> Result<(), Error> {
        let period = Duration::from_secs(u64::from(options.period));
        // Reports keep to the clock: one that came late doesn't delay those after it.
        let mut due = period;
        let mut last = self.snapshot();
        report(stats_file, &last);
        loop {
            let until_due = match period.is_zero() {
                true => TICK,
                false => due.saturating_sub(self.started.elapsed()),
            };
            if wakeups.wait(TICK.min(until_due)) {
                return Ok(());
            }
            for port in self.ready.ports.values() {
                if port.port.removed() {
                    let device = port.info.device.clone();
                    return Err(Error::Removed { port: port.number, device });
                }
                if let Some(what) = port.port.fault() {
                    let device = port.info.device.clone();
                    return Err(Error::Fault { port: port.number, device, what });
                }
            }
            if let Some(lcore) = self.lcores.iter().find(|lcore| lcore.handle.is_finished()) {
                return Err(Error::LcoreEnded { lcore: lcore.view.lcore.id });
            }
            links::watch(&mut self.ready.ports, console);
            if !period.is_zero() && self.started.elapsed() >= due {
                let now = self.snapshot();
                console.statistics(Span { from: Some(&last), to: &now });
                report(stats_file, &now);
                last = now;
                while due <= last.uptime {
                    due += period;
                }
            }
        }
    }

    /// All counters now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let lcores = self.lcores.iter().map(|lcore| lcore.view.counts()).collect();
        Snapshot::of(self.started.elapsed(), &self.ready.ports, &self.ready.pools, lcores)
    }
}

impl LcoreView {
    /// Its counters now.
    pub(crate) fn counts(&self) -> LcoreCounts {
        let Lcore { id: lcore, cpu, .. } = self.lcore;
        LcoreCounts { lcore, cpu, lanes: self.lanes.clone(), totals: self.counters.read() }
    }
}

/// Writes the file, if there is one. That it can't be written is no reason to stop forwarding.
pub(crate) fn report(file: Option<&StatsFile>, snapshot: &Snapshot) {
    if let Some(file) = file
        && let Err(error) = file.write(snapshot)
    {
        tracing::error!("--stats-json {}: can't be written: {error}", file.path().display());
    }
}
