//! Offloads: what the header in front of a frame (virtio 1.3, 5.1.6) says of a received one, and
//! asks of the device for one that is sent.
//!
//! A frame that a device hands over unfinished (its checksum isn't filled in, or it is several TCP
//! segments in one) leaves unfinished, too, or not at all: so it asks for the rest itself, as if
//! the program had asked ([`Mbuf::request`]). What the mbuf has no words for is finished here.

use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::mbuf::{
    Burst, L4Checksum, Mbuf, Quiesced, RxFlags, RxInfo, TxFlags, TxLengths, TxRequest,
};
use packetboat::net::{
    InternetSum, PacketType, internet_checksum, ipv4_pseudo_header, ipv6_pseudo_header, parse,
};
use packetboat::port::{PortError, QueueCounters, RxDrop, RxQueue};
use virtio_bindings::virtio_net as net;

use crate::features::Features;
use crate::header::{HEADER_BYTES, PLAIN};
use crate::rx::OwnRx;

/// Bits of `flags`.
const NEEDS_CHECKSUM: u8 = net::VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const DATA_VALID: u8 = net::VIRTIO_NET_HDR_F_DATA_VALID as u8;
/// Values of `gso_type`.
const NOT_SEGMENTED: u8 = net::VIRTIO_NET_HDR_GSO_NONE as u8;
const TCP_IPV4: u8 = net::VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const TCP_IPV6: u8 = net::VIRTIO_NET_HDR_GSO_TCPV6 as u8;
/// Where layer 4's header has its checksum.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
/// Where IPv4's has its own, and where addresses stand.
const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: usize = 12;
const IPV6_ADDRESSES: usize = 8;
const TCP_BYTES: u16 = 20;

/// What was negotiated for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    checksums: bool,
    /// Long TCP frames over IPv4, and over IPv6.
    tcp_ipv4: bool,
    tcp_ipv6: bool,
}

impl Agreed {
    /// Of received frames.
    pub(crate) fn receiving(features: Features) -> Self {
        Self {
            checksums: features.has(Features::GUEST_CSUM),
            tcp_ipv4: features.has(Features::GUEST_TSO4),
            tcp_ipv6: features.has(Features::GUEST_TSO6),
        }
    }

    /// Of frames that are sent.
    pub(crate) fn sending(features: Features) -> Self {
        Self {
            checksums: features.has(Features::CSUM),
            tcp_ipv4: features.has(Features::HOST_TSO4),
            tcp_ipv6: features.has(Features::HOST_TSO6),
        }
    }

    /// Whether there is anything to be looked at.
    pub(crate) fn any(self) -> bool {
        self.checksums
    }

    /// For people: `checksums, long TCP frames`.
    pub(crate) fn words(self) -> &'static str {
        match (self.checksums, self.tcp_ipv4 || self.tcp_ipv6) {
            (false, _) => "nothing",
            (true, false) => "checksums",
            (true, true) => "checksums, long TCP frames",
        }
    }
}

/// That a frame, or its header, asks for something that can't be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRequest;

/// `struct virtio_net_hdr` without `num_buffers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u8,
    gso_type: u8,
    gso_size: u16,
    start: u16,
    offset: u16,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[flags, gso_type, _, _, a, b, c, d, e, f, ..] = bytes else { return None };
        let [gso_size, start, offset] = [[a, b], [c, d], [e, f]].map(u16::from_le_bytes);
        Some(Self { flags, gso_type, gso_size, start, offset })
    }
}

/// Notes with a received frame what its header says, and finishes what the mbuf has no words for.
fn apply(mbuf: &mut Mbuf, agreed: Agreed) -> Result<(), BadRequest> {
    // The header still stands in front of the data.
    let header = mbuf.prefix(HEADER_BYTES).and_then(Header::read).ok_or(BadRequest)?;
    if header.flags & NEEDS_CHECKSUM == 0 {
        // 5.1.6.4.1: a frame to be cut needs its checksum, too.
        if header.gso_type != NOT_SEGMENTED {
            return Err(BadRequest);
        }
        if header.flags & DATA_VALID != 0 {
            mbuf.set_received(RxInfo { flags: RxFlags::L4_CHECKSUM_GOOD, ..RxInfo::NONE });
        }
        return Ok(());
    }
    let place = u32::from(header.start) + u32::from(header.offset);
    if place as usize + 2 > mbuf.len_bytes() {
        return Err(BadRequest);
    }
    let found = parse(mbuf.data());
    let (layer3, layer4) = (found.packet_type, found.packet_type.layer4());
    // With headers that the mbuf's lengths can hold.
    let known = header.start == found.l2_len_bytes + found.l3_len_bytes
        && TxLengths::new(0, found.l3_len_bytes, 0).is_some();
    let checksum = match (layer4, header.offset) {
        (PacketType::TCP, TCP_CHECKSUM) if known => Some(TxFlags::TCP_CHECKSUM),
        (PacketType::UDP, UDP_CHECKSUM) if known => Some(TxFlags::UDP_CHECKSUM),
        _ => None,
    };
    let version = if layer3.is_ipv4() { TxFlags::IPV4 } else { TxFlags::IPV6 };
    let lengths = || {
        let (l2, l4) = (found.l2_len_bytes as u8, found.l4_len_bytes as u8); // at most 22 and 60
        TxLengths::new(l2, found.l3_len_bytes, l4).ok_or(BadRequest)
    };
    let mut flags = RxFlags::L4_CHECKSUM_NONE;
    let request = match (header.gso_type, checksum) {
        // Of a protocol or in a tunnel that the mbuf can't name.
        (NOT_SEGMENTED, None) => {
            let (start, at) = (usize::from(header.start), place as usize);
            mbuf.complete_checksum(start, at, usize::MAX).map_err(|_| BadRequest)?;
            mbuf.set_received(RxInfo { flags: RxFlags::L4_CHECKSUM_GOOD, ..RxInfo::NONE });
            return Ok(());
        }
        (NOT_SEGMENTED, Some(checksum)) => {
            TxRequest { flags: version | checksum, lengths: lengths()? }
        }
        (kind @ (TCP_IPV4 | TCP_IPV6), Some(TxFlags::TCP_CHECKSUM)) => {
            let ipv4 = kind == TCP_IPV4;
            let may = if ipv4 { agreed.tcp_ipv4 } else { agreed.tcp_ipv6 };
            if !may || ipv4 != layer3.is_ipv4() || header.gso_size == 0 {
                return Err(BadRequest);
            }
            flags |= RxFlags::LRO;
            let lengths = lengths()?.segment(header.gso_size);
            TxRequest { flags: version | TxFlags::TCP_SEGMENT, lengths }
        }
        _ => return Err(BadRequest),
    };
    mbuf.set_received(RxInfo { flags, packet_type: found.packet_type, ..RxInfo::NONE });
    mbuf.request(request).map_err(|_| BadRequest)?;
    if request.flags.contains(TxFlags::TCP_SEGMENT) {
        // The place of the checksum holds the length, too, and the mbuf's is to be without it.
        mbuf.prepare_checksums().map_err(|_| BadRequest)?;
    }
    Ok(())
}

/// The header for a frame that asks for something; the frame is made ready for it.
pub(crate) fn header_for(
    mbuf: &mut Mbuf,
    agreed: Agreed,
) -> Result<[u8; HEADER_BYTES as usize], BadRequest> {
    let (flags, lengths) = (mbuf.tx_flags(), mbuf.tx_lengths());
    let may = TxFlags::IPV4 | TxFlags::IPV6 | TxFlags::IP_CHECKSUM | TxFlags::UDP_CHECKSUM;
    let (ipv4, ipv6) = (flags.contains(TxFlags::IPV4), flags.contains(TxFlags::IPV6));
    let cut = flags.contains(TxFlags::TCP_SEGMENT);
    let may_cut = if ipv4 { agreed.tcp_ipv4 } else { agreed.tcp_ipv6 };
    let may = if may_cut { may | TxFlags::TCP_SEGMENT } else { may };
    if !agreed.checksums || !may.contains(flags) || ipv4 == ipv6 {
        return Err(BadRequest);
    }
    let offset = match flags.l4_checksum() {
        None => None,
        Some(L4Checksum::Tcp) => Some(TCP_CHECKSUM),
        Some(L4Checksum::Udp) => Some(UDP_CHECKSUM),
        Some(L4Checksum::Sctp) => return Err(BadRequest),
    };
    let (l2, l3, l4) = (lengths.l2_len_bytes(), lengths.l3_len_bytes(), lengths.l4_len_bytes());
    let start = l2 + l3;
    let headers = start + l4;
    let (layer3, layer4) = (usize::from(l2), usize::from(start));
    let (data, len_bytes) = (mbuf.data(), mbuf.len_bytes());
    // Header lengths that don't fit what stands there would have the device write anywhere.
    let first = data.get(layer3).copied().unwrap_or_default();
    let fits = match ipv4 {
        true => first >> 4 == 4 && u16::from(first & 0xf) * 4 == l3 && l3 >= 20,
        false => first >> 4 == 6 && l3 >= 40,
    };
    let place = usize::from(start + offset.unwrap_or_default());
    if !fits || usize::from(headers) > data.len() || offset.is_some() && place + 2 > data.len() {
        return Err(BadRequest);
    }
    let segment = lengths.segment_len_bytes();
    if cut && (l4 < TCP_BYTES || segment == 0 || len_bytes <= usize::from(headers)) {
        return Err(BadRequest);
    }
    if cut || flags.contains(TxFlags::IP_CHECKSUM) {
        let data = mbuf.data_mut().ok_or(BadRequest)?;
        if flags.contains(TxFlags::IP_CHECKSUM) {
            // No device does this one, and it is short.
            let header = data.get_mut(layer3..layer4).ok_or(BadRequest)?;
            put(header, IPV4_CHECKSUM, [0, 0])?;
            let sum = internet_checksum(header);
            put(header, IPV4_CHECKSUM, sum.to_bytes())?;
        }
        if cut {
            // The pseudo-header with the length of all (5.1.6.2.1), which the mbuf's is without.
            let len = len_bytes - layer4;
            let sum: InternetSum = match ipv4 {
                true => {
                    let len = u16::try_from(len).map_err(|_| BadRequest)?;
                    ipv4_pseudo_header(&get(data, layer3 + IPV4_ADDRESSES)?, 6, len)
                }
                false => {
                    let len = u32::try_from(len).map_err(|_| BadRequest)?;
                    ipv6_pseudo_header(&get(data, layer3 + IPV6_ADDRESSES)?, 6, len)
                }
            };
            put(data, place, sum.folded().to_bytes())?;
        }
    }
    let Some(offset) = offset else { return Ok(PLAIN) };
    let (kind, header_len, segment) = match (cut, ipv4) {
        (false, _) => (NOT_SEGMENTED, 0, 0),
        (true, true) => (TCP_IPV4, headers, segment),
        (true, false) => (TCP_IPV6, headers, segment),
    };
    let words = [header_len, segment, start, offset].map(u16::to_le_bytes);
    let [[a, b], [c, d], [e, f], [g, h]] = words;
    Ok([NEEDS_CHECKSUM, kind, a, b, c, d, e, f, g, h, 0, 0])
}

fn get<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], BadRequest> {
    data.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(BadRequest)
}

fn put(data: &mut [u8], at: usize, value: [u8; 2]) -> Result<(), BadRequest> {
    let place = data.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    place.map(|place| *place = value).ok_or(BadRequest)
}

/// A receive queue whose frames' headers are looked at, around one that doesn't.
#[derive(Debug)]
pub(crate) struct OffloadRx {
    inner: Box<dyn OwnRx>,
    agreed: Agreed,
    counters: Arc<QueueCounters>,
}

impl OffloadRx {
    pub(crate) fn new(inner: Box<dyn OwnRx>, agreed: Agreed, counters: Arc<QueueCounters>) -> Self {
        Self { inner, agreed, counters }
    }

    /// Drops the frames of `burst` whose bit is set. The queue counted them as received.
    #[cold]
    fn drop_bad(&self, burst: &mut Burst, bad: u128) {
        let mut all = Burst::new();
        while let Some(mbuf) = burst.pop_front() {
            drop(all.push(mbuf)); // there is room
        }
        burst.clear();
        for number in 0.. {
            let Some(mbuf) = all.pop_front() else { break };
            if bad >> number & 1 == 0 {
                drop(burst.push(mbuf)); // it was in there
                continue;
            }
            self.counters.packets.take_back(1);
            self.counters.bytes.take_back(mbuf.len_bytes() as u64);
            self.counters.rx_dropped(RxDrop::BadRequest);
        }
    }
}

impl RxQueue for OffloadRx {
    fn receive(&mut self, burst: &mut Burst) {
        let before = burst.len();
        self.inner.receive(burst);
        let mut bad = 0_u128;
        for (number, mbuf) in burst.iter_mut().enumerate().skip(before) {
            if apply(mbuf, self.agreed).is_err() {
                bad |= 1 << number; // a burst has 128 at most
            }
        }
        if bad != 0 {
            self.drop_bad(burst, bad);
        }
    }

    fn interrupt(&self) -> Option<&EventFd> {
        self.inner.interrupt()
    }

    fn arm_interrupt(&mut self) {
        self.inner.arm_interrupt();
    }

    fn disarm_interrupt(&mut self) {
        self.inner.disarm_interrupt();
    }
}

impl OwnRx for OffloadRx {
    fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        self.inner.fill(device, queue)
    }

    fn kick(&self) {
        self.inner.kick();
    }

    fn reclaim(&mut self, reset: &Quiesced) {
        self.inner.reclaim(reset);
    }
}

const _: () = assert!(packetboat::mbuf::MAX_BURST <= 128, "a bit for each frame");
