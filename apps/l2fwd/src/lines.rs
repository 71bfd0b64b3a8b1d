//! Statistics for logs and pipes: a line for each port and each lcore, `key=value` throughout.

use std::fmt::Write as _;

use crate::snapshot::{Reason, Span};

/// The lines, each ended. Counts are since the start; rates, shares and bursts those of the span.
/// Reasons for drops appear once they have happened.
pub(crate) fn lines(span: Span<'_>) -> String {
    let mut out = String::new();
    let seconds = span.to.uptime.as_secs_f64();
    for (port, rx, tx) in span.ports() {
        let link = match port.link {
            None => "unknown",
            Some(link) if link.up => "up",
            Some(_) => "down",
        };
        let (rx_total, tx_total) = (port.stats.rx_total(), port.stats.tx_total());
        // Writing to a String can't fail.
        let _ = write!(
            out,
            "uptime_s={seconds:.1} port={} device={} link={link} rx_packets={} rx_bytes={} \
             rx_dropped={} rx_packets_per_s={:.0} rx_bits_per_s={:.0} tx_packets={} tx_bytes={} \
             tx_dropped={} tx_packets_per_s={:.0} tx_bits_per_s={:.0}",
            port.port,
            port.device,
            rx_total.packets,
            rx_total.bytes,
            port.rx_dropped(),
            rx.packets,
            rx.bits,
            tx_total.packets,
            tx_total.bytes,
            port.tx_dropped(),
            tx.packets,
            tx.bits
        );
        reasons(&mut out, "rx", &port.rx_drops());
        reasons(&mut out, "tx", &port.tx_drops());
        out.push('\n');
    }
    for (lcore, totals) in span.lcores() {
        let _ = writeln!(
            out,
            "uptime_s={seconds:.1} lcore={} cpu={} busy_share={:.3} packets_per_burst={:.1}",
            lcore.lcore,
            lcore.cpu,
            totals.time.busy_share(),
            totals.packets_per_burst()
        );
    }
    out
}

fn reasons(out: &mut String, direction: &str, reasons: &[Reason]) {
    for (reason, count) in reasons.iter().filter(|(_, count)| *count != 0) {
        let _ = write!(out, " {direction}_{reason}={count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sample;

    #[test]
    fn every_line_is_keys_and_values() {
        let (from, to) = (sample(10), sample(12));
        let text = lines(Span { from: Some(&from), to: &to });
        let wanted = "\
uptime_s=12.0 port=0 device=0000:01:00.0 link=up rx_packets=12000007 rx_bytes=1200000700 \
rx_dropped=0 rx_packets_per_s=1000000 rx_bits_per_s=800000000 tx_packets=6000000 \
tx_bytes=600000000 tx_dropped=0 tx_packets_per_s=500000 tx_bits_per_s=400000000 rx_no_mbuf=5
uptime_s=12.0 port=1 device=0000:02:00.0 link=down rx_packets=24000007 rx_bytes=2400000700 \
rx_dropped=3 rx_packets_per_s=2000000 rx_bits_per_s=1600000000 tx_packets=12000000 \
tx_bytes=1200000000 tx_dropped=12 tx_packets_per_s=1000000 tx_bits_per_s=800000000 \
rx_no_mbuf=5 rx_bad_length=3 tx_queue_full=12
uptime_s=12.0 lcore=1 cpu=3 busy_share=0.250 packets_per_burst=15.5
";
        assert_eq!(text, wanted, "\n{text}");
        let pairs = text.split_whitespace().all(|word| word.matches('=').count() == 1);
        assert!(pairs, "{text}");
    }
}
