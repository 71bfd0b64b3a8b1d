//! Receive side scaling: which queue a flow belongs to (82599 datasheet 7.1.2.8).

use crate::packet::{Headers, Network, Transport};
use crate::registers::{RegisterFile, at};

const KEY_LEN: usize = 40;
const TABLE_LEN: usize = 128;

/// Key, table and fields, as the registers have them.
#[derive(Clone, Debug)]
pub struct Rss {
    enabled: bool,
    fields: u32,
    table: [u8; TABLE_LEN],
    // One table of 256 hashes for each byte of the longest input: a hash is 36 look-ups at most.
    hashes: Vec<[u32; 256]>,
}

/// What RSS found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The hash.
    pub value: u32,
    /// Which fields it was made of, as in the descriptor: 0 means none.
    pub kind: u32,
    /// The queue, as the redirection table says.
    pub queue: u32,
}

impl Rss {
    /// Reads the registers.
    pub fn new(registers: &RegisterFile) -> Self {
        let mrqc = registers.get(at::MRQC);
        let mut key = [0u8; KEY_LEN];
        for (n, word) in key.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&registers.get(at::RSSRK + 4 * n as u32).to_le_bytes());
        }
        let mut table = [0u8; TABLE_LEN];
        for (n, word) in table.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&registers.get(at::RETA + 4 * n as u32).to_le_bytes());
        }
        // 1: RSS; 4, 5: RSS with traffic classes, of which only the first is modelled.
        let enabled = matches!(mrqc & 0xf, 1 | 4 | 5);
        let hashes = if enabled { hash_tables(&key) } else { Vec::new() };
        Self { enabled, fields: mrqc >> 16, table, hashes }
    }

    /// Queue and hash of a frame.
    pub fn classify(&self, frame: &[u8], headers: &Headers) -> Hash {
        let none = Hash { value: 0, kind: 0, queue: 0 };
        if !self.enabled {
            return none;
        }
        let at = headers.network_at;
        let (addresses, v6) = match headers.network {
            Network::V4 { .. } => (frame.get(at + 12..at + 20), false),
            Network::V6 { .. } => (frame.get(at + 8..at + 40), true),
            Network::None => return none,
        };
        let Some(addresses) = addresses else { return none };
        let has = |bit: u32| self.fields & 1 << bit != 0;
        let whole = !headers.fragment;
        let (kind, with_ports) = match (v6, headers.transport) {
            (false, Transport::Tcp) if has(0) && whole => (1, true),
            (false, Transport::Udp) if has(6) && whole => (7, true),
            (true, Transport::Tcp) if has(5) && whole => (3, true),
            (true, Transport::Udp) if has(7) && whole => (8, true),
            (false, _) if has(1) => (2, false),
            (true, _) if has(4) => (5, false),
            _ => return none,
        };
        let ports = if with_ports {
            frame.get(headers.transport_at..headers.transport_at + 4).unwrap_or(&[])
        } else {
            &[]
        };
        let value = addresses
            .iter()
            .chain(ports)
            .zip(&self.hashes)
            .fold(0, |hash, (byte, table)| hash ^ table[usize::from(*byte)]);
        Hash { value, kind, queue: u32::from(self.table[value as usize % TABLE_LEN] & 0xf) }
    }
}

/// Toeplitz: each bit of the input that is set adds the 32 bits of the key that begin there.
fn hash_tables(key: &[u8; KEY_LEN]) -> Vec<[u32; 256]> {
    let window = |bit: usize| {
        let (byte, shift) = (bit / 8, bit % 8);
        let long = (0..5)
            .fold(0u64, |long, n| long << 8 | u64::from(key.get(byte + n).copied().unwrap_or(0)));
        (long >> (8 - shift) & 0xffff_ffff) as u32
    };
    (0..KEY_LEN - 4)
        .map(|byte| {
            std::array::from_fn(|value| {
                (0..8)
                    .filter(|bit| value >> (7 - bit) & 1 != 0)
                    .fold(0, |hash, bit| hash ^ window(8 * byte + bit))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet;

    // Key and results of the verification suite that Microsoft publishes with the definition of RSS.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn frame(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], protocol: u8) -> Vec<u8> {
        let mut frame = vec![0u8; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[17] = 40;
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        frame
    }

    #[test]
    fn hashes_equal_the_published_ones() {
        let registers = RegisterFile::new().unwrap();
        for (n, word) in KEY.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes(word.try_into().unwrap());
            registers.set(at::RSSRK + 4 * n as u32, word);
        }
        for n in 0..32 {
            registers.set(at::RETA + 4 * n, 0x0302_0100);
        }
        registers.set(at::MRQC, 1 | 0b11 << 16);
        let rss = Rss::new(&registers);
        for (source, destination, ports, with_ports, addresses_only) in [
            ([66, 9, 149, 187], [161, 142, 100, 80], [2794, 1766], 0x51cc_c178, 0x323e_8fc2),
            ([199, 92, 111, 2], [65, 69, 140, 83], [14230, 4739], 0xc626_b0ea, 0xd718_262a_u32),
        ] {
            let tcp = frame(source, destination, ports, 6);
            let found = rss.classify(&tcp, &packet::parse(&tcp, 0x8100));
            assert_eq!(found, Hash { value: with_ports, kind: 1, queue: with_ports % 4 });
            let icmp = frame(source, destination, ports, 1);
            let found = rss.classify(&icmp, &packet::parse(&icmp, 0x8100));
            assert_eq!((found.value, found.kind), (addresses_only, 2));
        }
    }

    #[test]
    fn without_rss_all_goes_to_queue_0() {
        let rss = Rss::new(&RegisterFile::new().unwrap());
        let tcp = frame([1; 4], [2; 4], [3, 4], 6);
        let found = rss.classify(&tcp, &packet::parse(&tcp, 0x8100));
        assert_eq!(found, Hash { value: 0, kind: 0, queue: 0 });
    }
}
