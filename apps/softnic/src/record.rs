//! Frames written down as they pass.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use crate::pcapng::{self, Way};

/// A pcapng file that grows.
#[derive(Debug)]
pub struct Recorder {
    out: Option<BufWriter<File>>,
    frames: u64,
}

impl Recorder {
    /// Begins the file at `path`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
        pcapng::write_start(&mut out)?;
        out.flush()?;
        Ok(Self { out: Some(out), frames: 0 })
    }

    /// The NIC sent a frame.
    pub fn sent(&mut self, frame: &[u8]) {
        self.record(frame, Way::Out);
    }

    /// A frame came to the NIC.
    pub fn received(&mut self, frame: &[u8]) {
        self.record(frame, Way::In);
    }

    /// What was recorded reaches the file.
    pub fn flush(&mut self) {
        if let Some(Err(error)) = self.out.as_mut().map(BufWriter::flush) {
            self.give_up(&error);
        }
    }

    /// How many frames were recorded.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn record(&mut self, frame: &[u8], way: Way) {
        let Some(out) = &mut self.out else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(now.as_nanos()).unwrap_or(0);
        match pcapng::write_frame(out, time_ns, frame, way) {
            Ok(()) => self.frames += 1,
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        warn!("recording ends: {error}");
        self.out = None;
    }
}
