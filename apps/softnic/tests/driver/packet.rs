//! Packets made and judged by themselves: no code of the driver, the library or softnic has a part
//! in what is expected.

/// Layer 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Sctp,
}

impl Kind {
    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A packet: [`Self::bytes`] is the whole frame with everything right.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) destination: [u8; 6],
    pub(crate) tag: Option<u16>,
    pub(crate) v6: bool,
    /// IPv4 options, or an IPv6 header of destination options (8): multiples of 4 and 8.
    pub(crate) l3_options: usize,
    pub(crate) id: u16,
    pub(crate) addresses: [u8; 2],
    pub(crate) kind: Kind,
    pub(crate) ports: [u16; 2],
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) tcp_options: usize,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(kind: Kind, v6: bool, len: usize) -> Self {
        Self {
            destination: crate::rig::MAC,
            tag: None,
            v6,
            l3_options: 0,
            id: 0xfffe,
            addresses: [1, 2],
            kind,
            ports: [1234, 443],
            sequence: 0xffff_ff00,
            flags: 0x10,
            tcp_options: 0,
            payload: (0..len).map(|n| (n * 7 + n / 251) as u8).collect(),
        }
    }

    pub(crate) fn tcp4(len: usize) -> Self {
        Self::new(Kind::Tcp, false, len)
    }

    pub(crate) fn udp4(len: usize) -> Self {
        Self::new(Kind::Udp, false, len)
    }

    pub(crate) fn l2_len(&self) -> usize {
        if self.tag.is_some() { 18 } else { 14 }
    }

    pub(crate) fn l3_len(&self) -> usize {
        self.l3_options + if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn l4_len(&self) -> usize {
        match self.kind {
            Kind::Tcp => 20 + self.tcp_options,
            Kind::Udp => 8,
            Kind::Sctp => 12,
        }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.l2_len() + self.l3_len() + self.l4_len()
    }

    /// Source and destination address, one behind the other.
    pub(crate) fn ip_addresses(&self) -> Vec<u8> {
        let [source, destination] = self.addresses;
        match self.v6 {
            false => [[198, 18, 0, source], [198, 18, 1, destination]].concat(),
            true => {
                let of = |last| [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat();
                [of(source), of(destination)].concat()
            }
        }
    }

    /// The frame, but for what a device pads it with.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = self.destination.to_vec();
        frame.extend([2, 0x99, 0, 0, 0, 1]);
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        let transport = self.transport();
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            let len = self.l3_options + transport.len();
            frame.extend((len as u16).to_be_bytes());
            let first = if self.l3_options > 0 { 60 } else { self.kind.protocol() };
            frame.extend([first, 64]);
            frame.extend(self.ip_addresses());
            if self.l3_options > 0 {
                assert_eq!(self.l3_options, 8);
                frame.extend([self.kind.protocol(), 0, 1, 4, 0, 0, 0, 0]); // PadN
            }
        } else {
            let start = frame.len() + 2;
            frame.extend([8, 0, 0x45 + (self.l3_options / 4) as u8, 0]);
            let len = self.l3_len() + transport.len();
            frame.extend((len as u16).to_be_bytes());
            frame.extend(self.id.to_be_bytes());
            frame.extend([0x40, 0, 64, self.kind.protocol(), 0, 0]);
            frame.extend(self.ip_addresses());
            frame.extend(vec![1; self.l3_options]); // no operation
            let sum = !ones_sum(&frame[start..]);
            frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend(transport);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        match self.kind {
            Kind::Tcp => {
                out.extend(self.sequence.to_be_bytes());
                out.extend([0, 0, 0, 7, ((self.l4_len() / 4) << 4) as u8, self.flags]);
                out.extend([0x10, 0, 0, 0, 0, 0]);
                out.extend(vec![1; self.tcp_options]);
            }
            Kind::Udp => {
                out.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                out.extend([0, 0]);
            }
            Kind::Sctp => out.extend([0, 0, 0, 1, 0, 0, 0, 0]),
        }
        out.extend(&self.payload);
        if self.kind == Kind::Sctp {
            let crc = crc32c(&out);
            out[8..12].copy_from_slice(&crc.to_le_bytes());
            return out;
        }
        let mut whole = self.ip_addresses();
        whole.extend([0, self.kind.protocol()]);
        whole.extend((out.len() as u16).to_be_bytes());
        whole.extend(&out);
        let mut sum = !ones_sum(&whole);
        let at = if self.kind == Kind::Tcp { 16 } else { 6 };
        if self.kind == Kind::Udp && sum == 0 {
            sum = 0xffff; // RFC 768: 0 says that there is none
        }
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// The frame as a program hands it over that leaves checksums to the device: rubbish in them.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        let l3 = self.l2_len();
        if !self.v6 {
            frame[l3 + 10..l3 + 12].fill(0xa5);
        }
        let l4 = l3 + self.l3_len();
        let field = match self.kind {
            Kind::Tcp => l4 + 16..l4 + 18,
            Kind::Udp => l4 + 6..l4 + 8,
            Kind::Sctp => l4 + 8..l4 + 12,
        };
        frame[field].fill(0xa5);
        frame
    }

    /// What the packet becomes when it is cut into pieces of `len` bytes of payload.
    pub(crate) fn cut(&self, len: usize) -> Vec<Self> {
        let (fin, push, reduced) = (1, 8, 0x80);
        let count = self.payload.len().div_ceil(len);
        let pieces = self.payload.chunks(len).enumerate();
        pieces
            .map(|(n, payload)| Self {
                id: self.id.wrapping_add(n as u16),
                sequence: self.sequence.wrapping_add((n * len) as u32),
                flags: self.flags
                    & !(if n + 1 < count { fin | push } else { 0 })
                    & !(if n > 0 { reduced } else { 0 }),
                payload: payload.to_vec(),
                ..self.clone()
            })
            .collect()
    }
}

/// A frame as it is on the wire: 60 bytes at least.
pub(crate) fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The ones' complement sum of 16-bit words (RFC 1071), as it is written there.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Castagnoli's CRC (RFC 9260, appendix A), by long division from the lowest bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |n| u32::from(byte >> n & 1))) {
        let low = (rest ^ bit) & 1;
        rest = rest >> 1 ^ if low == 1 { 0x82f6_3b78 } else { 0 };
    }
    !rest
}

#[test]
fn the_judge_agrees_with_published_examples() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    // RFC 1071, section 3.
    assert_eq!(ones_sum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}
