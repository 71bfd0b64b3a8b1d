//! Puts everything back: lcores, queues, ports, devices; and counts the mbufs.

use std::time::Duration;

use crate::console::Console;
use crate::control::{Running, write_stats};
use crate::error::Error;
use crate::json::StatsFile;
use crate::queues::give_back;
use crate::setup::Ready;
use crate::snapshot::{Mbufs, Snapshot, Span};

/// What the devices still have to send is theirs for this long, before they are reset.
const LAST_FRAMES: Duration = Duration::from_millis(20);

/// Stops all, and goes on to the end whatever happens on the way. The last line that it writes is
/// `mbufs: N of N returned`.
///
/// # Errors
/// The first thing that went wrong, or mbufs that didn't come back.
pub(crate) fn stop(
    running: Running,
    console: &mut Console,
    stats_file: Option<&StatsFile>,
) -> Result<(), Error> {
    let mut failures: Vec<Error> = Vec::new();
    let Running { ready, lcores, spare: mut queues, stop, started } = running;
    stop.set();
    let mut views = Vec::with_capacity(lcores.len());
    for lcore in lcores {
        // The last thing each does is to send what waits in its buffers.
        match lcore.handle.join() {
            Ok(lanes) => give_back(lanes, &mut queues),
            Err(error) => failures.push(error.into()),
        }
        views.push(lcore.view);
    }
    std::thread::sleep(LAST_FRAMES);
    let uptime = started.elapsed();

    let Ready { mut ports, pools, eal, .. } = ready;
    for (number, port) in &mut ports {
        if let Err(error) = port.port.stop(queues.remove(number).unwrap_or_default()) {
            failures.push(error.into());
        }
    }
    let lcore_counts = views.iter().map(super::control::LcoreView::counts).collect();
    let last = Snapshot::of(uptime, &ports, &pools, lcore_counts);
    console.statistics(Span { from: None, to: &last });
    write_stats(stats_file, &last);
    // Devices are closed before the last line: who reads it may have them.
    drop(ports);
    let mbufs = Mbufs::of(&pools);
    drop(pools);
    drop(eal);
    if mbufs.returned < mbufs.count {
        failures.push(Error::NotReturned { missing: mbufs.count - mbufs.returned });
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    failures.for_each(|error| tracing::error!("{error}"));
    console.line(&format!("mbufs: {} of {} returned", mbufs.returned, mbufs.count));
    first.map_or(Ok(()), Err)
}
