//! Statistics for people: a table of 80 columns, or little more.

use std::fmt::{self, Write as _};

use packetboat::port::Link;

use crate::snapshot::{Rate, Reason, Span};

/// The table, each line ended; rates are those of the span.
pub(crate) fn table(span: Span<'_>) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write_table(&mut out, span);
    out
}

fn write_table(out: &mut String, span: Span<'_>) -> fmt::Result {
    let uptime = span.to.uptime.as_secs();
    let (hours, minutes, seconds) = (uptime / 3600, uptime / 60 % 60, uptime % 60);
    let whole = if span.from.is_none() { "; rates over all that time" } else { "" };
    writeln!(out, "packetboat l2fwd, forwarding for {hours}:{minutes:02}:{seconds:02}{whole}")?;
    writeln!(out)?;
    writeln!(
        out,
        "Port  {:<12}  {:<8}  {:>17}  {:>9}  {:>9}  {:>8}",
        "Device", "Link", "Packets", "Packets/s", "Bits/s", "Dropped"
    )?;
    for (port, rx, tx) in span.ports() {
        let link = Words(port.link);
        let (number, device) = (port.port, &port.device);
        write!(out, "{number:>4}  {device:<12}  {link:<8}  ")?;
        direction(
            out,
            "rx",
            port.stats.rx_total().packets,
            rx,
            port.rx_dropped(),
            &port.rx_drops(),
        )?;
        write!(out, "{:30}", "")?;
        direction(
            out,
            "tx",
            port.stats.tx_total().packets,
            tx,
            port.tx_dropped(),
            &port.tx_drops(),
        )?;
    }
    writeln!(out)?;
    writeln!(out, "Lcore  CPU    Busy  Packets/burst  Forwards")?;
    for (lcore, totals) in span.lcores() {
        writeln!(
            out,
            "{:>5}  {:>3}  {:>4.0} %  {:>13.1}  {}",
            lcore.lcore,
            lcore.cpu,
            totals.time.busy_share() * 100.0,
            totals.packets_per_burst(),
            lcore.lanes
        )?;
    }
    Ok(())
}

/// The rest of a line: counts of one direction, and reasons for drops if there were any.
fn direction(
    out: &mut String,
    name: &str,
    packets: u64,
    rate: Rate,
    dropped: u64,
    reasons: &[Reason],
) -> fmt::Result {
    let (packets, dropped) = (Grouped(packets), Grouped(dropped));
    let (per_second, bits) = (Short(rate.packets), Short(rate.bits));
    write!(out, "{name} {packets:>14}  {per_second:>9}  {bits:>9}  {dropped:>8}")?;
    for (reason, count) in reasons.iter().filter(|(_, count)| *count != 0) {
        write!(out, "  {} {}", reason.replace('_', " "), Grouped(*count))?;
    }
    writeln!(out)
}

/// A link: `up 10G`, `up`, `down`.
pub(crate) struct Words(pub(crate) Option<Link>);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("?"),
            Some(Link { up: false, .. }) => f.pad("down"),
            Some(Link { speed_mbps: None, .. }) => f.pad("up"),
            Some(Link { speed_mbps: Some(mbps), .. }) if mbps.is_multiple_of(1000) => {
                f.pad(&format!("up {}G", mbps / 1000))
            }
            Some(Link { speed_mbps: Some(mbps), .. }) => f.pad(&format!("up {mbps}M")),
        }
    }
}

/// A count with its thousands apart: `1,234,567`.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A rate with three digits and its unit's prefix: `12.3 M`.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0;
        let mut prefix = "";
        for next in ["k", "M", "G", "T"] {
            // 999.5 would be written as 1000.
            if value < 999.5 {
                break;
            }
            value /= 1000.0;
            prefix = next;
        }
        let text = match (prefix, value) {
            ("", value) => format!("{value:.0}  "),
            (_, value) if value < 9.995 => format!("{value:.2} {prefix}"),
            (_, value) if value < 99.95 => format!("{value:.1} {prefix}"),
            (_, value) => format!("{value:.0} {prefix}"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Snapshot, tests::sample};

    #[test]
    fn the_table_is_as_people_see_it() {
        let (from, to) = (sample(3660), sample(3662));
        let text = table(Span { from: Some(&from), to: &to });
        let wanted = "\
packetboat l2fwd, forwarding for 1:01:02

Port  Device        Link                Packets  Packets/s     Bits/s   Dropped
   0  0000:01:00.0  up 10G    rx  3,662,000,007     1.00 M      800 M         0  no mbuf 5
                              tx  1,831,000,000      500 k      400 M         0
   1  0000:02:00.0  down      rx  7,324,000,007     2.00 M     1.60 G         3  no mbuf 5  bad length 3
                              tx  3,662,000,000     1.00 M      800 M        12  queue full 12

Lcore  CPU    Busy  Packets/burst  Forwards
    1    3    25 %           15.5  0 rx 0 > 1 tx 0, 1 rx 0 > 0 tx 0
";
        assert_eq!(text, wanted, "\n{text}");
    }

    #[test]
    fn before_anything_happened_there_is_a_table_too() {
        let empty = Snapshot::default();
        assert!(table(Span { from: None, to: &empty }).contains("for 0:00:00; rates over all"));
    }

    #[test]
    fn numbers_are_short_and_never_of_four_digits() {
        let shown: Vec<String> =
            [0.0, 999.4, 999.6, 1234.0, 12_340.0, 99_960.0, 999_499.0, 999_600.0, 2.5e12, 5e15]
                .iter()
                .map(|value| Short(*value).to_string())
                .collect();
        assert_eq!(
            shown,
            [
                "0  ", "999  ", "1.00 k", "1.23 k", "12.3 k", "100 k", "999 k", "1.00 M", "2.50 T",
                "5000 T"
            ]
        );
        let grouped: Vec<String> =
            [0, 999, 1000, 1_234_567].iter().map(|count| Grouped(*count).to_string()).collect();
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn links_are_short() {
        let link =
            |up, speed_mbps| Words(Some(Link { up, speed_mbps, full_duplex: None })).to_string();
        assert_eq!(link(true, Some(25_000)), "up 25G");
        assert_eq!(link(true, Some(100)), "up 100M");
        assert_eq!(link(true, None), "up");
        assert_eq!(link(false, Some(10_000)), "down");
        assert_eq!(Words(None).to_string(), "?");
    }
}
