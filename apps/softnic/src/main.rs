//! softnic: an Intel 82599 in software, behind a vfio-user socket.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use packetboat_softnic::device::{Device, Identity, WhenFull};
use packetboat_softnic::nic::{Manner, Nic};
use packetboat_softnic::options::Options;
use packetboat_softnic::server;
use packetboat_softnic::wire::{Reflect, Wire};

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(match std::env::var("SOFTNIC_LOG").as_deref() {
            Ok("debug") => tracing::Level::DEBUG,
            _ => tracing::Level::INFO,
        })
        .init();
    match run(&options) {
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
            "wanted a --wire for each --socket, found {} and {}",
            options.wire.len(),
            options.socket.len()
        ));
    }
    let mut nics = Vec::new();
    let mut threads = Vec::new();
    for (n, (socket, wire)) in options.socket.iter().zip(&options.wire).enumerate() {
        let wire: Box<dyn Wire> = match wire.as_str() {
            "reflect" => Box::new(Reflect::new()),
            other => return Err(format!("wanted a wire (reflect), found '{other}'")),
        };
        let identity = Identity {
            device_id: options.device_id,
            mac: options.mac.plus(n),
            when_full: if options.wait_when_full { WhenFull::Wait } else { WhenFull::Drop },
            trust_clients: options.trust_clients,
            full_rings: false,
        };
        let device = Device::new(identity, wire).map_err(|error| error.to_string())?;
        let manner = Manner { share_pages: options.share_pages, busy: options.busy };
        let nic =
            Nic::new(format!("nic {n}"), device, manner).map_err(|error| error.to_string())?;
        let nic = Arc::new(nic);
        let listener = server::listen(socket)
            .map_err(|error| format!("wanted to listen on {}, found: {error}", socket.display()))?;
        tracing::info!("{}: listening on {}", nic.name, socket.display());
        let (a, b) = (Arc::clone(&nic), Arc::clone(&nic));
        threads.push(std::thread::spawn(move || server::serve(&a, &listener)));
        threads.push(std::thread::spawn(move || b.move_frames()));
        nics.push(nic);
    }
    let to_stop = nics.clone();
    ctrlc::set_handler(move || to_stop.iter().for_each(|nic| nic.stop()))
        .map_err(|error| format!("wanted to hear signals, found: {error}"))?;
    for thread in threads {
        let _ = thread.join();
    }
    for socket in &options.socket {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}
