//! The control socket: a line is a command, its answer ends with `ok` or `error: …`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::faults::Lie;
use crate::nic::Nic;
use crate::record::Recorder;

/// What the control socket understands.
pub const HELP: &str = "\
Commands; each is for NIC 0 unless `nic N` stands before it:
  link up|down              put the cable in, or take it out
  link                      say which
  stats                     what the NIC has counted, and its wire
  registers                 all registers that aren't 0
  fault KIND [rx|tx] [queue N] [count N]
                            lie about the next frames (default: 1, rx, any queue). KIND:
                              withhold  the descriptor is never written back
                              length    65535, whatever the buffer holds (rx)
                              place     another descriptor is written back
                              checksum  good is called bad, bad is called good (rx)
                              address   DMA goes to an address that nobody mapped
  stick rx|tx N             queue N does nothing until it is freed, or the device is reset
  free                      no more faults; stuck queues work again
  fill                      receive until no descriptor is free; starts a driver with --full-rings
  reset                     the device forgets everything, as by itself, while frames move
  unplug                    ask the client to let go of the device (the request interrupt)
  hangup                    close the client's connection
  record FILE|off           write all frames to a pcapng file
  wire WORDS                a command for the wire: the generator has start, stop and reset
  nics                      names and clients
  quit                      end softnic
  help                      this text";

/// What the commands act on.
pub struct Control {
    nics: Vec<Arc<Nic>>,
}

enum Next {
    Go,
    Quit,
}

impl Control {
    /// Commands for these NICs.
    pub fn new(nics: Vec<Arc<Nic>>) -> Self {
        Self { nics }
    }

    /// Takes connections, one after the other, until the NICs are stopped.
    pub fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.nics.iter().any(|nic| nic.is_stopping()) {
                return;
            }
            let Ok(stream) = stream else { continue };
            // Who says nothing for long makes room for others.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(600)));
            if let Ok(Next::Quit) = self.talk(&stream) {
                self.nics.iter().for_each(|nic| nic.stop());
                return;
            }
        }
    }

    fn talk(&self, stream: &UnixStream) -> io::Result<Next> {
        let mut out = stream;
        for line in BufReader::new(stream.take_limit()).lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            if words == ["quit"] {
                out.write_all(b"ok\n")?;
                return Ok(Next::Quit);
            }
            let answer = match self.command(&words) {
                Ok(text) if text.is_empty() || text.ends_with('\n') => format!("{text}ok\n"),
                Ok(text) => format!("{text}\nok\n"),
                Err(text) => format!("error: {text}\n"),
            };
            out.write_all(answer.as_bytes())?;
        }
        Ok(Next::Go)
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// What was wanted, what was found.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let (nic, words) = match words {
            ["nic", n, rest @ ..] => {
                let nic = n.parse::<usize>().ok().and_then(|n| self.nics.get(n));
                (
                    nic.ok_or(format!(
                        "wanted a NIC from 0 to {}, found '{n}'",
                        self.nics.len() - 1
                    ))?,
                    rest,
                )
            }
            words => (self.nics.first().ok_or("there are no NICs")?, words),
        };
        let done = |()| String::new();
        match words {
            ["help"] | ["--help"] => Ok(HELP.to_owned()),
            ["nics"] => Ok(self.nics.iter().map(|nic| format!("{}\n", nic.name)).collect()),
            ["link"] => {
                Ok(if nic.device().has_cable() { "up".to_owned() } else { "down".to_owned() })
            }
            ["link", state @ ("up" | "down")] => {
                nic.device().set_cable(*state == "up");
                nic.ring();
                Ok(String::new())
            }
            ["stats"] => Ok(stats(nic)),
            ["registers"] => Ok(nic.device().dump()),
            ["fault", kind, rest @ ..] => fault(nic, kind, rest).map(done),
            ["stick", way @ ("rx" | "tx"), queue] => {
                nic.device().faults.stick(*way == "tx", number(queue)?);
                Ok(String::new())
            }
            ["free"] => {
                nic.device().faults.clear();
                nic.ring();
                Ok(String::new())
            }
            ["fill"] => {
                nic.device().fill();
                Ok(String::new())
            }
            ["reset"] => {
                nic.device().reset();
                Ok(String::new())
            }
            ["unplug"] if nic.device().unplug() => Ok(String::new()),
            ["unplug"] => Err("the client gave no eventfd for requests".to_owned()),
            ["hangup"] if nic.hang_up() => Ok(String::new()),
            ["hangup"] => Err("there is no client".to_owned()),
            ["record", "off"] => {
                if let Some(mut recorder) = nic.device().recorder.take() {
                    recorder.flush();
                }
                Ok(String::new())
            }
            ["record", path] => {
                let recorder = Recorder::create(Path::new(path))
                    .map_err(|error| format!("wanted to write {path}, found: {error}"))?;
                nic.device().recorder = Some(recorder);
                Ok(String::new())
            }
            ["wire", rest @ ..] => {
                let answer = nic.device().wire_command(rest);
                nic.ring();
                answer
            }
            _ => Err(format!("wanted a command, found '{}'. See: help", words.join(" "))),
        }
    }
}

trait TakeLimit {
    fn take_limit(&self) -> io::Take<&Self>;
}

impl TakeLimit for UnixStream {
    /// A client that never sends a line end can't make us hold more than this.
    fn take_limit(&self) -> io::Take<&Self> {
        io::Read::take(self, 1 << 20)
    }
}

fn stats(nic: &Nic) -> String {
    let device = nic.device();
    let mut text = device.tally.lines();
    text += &format!("interrupts {}\n", device.interrupts.sent());
    text += &format!("rdt_writes {}\ntdt_writes {}\n", device.doorbells.rdt, device.doorbells.tdt);
    text += &format!("lies {}\nmappings {}\n", device.faults.told(), device.memory.len());
    if let Some(recorder) = &device.recorder {
        text += &format!("recorded {}\n", recorder.frames());
    }
    text += &device.wire().report();
    text
}

fn fault(nic: &Nic, kind: &str, rest: &[&str]) -> Result<(), String> {
    let names: Vec<&str> = Lie::ALL.iter().map(|(name, _)| *name).collect();
    let lie = Lie::ALL.iter().find(|(name, _)| *name == kind).map(|(_, lie)| *lie);
    let lie = lie.ok_or(format!("wanted one of {}, found '{kind}'", names.join(", ")))?;
    let (mut transmit, mut queue, mut count) = (false, None, 1u64);
    let mut rest = rest;
    loop {
        rest = match rest {
            [] => break,
            ["rx", more @ ..] => {
                transmit = false;
                more
            }
            ["tx", more @ ..] => {
                transmit = true;
                more
            }
            ["queue", n, more @ ..] => {
                queue = Some(number(n)?);
                more
            }
            ["count", n, more @ ..] => {
                count = number(n)?;
                more
            }
            [word, ..] => return Err(format!("wanted rx, tx, queue N or count N, found '{word}'")),
        };
    }
    if transmit && matches!(lie, Lie::Length | Lie::Checksum) {
        return Err(format!("wanted rx for the fault {lie}, found tx"));
    }
    nic.device().faults.order(lie, transmit, queue, count);
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("wanted a number, found '{text}'"))
}

/// The other side: sends one command, gives the answer.
///
/// # Errors
/// When nobody listens, or the command failed.
pub fn ask(path: &Path, words: &[String]) -> Result<String, String> {
    let fail = |error: io::Error| {
        format!("wanted a softnic with --control {}, found: {error}", path.display())
    };
    let mut stream = UnixStream::connect(path).map_err(fail)?;
    writeln!(stream, "{}", words.join(" ")).map_err(fail)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(fail)?;
    let mut text = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(fail)?;
        if line == "ok" {
            return Ok(text);
        }
        if let Some(error) = line.strip_prefix("error: ") {
            return Err(error.to_owned());
        }
        text += &line;
        text.push('\n');
    }
    Err(format!("wanted an answer from {}, found its end", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Identity, WhenFull};
    use crate::nic::Manner;
    use crate::wire::Reflect;

    fn control() -> Control {
        let identity = Identity {
            device_id: 0x10fb,
            mac: [2, 0, 0, 0, 0, 1],
            when_full: WhenFull::Drop,
            trust_clients: false,
            full_rings: false,
        };
        let device = Device::new(identity, Box::new(Reflect::new())).unwrap();
        let manner = Manner { share_pages: false, busy: false };
        Control::new(vec![Arc::new(Nic::new("nic 0".into(), device, manner).unwrap())])
    }

    fn say(control: &Control, line: &str) -> Result<String, String> {
        control.command(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn commands_and_errors() {
        let control = control();
        assert_eq!(say(&control, "link").as_deref(), Ok("up"));
        say(&control, "link down").unwrap();
        assert_eq!(say(&control, "nic 0 link").as_deref(), Ok("down"));
        assert!(say(&control, "nic 1 link").unwrap_err().contains("from 0 to 0"));
        say(&control, "fault length rx queue 0 count 3").unwrap();
        assert!(say(&control, "fault length tx").unwrap_err().contains("wanted rx"));
        assert!(say(&control, "fault colour").unwrap_err().contains("withhold"));
        assert!(say(&control, "fault length count x").is_err());
        assert!(say(&control, "stats").unwrap().contains("rx_frames 0\n"));
        assert!(say(&control, "registers").unwrap().contains("RAL[0]"));
        assert!(say(&control, "hangup").is_err());
        assert!(say(&control, "unplug").is_err());
        assert!(say(&control, "").unwrap_err().contains("help"));
    }

    #[test]
    fn over_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let control = control();
        let server = std::thread::spawn(move || control.serve(&listener));
        let ask = |line: &str| ask(&path, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(ask("link").as_deref(), Ok("up\n"));
        assert!(ask("nonsense").is_err());
        assert!(ask("help").unwrap().contains("withhold"));
        ask("quit").unwrap();
        server.join().unwrap();
        assert!(ask("link").is_err());
    }
}
