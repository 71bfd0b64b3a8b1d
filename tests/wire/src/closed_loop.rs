//! Sends frames into every port of the guest and judges what comes out, with a bounded number on
//! their way at any time, so that nothing between here and the guest has to drop any.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::check::{Checker, Expectation};
use crate::frame::Label;
use crate::report::{PortTally, Report};
use crate::stream::{Event, FrameReader, write_frame};

/// What a run does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What must become of the frames.
    pub(crate) expectation: Expectation,
    /// Frames to send into each port of `senders`.
    pub(crate) frames: u64,
    /// Ports that frames are sent into; the others only listen.
    pub(crate) senders: Vec<u8>,
    /// Frames of one port that may be on their way at a time.
    pub(crate) window: u64,
    /// Pause before each batch of frames, to send slowly; zero for none.
    pub(crate) pause: Duration,
    /// How long nothing may come back before the rest is given up as lost.
    pub(crate) patience: Duration,
    /// How long to listen for second copies and strangers after the last frame.
    pub(crate) linger: Duration,
}

/// A failure of the run itself; what the guest does wrong is in the [`Report`] instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// A socket can't be opened.
    #[error(
        "wanted QEMU to listen on {path} for port {port}, found: {source}. \
         Is the guest up? Start it with: scripts/rig/run.sh"
    )]
    Connect {
        /// Number of the port.
        port: usize,
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU went away or the stream broke.
    #[error("wanted frames from port {port}, found: {source}. See the log of QEMU")]
    Socket {
        /// Number of the port.
        port: u8,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs `plan` over `sockets`, one per port.
///
/// # Errors
/// [`WireError`] if a connection breaks. Deviations aren't errors here.
pub(crate) fn run(plan: &Plan, sockets: Vec<UnixStream>) -> Result<Report, WireError> {
    let run = Run::new(plan, sockets.len());
    let mut ports: Vec<PortTally> = Vec::new();
    let mut failure = None;
    thread::scope(|scope| {
        let mut listeners = Vec::new();
        let mut senders = Vec::new();
        for (port, socket) in sockets.iter().enumerate() {
            let (run, port) = (&run, port as u8);
            listeners.push((port, scope.spawn(move || run.listen(port, socket))));
            if plan.senders.contains(&port) {
                senders.push((port, scope.spawn(move || run.send(port, socket))));
            }
        }
        run.watch();
        let panicked = |_| Err(io::Error::other("a thread of the wire panicked"));
        for (port, sender) in senders {
            if let Err(source) = sender.join().unwrap_or_else(panicked) {
                failure = Some(WireError::Socket { port, source });
            }
        }
        for (port, listener) in listeners {
            let (tally, result) =
                listener.join().unwrap_or_else(|cause| (PortTally::default(), panicked(cause)));
            ports.push(tally);
            if let Err(source) = result {
                failure = Some(WireError::Socket { port, source });
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(run.report(ports)),
    }
}

/// What the threads of a run share.
struct Run<'a> {
    plan: &'a Plan,
    lanes: Vec<Lane>,
    began: Instant,
    /// When a frame last came back, in milliseconds after `began`.
    progress_ms: AtomicU64,
    /// When the first frame came back.
    first: Mutex<Option<SystemTime>>,
    last: Mutex<Instant>,
    stop: AtomicBool,
}

/// The frames that enter at one port.
struct Lane {
    state: Mutex<LaneState>,
    /// Signalled when frames have come back, and at the end.
    room: Condvar,
}

struct LaneState {
    checker: Checker,
    sent: u64,
    sent_bytes: u64,
}

/// After a panic of another thread the tallies are still worth reporting.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const POLL: Duration = Duration::from_millis(100);

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, ports: usize) -> Self {
        let lane = |port| Lane {
            state: Mutex::new(LaneState {
                checker: Checker::new(plan.expectation.clone(), port, plan.frames),
                sent: 0,
                sent_bytes: 0,
            }),
            room: Condvar::new(),
        };
        Self {
            plan,
            lanes: (0..ports as u8).map(lane).collect(),
            began: Instant::now(),
            progress_ms: AtomicU64::new(0),
            first: Mutex::new(None),
            last: Mutex::new(Instant::now()),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends this port's frames, never more than the window ahead of what came back.
    fn send(&self, port: u8, mut socket: &UnixStream) -> io::Result<()> {
        socket.set_write_timeout(Some(POLL))?;
        let lane = &self.lanes[usize::from(port)];
        let mut batch = Vec::new();
        let mut seq = 0;
        while seq < self.plan.frames {
            let mut state = lock(&lane.state);
            while state.sent - state.checker.received() >= self.plan.window {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                state =
                    lane.room.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
            }
            let room = self.plan.window - (state.sent - state.checker.received());
            let until = self.plan.frames.min(seq + room);
            batch.clear();
            for number in seq..until {
                let frame = self.plan.expectation.recipe.build(port, number);
                state.sent_bytes += frame.len() as u64;
                write_frame(&mut batch, &frame)?;
            }
            // Counted before they go, so that what comes back can't be ahead of what was sent.
            state.sent = until;
            drop(state);
            seq = until;
            if !self.plan.pause.is_zero() {
                thread::sleep(self.plan.pause);
            }
            if !self.write_all(&mut socket, &batch)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`; false if the run ended before QEMU took them.
    fn write_all(&self, socket: &mut &UnixStream, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            match socket.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Judges what leaves the guest at this port until the run ends.
    fn listen(&self, port: u8, socket: &UnixStream) -> (PortTally, io::Result<()>) {
        let mut tally = PortTally { port, ..PortTally::default() };
        let result = self.listen_into(&mut tally, port, socket);
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        (tally, result)
    }

    fn listen_into(&self, tally: &mut PortTally, port: u8, socket: &UnixStream) -> io::Result<()> {
        socket.set_read_timeout(Some(POLL))?;
        let mut frames = FrameReader::new(socket);
        while !self.stop.load(Ordering::Relaxed) {
            match frames.next()? {
                Event::Frame(frame) => {
                    tally.received += 1;
                    tally.received_bytes += frame.len() as u64;
                    match Label::read(frame) {
                        Some(label) if self.is_ours(label) => self.arrived(label, port, frame),
                        Some(_) => tally.stale += 1,
                        None => tally.strangers += 1,
                    }
                }
                Event::Nothing => {}
                Event::Closed => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "QEMU closed the connection",
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_ours(&self, label: Label) -> bool {
        label.run == self.plan.expectation.recipe.run && self.plan.senders.contains(&label.port)
    }

    fn arrived(&self, label: Label, port: u8, frame: &[u8]) {
        let lane = &self.lanes[usize::from(label.port)];
        if !lock(&lane.state).checker.arrived(label, port, frame) {
            return;
        }
        lane.room.notify_one();
        let now_ms = self.began.elapsed().as_millis() as u64;
        self.progress_ms.store(now_ms, Ordering::Relaxed);
        lock(&self.first).get_or_insert_with(SystemTime::now);
        *lock(&self.last) = Instant::now();
    }

    /// Waits for the end of the run: all frames back, none for too long, or a broken connection.
    fn watch(&self) {
        let all = |lane: &Lane, port: u8| {
            !self.plan.senders.contains(&port)
                || lock(&lane.state).checker.received() >= self.plan.frames
        };
        while !self.stop.load(Ordering::Relaxed) {
            if self.lanes.iter().zip(0u8..).all(|(lane, port)| all(lane, port)) {
                thread::sleep(self.plan.linger);
                break;
            }
            let quiet = self.began.elapsed().as_millis() as u64
                - self
                    .progress_ms
                    .load(Ordering::Relaxed)
                    .min(self.began.elapsed().as_millis() as u64);
            if u128::from(quiet) > self.plan.patience.as_millis() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.stop.store(true, Ordering::Relaxed);
        for lane in &self.lanes {
            lane.room.notify_all();
        }
    }

    fn report(self, mut ports: Vec<PortTally>) -> Report {
        let mut directions = Vec::new();
        let mut examples = Vec::new();
        let seconds = lock(&self.last).duration_since(self.began).as_secs_f64();
        for (lane, tally) in self.lanes.into_iter().zip(&mut ports) {
            let state = lane.state.into_inner().unwrap_or_else(PoisonError::into_inner);
            (tally.sent, tally.sent_bytes) = (state.sent, state.sent_bytes);
            let (direction, words) = state.checker.finish(state.sent);
            if self.plan.senders.contains(&tally.port) {
                directions.push(direction);
                examples.extend(words);
            }
        }
        let first = *lock(&self.first);
        Report {
            run: self.plan.expectation.recipe.run,
            frames: self.plan.frames,
            window: self.plan.window,
            seconds,
            first_arrival_unix_s: first
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|since| since.as_secs_f64()),
            directions,
            ports,
            examples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Mac, Recipe};

    /// A guest of two ports: gives each frame from port 0 or 1 to `forward`, which says what
    /// leaves at the other one.
    fn against(
        forward: impl Fn(u8, usize, Vec<u8>) -> Vec<Vec<u8>> + Send + Copy + 'static,
        senders: Vec<u8>,
    ) -> Report {
        let plan = Plan {
            expectation: Expectation {
                recipe: Recipe {
                    run: 9,
                    flows: 4,
                    min_len_bytes: 60,
                    max_len_bytes: 1514,
                    port_macs: vec![Mac([2, 0, 0, 0, 1, 0]), Mac([2, 0, 0, 0, 1, 1])],
                },
                port_map: vec![1, 0],
                mac_updating: false,
            },
            frames: 300,
            senders,
            window: 16,
            pause: Duration::ZERO,
            patience: Duration::from_millis(400),
            linger: Duration::from_millis(150),
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..2).map(|_| UnixStream::pair().expect("socket pair")).unzip();
        let guests: Vec<_> = (0..2u8)
            .map(|port| {
                let from = theirs[usize::from(port)].try_clone().expect("clone");
                let mut to = theirs[usize::from(1 - port)].try_clone().expect("clone");
                thread::spawn(move || {
                    let mut frames = FrameReader::new(from);
                    let mut number = 0;
                    while let Ok(Event::Frame(frame)) = frames.next() {
                        for out in forward(port, number, frame.to_vec()) {
                            if write_frame(&mut to, &out).is_err() {
                                return;
                            }
                        }
                        number += 1;
                    }
                })
            })
            .collect();
        drop(theirs);
        let report = run(&plan, ours).expect("sockets hold");
        for guest in guests {
            guest.join().expect("guest ends with its socket");
        }
        report
    }

    #[test]
    fn a_faultless_guest_passes() {
        let report = against(|_, _, frame| vec![frame], vec![0, 1]);
        assert_eq!(report.deviations(), 0, "{report:?}");
        assert_eq!(report.directions.len(), 2);
        for port in &report.ports {
            assert_eq!((port.sent, port.received), (300, 300));
            assert!(port.sent_bytes > 300 * 60);
        }
        assert!(report.first_arrival_unix_s.is_some());
    }

    #[test]
    fn one_way_only_is_possible() {
        let report = against(|_, _, frame| vec![frame], vec![1]);
        assert_eq!(report.deviations(), 0, "{report:?}");
        assert_eq!((report.ports[0].sent, report.ports[0].received), (0, 300));
    }

    #[test]
    fn a_lost_frame_fails_the_run_in_bounded_time() {
        let report = against(
            |port, n, frame| if port == 0 && n == 7 { vec![] } else { vec![frame] },
            vec![0, 1],
        );
        assert_eq!(report.directions[0].lost, 1);
        assert_eq!(report.directions[1].deviations(), 0);
    }

    #[test]
    fn a_frame_whose_label_broke_is_a_stranger_and_lost() {
        let report = against(
            |port, n, mut frame| {
                if port == 1 && n == 20 {
                    frame[14] ^= 0xff;
                }
                vec![frame]
            },
            vec![0, 1],
        );
        assert_eq!(report.directions[1].lost, 1);
        assert_eq!(report.ports[0].strangers, 1);
        assert!(report.deviations() >= 2);
    }

    #[test]
    fn frames_of_another_run_are_stale() {
        let report = against(
            |_, n, frame| {
                let mut old = frame.clone();
                old[21] ^= 1;
                if n == 0 { vec![old, frame] } else { vec![frame] }
            },
            vec![0, 1],
        );
        assert_eq!(report.ports[0].stale, 1);
        assert_eq!(report.ports[1].stale, 1);
        assert_eq!(report.deviations(), 2);
    }

    #[test]
    fn a_late_duplicate_is_seen() {
        let report = against(
            |port, n, frame| {
                if port == 0 && n == 299 { vec![frame.clone(), frame] } else { vec![frame] }
            },
            vec![0, 1],
        );
        assert_eq!(report.directions[0].duplicated, 1);
    }
}
