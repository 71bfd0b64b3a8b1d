//! All counters at one moment, and what happened between two.

use std::collections::BTreeMap;
use std::time::Duration;

use packetboat::mbuf::MbufPool;
use packetboat::port::{Link, PortStats};

use crate::counters::LcoreTotals;
use crate::ports::Ports;

/// All counters at one moment, since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// Time since forwarding began.
    pub(crate) uptime: Duration,
    /// By port number.
    pub(crate) ports: Vec<PortCounts>,
    /// In order of the lcores.
    pub(crate) lcores: Vec<LcoreCounts>,
    /// All mbufs of all pools, and those that are in them.
    pub(crate) mbufs: Mbufs,
}

/// One port's counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortCounts {
    /// Its number.
    pub(crate) port: u16,
    /// Where it is.
    pub(crate) device: String,
    /// Its driver.
    pub(crate) driver: &'static str,
    /// Its Ethernet address.
    pub(crate) mac: String,
    /// Its link, as last seen.
    pub(crate) link: Option<Link>,
    /// What its driver counted, by queue.
    pub(crate) stats: PortStats,
    /// Frames that found its transmit queues full.
    pub(crate) queue_full: u64,
}

/// One lcore's counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct LcoreCounts {
    /// Its number.
    pub(crate) lcore: u32,
    /// Its CPU.
    pub(crate) cpu: u32,
    /// What it forwards, in words.
    pub(crate) lanes: String,
    /// What it counted.
    pub(crate) totals: LcoreTotals,
}

/// Mbufs of all pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mbufs {
    /// All that were made.
    pub(crate) count: usize,
    /// Those that are in their pools now.
    pub(crate) returned: usize,
}

/// What passed at a port per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rate {
    /// Frames per second.
    pub(crate) packets: f64,
    /// Bits per second, of frames without preamble, checksum and gap.
    pub(crate) bits: f64,
}

/// A name for a reason, and how often it was one.
pub(crate) type Reason = (&'static str, u64);

impl Snapshot {
    /// What ports and pools say now. Lcores are the caller's to add.
    pub(crate) fn of(
        uptime: Duration,
        ports: &Ports,
        pools: &BTreeMap<Option<u32>, MbufPool>,
        lcores: Vec<LcoreCounts>,
    ) -> Self {
        let ports = ports.values().map(|port| PortCounts {
            port: port.number,
            device: port.info.device.clone(),
            driver: port.info.driver,
            mac: port.info.mac.to_string(),
            link: port.link,
            stats: port.port.stats(),
            queue_full: port.queue_full.iter().map(|counter| counter.get()).sum(),
        });
        Self { uptime, ports: ports.collect(), lcores, mbufs: Mbufs::of(pools) }
    }
}

impl Mbufs {
    /// Counts them.
    pub(crate) fn of(pools: &BTreeMap<Option<u32>, MbufPool>) -> Self {
        Self {
            count: pools.values().map(|pool| pool.objects().count()).sum(),
            returned: pools.values().map(|pool| pool.objects().available()).sum(),
        }
    }
}

impl PortCounts {
    /// Frames received and dropped by the driver, by reason; and how often there was no mbuf to
    /// receive into (what the device dropped for it is the device's to count).
    pub(crate) fn rx_drops(&self) -> [Reason; 4] {
        let total = self.stats.rx_total();
        [
            ("no_mbuf", total.no_mbuf),
            ("bad_id", total.bad_id),
            ("bad_length", total.bad_length),
            ("bad_chain", total.bad_chain),
        ]
    }

    /// Frames to be sent and dropped, by reason.
    pub(crate) fn tx_drops(&self) -> [Reason; 4] {
        let total = self.stats.tx_total();
        [
            ("queue_full", self.queue_full),
            ("bad_length", total.bad_length),
            ("too_many_segments", total.bad_chain),
            ("bad_id", total.bad_id),
        ]
    }

    /// Frames received that went no further.
    pub(crate) fn rx_dropped(&self) -> u64 {
        self.stats.rx_total().dropped()
    }

    /// Frames that were to be sent and weren't.
    pub(crate) fn tx_dropped(&self) -> u64 {
        let total = self.stats.tx_total();
        self.queue_full + total.bad_length + total.bad_chain
    }

    /// Rates of reception and of sending since `earlier`, `span` ago.
    pub(crate) fn rates(&self, earlier: Option<&Self>, span: Duration) -> (Rate, Rate) {
        let zero = PortStats::default();
        let before = earlier.map_or(&zero, |port| &port.stats);
        let seconds = span.as_secs_f64();
        let rate = |now: u64, then: u64| {
            if seconds > 0.0 { now.saturating_sub(then) as f64 / seconds } else { 0.0 }
        };
        let (rx, tx) = (self.stats.rx_total(), self.stats.tx_total());
        let (rx_before, tx_before) = (before.rx_total(), before.tx_total());
        (
            Rate {
                packets: rate(rx.packets, rx_before.packets),
                bits: 8.0 * rate(rx.bytes, rx_before.bytes),
            },
            Rate {
                packets: rate(tx.packets, tx_before.packets),
                bits: 8.0 * rate(tx.bytes, tx_before.bytes),
            },
        )
    }
}

/// Two moments with what happened in between: the first is the start, or the last report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    /// The earlier moment; none: the start.
    pub(crate) from: Option<&'a Snapshot>,
    /// The later one.
    pub(crate) to: &'a Snapshot,
}

impl Span<'_> {
    /// How long it was.
    pub(crate) fn duration(&self) -> Duration {
        self.to.uptime.saturating_sub(self.from.map_or(Duration::ZERO, |from| from.uptime))
    }

    /// Each port with its rates.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (&PortCounts, Rate, Rate)> {
        self.to.ports.iter().map(|port| {
            let earlier =
                self.from.and_then(|from| from.ports.iter().find(|other| other.port == port.port));
            let (rx, tx) = port.rates(earlier, self.duration());
            (port, rx, tx)
        })
    }

    /// Each lcore with what it counted in between.
    pub(crate) fn lcores(&self) -> impl Iterator<Item = (&LcoreCounts, LcoreTotals)> {
        self.to.lcores.iter().map(|lcore| {
            let earlier = self
                .from
                .and_then(|from| from.lcores.iter().find(|other| other.lcore == lcore.lcore));
            let zero = LcoreTotals::default();
            (lcore, lcore.totals.since(earlier.map_or(&zero, |earlier| &earlier.totals)))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use packetboat::port::QueueStats;

    use packetboat::telemetry::LoopTicks;

    use super::*;

    /// Two ports and an lcore after `seconds`, with numbers that grow with it.
    pub(crate) fn sample(seconds: u64) -> Snapshot {
        let port = |port: u16| {
            let factor = u64::from(port) + 1;
            let queue = |packets, bad_length, no_mbuf| QueueStats {
                packets,
                bytes: packets * 100,
                bad_length,
                no_mbuf,
                ..QueueStats::default()
            };
            let packets = 1_000_000 * seconds * factor;
            PortCounts {
                port,
                device: format!("0000:0{factor}:00.0"),
                driver: "virtio-net",
                mac: format!("52:54:00:00:00:0{port}"),
                link: Some(Link {
                    up: port == 0,
                    speed_mbps: (port == 0).then_some(10_000),
                    full_duplex: None,
                }),
                stats: PortStats {
                    rx: vec![queue(packets, 0, 0), queue(7, 3 * u64::from(port), 5)],
                    tx: vec![queue(packets / 2, 0, 0)],
                },
                queue_full: 12 * u64::from(port),
            }
        };
        let totals = LcoreTotals {
            time: LoopTicks { ticks: 1000 * seconds, busy_ticks: 250 * seconds },
            polls: 100 * seconds,
            found: 10 * seconds,
            frames: 155 * seconds,
        };
        let lanes = "0 rx 0 > 1 tx 0, 1 rx 0 > 0 tx 0".to_owned();
        Snapshot {
            uptime: Duration::from_secs(seconds),
            ports: vec![port(0), port(1)],
            lcores: vec![LcoreCounts { lcore: 1, cpu: 3, lanes, totals }],
            mbufs: Mbufs { count: 4096, returned: 3000 },
        }
    }

    #[test]
    fn rates_are_of_the_time_in_between() {
        let (from, to) = (sample(10), sample(12));
        let span = Span { from: Some(&from), to: &to };
        let rates: Vec<_> = span.ports().map(|(_, rx, tx)| (rx, tx)).collect();
        assert_eq!(rates[0].0, Rate { packets: 1e6, bits: 8e8 });
        assert_eq!(rates[1].1, Rate { packets: 1e6, bits: 8e8 });
        let (_, lcore) = span.lcores().next().unwrap();
        assert_eq!((lcore.time.busy_share(), lcore.packets_per_burst()), (0.25, 15.5));
        let all = Span { from: None, to: &to };
        assert_eq!(all.ports().next().unwrap().2.packets, 5e5);
        let none = Span { from: Some(&to), to: &to };
        assert_eq!(none.ports().next().unwrap().1, Rate::default());
    }

    #[test]
    fn an_empty_pool_is_a_reason_and_no_count_of_frames() {
        let port = &sample(1).ports[1];
        assert_eq!(port.rx_drops()[0], ("no_mbuf", 5));
        assert_eq!((port.rx_dropped(), port.tx_dropped()), (3, 12));
    }
}
