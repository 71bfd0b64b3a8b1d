//! A built-in generator and checker: makes frames that it knows again, and judges those that come
//! back, at this wire or at another one of the process.

mod checker;
mod frame;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{FrameBuffer, Wire};
use checker::Checker;
use frame::Template;
pub use settings::{Settings, Sizes};

const CLOCK_EVERY: u32 = 16; // frames
const MAX_ORIGINS: usize = 256;

/// What all generators of a process know of each other: frames sent by each.
#[derive(Clone, Debug)]
pub struct Ledger {
    sent: Arc<Vec<AtomicU64>>,
    started: Instant,
}

impl Ledger {
    /// Nothing sent yet.
    pub fn new() -> Self {
        let sent = (0..MAX_ORIGINS).map(|_| AtomicU64::new(0)).collect();
        Self { sent: Arc::new(sent), started: Instant::now() }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// A generator and checker.
pub struct Generator {
    settings: Settings,
    ledger: Ledger,
    origin: u8,
    template: Template,
    checker: Checker,
    frame: FrameBuffer,
    ready: bool, // `frame` waits to be taken
    back: FrameBuffer,
    sequences: Vec<u64>, // by flow
    sent: u64,
    sent_bytes: u64,
    running: bool,
    now_ns: u64,
    clock_in: u32,
    since_ns: Option<u64>, // of the first frame
    sent_before: u64,      // before the last start
}

impl Generator {
    /// The `origin`-th generator of the process.
    pub fn new(settings: Settings, ledger: &Ledger, origin: u8) -> Self {
        Self {
            template: Template::new(&settings, origin),
            checker: Checker::new(settings.flows),
            frame: FrameBuffer::new(),
            ready: false,
            back: FrameBuffer::new(),
            sequences: vec![0; usize::from(settings.flows)],
            sent: 0,
            sent_bytes: 0,
            running: settings.start,
            now_ns: 0,
            clock_in: 0,
            since_ns: None,
            sent_before: 0,
            ledger: ledger.clone(),
            origin,
            settings,
        }
    }

    fn clock(&mut self) {
        if self.clock_in == 0 {
            self.now_ns = self.ledger.now_ns();
            self.clock_in = CLOCK_EVERY;
        }
        self.clock_in -= 1;
    }

    /// Whether the next frame's time has come.
    fn is_due(&mut self) -> bool {
        if !self.running || self.settings.frames.is_some_and(|frames| self.sent >= frames) {
            return false;
        }
        self.clock();
        let Some(rate) = self.settings.rate_fps else {
            self.since_ns.get_or_insert(self.now_ns);
            return true;
        };
        let since_ns = *self.since_ns.get_or_insert(self.now_ns);
        let elapsed_ns = u128::from(self.now_ns.saturating_sub(since_ns));
        let due = elapsed_ns * u128::from(rate) / 1_000_000_000 + 1;
        if u128::from(self.sent - self.sent_before) < due {
            return true;
        }
        self.clock_in = 0; // look at the clock again next time
        false
    }
}

impl Wire for Generator {
    fn room(&mut self) -> Option<&mut FrameBuffer> {
        Some(&mut self.back)
    }

    fn commit(&mut self) {
        self.clock();
        self.checker.check(self.back.bytes(), self.now_ns);
    }

    fn front(&mut self) -> Option<&[u8]> {
        if !self.ready {
            if !self.is_due() {
                return None;
            }
            let flow = (self.sent % u64::from(self.settings.flows)) as u16;
            let sequence = &mut self.sequences[usize::from(flow)];
            let len = self.settings.sizes.of(self.sent);
            self.template.build(&mut self.frame, flow, *sequence, len, self.now_ns);
            *sequence += 1;
            self.ready = true;
        }
        Some(self.frame.bytes())
    }

    fn pop(&mut self) {
        self.ready = false;
        self.sent += 1;
        self.sent_bytes += self.frame.bytes().len() as u64;
        self.ledger.sent[usize::from(self.origin)].store(self.sent, Ordering::Relaxed);
    }

    /// Frames wait until the NIC listens.
    fn discard(&mut self) {}

    fn flush(&mut self) {
        self.clock_in = 0;
    }

    fn patience(&self) -> Duration {
        if self.running { Duration::from_micros(100) } else { Duration::from_millis(100) }
    }

    fn command(&mut self, words: &[&str]) -> Result<String, String> {
        match words {
            ["start"] => {
                self.running = true;
                self.since_ns = None;
                self.sent_before = self.sent;
            }
            ["stop"] => self.running = false,
            ["reset"] => {
                // Sequences go on: what is still on its way isn't taken for something else.
                self.checker.reset();
            }
            ["frames", n] => {
                let n: u64 = n.parse().map_err(|_| format!("wanted a number, found '{n}'"))?;
                self.settings.frames = Some(self.sent + n);
                self.running = true;
                self.since_ns = None;
                self.sent_before = self.sent;
            }
            ["rate", rate] => {
                self.settings.rate_fps = settings::rate(rate)?;
                self.since_ns = None;
                self.sent_before = self.sent;
            }
            _ => {
                let found = words.join(" ");
                return Err(format!(
                    "wanted start, stop, reset, frames N or rate N, found '{found}'"
                ));
            }
        }
        Ok(String::new())
    }

    fn report(&self) -> String {
        let mut text = format!(
            "gen_running {}\ngen_sent {}\ngen_sent_bytes {}\n",
            u8::from(self.running && self.settings.frames.is_none_or(|n| self.sent < n)),
            self.sent,
            self.sent_bytes
        );
        text += &self.checker.report();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(text: &str) -> Generator {
        Generator::new(text.parse().unwrap(), &Ledger::new(), 0)
    }

    /// Passes all frames on, as `change` says: how often, and how changed.
    fn run(generator: &mut Generator, mut change: impl FnMut(u64, &mut Vec<u8>) -> usize) {
        let mut n = 0;
        while let Some(frame) = generator.front() {
            let mut frame = frame.to_vec();
            generator.pop();
            for _ in 0..change(n, &mut frame) {
                generator.room().unwrap().set_len(frame.len()).copy_from_slice(&frame);
                generator.commit();
            }
            n += 1;
        }
    }

    fn value(generator: &Generator, name: &str) -> u64 {
        let report = generator.report();
        let line = report.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {report}")).parse().unwrap()
    }

    #[test]
    fn what_comes_back_whole_is_all_right_whatever_the_macs() {
        for sizes in ["60", "imix", "60-9014"] {
            let mut generator = generator(&format!("frames=5000,flows=7,size={sizes}"));
            run(&mut generator, |_, frame| {
                frame[..12].fill(0x22);
                1
            });
            assert_eq!(value(&generator, "gen_sent"), 5000);
            assert_eq!(value(&generator, "gen_received"), 5000);
            for name in ["gen_lost", "gen_reordered", "gen_duplicates", "gen_corrupt", "gen_alien"]
            {
                assert_eq!(value(&generator, name), 0, "{name} {sizes}");
            }
        }
    }

    #[test]
    fn each_byte_that_is_changed_is_noticed() {
        let mut plain = generator("frames=1,size=100");
        let first = plain.front().unwrap().to_vec();
        for at in (14..first.len()).filter(|at| !(52..60).contains(at)) {
            let mut generator = generator("frames=1,size=100");
            run(&mut generator, |_, frame| {
                frame[at] ^= 1;
                1
            });
            let noticed = value(&generator, "gen_corrupt") + value(&generator, "gen_alien");
            assert_eq!(noticed, 1, "byte {at}");
        }
    }

    #[test]
    fn loss_duplicates_and_order() {
        let mut lossy = generator("frames=1000,flows=3");
        run(&mut lossy, |n, _| usize::from(n % 100 != 50));
        assert_eq!((value(&lossy, "gen_lost"), value(&lossy, "gen_received")), (10, 990));

        let mut twice = generator("frames=1000");
        run(&mut twice, |n, _| 1 + usize::from(n == 500));
        assert_eq!((value(&twice, "gen_duplicates"), value(&twice, "gen_lost")), (1, 0));

        let mut late = generator("frames=1000");
        let mut held = None;
        let mut frames = Vec::new();
        run(&mut late, |n, frame| {
            if n == 10 {
                held = Some(frame.clone());
                return 0;
            }
            frames.push(frame.clone());
            1
        });
        late.room().unwrap().set_len(60).copy_from_slice(&held.unwrap());
        late.commit();
        assert_eq!((value(&late, "gen_reordered"), value(&late, "gen_lost")), (1, 0));
    }

    #[test]
    fn a_rate_is_kept() {
        let mut generator = generator("rate=20000");
        let begin = Instant::now();
        let mut frames = 0;
        while begin.elapsed() < Duration::from_millis(50) {
            while generator.front().is_some() {
                generator.pop();
                frames += 1;
            }
            generator.flush();
        }
        // A busy machine may have let us run late, never early.
        let most = begin.elapsed().as_micros() / 50 + 1;
        assert!((500..=most).contains(&frames), "{frames} of {most}");
    }
}
