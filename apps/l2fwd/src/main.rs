//! l2fwd: forwards frames between pairs of ports, each receive queue polled by a core of its own.
//!
//! Reading order: `forward` is what all the rest is for; `lanes` says which lcore forwards what,
//! `portmap` from which port to which; `control` is a run from end to end: `setup` makes all ready,
//! `running` watches it, `stop` puts it all back.
#![forbid(unsafe_code)]

mod console;
mod control;
mod counters;
mod drivers;
mod error;
mod forward;
mod json;
mod lanes;
mod lines;
mod links;
mod options;
mod portmap;
mod ports;
mod queues;
mod running;
mod setup;
mod signals;
mod sizing;
mod snapshot;
mod stop;
mod table;
#[cfg(test)]
mod testing;
mod txbuffer;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = options::parse();
    match control::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error::print(&error);
            error.exit_code()
        }
    }
}
