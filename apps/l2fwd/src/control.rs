//! A run from the first option to the last mbuf.

use std::path::Path;

use packetboat::eal::start_logging;
use packetboat::port::RegisterValue;

use crate::console::Console;
use crate::error::Error;
use crate::json::StatsFile;
use crate::links;
use crate::options::Arguments;
use crate::running::Running;
use crate::setup::{self, Ready};
use crate::signals::Wakeups;
use crate::stop;

/// The whole run, until somebody ends it or something goes wrong.
///
/// # Errors
/// Whatever went wrong; all that was taken has been given back.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    start_logging(arguments.eal.log_level);
    let options = &arguments.l2fwd;
    let stats_file = options.stats_json.as_deref().map(check_stats_file).transpose()?;
    let wakeups = Wakeups::on_signals()?;
    let mut console = Console::new(options.table);

    let mut ready = setup::prepare(arguments)?;
    let queues = setup::start(&mut ready, options)?;
    describe_ports(&ready, &mut console);
    if options.dump_regs {
        dump_registers(&ready, &mut console)?;
    }
    links::wait(&mut ready.ports, &mut console, &wakeups);

    let mut running = Running::launch(ready, queues, options);
    console.line(&format!(
        "Forwarding between {} ports on {} lcores; Ctrl-C stops",
        running.ready.ports.len(),
        running.lcores.len()
    ));
    let watched = running.watch(options, &mut console, stats_file.as_ref(), &wakeups);
    let stopped = stop::stop(running, &mut console, stats_file.as_ref());
    match (watched, stopped) {
        (Err(reason), Err(consequence)) => {
            tracing::error!("{consequence}");
            Err(reason)
        }
        (watched, stopped) => watched.and(stopped),
    }
}

fn check_stats_file(path: &Path) -> Result<StatsFile, Error> {
    StatsFile::check(path).map_err(|source| Error::StatsFile { path: path.to_owned(), source })
}

fn dump_registers(ready: &Ready, console: &mut Console) -> Result<(), Error> {
    for port in ready.ports.values() {
        for register in port.port.registers()? {
            let RegisterValue { name, offset, value, meaning } = register;
            console.line(&format!(
                "Port {} {name:<14} {offset:#07x} {value:#010x}  {meaning}",
                port.number
            ));
        }
    }
    Ok(())
}

fn describe_ports(ready: &Ready, console: &mut Console) {
    for port in ready.ports.values() {
        let info = &port.info;
        let paths = match port.port.paths() {
            paths if paths.is_empty() => String::new(),
            paths => format!(", paths: {paths}"),
        };
        console.line(&format!(
            "Port {}: {} {}, address {}, descriptors: rx {} x {}, tx {} x {}{paths}",
            port.number,
            info.device,
            info.driver,
            info.mac,
            port.config.rx_queues,
            port.rx_descriptors(),
            port.config.tx_queues,
            port.tx_descriptors()
        ));
    }
}
