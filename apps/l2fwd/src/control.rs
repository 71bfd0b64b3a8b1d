//! The control plane: starts everything, watches links, devices and signals, reports, and stops.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use packetboat::eal::{Lcore, LcoreHandle, StopFlag, start_logging};

use crate::console::Console;
use crate::counters::LcoreCounters;
use crate::error::Error;
use crate::forward::{Lane, forward};
use crate::json::StatsFile;
use crate::lanes;
use crate::options::{Arguments, Options};
use crate::queues::{QueuesByPort, Shelf};
use crate::setup::{self, Ready};
use crate::snapshot::{LcoreCounts, Snapshot, Span};
use crate::{links, stop};

/// Between two looks at links and devices.
const TICK: Duration = Duration::from_millis(100);

/// The whole run, until somebody ends it or something goes wrong.
///
/// # Errors
/// Whatever went wrong; all that was taken has been given back.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    start_logging(arguments.eal.log_level);
    let options = &arguments.l2fwd;
    let stats_file = options.stats_json.as_deref().map(check_stats_file).transpose()?;
    let wakeups = Wakeups::on_signals()?;
    let mut console = Console::new();

    let mut ready = setup::prepare(arguments)?;
    let queues = setup::start(&mut ready, options)?;
    describe_ports(&ready, &mut console);
    links::wait(&mut ready.ports, &mut console, &wakeups);

    let mut running = Running::launch(ready, queues, options);
    console.line(&format!(
        "Forwarding between {} ports on {} lcores; Ctrl-C stops",
        running.ready.ports.len(),
        running.lcores.len()
    ));
    let watched = running.watch(options, &mut console, stats_file.as_ref(), &wakeups);
    let stopped = stop::stop(running, &mut console, stats_file.as_ref());
    match (watched, stopped) {
        (Err(reason), Err(consequence)) => {
            tracing::error!("{consequence}");
            Err(reason)
        }
        (watched, stopped) => watched.and(stopped),
    }
}

fn check_stats_file(path: &std::path::Path) -> Result<StatsFile, Error> {
    StatsFile::check(path).map_err(|source| Error::StatsFile { path: path.to_owned(), source })
}

fn describe_ports(ready: &Ready, console: &mut Console) {
    for port in ready.ports.values() {
        let info = &port.info;
        console.line(&format!(
            "Port {}: {} {}, address {}, {} rx queues of {} descriptors, {} tx queues of {}",
            port.number,
            info.device,
            info.driver,
            info.mac,
            port.config.rx_queues,
            port.rx_descriptors(),
            port.config.tx_queues,
            port.tx_descriptors()
        ));
    }
}

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
    fn launch(mut ready: Ready, queues: QueuesByPort, options: &Options) -> Self {
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
    fn watch(
        &mut self,
        options: &Options,
        console: &mut Console,
        stats_file: Option<&StatsFile>,
        wakeups: &Wakeups,
    ) -> Result<(), Error> {
        let period = Duration::from_secs(u64::from(options.period));
        let mut last = self.snapshot();
        write_stats(stats_file, &last);
        while !wakeups.wait(TICK) {
            for port in self.ready.ports.values() {
                if port.port.removed() {
                    let device = port.info.device.clone();
                    return Err(Error::Removed { port: port.number, device });
                }
            }
            if let Some(lcore) = self.lcores.iter().find(|lcore| lcore.handle.is_finished()) {
                return Err(Error::LcoreEnded { lcore: lcore.view.lcore.id });
            }
            links::watch(&mut self.ready.ports, console);
            if !period.is_zero() && self.started.elapsed() >= last.uptime + period {
                let now = self.snapshot();
                console.statistics(Span { from: Some(&last), to: &now });
                write_stats(stats_file, &now);
                last = now;
            }
        }
        Ok(())
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
pub(crate) fn write_stats(file: Option<&StatsFile>, snapshot: &Snapshot) {
    if let Some(file) = file
        && let Err(error) = file.write(snapshot)
    {
        tracing::error!("--stats-json {}: can't be written: {error}", file.path().display());
    }
}

/// Ctrl-C and SIGTERM, for one who sleeps meanwhile.
pub(crate) struct Wakeups {
    stop: StopFlag,
    signals: Receiver<()>,
}

impl Wakeups {
    /// Listens to signals from now on.
    fn on_signals() -> Result<Self, Error> {
        let stop = StopFlag::new();
        let (sender, signals) = channel();
        let flag = stop.clone();
        ctrlc::set_handler(move || {
            flag.set();
            let _ = sender.send(());
        })?;
        Ok(Self { stop, signals })
    }

    /// Sleeps for `time`, or less if there is a reason to stop: true then, and from then on.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        if !self.stop.is_set() {
            match self.signals.recv_timeout(time) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(time),
            }
        }
        self.stop.is_set()
    }
}
