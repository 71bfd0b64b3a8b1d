//! The outside world of the rig: sends frames into a guest and checks what comes out, runs commands
//! in it, speaks to its QEMU. The scripts of scripts/rig use it; each subcommand stands on its own.
#![forbid(unsafe_code)]

mod check;
mod closed_loop;
mod echo;
mod first_frame;
mod frame;
mod guest;
mod qmp;
mod report;
mod stream;
mod tcp;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::check::Expectation;
use crate::closed_loop::{Plan, WireError};
use crate::frame::{MAX_LEN_BYTES, MIN_LEN_BYTES, Mac, Recipe};

/// The outside world of packetboat's QEMU rig
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send frames into the ports of a guest and judge each one that comes out
    ClosedLoop(ClosedLoop),
    /// Send a frame each few milliseconds until one comes back; prints when that was, in seconds
    /// since 1970
    FirstFrame {
        /// Where frames go in, and where they come out: socket of the netdev and MAC of the NIC
        #[arg(long = "port", required = true, value_name = "SOCKET,MAC", value_parser = parse_port)]
        ports: Vec<(PathBuf, Mac)>,
        /// Give up after this long, in seconds
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout_s: u64,
    },
    /// Send frames into a port of a guest that sends each one back with its addresses exchanged; prints
    /// how many came back, and whom frames of RARP announced
    Echo {
        /// Socket of the port's netdev
        #[arg(long, value_name = "SOCKET")]
        port: PathBuf,
        /// To whom
        #[arg(long, value_name = "MAC")]
        to: Mac,
        /// Tag the frames
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(..4096))]
        vlan: Option<u16>,
        /// How many
        #[arg(long, default_value_t = 100)]
        frames: u32,
        /// How many may be on their way at a time
        #[arg(long, default_value_t = 16)]
        window: usize,
        /// What is on its way is given up after so long without a frame
        #[arg(long, default_value_t = 2000, value_name = "MS")]
        patience_ms: u64,
    },
    /// Compare the counters of l2fwd with what closed loops saw outside
    Compare {
        /// JSON file that l2fwd wrote (--stats-json)
        #[arg(long, value_name = "FILE")]
        stats: PathBuf,
        /// JSON files that closed loops wrote (--json); their counts are added up
        #[arg(required = true, value_name = "FILE")]
        seen: Vec<PathBuf>,
    },
    /// Run a bash script in the guest; prints its output and ends with its exit code
    Guest {
        /// Socket of the guest's agent
        #[arg(long, value_name = "SOCKET")]
        socket: PathBuf,
        /// How long to wait for its end, in seconds
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout_s: u64,
        /// The script; several words are joined by blanks
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        script: Vec<String>,
    },
    /// Send one command to QEMU's machine protocol; prints what it answers
    Qmp {
        /// QEMU's -qmp socket
        #[arg(long, value_name = "SOCKET")]
        socket: PathBuf,
        /// Wait for this event after the answer and print its data instead
        #[arg(long, value_name = "NAME")]
        event: Option<String>,
        /// How long to wait, in seconds
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout_s: u64,
        /// The command, for example set_link
        command: String,
        /// Its arguments as NAME=VALUE; VALUE is JSON (true, 3, …) or else a string
        arguments: Vec<String>,
    },
    /// Send a file over TCP, in slices over several connections
    TcpSend {
        /// Where `tcp-receive` listens
        to: SocketAddr,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        tcp: TcpOptions,
    },
    /// Receive a file from `tcp-send`
    TcpReceive {
        /// Where to listen
        at: SocketAddr,
        /// The file to write
        file: PathBuf,
        #[command(flatten)]
        tcp: TcpOptions,
    },
}

#[derive(Args)]
struct TcpOptions {
    /// Number of connections
    #[arg(long, default_value_t = 1)]
    streams: u64,
    /// Give up after this long without progress, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout_s: u64,
}

#[derive(Args)]
struct ClosedLoop {
    /// A port of the guest, in order: socket of its netdev and MAC of its NIC
    #[arg(long = "port", required = true, value_name = "SOCKET,MAC", value_parser = parse_port)]
    ports: Vec<(PathBuf, Mac)>,
    /// Where frames must leave: PAIRS as in l2fwd's --portmap [default: (0,1),(2,3)…]
    #[arg(long, value_name = "PAIRS", value_parser = parse_portmap)]
    portmap: Option<PortPairs>,
    /// Frames to send into each port
    #[arg(long, default_value_t = 20_000)]
    frames: u64,
    /// Send into this port only (may be given several times) [default: all]
    #[arg(long, value_name = "PORT")]
    only: Vec<u8>,
    /// Frames of one port that may be on their way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
    /// Pause before each batch of at most a window of frames, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pause_ms: u64,
    /// Flows that the frames of a port are spread over; order is checked within a flow
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    flows: u8,
    /// Shortest frame, in bytes without FCS
    #[arg(long, default_value_t = MIN_LEN_BYTES, value_name = "BYTES", value_parser = frame_length())]
    min_len: u16,
    /// Longest frame, in bytes without FCS
    #[arg(long, default_value_t = MAX_LEN_BYTES, value_name = "BYTES", value_parser = frame_length())]
    max_len: u16,
    /// The forwarder leaves the MACs as they are
    #[arg(long)]
    no_mac_updating: bool,
    /// Frames of earlier runs are no deviation (the forwarder was killed in mid-traffic)
    #[arg(long)]
    forgive_stale: bool,
    /// Give up what is outstanding after this long without a frame, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    timeout_s: u64,
    /// Write the result there as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn frame_length() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(i64::from(MIN_LEN_BYTES)..=i64::from(MAX_LEN_BYTES))
}

type PortPairs = Vec<(u8, u8)>;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("packetboat-wire: {error}");
            ExitCode::from(125) // told apart from what a command in the guest returns
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::ClosedLoop(options) => closed_loop(options),
        Command::FirstFrame { ports, timeout_s } => {
            let [(into, mac), (out, _)] = ports.as_slice() else {
                let found = ports.len();
                return Err(format!("wanted --port twice, found {found} of them").into());
            };
            let (into, out) = (connect(0, into)?, connect(1, out)?);
            let at = first_frame::first_frame(into, out, *mac, Duration::from_secs(timeout_s))?;
            println!("{:.6}", at.duration_since(UNIX_EPOCH)?.as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
        Command::Echo { port, to, vlan, frames, window, patience_ms } => {
            let patience = Duration::from_millis(patience_ms);
            let echo = echo::Echo { to, vlan, frames, window, patience };
            let found = echo.run(connect(0, &port)?)?;
            let echo::Echoed { sent, back, wrong, announced } = &found;
            println!("{sent} sent, {back} came back, {wrong} wrong");
            announced.iter().for_each(|mac| println!("announced: {mac}"));
            Ok(exit_code(*wrong == 0))
        }
        Command::Compare { stats, seen } => {
            let seen: Vec<_> = seen.iter().map(|path| read_json(path)).collect::<Result<_, _>>()?;
            let differences = report::compare(&seen, &read_json(&stats)?);
            for difference in &differences {
                println!("{difference}");
            }
            Ok(exit_code(differences.is_empty()))
        }
        Command::Guest { socket, timeout_s, script } => {
            let outcome = guest::run(&socket, &script.join(" "), Duration::from_secs(timeout_s))
                .map_err(|error| format!("guest behind {}: {error}", socket.display()))?;
            io::stdout().write_all(&outcome.output)?;
            Ok(ExitCode::from(outcome.code))
        }
        Command::Qmp { socket, event, timeout_s, command, arguments } => {
            let arguments =
                arguments.iter().map(|text| parse_argument(text)).collect::<Result<_, _>>()?;
            let timeout = Duration::from_secs(timeout_s);
            let answer = qmp::execute(
                &socket,
                &command,
                Value::Object(arguments),
                event.as_deref(),
                timeout,
            )
            .map_err(|error| format!("QMP at {}: {error}", socket.display()))?;
            println!("{answer}");
            Ok(ExitCode::SUCCESS)
        }
        Command::TcpSend { to, file, tcp } => {
            let patience = Duration::from_secs(tcp.timeout_s);
            let began = std::time::Instant::now();
            let bytes = tcp::send(to, &file, tcp.streams, patience)
                .map_err(|error| format!("sending {} to {to}: {error}", file.display()))?;
            let seconds = began.elapsed().as_secs_f64();
            println!("{bytes} bytes in {seconds:.1} s over {} connections", tcp.streams);
            Ok(ExitCode::SUCCESS)
        }
        Command::TcpReceive { at, file, tcp } => {
            let bytes = tcp::receive(at, &file, tcp.streams, Duration::from_secs(tcp.timeout_s))
                .map_err(|error| format!("receiving {} at {at}: {error}", file.display()))?;
            println!("{bytes} bytes received");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn closed_loop(options: ClosedLoop) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if options.min_len > options.max_len {
        let ClosedLoop { min_len, max_len, .. } = options;
        return Err(format!("wanted --min-len up to --max-len ({max_len}), found {min_len}").into());
    }
    let ports = options.ports.len();
    let all = (0..ports as u8).collect();
    let expectation = Expectation {
        recipe: Recipe {
            run: unix_now().as_millis() as u32,
            flows: options.flows,
            min_len_bytes: options.min_len,
            max_len_bytes: options.max_len,
            port_macs: options.ports.iter().map(|(_, mac)| *mac).collect(),
        },
        port_map: port_map(ports, options.portmap.as_deref())?,
        mac_updating: !options.no_mac_updating,
    };
    if let Some(port) = options.only.iter().find(|&&port| usize::from(port) >= ports) {
        return Err(format!("wanted --only of a port below {ports}, found {port}").into());
    }
    let plan = Plan {
        expectation,
        frames: options.frames,
        senders: if options.only.is_empty() { all } else { options.only },
        window: options.window,
        pause: Duration::from_millis(options.pause_ms),
        patience: Duration::from_secs(options.timeout_s),
        linger: Duration::from_millis(300),
    };
    let sockets = options
        .ports
        .iter()
        .enumerate()
        .map(|(port, (path, _))| connect(port, path))
        .collect::<Result<_, _>>()?;
    let mut report = closed_loop::run(&plan, sockets)?;
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)
            .map_err(|error| format!("writing --json {}: {error}", path.display()))?;
    }
    if options.forgive_stale {
        let stale = report.forgive_stale();
        println!("{stale} frames of earlier runs came first");
    }
    println!("{report}");
    Ok(exit_code(report.deviations() == 0))
}

fn connect(port: usize, path: &Path) -> Result<UnixStream, WireError> {
    stream::connect(path, Duration::from_secs(5)).map_err(|source| WireError::Connect {
        port,
        path: path.into(),
        source,
    })
}

fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("reading {}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}

/// Time since 1970 by this machine's clock.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn parse_port(text: &str) -> Result<(PathBuf, Mac), String> {
    let (path, mac) = text.rsplit_once(',').ok_or("wanted SOCKET,MAC, found no comma")?;
    Ok((path.into(), mac.parse()?))
}

fn parse_argument(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("wanted NAME=VALUE, found '{text}'"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    Ok((name.into(), value))
}

/// `(0,3),(1,2)` as pairs.
fn parse_portmap(text: &str) -> Result<PortPairs, String> {
    let wrong = || format!("wanted pairs like (0,3),(1,2), found '{text}'");
    let inner =
        text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
    inner
        .split("),(")
        .map(|pair| {
            let (a, b) = pair.split_once(',').ok_or_else(wrong)?;
            Ok((a.trim().parse().map_err(|_| wrong())?, b.trim().parse().map_err(|_| wrong())?))
        })
        .collect()
}

/// By port, the port where its frames must leave.
fn port_map(ports: usize, pairs: Option<&[(u8, u8)]>) -> Result<Vec<u8>, String> {
    let neighbours: PortPairs = (0..ports as u8).step_by(2).map(|port| (port, port + 1)).collect();
    let mut map = vec![u8::MAX; ports];
    for &(a, b) in pairs.unwrap_or(&neighbours) {
        for (from, to) in [(a, b), (b, a)] {
            if usize::from(to) >= ports {
                return Err(format!("wanted pairs of the {ports} ports, found one with port {to}"));
            }
            if let Some(slot) = map.get_mut(usize::from(from)) {
                *slot = to;
            }
        }
    }
    match map.iter().position(|&to| to == u8::MAX) {
        Some(port) => Err(format!("wanted every port in --portmap, found none for port {port}")),
        None => Ok(map),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_maps() {
        assert_eq!(port_map(2, None), Ok(vec![1, 0]));
        let crossed = parse_portmap("(0,3),(1,2)").expect("valid");
        assert_eq!(port_map(4, Some(&crossed)), Ok(vec![3, 2, 1, 0]));
        assert!(port_map(3, None).is_err());
        assert!(port_map(4, Some(&[(0, 3)])).is_err());
        assert!(parse_portmap("0,3").is_err());
        assert!(parse_portmap("(0;3)").is_err());
    }

    #[test]
    fn qmp_arguments() {
        assert_eq!(parse_argument("up=true"), Ok(("up".into(), Value::Bool(true))));
        assert_eq!(parse_argument("name=n0"), Ok(("name".into(), Value::String("n0".into()))));
        assert!(parse_argument("up").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
