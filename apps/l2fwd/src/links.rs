//! Links: waiting for them at the start, noticing changes afterwards.

use std::time::Duration;

use crate::console::Console;

use crate::ports::{OpenPort, Ports};
use crate::signals::Wakeups;
use crate::table::Words;

/// Between two looks while waiting.
const STEP: Duration = Duration::from_millis(100);
/// Looks until waiting ends: 9 s.
const STEPS: u32 = 90;

/// Waits until all links are up, or 9 s, or somebody stops the program; then says how each is.
pub(crate) fn wait(ports: &mut Ports, console: &mut Console, wakeups: &Wakeups) {
    console.progress("Waiting for links");
    for _ in 0..STEPS {
        for port in ports.values_mut() {
            look(port);
        }
        if ports.values().all(|port| port.link.is_some_and(|link| link.up)) || wakeups.wait(STEP) {
            break;
        }
        console.progress(".");
    }
    console.progress(" done\n");
    for port in ports.values() {
        console.line(&format!("Port {} Link {}", port.number, said(port)));
    }
}

/// Looks at the links of ports that say theirs may have changed, or that can't say; and says
/// which have.
pub(crate) fn watch(ports: &mut Ports, console: &mut Console) {
    for port in ports.values_mut() {
        if port.port.link_changed() && look(port) {
            console.interrupted();
            tracing::info!("port {} ({}): link {}", port.number, port.info.device, said(port));
        }
    }
}

/// Looks at one link; whether it has gone up or down since the last look.
fn look(port: &mut OpenPort) -> bool {
    match port.port.link() {
        Ok(link) => {
            let before = port.link.replace(link);
            before.is_some_and(|before| before.up != link.up)
        }
        Err(error) => {
            // As last seen; a device that is gone shows by itself.
            tracing::debug!("port {}: {error}", port.number);
            false
        }
    }
}

fn said(port: &OpenPort) -> String {
    let words = Words(port.link).to_string();
    match words.strip_prefix("up") {
        Some(speed) => format!("Up{speed}"),
        None if port.link.is_none() => "unknown".to_owned(),
        None => "Down".to_owned(),
    }
}
