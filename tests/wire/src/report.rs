//! What a run found, for people and as JSON, and its comparison with what l2fwd itself counted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::Direction;

/// The result of a closed loop.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Number of the run.
    pub(crate) run: u32,
    /// Frames asked for, per sending port.
    pub(crate) frames: u64,
    /// Frames of one port that were on their way at a time, at most.
    pub(crate) window: u64,
    /// From the start to the last frame that came back.
    pub(crate) seconds: f64,
    /// When the first frame came back, by the host's clock.
    pub(crate) first_arrival_unix_s: Option<f64>,
    /// One per sending port.
    pub(crate) directions: Vec<Direction>,
    /// One per port.
    pub(crate) ports: Vec<PortTally>,
    /// The first deviations in words.
    pub(crate) examples: Vec<String>,
}

/// What passed between the wire and one port of the guest.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct PortTally {
    /// Number of the port.
    pub(crate) port: u8,
    /// Frames sent into the guest.
    pub(crate) sent: u64,
    /// Their bytes, without FCS.
    pub(crate) sent_bytes: u64,
    /// Frames that the guest sent, of whatever kind.
    pub(crate) received: u64,
    /// Their bytes, without FCS.
    pub(crate) received_bytes: u64,
    /// Frames of an earlier run among them.
    pub(crate) stale: u64,
    /// Frames among them that no wire ever sent.
    pub(crate) strangers: u64,
}

impl Report {
    /// Everything that must not happen; stale frames count unless [`Self::forgive_stale`] was called.
    pub(crate) fn deviations(&self) -> u64 {
        let directions: u64 = self.directions.iter().map(Direction::deviations).sum();
        directions + self.ports.iter().map(|port| port.stale + port.strangers).sum::<u64>()
    }

    /// Frames of an earlier run are expected, as after a kill of the forwarder in mid-traffic: how
    /// many there were, and no longer a deviation.
    pub(crate) fn forgive_stale(&mut self) -> u64 {
        self.ports.iter_mut().map(|port| std::mem::take(&mut port.stale)).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for direction in &self.directions {
            let Direction { from, to, sent, received, lost, reordered, corrupted, .. } = direction;
            writeln!(
                f,
                "port {from} to {to}: sent {sent}, received {received}, lost {lost}, \
                 reordered {reordered}, duplicated {}, corrupted {corrupted}, wrong length {}, \
                 wrong port {}, wrong MAC {}",
                direction.duplicated,
                direction.wrong_length,
                direction.wrong_port,
                direction.wrong_mac,
            )?;
        }
        for port in &self.ports {
            let PortTally { port, sent, sent_bytes, received, received_bytes, stale, strangers } =
                port;
            writeln!(
                f,
                "port {port}: {sent} frames ({sent_bytes} bytes) in, \
                 {received} frames ({received_bytes} bytes) out, {stale} stale, {strangers} strangers",
            )?;
        }
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        let frames: u64 = self.directions.iter().map(|direction| direction.received).sum();
        write!(f, "{frames} frames in {:.2} s, {} deviations", self.seconds, self.deviations())
    }
}

/// The part of l2fwd's `--stats-json` that the wire can know from outside.
#[derive(Debug, Deserialize)]
pub(crate) struct ForwarderStats {
    /// One per port, totals since the start.
    pub(crate) ports: Vec<ForwarderPort>,
}

/// Counters of one port.
#[derive(Debug, Deserialize)]
pub(crate) struct ForwarderPort {
    pub(crate) port: u8,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_dropped: u64,
}

/// What one of our own JSON reports holds for [`compare`].
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    /// One per port.
    pub(crate) ports: Vec<PortTally>,
}

/// Where the counters of the forwarder differ from the sum of what was `seen` outside, in words.
pub(crate) fn compare(seen: &[Seen], forwarder: &ForwarderStats) -> Vec<String> {
    let mut differences = Vec::new();
    let known = seen.iter().map(|run| run.ports.len()).max().unwrap_or(0);
    if forwarder.ports.len() != known {
        let counted = forwarder.ports.len();
        differences.push(format!("{known} ports outside, {counted} in l2fwd's statistics"));
    }
    for port in &forwarder.ports {
        let sum = |field: fn(&PortTally) -> u64| -> u64 {
            seen.iter().flat_map(|run| &run.ports).filter(|p| p.port == port.port).map(field).sum()
        };
        for (name, counted, outside) in [
            ("rx_packets", port.rx_packets, sum(|p| p.sent)),
            ("rx_bytes", port.rx_bytes, sum(|p| p.sent_bytes)),
            ("tx_packets", port.tx_packets, sum(|p| p.received)),
            ("tx_bytes", port.tx_bytes, sum(|p| p.received_bytes)),
            ("rx_dropped", port.rx_dropped, 0),
            ("tx_dropped", port.tx_dropped, 0),
        ] {
            if counted != outside {
                let port = port.port;
                differences.push(format!("port {port} {name}: l2fwd {counted}, outside {outside}"));
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let port = |port| PortTally {
            port,
            sent: 10,
            sent_bytes: 600,
            received: 20,
            received_bytes: 1200,
            ..PortTally::default()
        };
        Seen { ports: vec![port(0), port(1)] }
    }

    fn stats(runs: u64) -> ForwarderStats {
        let port = |port| ForwarderPort {
            port,
            rx_packets: 10 * runs,
            rx_bytes: 600 * runs,
            tx_packets: 20 * runs,
            tx_bytes: 1200 * runs,
            rx_dropped: 0,
            tx_dropped: 0,
        };
        ForwarderStats { ports: vec![port(0), port(1)] }
    }

    #[test]
    fn equal_counters_agree() {
        assert_eq!(compare(&[seen()], &stats(1)), [""; 0]);
        assert_eq!(compare(&[seen(), seen()], &stats(2)), [""; 0]);
    }

    #[test]
    fn each_counter_is_compared() {
        let changes: [fn(&mut ForwarderPort); 6] = [
            |p| p.rx_packets += 1,
            |p| p.rx_bytes -= 1,
            |p| p.tx_packets -= 1,
            |p| p.tx_bytes += 1,
            |p| p.rx_dropped += 1,
            |p| p.tx_dropped += 1,
        ];
        for change in changes {
            let mut stats = stats(1);
            change(&mut stats.ports[1]);
            assert_eq!(compare(&[seen()], &stats).len(), 1);
        }
    }

    #[test]
    fn a_missing_port_is_a_difference() {
        let mut stats = stats(1);
        stats.ports.pop();
        assert_eq!(compare(&[seen()], &stats).len(), 1);
    }
}
