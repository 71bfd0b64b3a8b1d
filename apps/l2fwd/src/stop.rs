//! Puts everything back: lcores, queues, ports, devices; and counts the mbufs.

use std::time::Duration;

use crate::console::Console;
use crate::error::Error;
use crate::json::StatsFile;
use crate::queues::give_back;
use crate::running::{LcoreView, Running, report};
use crate::setup::Ready;
use crate::snapshot::{Mbufs, Snapshot, Span};

/// What the devices still have to send is theirs for this long, before they are reset.
const LAST_FRAMES: Duration = Duration::from_millis(20);

/// Stops all, and goes on to the end whatever happens on the way. The last line that it writes is
/// `mbufs: N of N returned`.
///
/// # Errors
/// The first thing that went wrong, or mbufs that didn't come back.
pub(crate) fn stop(
    running: Running,
    console: &mut Console,
    stats_file: Option<&StatsFile>,
) -> Result<(), Error> {
    let mut failures: Vec<Error> = Vec::new();
    let Running { ready, lcores, spare: mut queues, stop, started, .. } = running;
    stop.set();
    let mut views = Vec::with_capacity(lcores.len());
    for lcore in lcores {
        // The last thing each does is to send what waits in its buffers.
        match lcore.handle.join() {
            Ok(lanes) => give_back(lanes, &mut queues),
            Err(error) => failures.push(error.into()),
        }
        views.push(lcore.view);
    }
    std::thread::sleep(LAST_FRAMES);
    let uptime = started.elapsed();

    let Ready { mut ports, pools, eal, .. } = ready;
    for (number, port) in &mut ports {
        if let Err(error) = port.port.stop(queues.remove(number).unwrap_or_default()) {
            failures.push(error.into());
        }
    }
    let lcore_counts = views.iter().map(LcoreView::counts).collect();
    for port in ports.values_mut() {
        let counted = port.port.extended_stats();
        let counted = counted.iter().filter(|(_, count)| *count != 0);
        let words: Vec<String> = counted.map(|(name, count)| format!("{name}={count}")).collect();
        if !words.is_empty() {
            console.line(&format!("Port {} device counters: {}", port.number, words.join(" ")));
        }
    }
    for line in views.iter().filter_map(|view| view.sleep(uptime)) {
        console.line(&line);
    }
    let last = Snapshot::of(uptime, &ports, &pools, lcore_counts);
    console.statistics(Span { from: None, to: &last });
    report(stats_file, &last);
    // Devices are closed before the last line: who reads it may have them.
    drop(ports);
    let mbufs = Mbufs::of(&pools);
    drop(pools);
    drop(eal);
    if mbufs.returned < mbufs.count {
        failures.push(Error::NotReturned { missing: mbufs.count - mbufs.returned });
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    failures.for_each(|error| tracing::error!("{error}"));
    console.line(&format!("mbufs: {} of {} returned", mbufs.returned, mbufs.count));
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};

    use packetboat::eal::{Eal, Lcore, Options as EalOptions};
    use packetboat::mbuf::{MbufPool, MbufPoolConfig};
    use packetboat::port::PortConfig;

    use super::*;
    use crate::lanes;
    use crate::links;
    use crate::options::{self, Options};
    use crate::portmap::Route;
    use crate::ports::{OpenPort, Ports};
    use crate::setup;
    use crate::signals::{Stopper, Wakeups};
    use crate::testing::{self, Fate, Paper, TestPort, Wire, is, set};

    /// Two test ports, all else as it is in earnest.
    struct Run {
        wires: [Wire; 2],
        fates: [Fate; 2],
        ready: Ready,
        options: Options,
        paper: Paper,
        console: Console,
        wakeups: Wakeups,
        stopper: Stopper,
    }

    const MBUFS: usize = 256;

    fn run(line: &str) -> Run {
        // Tests run at the same time, and lcore numbers are the process'.
        static NEXT: AtomicU32 = AtomicU32::new(100);
        let eal = EalOptions { no_pci: true, no_huge: true, ..EalOptions::default() };
        let eal = Eal::start(&eal, 4 << 20).unwrap();
        let config = MbufPoolConfig { cache_size: 16, ..MbufPoolConfig::new("mbufs", MBUFS) };
        let pool = MbufPool::new(eal.memory(), &config).unwrap();
        let lcore =
            Lcore { id: NEXT.fetch_add(1, Ordering::Relaxed), ..eal.lcores().application()[0] };
        let routes = [Route { from: 0, to: 1 }, Route { from: 1, to: 0 }];
        let plans = lanes::assign(&routes, 1, None, &[lcore], None).unwrap();
        let lcores = plans.into_iter().map(|plan| (eal.lcore(plan.lcore).unwrap(), plan)).collect();
        let wires = [Wire::new(64), Wire::new(64)];
        let fates = [Fate::default(), Fate::default()];
        let mut ports = Ports::new();
        for number in [0, 1_u16] {
            let at = usize::from(number);
            let port = Box::new(TestPort::new(number, &wires[at], &fates[at]));
            let config = PortConfig {
                number,
                rx_queues: 1,
                tx_queues: 1,
                rx_descriptors: None,
                tx_descriptors: None,
                ..PortConfig::default()
            };
            ports.insert(number, OpenPort::configure(port, config).unwrap());
        }
        let (wakeups, stopper) = Wakeups::new();
        let paper = Paper::default();
        Run {
            wires,
            fates,
            ready: Ready { ports, pools: BTreeMap::from([(None, pool)]), lcores, eal },
            options: options::tests::parse(line).unwrap().l2fwd,
            console: Console::to(paper.writer(), false),
            paper,
            wakeups,
            stopper,
        }
    }

    impl Run {
        /// All that `control::run` does once the ports are open. `meanwhile` has a thread of its
        /// own, and ends the run if nothing else does.
        fn go(
            mut self,
            meanwhile: impl FnOnce([Wire; 2], [Fate; 2]) + Send + 'static,
        ) -> (Result<(), Error>, Result<(), Error>, String) {
            let queues = setup::start(&mut self.ready, &self.options).unwrap();
            links::wait(&mut self.ready.ports, &mut self.console, &self.wakeups);
            let mut running = Running::launch(self.ready, queues, &self.options);
            let (wires, fates, stopper) = (self.wires, self.fates, self.stopper);
            let other = std::thread::spawn(move || {
                meanwhile(wires, fates);
                stopper.stop();
            });
            let watched = running.watch(&self.options, &mut self.console, None, &self.wakeups);
            let stopped = stop(running, &mut self.console, None);
            other.join().unwrap();
            (watched, stopped, self.paper.take())
        }
    }

    #[test]
    fn a_run_forwards_reports_and_gives_everything_back() {
        let run = run("-T 0");
        let fates = run.fates.clone();
        let (watched, stopped, text) = run.go(|wires, fates| {
            assert!(fates.iter().all(|fate| is(&fate.started)));
            (0..500).for_each(|number| wires[0].arrive(testing::frame(0, number)));
            testing::wait_until(|| wires[1].sent_len() == 500);
            let sent = wires[1].take_sent();
            assert_eq!(sent[499][..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 1]);
            assert_eq!(sent[499][12..], testing::frame(0, 499)[12..]);
        });
        watched.unwrap();
        stopped.unwrap();
        assert!(!fates.iter().any(|fate| is(&fate.started)));
        assert!(text.starts_with("Port 0 Link Up\nPort 1 Link Up\nuptime_s="), "{text}");
        assert!(text.ends_with(&format!("\nmbufs: {MBUFS} of {MBUFS} returned\n")), "{text}");
        assert_eq!(text.matches("lcore=").count(), 1, "only the last report: {text}");
    }

    #[test]
    fn reports_come_each_period() {
        let (_, _, text) = run("-T 1").go(|_, _| {
            std::thread::sleep(Duration::from_millis(2500));
        });
        assert_eq!(text.matches("lcore=").count(), 3, "{text}");
    }

    #[test]
    fn a_device_that_is_taken_away_ends_the_run_cleanly() {
        let (watched, stopped, text) = run("").go(|_, fates| {
            set(&fates[1].removed, true);
            testing::wait_until(|| !is(&fates[1].started));
        });
        let error = watched.unwrap_err().to_string();
        assert!(error.contains("port 1") && error.contains("device test1"), "{error}");
        stopped.unwrap();
        assert!(text.ends_with(&format!("mbufs: {MBUFS} of {MBUFS} returned\n")), "{text}");
    }

    #[test]
    fn a_device_that_lies_ends_the_run_cleanly() {
        let (watched, stopped, text) = run("").go(|_, fates| {
            set(&fates[0].faulty, true);
            testing::wait_until(|| !is(&fates[0].started));
        });
        let error = watched.unwrap_err().to_string();
        assert!(error.contains("port 0: test0: it claims what can't be"), "{error}");
        stopped.unwrap();
        assert!(text.ends_with(&format!("mbufs: {MBUFS} of {MBUFS} returned\n")), "{text}");
    }

    #[test]
    fn a_link_that_goes_down_and_up_again_stops_nothing() {
        let (watched, stopped, text) = run("-T 1").go(|wires, fates| {
            set(&fates[0].unplugged, true);
            std::thread::sleep(Duration::from_millis(1200));
            set(&fates[0].unplugged, false);
            std::thread::sleep(Duration::from_millis(1000));
            wires[1].arrive(testing::frame(1, 1));
            testing::wait_until(|| wires[0].sent_len() == 1);
        });
        watched.and(stopped).unwrap();
        assert!(text.contains("port=0 device=test0 link=down"), "{text}");
        assert!(text.contains("uptime_s=2.") && text.matches("link=down").count() == 1, "{text}");
    }

    #[test]
    fn a_device_that_keeps_its_mbufs_is_an_error_that_counts_them() {
        let run = run("-T 0");
        let (watched, stopped, text) = run.go(|wires, fates| {
            set(&fates[1].stuck, true);
            wires[1].hold();
            (0..3).for_each(|number| wires[0].arrive(testing::frame(0, number)));
            testing::wait_until(|| wires[1].sent_len() == 3);
        });
        watched.unwrap();
        assert!(stopped.unwrap_err().to_string().contains("can't be reset"));
        assert!(text.ends_with(&format!("mbufs: {} of {MBUFS} returned\n", MBUFS - 3)), "{text}");
    }

    #[test]
    fn if_one_port_does_not_start_none_stays_started() {
        for (line, broken) in [("", true), ("-P", false)] {
            let mut run = run(line);
            set(&run.fates[1].broken, broken);
            let error = setup::start(&mut run.ready, &run.options).unwrap_err().to_string();
            assert!(error.contains(if broken { "test1: won't start" } else { "promiscuous" }));
            assert!(!run.fates.iter().any(|fate| is(&fate.started)));
            assert_eq!(Mbufs::of(&run.ready.pools).returned, MBUFS);
        }
    }
}
