//! What the NIC does to a frame before it leaves: checksums, VLAN tags, segments
//! (82599 datasheet 7.2.4 to 7.2.6).

use crate::packet;
use crate::wire::FrameBuffer;

const TCP: u64 = 1;
const SCTP: u64 = 2;
const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

/// What a frame's descriptors ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    vlan: Option<u16>,
    network_checksum: bool,
    transport_checksum: bool,
    transport: u64, // 0 UDP, 1 TCP, 2 SCTP
    v4: bool,
    mac_len: usize,
    network_len: usize,
    transport_len: usize,
    segment_len: usize,
    /// Legacy: sum up from here, and put the result there.
    plain: Option<(usize, usize)>,
}

impl Request {
    /// Of an advanced data descriptor, and the context it names.
    pub fn advanced(upper: u64, context: [u64; 2]) -> Self {
        let [low, high] = context;
        let vlan = (upper >> 30 & 1 != 0).then_some((low >> 16 & 0xffff) as u16);
        let popts = upper >> 40 & 0x3f;
        Self {
            vlan,
            network_checksum: popts & 1 != 0,
            transport_checksum: popts & 2 != 0,
            transport: high >> 11 & 3,
            v4: high >> 10 & 1 != 0,
            mac_len: (low >> 9 & 0x7f) as usize,
            network_len: (low & 0x1ff) as usize,
            transport_len: (high >> 40 & 0xff) as usize,
            segment_len: (high >> 48) as usize,
            plain: None,
        }
    }

    /// Of a legacy descriptor.
    pub fn legacy(upper: u64, checksum: bool, vlan: bool) -> Self {
        Self {
            vlan: vlan.then_some((upper >> 48) as u16),
            plain: checksum
                .then_some(((upper >> 40 & 0xff) as usize, (upper >> 16 & 0xff) as usize)),
            ..Self::default()
        }
    }
}

/// Does what `request` asks for, but segments. What doesn't fit the frame isn't done.
pub fn apply(frame: &mut FrameBuffer, request: &Request) {
    if request.network_checksum {
        network_checksum(frame.bytes_mut(), request.mac_len, request.network_len);
    }
    if request.transport_checksum {
        // The field holds the pseudo header's sum already (82599 datasheet 7.2.5.2).
        let from = request.mac_len + request.network_len;
        match request.transport {
            SCTP => sctp_checksum(frame.bytes_mut(), from),
            TCP => plain_checksum(frame.bytes_mut(), from, from + 16, false),
            _ => plain_checksum(frame.bytes_mut(), from, from + 6, true),
        }
    }
    if let Some((from, to)) = request.plain {
        plain_checksum(frame.bytes_mut(), from, to, false);
    }
    tag(frame, request.vlan);
}

fn tag(frame: &mut FrameBuffer, vlan: Option<u16>) {
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        frame.insert(12, &[0x81, 0, high, low]);
    }
}

fn network_checksum(frame: &mut [u8], at: usize, len: usize) {
    let Some(header) = frame.get_mut(at..at + len).filter(|header| header.len() >= 20) else {
        return;
    };
    header[10..12].fill(0);
    let checksum = packet::finish(packet::sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Sums up from `from` to the end, with what stands at `to` as the seed, and puts the result there.
fn plain_checksum(frame: &mut [u8], from: usize, to: usize, never_zero: bool) {
    let Some(bytes) = frame.get(from..).filter(|_| to + 2 <= frame.len()) else { return };
    let mut checksum = packet::finish(packet::sum(bytes));
    if never_zero && checksum == 0 {
        checksum = 0xffff; // RFC 768: 0 would mean that there is none
    }
    frame[to..to + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn sctp_checksum(frame: &mut [u8], from: usize) {
    let Some(packet) = frame.get_mut(from..) else { return };
    if let Some(checksum) = packet::sctp_checksum(packet) {
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A frame that is cut into segments of TCP or UDP.
pub struct Segments<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    request: Request,
}

impl<'a> Segments<'a> {
    /// `None` if the context makes no sense for this frame.
    pub fn new(frame: &'a [u8], request: &Request) -> Option<Self> {
        let header_len = request.mac_len + request.network_len + request.transport_len;
        let least = if request.transport == TCP { 20 } else { 8 };
        let network = if request.v4 { 20 } else { 40 };
        if request.segment_len == 0
            || request.mac_len < 14
            || request.network_len < network
            || request.transport_len < least
            || request.transport == SCTP
            || header_len + request.segment_len > crate::wire::MAX_FRAME_LEN
        {
            return None;
        }
        let (header, payload) = frame.split_at_checked(header_len)?;
        (!payload.is_empty()).then_some(Self { header, payload, request: *request })
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.request.segment_len)
    }

    /// Makes segment `n`.
    pub fn build(&self, n: usize, to: &mut FrameBuffer) {
        let request = &self.request;
        let from = n * request.segment_len;
        let payload = &self.payload[from..self.payload.len().min(from + request.segment_len)];
        let frame = to.set_len(self.header.len() + payload.len());
        frame[..self.header.len()].copy_from_slice(self.header);
        frame[self.header.len()..].copy_from_slice(payload);
        let transport_at = request.mac_len + request.network_len;
        let transport_len = request.transport_len + payload.len();
        self.number(frame, n, transport_at, transport_len);
        // The field holds the pseudo header's sum, without the length that only the device knows
        // (82599 datasheet 7.2.5.2). Software that left anything else there gets a bad checksum.
        let is_tcp = request.transport == TCP;
        let field = transport_at + if is_tcp { 16 } else { 6 };
        let sum = packet::sum(&frame[transport_at..]) + transport_len as u32;
        let mut checksum = packet::finish(sum);
        if !is_tcp && checksum == 0 {
            checksum = 0xffff;
        }
        frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        tag(to, request.vlan);
    }

    /// Lengths, sequence number, flags and IP identification of segment `n`.
    fn number(&self, frame: &mut [u8], n: usize, transport_at: usize, transport_len: usize) {
        let request = &self.request;
        let at = request.mac_len;
        if request.v4 {
            let total = (request.network_len + transport_len) as u16;
            frame[at + 2..at + 4].copy_from_slice(&total.to_be_bytes());
            let id = u16::from_be_bytes([frame[at + 4], frame[at + 5]]).wrapping_add(n as u16);
            frame[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
            network_checksum(frame, at, request.network_len);
        } else {
            let len = (request.network_len - 40 + transport_len) as u16;
            frame[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        }
        if request.transport == TCP {
            let field = transport_at + 4..transport_at + 8;
            let first = u32::from_be_bytes([
                frame[field.start],
                frame[field.start + 1],
                frame[field.start + 2],
                frame[field.start + 3],
            ]);
            let sequence = first.wrapping_add((n * request.segment_len) as u32);
            frame[field].copy_from_slice(&sequence.to_be_bytes());
            let flags = &mut frame[transport_at + 13];
            if n + 1 < self.count() {
                *flags &= !(FIN | PSH);
            }
            if n > 0 {
                *flags &= !CWR;
            }
        } else {
            let len = transport_len as u16;
            frame[transport_at + 4..transport_at + 6].copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{network_checksum_good, parse, transport_checksum_good};
    use proptest::prelude::*;

    fn tcp_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0u8; 54];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[16..18].copy_from_slice(&((40 + payload.len()) as u16).to_be_bytes());
        frame[22] = 64;
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        frame[38..42].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        frame[46] = 0x50;
        frame[47] = FIN | PSH | CWR | 0x10;
        frame.extend_from_slice(payload);
        frame
    }

    fn buffer(bytes: &[u8]) -> FrameBuffer {
        let mut buffer = FrameBuffer::new();
        buffer.set_len(bytes.len()).copy_from_slice(bytes);
        buffer
    }

    fn request(segment_len: usize) -> Request {
        let context = [14 << 9 | 20, 1 << 10 | 1 << 11 | 20 << 40 | (segment_len as u64) << 48];
        Request::advanced(3 << 40, context)
    }

    #[test]
    fn a_transport_checksum_starts_from_the_seed_in_the_field() {
        let mut frame = tcp_frame(b"hello");
        let seed = !packet::finish(packet::sum(&frame[26..34]) + 6 + 25);
        frame[50..52].copy_from_slice(&seed.to_be_bytes());
        let mut frame = buffer(&frame);
        apply(&mut frame, &request(0));
        let headers = parse(frame.bytes(), 0x8100);
        assert_eq!(network_checksum_good(frame.bytes(), &headers), Some(true));
        assert_eq!(transport_checksum_good(frame.bytes(), &headers), Some(true));
    }

    #[test]
    fn a_tag_goes_behind_the_addresses() {
        let mut frame = buffer(&tcp_frame(b"hello"));
        apply(&mut frame, &Request::legacy(0x2005 << 48, false, true));
        assert_eq!(frame.bytes()[10..18], [0, 0, 0x81, 0, 0x20, 5, 8, 0]);
        assert_eq!(frame.bytes().len(), 63);
    }

    #[test]
    fn offsets_outside_the_frame_change_nothing() {
        let plain = tcp_frame(b"hello");
        let mut frame = buffer(&plain);
        let everywhere = [0xffff_ffff_ffff, u64::MAX];
        apply(&mut frame, &Request::advanced(3 << 40, everywhere));
        assert_eq!(frame.bytes(), plain);
        assert!(Segments::new(&plain, &Request::advanced(0, everywhere)).is_none());
    }

    proptest! {
        #[test]
        fn segments_have_all_of_the_payload_and_good_checksums(
            payload in proptest::collection::vec(any::<u8>(), 1..5000), segment_len in 1usize..1460
        ) {
            let mut frame = tcp_frame(&payload);
            let seed = !packet::finish(packet::sum(&frame[26..34]) + 6);
            frame[50..52].copy_from_slice(&seed.to_be_bytes());
            let cut = Segments::new(&frame, &request(segment_len)).unwrap();
            let mut together = Vec::new();
            for n in 0..cut.count() {
                let mut segment = FrameBuffer::new();
                cut.build(n, &mut segment);
                let bytes = segment.bytes();
                let headers = parse(bytes, 0x8100);
                prop_assert_eq!(headers.end, bytes.len());
                prop_assert_eq!(network_checksum_good(bytes, &headers), Some(true));
                prop_assert_eq!(transport_checksum_good(bytes, &headers), Some(true));
                let sequence = u32::from_be_bytes(bytes[38..42].try_into().unwrap());
                prop_assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(together.len() as u32));
                let last = n + 1 == cut.count();
                prop_assert_eq!(bytes[47] & (FIN | PSH) != 0, last);
                prop_assert_eq!(bytes[47] & CWR != 0, n == 0);
                together.extend_from_slice(&bytes[54..]);
            }
            prop_assert_eq!(together, payload);
        }
    }
}
