//! Frames that can be known again: UDP, with origin, flow, sequence and time in the first 18 bytes
//! of payload, the rest filled from the sequence. So a checker can build any of them anew.

use super::Settings;
use crate::packet;
use crate::wire::FrameBuffer;

const MAGIC: u8 = 0xb7;
const HEADER_LEN: usize = 42;
const STAMP_LEN: usize = 18;
const FILL_AT: usize = HEADER_LEN + STAMP_LEN;
const FIRST_PORT: u16 = 1024;

/// What stands in a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which generator made it.
    pub(super) origin: u8,
    /// Which of its flows.
    pub(super) flow: u16,
    /// Counts up within the flow.
    pub(super) sequence: u64,
    /// When it was made.
    pub(super) time_ns: u64,
}

/// Spreads the bits of a number (Steele, Lea, Flood: splitmix64).
pub(super) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// Headers, but for what differs from frame to frame.
#[derive(Clone, Debug)]
pub(super) struct Template {
    header: [u8; HEADER_LEN],
    sum: u32, // of the IPv4 header with length 0
    origin: u8,
    checksums: bool,
}

impl Template {
    pub(super) fn new(settings: &Settings, origin: u8) -> Self {
        let mut header = [0; HEADER_LEN];
        header[..6].copy_from_slice(&settings.destination);
        header[6..12].copy_from_slice(&[2, 0, 0x5e, 0, 0, origin]);
        header[12..15].copy_from_slice(&[8, 0, 0x45]);
        header[22..24].copy_from_slice(&[64, 17]);
        header[26..30].copy_from_slice(&[198, 18, origin, 1]);
        header[30..34].copy_from_slice(&[198, 19, origin, 2]);
        header[36..38].copy_from_slice(&9u16.to_be_bytes()); // discard
        let sum = packet::sum(&header[14..34]);
        Self { header, sum, origin, checksums: settings.checksums }
    }

    pub(super) fn build(
        &self,
        to: &mut FrameBuffer,
        flow: u16,
        sequence: u64,
        len: usize,
        time_ns: u64,
    ) {
        let frame = to.set_len(len);
        frame[..HEADER_LEN].copy_from_slice(&self.header);
        let total = (len - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        let checksum = packet::finish(self.sum + u32::from(total));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        let port = FIRST_PORT.wrapping_add(flow);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
        frame[42..44].copy_from_slice(&[MAGIC, self.origin]);
        frame[44..46].copy_from_slice(&flow.to_le_bytes());
        frame[46..52].copy_from_slice(&sequence.to_le_bytes()[..6]);
        frame[52..60].copy_from_slice(&time_ns.to_le_bytes());
        fill(&mut frame[FILL_AT..], sequence);
        if self.checksums {
            let headers = packet::parse(frame, 0x8100);
            let sum = packet::pseudo(frame, &headers, 17, len - 34) + packet::sum(&frame[34..]);
            let checksum = match packet::finish(sum) {
                0 => 0xffff,
                checksum => checksum,
            };
            frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

fn fill(bytes: &mut [u8], sequence: u64) {
    let mut word = mix(sequence);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    let rest = chunks.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&word.to_le_bytes()[..len]);
}

fn is_filled(bytes: &[u8], sequence: u64) -> bool {
    let mut word = mix(sequence);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        if chunk != word.to_le_bytes() {
            return false;
        }
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    *chunks.remainder() == word.to_le_bytes()[..chunks.remainder().len()]
}

/// Whose frame it is; `None` if none of ours.
pub(super) fn stamp(frame: &[u8]) -> Option<Stamp> {
    let bytes = frame.get(HEADER_LEN..FILL_AT)?;
    if frame[12..15] != [8, 0, 0x45] || bytes[0] != MAGIC {
        return None;
    }
    let mut sequence = [0; 8];
    sequence[..6].copy_from_slice(&bytes[4..10]);
    let mut time = [0; 8];
    time.copy_from_slice(&bytes[10..18]);
    Some(Stamp {
        origin: bytes[1],
        flow: u16::from_le_bytes([bytes[2], bytes[3]]),
        sequence: u64::from_le_bytes(sequence),
        time_ns: u64::from_le_bytes(time),
    })
}

/// Whether every byte behind the MAC addresses is as it was made; the time can't be judged.
pub(super) fn is_whole(frame: &[u8], stamp: &Stamp) -> bool {
    let total = (frame.len() - 14) as u16;
    let be16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let addresses = [198, 18, stamp.origin, 1, 198, 19, stamp.origin, 2];
    be16(16) == total
        && frame[18..24] == [0, 0, 0, 0, 64, 17]
        && packet::finish(packet::sum(&frame[14..34])) == 0
        && frame[15] == 0
        && frame[26..34] == addresses
        && be16(34) == FIRST_PORT.wrapping_add(stamp.flow)
        && be16(36) == 9
        && be16(38) == total - 20
        && (be16(40) == 0 || is_checksum_good(frame))
        && is_filled(&frame[FILL_AT..], stamp.sequence)
}

fn is_checksum_good(frame: &[u8]) -> bool {
    packet::transport_checksum_good(frame, &packet::parse(frame, 0x8100)) == Some(true)
}
