//! Receive side scaling: which queue a received frame goes to (virtio 1.3, 5.1.6.5.7).

use packetboat::port::{Capabilities, Rss, RssHash};

use crate::control::rss_config;
use crate::setup::largest_power_of_two;
use crate::transport::RssLimits;

/// Bytes of a key, and the most entries of a table that the driver makes.
const KEY_BYTES: usize = 40;
const TABLE_MAX: u16 = 128;

/// A key that repeats itself every 16 bits: both directions of a flow have the same hash, and so
/// come to the same lcore.
const KEY: [u8; KEY_BYTES] = {
    let mut key = [0x6d; KEY_BYTES];
    let mut at = 1;
    while at < KEY_BYTES {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// Whether RSS can be used with such a device: one with a shorter key, or without a table, is
/// against the specification.
fn usable(limits: RssLimits) -> bool {
    usize::from(limits.key_len) >= KEY_BYTES && limits.table_len != 0
}

/// What a device with these limits can do.
pub(crate) fn capabilities(limits: Option<RssLimits>, other: Capabilities) -> Capabilities {
    match limits.filter(|limits| usable(*limits)) {
        None => other,
        Some(limits) => Capabilities {
            rss_key_len: KEY_BYTES,
            rss_table_len: table_len(limits).into(),
            rss_hash: RssHash(limits.types as u16 & RssHash::ALL.0),
            ..other
        },
    }
}

fn table_len(limits: RssLimits) -> u16 {
    largest_power_of_two(limits.table_len).min(TABLE_MAX)
}

/// The command's data for `rx_queues` and `tx_queues` queues, with what was asked for.
pub(crate) fn command(
    limits: RssLimits,
    wanted: Option<&Rss>,
    rx_queues: u16,
    tx_queues: u16,
) -> Vec<u8> {
    let all = u32::from(RssHash::ALL.0);
    let asked = wanted.map_or(0, |rss| u32::from(rss.hash.0));
    // The numbers of RssHash are virtio's (5.1.6.4.3.1).
    let types = limits.types & if asked == 0 { all } else { asked };
    let in_turn: Vec<u16> = (0..rx_queues).collect();
    let table = wanted.and_then(|rss| rss.table.as_deref()).unwrap_or(&in_turn);
    let table: Vec<u16> = table.iter().copied().cycle().take(table_len(limits).into()).collect();
    let key = wanted.and_then(|rss| rss.key.as_deref()).unwrap_or(&KEY);
    rss_config(types, &table, tx_queues, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RssLimits = RssLimits { key_len: 52, table_len: 5, types: 0x1ff };

    #[test]
    fn the_command_is_laid_out_as_the_specification_says() {
        let bytes = command(LIMITS, None, 3, 2);
        let expected: &[u8] = &[0x3f, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0, 40];
        assert_eq!(bytes[..19], *expected, "types, mask, unclassified, table, senders, key");
        assert_eq!((&bytes[19..], bytes.len()), (&KEY[..], 59));
        let wanted = Rss {
            key: Some(vec![7; 40]),
            table: Some(vec![1, 0]),
            hash: RssHash::IPV4 | RssHash::IPV6_TCP,
        };
        let bytes = command(LIMITS, Some(&wanted), 2, 2);
        assert_eq!(bytes[..4], [0x11, 0, 0, 0]);
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[19..], [7; 40]);
    }

    #[test]
    fn devices_that_cannot_have_it_do_not() {
        let none = Capabilities::default();
        assert_eq!(capabilities(None, none.clone()), none);
        let short = RssLimits { key_len: 39, ..LIMITS };
        assert_eq!(capabilities(Some(short), none.clone()), none);
        let can = capabilities(Some(LIMITS), none);
        assert_eq!((can.rss_key_len, can.rss_table_len, can.rss_hash), (40, 4, RssHash::ALL));
    }
}
