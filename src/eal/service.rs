//! Services: background work on lcores of its own.

use std::sync::Arc;

use super::error::EalError;
use super::lcore::{Lcore, LcoreHandle, LcoreThread, wait_all};
use super::stop::StopFlag;
use crate::sys::tsc;
use crate::telemetry::{Counter, LoopCycles, LoopTicks};

/// Work that an application has registered, to be run on service lcores (`-S`). Each service
/// belongs to one of them, which calls its services in turn; so a service needs no lock, and one
/// that doesn't return holds up those beside it.
///
/// ```no_run
/// use packetboat::eal::{Eal, Options, Services, StopFlag};
/// let eal = Eal::start(&Options::default(), 0)?;
/// let (stop, mut aged) = (StopFlag::new(), 0_u64);
/// let services = Services::new().with("aging", move || {
///     aged += 1;
///     aged % 1000 == 0 // was there something to do?
/// });
/// let running = eal.start_services(services, &stop)?;
/// // … later …
/// for service in running.counts() {
///     println!("{}: {:.1} % busy", service.name, service.time.busy_share() * 100.0);
/// }
/// stop.set();
/// running.join()?;
/// # Ok::<(), packetboat::eal::EalError>(())
/// ```
#[derive(Default)]
pub struct Services(Vec<Service>);

struct Service {
    run: Box<dyn FnMut() -> bool + Send>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Counters {
    name: String,
    calls: Counter,
    cycles: LoopCycles,
}

/// What a service has counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Its name.
    pub name: String,
    /// The lcore that runs it.
    pub lcore: u32,
    /// Calls.
    pub calls: u64,
    /// Ticks in it; busy are those of calls that had something to do.
    pub time: LoopTicks,
}

impl Services {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// And this one. `run` is called over and over, and says whether there was something to do.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        run: impl FnMut() -> bool + Send + 'static,
    ) -> Self {
        let (calls, cycles) = (Counter::default(), LoopCycles::default());
        let counters = Arc::new(Counters { name: name.into(), calls, cycles });
        self.0.push(Service { run: Box::new(run), counters });
        self
    }

    /// Deals them out to `lcores` in turn, and starts those that got any.
    pub(super) fn start(
        self,
        lcores: &[Lcore],
        stop: &StopFlag,
    ) -> Result<RunningServices, EalError> {
        if let Some(first) = self.0.first().filter(|_| lcores.is_empty()) {
            let (count, first) = (self.0.len(), first.counters.name.clone());
            return Err(EalError::NoServiceLcore { count, first });
        }
        let mut hands: Vec<(Lcore, Vec<Service>)> =
            lcores.iter().take(self.0.len()).map(|lcore| (*lcore, Vec::new())).collect();
        let mut running = RunningServices { counters: Vec::new(), handles: Vec::new() };
        let count = hands.len();
        for (nth, service) in self.0.into_iter().enumerate() {
            let Some((lcore, hand)) = hands.get_mut(nth % count) else { break };
            running.counters.push((lcore.id, Arc::clone(&service.counters)));
            hand.push(service);
        }
        // All threads first: if one can't be had, nothing has run yet.
        let hands = hands
            .into_iter()
            .map(|(lcore, hand)| Ok((LcoreThread::start(lcore)?, hand)))
            .collect::<Result<Vec<_>, EalError>>()?;
        for (thread, hand) in hands {
            let stop = stop.clone();
            running.handles.push(thread.launch(move || serve(hand, &stop)));
        }
        Ok(running)
    }
}

/// A service lcore's whole life.
fn serve(mut services: Vec<Service>, stop: &StopFlag) {
    let mut now = tsc::now();
    while !stop.is_set() {
        for Service { run, counters } in &mut services {
            let busy = run();
            let before = std::mem::replace(&mut now, tsc::now());
            counters.cycles.add(now.wrapping_sub(before), busy);
            counters.calls.add(1);
        }
    }
}

/// Services that run.
#[derive(Debug)]
pub struct RunningServices {
    /// Each with its lcore, in the order in which they were registered.
    counters: Vec<(u32, Arc<Counters>)>,
    handles: Vec<LcoreHandle<()>>,
}

impl RunningServices {
    /// What each has counted, in the order in which they were registered.
    #[must_use]
    pub fn counts(&self) -> Vec<ServiceCounts> {
        let counts = |(lcore, counters): &(u32, Arc<Counters>)| ServiceCounts {
            name: counters.name.clone(),
            lcore: *lcore,
            calls: counters.calls.get(),
            time: counters.cycles.read(),
        };
        self.counters.iter().map(counts).collect()
    }

    /// Whether one of the lcores has ended: stopped, or dead by a panic.
    #[must_use]
    pub fn any_ended(&self) -> bool {
        self.handles.iter().any(LcoreHandle::is_finished)
    }

    /// Waits until all have ended, which they do when the flag is set.
    ///
    /// # Errors
    /// If a service panicked; the lcore is named.
    pub fn join(self) -> Result<(), EalError> {
        wait_all(self.handles).map(|_| ())
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|service| &service.counters.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::lcore::Role;
    use super::*;
    use crate::sys::cpu;
    use crate::sys::lcore_id;
    use crate::sys::sysroot::SysRoot;

    fn lcore(id: u32) -> Lcore {
        let cpu = cpu::allowed(&SysRoot::default()).unwrap()[0];
        Lcore { id, cpu, node: None, role: Role::Service }
    }

    #[test]
    fn services_take_turns_on_their_lcores_and_are_counted_apart() {
        let ran = Arc::new([const { AtomicU64::new(0) }; 3]);
        let service = |nth: usize, wanted: u32, busy: bool| {
            let ran = Arc::clone(&ran);
            move || {
                assert_eq!(lcore_id::current(), Some(wanted));
                ran[nth].fetch_add(1, Ordering::Relaxed);
                busy
            }
        };
        let services = Services::new()
            .with("first", service(0, 123, true))
            .with("second", service(1, 124, false))
            .with("third", service(2, 123, false));
        assert_eq!(format!("{services:?}"), "[\"first\", \"second\", \"third\"]");
        let stop = StopFlag::new();
        let running = services.start(&[lcore(123), lcore(124)], &stop).unwrap();
        while ran.iter().any(|count| count.load(Ordering::Relaxed) < 100) {
            assert!(!running.any_ended());
            std::thread::yield_now();
        }
        stop.set();
        let counters = running.counters.clone();
        running.join().unwrap();
        let running = RunningServices { counters, handles: Vec::new() };
        let [first, second, third] = running.counts().try_into().unwrap();
        assert_eq!(
            (&*first.name, first.lcore, second.lcore, third.lcore),
            ("first", 123, 124, 123)
        );
        for (counts, ran) in [&first, &second, &third].into_iter().zip(ran.iter()) {
            assert_eq!(counts.calls, ran.load(Ordering::Relaxed));
            assert!(counts.time.ticks > 0);
        }
        assert_eq!(first.calls, third.calls);
        assert_eq!((first.time.busy_share(), third.time.busy_share()), (1.0, 0.0));
    }

    #[test]
    fn a_service_that_panics_is_an_error_that_names_the_lcore() {
        let services = Services::new().with("bad", || panic!("no good"));
        let running = services.start(&[lcore(126)], &StopFlag::new()).unwrap();
        let error = running.join().unwrap_err().to_string();
        assert!(error.contains("lcore 126 died") && error.contains("no good"), "{error}");
    }

    #[test]
    fn services_without_an_lcore_are_an_error_and_none_need_none() {
        let stop = StopFlag::new();
        let error = Services::new().with("lone", || false).start(&[], &stop).unwrap_err();
        assert!(error.to_string().contains("lone") && error.to_string().contains("-S"), "{error}");
        Services::new().start(&[], &stop).unwrap().join().unwrap();
        // More lcores than services: those without any aren't started.
        let one = Services::new().with("one", || false);
        let running = one.start(&[lcore(127), lcore(9999)], &stop).unwrap();
        stop.set();
        running.join().unwrap();
    }
}
