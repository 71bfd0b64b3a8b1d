//! While it runs: lcores forward, and the control plane looks after links, devices and reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat::eal::{Lcore, LcoreHandle, LcoreThread, StopFlag};
use packetboat::port::Sleeper;

use crate::console::Console;
use crate::counters::LcoreCounters;
use crate::error::Error;
use crate::forward::{Lane, forward};
use crate::json::StatsFile;
use crate::lanes::{self, LcorePlan};
use crate::links;
use crate::options::Options;
use crate::queues::{QueuesByPort, Shelf, give_back};
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
    /// When a port was last restarted, and how often in a row.
    restarted: Option<(Instant, u32)>,
}

/// An lcore that forwards.
pub(crate) struct RunningLcore {
    /// Gives its lanes back at the end.
    pub(crate) handle: LcoreHandle<Vec<Lane>>,
    /// What it does and counts; outlives it.
    pub(crate) view: LcoreView,
    /// Its lanes, for when it is to start anew.
    plan: LcorePlan,
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
        for (thread, plan) in std::mem::take(&mut ready.lcores) {
            let mine = shelf.lanes(&plan, &mut ready.ports, options);
            let counters = Arc::new(LcoreCounters::default());
            let lanes = lanes::describe(&plan.lanes);
            let view = LcoreView { lcore: plan.lcore, counters, lanes };
            let handle = launch(thread, mine, &view, &stop, options);
            lcores.push(RunningLcore { handle, view, plan });
        }
        let started = Instant::now();
        Self { ready, lcores, spare: shelf.rest(), stop, started, restarted: None }
    }

    /// A port can't go on: all lcores pause, the port is stopped (which resets its device) and
    /// started again, and forwarding goes on.
    ///
    /// # Errors
    /// If it fails again and again, or doesn't start.
    fn restart(
        &mut self,
        number: u16,
        what: String,
        options: &Options,
        console: &mut Console,
    ) -> Result<(), Error> {
        let times = match self.restarted {
            Some((when, times)) if when.elapsed() < RESTARTS_APART => times + 1,
            _ => 1,
        };
        let device = self.ready.ports.get(&number).map(|port| port.info.device.clone());
        let device = device.unwrap_or_default();
        if times > RESTARTS_MAX {
            return Err(Error::Fault { port: number, device, what });
        }
        console.interrupted();
        tracing::warn!("port {number} ({device}): {what}; it is started anew");
        self.stop.set();
        let mut queues = std::mem::take(&mut self.spare);
        let mut rest = Vec::new();
        for RunningLcore { handle, view, plan } in std::mem::take(&mut self.lcores) {
            give_back(handle.join()?, &mut queues);
            rest.push((view, plan));
        }
        if let Some(port) = self.ready.ports.get_mut(&number)
            && let Some(pool) = self.ready.pools.get(&port.info.node)
        {
            port.port.stop(queues.remove(&number).unwrap_or_default())?;
            match port.start(pool, options.promiscuous) {
                Ok(started) => {
                    queues.insert(number, started);
                }
                Err(error) => {
                    self.spare = queues;
                    return Err(error.into());
                }
            }
        }
        self.stop = StopFlag::new();
        let mut shelf = Shelf::new(queues);
        for (view, plan) in rest {
            let mine = shelf.lanes(&plan, &mut self.ready.ports, options);
            let thread = self.ready.eal.lcore(view.lcore)?;
            let handle = launch(thread, mine, &view, &self.stop, options);
            self.lcores.push(RunningLcore { handle, view, plan });
        }
        self.spare = shelf.rest();
        self.restarted = Some((Instant::now(), times));
        Ok(())
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
            let mut faulty = None;
            for port in self.ready.ports.values() {
                if port.port.removed() {
                    let device = port.info.device.clone();
                    return Err(Error::Removed { port: port.number, device });
                }
                faulty = faulty.or_else(|| Some((port.number, port.port.fault()?)));
            }
            if let Some((number, what)) = faulty {
                self.restart(number, what, options, console)?;
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
    /// How it slept, if it did: `lcore 1: slept 12 times, 99.1 % of the time`.
    pub(crate) fn sleep(&self, uptime: Duration) -> Option<String> {
        let (times, slept_us) = (self.counters.sleeps.get(), self.counters.slept_us.get());
        let share = slept_us as f64 / uptime.as_micros().max(1) as f64 * 100.0;
        let lcore = self.lcore.id;
        (times != 0)
            .then(|| format!("lcore {lcore}: slept {times} times, {share:.1} % of the time"))
    }

    /// Its counters now.
    pub(crate) fn counts(&self) -> LcoreCounts {
        let Lcore { id: lcore, cpu, .. } = self.lcore;
        LcoreCounts { lcore, cpu, lanes: self.lanes.clone(), totals: self.counters.read() }
    }
}

/// A port that fails again within this time after a restart has failed in a row, and so many times
/// in a row are enough.
const RESTARTS_APART: Duration = Duration::from_secs(10);
const RESTARTS_MAX: u32 = 5;

/// An lcore forwards.
fn launch(
    thread: LcoreThread,
    mut lanes: Vec<Lane>,
    view: &LcoreView,
    stop: &StopFlag,
    options: &Options,
) -> LcoreHandle<Vec<Lane>> {
    let (counters, stop) = (view.counters.clone(), stop.clone());
    let (burst_len, may_sleep) = (options.burst_len(), options.interrupt_mode);
    thread.launch(move || {
        let queues = lanes.iter().flat_map(|lane| &lane.rx).map(Box::as_ref);
        let sleeper = if may_sleep { Sleeper::new(queues) } else { Ok(None) };
        let sleeper = sleeper.unwrap_or_else(|error| {
            tracing::warn!("--interrupt-mode: {error}; it polls instead");
            None
        });
        forward(&mut lanes, burst_len, &stop, &counters, sleeper.as_ref());
        lanes
    })
}

/// Writes the file, if there is one. That it can't be written is no reason to stop forwarding.
pub(crate) fn report(file: Option<&StatsFile>, snapshot: &Snapshot) {
    if let Some(file) = file
        && let Err(error) = file.write(snapshot)
    {
        tracing::error!("--stats-json {}: can't be written: {error}", file.path().display());
    }
}
