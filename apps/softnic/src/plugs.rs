//! `--wire`: from words to wires.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::wire::{Generator, Ledger, Pair, Reflect, Replay, Stream, Tap, Wire};

/// What `--wire` can say, for `--help`.
pub const HELP: &str = "\
What each NIC is plugged into, in the order of the sockets:
  reflect                        what it sends comes back
  pair                           the next NIC that says pair
  tap:NAME                       a TAP interface, made if there is none
  stream:PATH                    a unix socket in QEMU's stream format, listening
  stream:PATH,connect            the same, connecting to who listens there
  gen:SETTING,…                  a generator and checker: rate=N|max, size=N|N-N|imix, flows=N,
                                 frames=N, to=MAC, start=manual, checksums=on
  pcapng:in=FILE,out=FILE[,rounds=N]  frames from a file, frames to a file; either may be left out";

/// A `--wire` that can't be.
#[derive(Debug, Error)]
pub enum PlugError {
    /// No such wire.
    #[error(
        "--wire: wanted one of reflect, pair, tap:, stream:, gen:, pcapng:, found '{0}'. See --help"
    )]
    Unknown(String),
    /// A setting that this wire doesn't have, or one without a value.
    #[error("--wire {wire}: wanted {wanted}, found '{found}'. See --help")]
    Setting {
        /// The wire.
        wire: &'static str,
        /// What it can have.
        wanted: &'static str,
        /// What was said.
        found: String,
    },
    /// A generator can't do that.
    #[error("--wire gen: {0}")]
    Generator(String),
    /// A pair has two ends.
    #[error("--wire pair: wanted an even number of NICs that say so, found {0}")]
    Odd(usize),
    /// Something outside failed.
    #[error("--wire {wire}: wanted to open {what}, found: {error}")]
    Io {
        /// What was said.
        wire: String,
        /// What was to be opened.
        what: String,
        /// Why not.
        error: io::Error,
    },
}

/// Makes the wires of all NICs.
///
/// # Errors
/// See [`PlugError`].
pub fn plug(texts: &[String]) -> Result<Vec<Box<dyn Wire>>, PlugError> {
    let mut half: Option<Pair> = None;
    let mut wires: Vec<Box<dyn Wire>> = Vec::new();
    let ledger = Ledger::new();
    for text in texts {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let io = |what: &str| {
            let (wire, what) = (text.clone(), what.to_owned());
            move |error| PlugError::Io { wire, what, error }
        };
        wires.push(match kind {
            "reflect" => Box::new(Reflect::new()),
            "pair" => match half.take() {
                Some(other) => Box::new(other),
                None => {
                    let (one, other) = Pair::new().map_err(io("an eventfd"))?;
                    half = Some(other);
                    Box::new(one)
                }
            },
            "tap" => Box::new(Tap::open(rest).map_err(io("the TAP interface"))?),
            "stream" => Box::new(match rest.strip_suffix(",connect") {
                Some(path) => Stream::connect(Path::new(path)).map_err(io(path))?,
                None => Stream::listen(Path::new(rest)).map_err(io(rest))?,
            }),
            "gen" => {
                let settings = rest.parse().map_err(PlugError::Generator)?;
                let origin = u8::try_from(wires.len()).unwrap_or(u8::MAX);
                Box::new(Generator::new(settings, &ledger, origin))
            }
            "pcapng" => Box::new(replay(rest)?.map_err(io(rest))?),
            _ => return Err(PlugError::Unknown(text.clone())),
        });
    }
    if half.is_some() {
        let pairs = texts.iter().filter(|text| *text == "pair").count();
        return Err(PlugError::Odd(pairs));
    }
    Ok(wires)
}

fn replay(text: &str) -> Result<io::Result<Replay>, PlugError> {
    let (mut incoming, mut outgoing, mut rounds) = (None, None, 1);
    for setting in text.split(',').filter(|setting| !setting.is_empty()) {
        match setting.split_once('=') {
            Some(("in", path)) => incoming = Some(PathBuf::from(path)),
            Some(("out", path)) => outgoing = Some(PathBuf::from(path)),
            Some(("rounds", n)) if n.parse::<u64>().is_ok() => rounds = n.parse().unwrap_or(1),
            _ => {
                return Err(PlugError::Setting {
                    wire: "pcapng",
                    wanted: "in=FILE, out=FILE or rounds=N",
                    found: setting.to_owned(),
                });
            }
        }
    }
    Ok(Replay::new(incoming.as_deref(), outgoing.as_deref(), rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(texts: &[&str]) -> String {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        plug(&texts).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_what_was_wanted() {
        assert!(error(&["tin-can"]).contains("reflect"));
        assert!(error(&["pair", "reflect", "pair", "pair"]).contains("even number"));
        assert!(error(&["pcapng:in"]).contains("in=FILE"));
        assert!(error(&["pcapng:in=/nonexistent"]).contains("/nonexistent"));
        assert!(error(&["stream:/nonexistent/s,connect"]).contains("/nonexistent/s"));
    }

    #[test]
    fn a_file_is_replayed_as_often_as_asked_and_what_is_sent_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let mut recorder = crate::record::Recorder::create(&from).unwrap();
        recorder.received(&[1; 60]);
        recorder.received(&[2; 61]);
        recorder.flush();
        let text = format!("pcapng:in={},out={},rounds=2", from.display(), to.display());
        let mut wire = plug(&[text]).unwrap().remove(0);
        let mut lens = Vec::new();
        while let Some(frame) = wire.front() {
            lens.push(frame.len());
            wire.pop();
        }
        assert_eq!(lens, [60, 61, 60, 61]);
        wire.room().unwrap().set_len(64).fill(3);
        wire.commit();
        wire.flush();
        let written = pcapng_frames(&to);
        assert_eq!(written, [vec![3; 64]]);
    }

    fn pcapng_frames(path: &Path) -> Vec<Vec<u8>> {
        crate::pcapng::read_frames(std::fs::File::open(path).unwrap()).unwrap()
    }
}
