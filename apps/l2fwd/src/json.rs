//! `--stats-json`: counters for a program to read. All numbers are since the start.
//!
//! ```json
//! {"version": 1, "uptime_s": 12.0,
//!  "ports": [{"port": 0, "device": "0000:01:00.0", "driver": "virtio-net",
//!             "mac": "52:54:00:00:00:00", "link": "up", "speed_mbps": 10000,
//!             "rx_packets": 9, "rx_bytes": 900, "rx_dropped": 0,
//!             "tx_packets": 9, "tx_bytes": 900, "tx_dropped": 0,
//!             "rx_drops": {"no_mbuf": 0, "bad_id": 0, "bad_length": 0, "bad_chain": 0},
//!             "tx_drops": {"queue_full": 0, "bad_length": 0, "too_many_segments": 0, "bad_id": 0},
//!             "rx_queues": [{"packets": 9, "bytes": 900, "…": 0}], "tx_queues": ["…"]}],
//!  "lcores": [{"lcore": 1, "cpu": 3, "busy_share": 0.25, "busy_cycles": 250,
//!              "idle_cycles": 750, "packets_per_burst": 15.5,
//!              "packets": 155, "polls": 100, "polls_with_packets": 10}],
//!  "mbufs": {"count": 4096, "returned": 3000}}
//! ```
//!
//! `rx_dropped` and `tx_dropped` count frames. `no_mbuf` counts the times that a receive queue
//! found its pool empty; frames that the device dropped for it are the device's to count.
//! `mbufs.returned` are those in their pools; while ports run, some are always out.
//!
//! The file is replaced in one step, so a reader sees a whole report, old or new. To a device or a
//! pipe (`/dev/stdout`), reports are written one after the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use packetboat::port::QueueStats;
use serde::Serialize;

use crate::snapshot::{PortCounts, Snapshot};

/// The version of this layout; raised when a key changes its meaning or goes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    uptime_s: f64,
    ports: Vec<PortReport<'a>>,
    lcores: Vec<LcoreReport>,
    mbufs: MbufReport,
}

#[derive(Serialize)]
struct PortReport<'a> {
    port: u16,
    device: &'a str,
    driver: &'a str,
    mac: &'a str,
    link: &'static str,
    speed_mbps: Option<u32>,
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
    rx_drops: BTreeMap<&'static str, u64>,
    tx_drops: BTreeMap<&'static str, u64>,
    rx_queues: &'a [QueueStats],
    tx_queues: &'a [QueueStats],
}

#[derive(Serialize)]
struct LcoreReport {
    lcore: u32,
    cpu: u32,
    busy_share: f64,
    busy_cycles: u64,
    idle_cycles: u64,
    packets_per_burst: f64,
    packets: u64,
    polls: u64,
    polls_with_packets: u64,
}

#[derive(Serialize)]
struct MbufReport {
    count: usize,
    returned: usize,
}

/// The report as text.
///
/// # Errors
/// None that can happen: all keys are strings and all numbers finite.
pub(crate) fn text(snapshot: &Snapshot) -> io::Result<String> {
    let lcore = |lcore: &crate::snapshot::LcoreCounts| LcoreReport {
        lcore: lcore.lcore,
        cpu: lcore.cpu,
        busy_share: lcore.totals.time.busy_share(),
        busy_cycles: lcore.totals.time.busy_ticks,
        idle_cycles: lcore.totals.time.idle_ticks(),
        packets_per_burst: lcore.totals.packets_per_burst(),
        packets: lcore.totals.frames,
        polls: lcore.totals.polls,
        polls_with_packets: lcore.totals.found,
    };
    let report = Report {
        version: VERSION,
        uptime_s: snapshot.uptime.as_secs_f64(),
        ports: snapshot.ports.iter().map(port).collect(),
        lcores: snapshot.lcores.iter().map(lcore).collect(),
        mbufs: MbufReport { count: snapshot.mbufs.count, returned: snapshot.mbufs.returned },
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn port(port: &PortCounts) -> PortReport<'_> {
    let (rx, tx) = (port.stats.rx_total(), port.stats.tx_total());
    PortReport {
        port: port.port,
        device: &port.device,
        driver: port.driver,
        mac: &port.mac,
        link: match port.link {
            None => "unknown",
            Some(link) if link.up => "up",
            Some(_) => "down",
        },
        speed_mbps: port.link.and_then(|link| link.speed_mbps),
        rx_packets: rx.packets,
        rx_bytes: rx.bytes,
        rx_dropped: port.rx_dropped(),
        tx_packets: tx.packets,
        tx_bytes: tx.bytes,
        tx_dropped: port.tx_dropped(),
        rx_drops: port.rx_drops().into_iter().collect(),
        tx_drops: port.tx_drops().into_iter().collect(),
        rx_queues: &port.stats.rx,
        tx_queues: &port.stats.tx,
    }
}

/// Where reports go.
#[derive(Debug)]
pub(crate) struct StatsFile {
    path: PathBuf,
    to: Target,
}

#[derive(Debug)]
enum Target {
    /// A regular file, replaced in one go: a reader finds a whole report. The new one is written
    /// to a file beside it, and renamed.
    File { real: PathBuf, beside: PathBuf },
    /// A device, a pipe or the like: never replaced (as root, a rename would take `/dev/null` from
    /// the whole machine), so reports follow one another.
    Stream(File),
}

impl StatsFile {
    /// Checks that reports can go to `path`, without touching the file that is there.
    ///
    /// # Errors
    /// If no file can be made beside it, it is a directory, or a device that can't be opened.
    pub(crate) fn check(path: &Path) -> io::Result<Self> {
        let to = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
            }
            Ok(found) if !found.is_file() => {
                Target::Stream(File::options().write(true).open(path)?)
            }
            // A link stays one: its file is replaced.
            Ok(_) => beside(path.canonicalize()?)?,
            Err(_) => beside(path.to_owned())?,
        };
        Ok(Self { path: path.to_owned(), to })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file, or writes one more report to the device.
    ///
    /// # Errors
    /// If it can't be written or renamed; the old one stays then.
    pub(crate) fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let text = text(snapshot)?;
        match &self.to {
            Target::Stream(file) => (&*file).write_all(text.as_bytes()),
            Target::File { real, beside } => {
                let written = fs::write(beside, text).and_then(|()| fs::rename(beside, real));
                if written.is_err() {
                    let _ = fs::remove_file(beside);
                }
                written
            }
        }
    }
}

/// A file to be replaced, for which one can be made beside it.
fn beside(real: PathBuf) -> io::Result<Target> {
    let mut beside = OsString::from(&real);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    fs::write(&beside, "")?;
    fs::remove_file(&beside)?;
    Ok(Target::File { real, beside })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;

    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::tests::sample;

    #[test]
    fn a_report_has_the_keys_that_readers_rely_on() {
        let report: Value = serde_json::from_str(&text(&sample(12)).unwrap()).unwrap();
        assert_eq!(report["version"], 1);
        assert_eq!(report["uptime_s"], 12.0);
        assert_eq!(report["mbufs"], json!({"count": 4096, "returned": 3000}));
        assert_eq!(
            report["lcores"][0],
            json!({"lcore": 1, "cpu": 3, "busy_share": 0.25, "busy_cycles": 3000,
                   "idle_cycles": 9000, "packets_per_burst": 15.5, "packets": 1860,
                   "polls": 1200, "polls_with_packets": 120})
        );
        let mut port = report["ports"][1].clone();
        assert_eq!(port["rx_queues"].as_array().unwrap().len(), 2);
        assert_eq!(port["tx_queues"][0]["packets"], 12_000_000);
        port.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_queues"));
        assert_eq!(
            port,
            json!({"port": 1, "device": "0000:02:00.0", "driver": "virtio-net",
                   "mac": "52:54:00:00:00:01", "link": "down", "speed_mbps": null,
                   "rx_packets": 24_000_007, "rx_bytes": 2_400_000_700_u64, "rx_dropped": 3,
                   "tx_packets": 12_000_000, "tx_bytes": 1_200_000_000, "tx_dropped": 12,
                   "rx_drops": {"no_mbuf": 5, "bad_id": 0, "bad_length": 3, "bad_chain": 0},
                   "tx_drops": {"queue_full": 12, "bad_length": 0, "too_many_segments": 0,
                                "bad_id": 0}})
        );
    }

    #[test]
    fn the_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.json");
        fs::write(&path, "before").unwrap();
        let file = StatsFile::check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        file.write(&sample(1)).unwrap();
        file.write(&sample(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text(&sample(2)).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_and_pipes_are_written_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        // Both ends, so that no open waits for the other.
        let reader = File::options().read(true).write(true).open(&pipe).unwrap();
        StatsFile::check(&pipe).unwrap().write(&sample(1)).unwrap();
        let mut found = vec![0; text(&sample(1)).unwrap().len()];
        (&reader).read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), text(&sample(1)).unwrap());
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (link, real) = (dir.path().join("link"), dir.path().join("real"));
        fs::write(&real, "before").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        StatsFile::check(&link).unwrap().write(&sample(3)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), text(&sample(3)).unwrap());
    }

    #[test]
    fn a_place_that_can_not_be_written_is_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StatsFile::check(dir.path()).is_err());
        assert!(StatsFile::check(&dir.path().join("no/such/dir/x.json")).is_err());
        assert!(StatsFile::check(Path::new("/")).is_err());
    }
}
