//! Lcores: numbers that stand for CPUs, and the threads that run on them.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::error::EalError;
use super::options::Options;
use crate::sys::lcore_id::{LcoreClaim, MAX_LCORES};
use crate::sys::sysroot::SysRoot;
use crate::sys::{cpu, idlist};

/// What an lcore is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The application's work, and control work runs on its CPU, too: `--main-lcore`, or the first.
    Main,
    /// The application's work alone.
    #[default]
    Worker,
    /// Services (`-S`): see [`Services`](super::Services).
    Service,
}

/// A logical core: a number of ours and the CPU that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lcore {
    /// Its number; indexes per-lcore storage.
    pub id: u32,
    /// The CPU its thread is pinned to.
    pub cpu: u32,
    /// The CPU's NUMA node, if the machine has nodes.
    pub node: Option<u32>,
    /// What it is for.
    pub role: Role,
}

/// The lcores that `-l` asks for, checked against the machine, each with its role by `-S` and
/// `--main-lcore`.
pub(super) fn choose(options: &Options, root: &SysRoot) -> Result<Vec<Lcore>, EalError> {
    let allowed = cpu::allowed(root).map_err(EalError::Cpus)?;
    // Without sysfs what is allowed is all that is known.
    let online = cpu::online(root).unwrap_or_else(|_| allowed.clone());
    let everywhere = || allowed.iter().take(MAX_LCORES).enumerate().map(by_number).collect();
    let pairs = options.lcores.as_ref().map_or_else(everywhere, |list| list.pairs().to_vec());
    let mut lcores = Vec::with_capacity(pairs.len());
    for (lcore, cpu) in pairs {
        let (allowed_list, online_list) = (idlist::format(&allowed), idlist::format(&online));
        if !online.contains(&cpu) {
            let (online, allowed) = (online_list, allowed_list);
            return Err(EalError::NoSuchCpu { lcore, cpu, online, allowed });
        }
        if !allowed.contains(&cpu) {
            let (online, allowed) = (online_list, allowed_list);
            return Err(EalError::CpuNotAllowed { lcore, cpu, online, allowed });
        }
        if lcore as usize >= MAX_LCORES {
            return Err(EalError::LcoreOutOfRange { lcore, cpu });
        }
        if let Some(Lcore { id, .. }) = lcores.iter().find(|other: &&Lcore| other.cpu == cpu) {
            tracing::warn!("lcores {id} and {lcore} share CPU {cpu}, and will take turns");
        }
        let node = cpu::node_of(root, cpu);
        lcores.push(Lcore { id: lcore, cpu, node, role: Role::Worker });
    }
    give_roles(&mut lcores, options)?;
    Ok(lcores)
}

fn give_roles(lcores: &mut [Lcore], options: &Options) -> Result<(), EalError> {
    let listed = idlist::format(&lcores.iter().map(|lcore| lcore.id).collect::<Vec<u32>>());
    for &service in &options.service_lcores.0 {
        match lcores.iter_mut().find(|lcore| lcore.id == service) {
            Some(lcore) => lcore.role = Role::Service,
            None => return Err(EalError::NoSuchService { service, lcores: listed }),
        }
    }
    let none = lcores.is_empty(); // said elsewhere
    let mut others = lcores.iter_mut().filter(|lcore| lcore.role != Role::Service);
    let chosen = match options.main_lcore {
        Some(main) => others.find(|lcore| lcore.id == main),
        None => others.next(),
    };
    match (chosen, options.main_lcore) {
        (Some(lcore), _) => {
            lcore.role = Role::Main;
            Ok(())
        }
        (None, Some(main)) if options.service_lcores.0.contains(&main) => {
            Err(EalError::MainIsService { main })
        }
        (None, Some(main)) => Err(EalError::NoSuchMain { main, lcores: listed }),
        (None, None) if none => Ok(()),
        (None, None) => Err(EalError::OnlyServices { lcores: listed }),
    }
}

/// An lcore for each CPU by the CPU's number, or counted through where that is too high.
fn by_number((index, cpu): (usize, &u32)) -> (u32, u32) {
    let counted = u32::try_from(index).unwrap_or(u32::MAX);
    (if (*cpu as usize) < MAX_LCORES { *cpu } else { counted }, *cpu)
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that is an lcore already, pinned and named, and waits for something to do. Dropped, it
/// ends.
#[derive(Debug)]
pub struct LcoreThread {
    lcore: Lcore,
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl LcoreThread {
    /// Starts the thread, and waits until it is on its CPU.
    ///
    /// # Errors
    /// If there is no thread to be had, its CPU refuses it, or another thread is that lcore.
    pub(super) fn start(lcore: Lcore) -> Result<Self, EalError> {
        let Lcore { id, cpu, .. } = lcore;
        let (jobs, inbox) = channel::<Job>();
        let (report, ready) = channel();
        let body = move || {
            if let Err(source) = cpu::pin_current_thread(cpu) {
                let _ = report.send(Err(EalError::Pin { lcore: id, cpu, source }));
                return;
            }
            let claim = match LcoreClaim::claim(id) {
                Ok(claim) => claim,
                Err(error) => {
                    let _ = report.send(Err(error.into()));
                    return;
                }
            };
            let _ = report.send(Ok(()));
            if let Ok(job) = inbox.recv() {
                job();
            }
            drop(claim);
        };
        let thread = Builder::new()
            .name(format!("lcore-{id}"))
            .spawn(body)
            .map_err(|source| EalError::Thread { lcore: id, source })?;
        match ready.recv() {
            Ok(Ok(())) => Ok(Self { lcore, jobs, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(EalError::LcorePanicked { lcore: id, message: "at its start".into() }),
        }
    }

    /// The lcore it is.
    #[must_use]
    pub fn lcore(&self) -> Lcore {
        self.lcore
    }

    /// Runs `work` on the lcore.
    pub fn launch<T, F>(self, work: F) -> LcoreHandle<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, result) = channel();
        let job: Job = Box::new(move || {
            // What the work owned is gone with a panic, and nothing of it is looked at again.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        });
        // The thread waits for just this message, so it is there to take it.
        let _ = self.jobs.send(job);
        LcoreHandle { lcore: self.lcore, result, thread: self.thread }
    }
}

/// Work that runs on an lcore.
#[derive(Debug)]
pub struct LcoreHandle<T> {
    lcore: Lcore,
    result: Receiver<Result<T, Box<dyn Any + Send>>>,
    thread: JoinHandle<()>,
}

impl<T> LcoreHandle<T> {
    /// The lcore it runs on.
    #[must_use]
    pub fn lcore(&self) -> Lcore {
        self.lcore
    }

    /// Whether it has ended, by itself or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it ends, and gives what it returned.
    ///
    /// # Errors
    /// If it panicked.
    pub fn join(self) -> Result<T, EalError> {
        let lcore = self.lcore.id;
        let result = self.result.recv();
        let _ = self.thread.join();
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                let message = panic_message(panic.as_ref());
                Err(EalError::LcorePanicked { lcore, message })
            }
            Err(_) => {
                let message = "its thread ended without a word".to_owned();
                Err(EalError::LcorePanicked { lcore, message })
            }
        }
    }
}

/// Waits for all of them, even if one has panicked, and gives what they returned, in their order.
///
/// # Errors
/// The first panic.
pub fn wait_all<T>(handles: impl IntoIterator<Item = LcoreHandle<T>>) -> Result<Vec<T>, EalError> {
    // All are joined before the first error is looked at.
    let results: Vec<_> = handles.into_iter().map(LcoreHandle::join).collect();
    results.into_iter().collect()
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// For people: `lcore 0 on CPU 2`.
impl fmt::Display for Lcore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lcore {} on CPU {}", self.id, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::options::LcoreList;
    use super::*;
    use crate::sys::lcore_id;

    /// A machine of four CPUs of which this process may use 1 and 2.
    fn machine() -> (tempfile::TempDir, SysRoot) {
        let tree = tempfile::tempdir().unwrap();
        let root = SysRoot::new(tree.path());
        fs::create_dir_all(root.path("/sys/devices/system/cpu/cpu2/node1")).unwrap();
        fs::write(root.path("/sys/devices/system/cpu/online"), "0-3\n").unwrap();
        fs::create_dir_all(root.path("/proc/self")).unwrap();
        fs::write(root.path("/proc/self/status"), "Cpus_allowed_list:\t1-2\n").unwrap();
        (tree, root)
    }

    fn outcome(lcores: Option<&str>, main: Option<u32>) -> Result<Vec<Lcore>, String> {
        let (_tree, root) = machine();
        let lcores = lcores.map(|text| text.parse::<LcoreList>().unwrap());
        let options = Options { lcores, main_lcore: main, ..Options::default() };
        choose(&options, &root).map_err(|error| error.to_string())
    }

    #[test]
    fn lcores_are_the_cpus_asked_for_or_all_allowed() {
        let one = Lcore { id: 1, cpu: 1, node: None, role: Role::Main };
        let two = Lcore { id: 2, cpu: 2, node: Some(1), role: Role::Worker };
        assert_eq!(outcome(None, None).unwrap(), [one, two]);
        assert_eq!(outcome(Some("2"), Some(2)).unwrap(), [Lcore { role: Role::Main, ..two }]);
        let seven = Lcore { id: 7, role: Role::Main, ..two };
        assert_eq!(outcome(Some("7@2"), None).unwrap(), [seven]);
    }

    #[test]
    fn lcores_that_can_not_be_are_named_with_what_can() {
        let says = |lcores: &str, main: Option<u32>, parts: &[&str]| {
            let error = outcome(Some(lcores), main).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
        };
        says("1,9", None, &["-l", "CPU 9", "no such CPU", "0-3", "1-2"]);
        says("3", None, &["-l", "CPU 3", "CPUs 1-2 only", "taskset"]);
        says("500@1", None, &["lcore 500", "0 to 127", "-l 0@1"]);
        says("1-2", Some(3), &["--main-lcore 3", "1-2"]);
    }

    #[test]
    fn services_and_the_main_lcore_have_lcores_of_their_own() {
        let roles = |services: &str, main| {
            let (_tree, root) = machine();
            let service_lcores = services.parse().unwrap();
            let options = Options { service_lcores, main_lcore: main, ..Options::default() };
            let lcores = choose(&options, &root).map_err(|error| error.to_string())?;
            Ok::<_, String>(lcores.iter().map(|lcore| lcore.role).collect::<Vec<_>>())
        };
        assert_eq!(roles("1", None).unwrap(), [Role::Service, Role::Main]);
        assert_eq!(roles("2", Some(1)).unwrap(), [Role::Main, Role::Service]);
        let says = |services, main, parts: &[&str]| {
            let error = roles(services, main).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
        };
        says("3", None, &["-S", "lcore 3", "1-2"]);
        says("1-2", None, &["-S", "1-2", "none is left"]);
        says("1", Some(1), &["--main-lcore 1", "-S"]);
    }

    /// An lcore on a CPU of this machine. Other tests claim other numbers.
    fn here(id: u32) -> Lcore {
        let cpu = cpu::allowed(&SysRoot::default()).unwrap()[0];
        Lcore { id, cpu, node: None, role: Role::Worker }
    }

    #[test]
    fn work_runs_on_its_lcore_and_gives_its_result_back() {
        let lcore = here(93);
        let thread = LcoreThread::start(lcore).unwrap();
        assert!(matches!(LcoreThread::start(lcore), Err(EalError::Claim(_))));
        let handle = thread.launch(|| {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            (lcore_id::current(), status)
        });
        let (id, status) = handle.join().unwrap();
        assert_eq!(id, Some(93));
        assert!(status.contains("Name:\tlcore-93\n"), "{status}");
        assert!(status.contains(&format!("Cpus_allowed_list:\t{}\n", lcore.cpu)), "{status}");
        // The number is free again.
        drop(LcoreThread::start(lcore).unwrap());
    }

    #[test]
    fn a_panic_is_an_error_of_the_one_who_waits() {
        let handle = LcoreThread::start(here(94)).unwrap().launch(|| -> () { panic!("on {}", 94) });
        let error = handle.join().unwrap_err().to_string();
        assert!(error.contains("lcore 94 died: on 94"), "{error}");
    }

    #[test]
    fn all_are_waited_for_and_a_panic_of_one_is_the_answer() {
        let threads = || [96, 97, 98].map(|id| LcoreThread::start(here(id)).unwrap());
        let handles = threads().map(|thread| thread.launch(lcore_id::current));
        assert_eq!(wait_all(handles).unwrap(), [Some(96), Some(97), Some(98)]);
        let handles = threads().map(|thread| {
            let id = thread.lcore().id;
            thread.launch(move || assert_ne!(id, 97, "not here"))
        });
        let error = wait_all(handles).unwrap_err().to_string();
        assert!(error.contains("lcore 97 died") && error.contains("not here"), "{error}");
        // All have ended: their numbers are free.
        drop(threads());
    }

    #[test]
    fn a_cpu_that_refuses_is_an_error() {
        let error = LcoreThread::start(Lcore { cpu: 9999, ..here(95) }).unwrap_err();
        assert!(matches!(error, EalError::Pin { cpu: 9999, .. }), "{error}");
    }
}
