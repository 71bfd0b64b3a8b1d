//! softnic: an Intel 82599 in software, behind a vfio-user socket.
#![forbid(unsafe_code)]

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::Parser;
use packetboat_softnic::control::{self, Control};
use packetboat_softnic::counters::Counters;
use packetboat_softnic::device::{Device, Identity, WhenFull};
use packetboat_softnic::nic::{Manner, Nic};
use packetboat_softnic::options::{Action, Options};
use packetboat_softnic::plugs;
use packetboat_softnic::record::Recorder;
use packetboat_softnic::server;
use packetboat_softnic::wire::Wire;

fn main() -> ExitCode {
    let options = Options::parse();
    let level = match std::env::var("SOFTNIC_LOG").as_deref() {
        Ok("trace") => tracing::Level::TRACE,
        Ok("debug") => tracing::Level::DEBUG,
        Ok("warn") => tracing::Level::WARN,
        _ => tracing::Level::INFO,
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
    let done = match &options.action {
        Some(Action::Ctl { socket, words }) => {
            control::ask(socket, words).map(|answer| print!("{answer}"))
        }
        None => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("packetboat-softnic: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if options.wire.len() != options.socket.len() {
        return Err(format!(
            "wanted a --wire for each --socket, found {} of {}. See --help",
            options.wire.len(),
            options.socket.len()
        ));
    }
    let wires = plugs::plug(&options.wire).map_err(|error| error.to_string())?;
    let mut counters = match &options.counters {
        Some(path) => Counters::create(path)
            .map_err(|error| format!("--counters {}: {error}", path.display()))?
            .map(Some),
        None => [None, None],
    };
    let mut nics = Vec::new();
    let mut threads = Vec::new();
    for (n, (socket, wire)) in options.socket.iter().zip(wires).enumerate() {
        let mut device = device(options, n, wire)?;
        device.counters = counters.get_mut(n).and_then(Option::take);
        let manner = Manner { share_pages: options.share_pages, busy: options.busy };
        let nic =
            Nic::new(format!("nic {n}"), device, manner).map_err(|error| error.to_string())?;
        let nic = Arc::new(nic);
        let listener = listen("--socket", socket)?;
        tracing::info!("{}: listening on {}", nic.name, socket.display());
        let (a, b) = (Arc::clone(&nic), Arc::clone(&nic));
        threads.push(spawn(&format!("softnic-{n}-traps"), move || server::serve(&a, &listener))?);
        threads.push(spawn(&format!("softnic-{n}-frames"), move || b.move_frames())?);
        nics.push(nic);
    }
    let mut controller = None;
    if let Some(path) = &options.control {
        let listener = listen("--control", path)?;
        let control = Control::new(nics.clone());
        controller = Some(spawn("softnic-control", move || control.serve(&listener))?);
    }
    let to_stop = nics.clone();
    ctrlc::set_handler(move || to_stop.iter().for_each(|nic| nic.stop()))
        .map_err(|error| format!("wanted to hear signals, found: {error}"))?;
    for thread in threads {
        let _ = thread.join();
    }
    for nic in &nics {
        if let Some(recorder) = &mut nic.device().recorder {
            recorder.flush();
        }
        let report = nic.device().wire().report();
        for line in report.lines() {
            println!("{} {line}", nic.name);
        }
    }
    if let (Some(controller), Some(path)) = (controller, &options.control) {
        let _ = UnixStream::connect(path); // wakes it, if it didn't end by itself
        let _ = controller.join();
        let _ = std::fs::remove_file(path);
    }
    for socket in &options.socket {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

fn device(options: &Options, n: usize, wire: Box<dyn Wire>) -> Result<Device, String> {
    let identity = Identity {
        device_id: options.device_id,
        mac: options.mac.plus(n),
        when_full: if options.wait_when_full { WhenFull::Wait } else { WhenFull::Drop },
        trust_clients: options.trust_clients,
        full_rings: options.full_rings,
    };
    let mut device = Device::new(identity, wire).map_err(|error| error.to_string())?;
    if let Some(path) = options.record.get(n) {
        let recorder = Recorder::create(path)
            .map_err(|error| format!("--record {}: {error}", path.display()))?;
        device.recorder = Some(recorder);
    }
    Ok(device)
}

fn listen(option: &str, path: &Path) -> Result<UnixListener, String> {
    server::listen(path).map_err(|error| {
        format!("{option}: wanted to listen on {}, found: {error}", path.display())
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| format!("wanted a thread, found: {error}"))
}
