//! The frames that the wire sends: each is a pure function of where and when it was sent, so a
//! receiver rebuilds the whole frame from its sequence number and compares every byte.
//!
//! Layout after the 14-byte Ethernet header (type 0x88B5, IEEE 802 local experimental 1), big-endian:
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 14 | 4 | `MAGIC` |
//! | 18 | 4 | run: number of this run, so that frames of an earlier one are told apart |
//! | 22 | 1 | port at which the frame entered the guest |
//! | 23 | 1 | flow |
//! | 24 | 8 | sequence number within the port, from 0 |
//! | 32 | 2 | length of the whole frame |
//! | 34 | … | pseudo-random bytes seeded by run, port and sequence number |

use std::fmt;
use std::str::FromStr;

/// Shortest frame that is sent, in bytes without FCS.
pub(crate) const MIN_LEN_BYTES: u16 = 60;
/// Longest frame that is sent, in bytes without FCS or VLAN tag.
pub(crate) const MAX_LEN_BYTES: u16 = 1514;

const MAGIC: [u8; 4] = *b"PBw1";
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// What all frames of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Number of the run.
    pub(crate) run: u32,
    /// How many flows each port's frames are spread over, 1–255.
    pub(crate) flows: u8,
    /// Shortest frame, in bytes.
    pub(crate) min_len_bytes: u16,
    /// Longest frame, in bytes.
    pub(crate) max_len_bytes: u16,
    /// MAC of each of the guest's ports, which is where the frames are addressed to.
    pub(crate) port_macs: Vec<Mac>,
}

impl Recipe {
    /// The frame with number `seq` of those that enter at `port`.
    ///
    /// # Panics
    /// If `port` has no MAC in this recipe.
    pub(crate) fn build(&self, port: u8, seq: u64) -> Vec<u8> {
        let len_bytes = self.len_bytes(port, seq);
        let flow = self.flow(seq);
        let mut frame = Vec::with_capacity(usize::from(len_bytes) + 8);
        frame.extend(self.port_macs[usize::from(port)].0);
        frame.extend(source_mac(port, flow).0);
        frame.extend(ETHERTYPE);
        frame.extend(MAGIC);
        frame.extend(self.run.to_be_bytes());
        frame.extend([port, flow]);
        frame.extend(seq.to_be_bytes());
        frame.extend(len_bytes.to_be_bytes());
        let mut random = Random::new(self.run, port, seq);
        while frame.len() < usize::from(len_bytes) {
            frame.extend(random.next().to_le_bytes());
        }
        frame.truncate(usize::from(len_bytes));
        frame
    }

    /// Flow of frame `seq`.
    pub(crate) fn flow(&self, seq: u64) -> u8 {
        (seq % u64::from(self.flows.max(1))) as u8
    }

    /// Both extremes come often; the others are spread evenly.
    fn len_bytes(&self, port: u8, seq: u64) -> u16 {
        match seq % 16 {
            0 => self.min_len_bytes,
            1 => self.max_len_bytes,
            _ => {
                let span = u64::from(self.max_len_bytes - self.min_len_bytes) + 1;
                let random = Random::new(self.run ^ 0x5eed, port, seq).next();
                self.min_len_bytes + (random % span) as u16
            }
        }
    }
}

/// The part of an arrived frame that tells which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// Run that it was sent in.
    pub(crate) run: u32,
    /// Port at which it entered.
    pub(crate) port: u8,
    /// Its number within the port.
    pub(crate) seq: u64,
}

impl Label {
    /// Reads the label; `None` for a frame that the wire never sent.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        if frame.get(12..14)? != ETHERTYPE || frame.get(14..18)? != MAGIC {
            return None;
        }
        Some(Self {
            run: u32::from_be_bytes(frame.get(18..22)?.try_into().ok()?),
            port: *frame.get(22)?,
            seq: u64::from_be_bytes(frame.get(24..32)?.try_into().ok()?),
        })
    }
}

/// Sender's address of a flow: locally administered, one per port and flow.
pub(crate) fn source_mac(port: u8, flow: u8) -> Mac {
    Mac([0x02, 0x77, 0, 0, port, flow])
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("wanted a MAC like 52:54:00:12:00:01, found '{text}'");
        let bytes: Vec<u8> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, and no two seeds share a sequence's start.
struct Random(u64);

impl Random {
    fn new(run: u32, port: u8, seq: u64) -> Self {
        Self((u64::from(run) << 32) ^ (u64::from(port) << 56) ^ seq.wrapping_mul(0x9e37_79b9))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            run: 7,
            flows: 3,
            min_len_bytes: MIN_LEN_BYTES,
            max_len_bytes: MAX_LEN_BYTES,
            port_macs: vec![Mac([0x52, 0x54, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, 2])],
        }
    }

    #[test]
    fn a_frame_is_a_function_of_its_label() {
        let recipe = recipe();
        for seq in 0..200 {
            let frame = recipe.build(1, seq);
            assert_eq!(frame, recipe.build(1, seq));
            assert_eq!(Label::read(&frame), Some(Label { run: 7, port: 1, seq }));
            assert_ne!(frame[34..], recipe.build(0, seq)[34..]);
        }
    }

    #[test]
    fn lengths_cover_the_range() {
        let recipe = recipe();
        let lens: Vec<usize> = (0..2000).map(|seq| recipe.build(0, seq).len()).collect();
        assert_eq!(lens.iter().min(), Some(&60));
        assert_eq!(lens.iter().max(), Some(&1514));
        let distinct: std::collections::BTreeSet<_> = lens.iter().collect();
        assert!(distinct.len() > 800, "only {} different lengths", distinct.len());
    }

    #[test]
    fn strangers_have_no_label() {
        assert_eq!(Label::read(&[]), None);
        assert_eq!(Label::read(&[0; 60]), None);
        assert_eq!(Label::read(&recipe().build(0, 0)[..30]), None);
    }

    #[test]
    fn macs_parse() {
        assert_eq!("02:77:00:00:01:02".parse(), Ok(source_mac(1, 2)));
        assert!("02:77:00:00:01".parse::<Mac>().is_err());
        assert!("02:77:00:00:01:zz".parse::<Mac>().is_err());
    }
}
