//! Offloads: what a device says of a frame that it received, and what it shall do with one that it
//! sends.
//!
//! All of it stands in the mbuf's first line, but for the lengths of headers in the second, which
//! only a frame that asks for something has.

use super::flags::{RxFlags, TxFlags};
use super::frame::Mbuf;
use super::lent::Lent;
use crate::net::PacketType;

/// What a device found out about a received frame: a driver fills it from the descriptor and hands
/// it over when it takes the frame back ([`super::LentRoom::take_back_filled`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxInfo {
    /// What was found, and which of the other fields mean something.
    pub flags: RxFlags,
    /// What the frame is.
    pub packet_type: PacketType,
    /// With [`RxFlags::RSS_HASH`].
    pub rss_hash: u32,
    /// With [`RxFlags::VLAN`]: priority, drop eligibility, identifier (IEEE 802.1Q, 9.6).
    pub vlan_tci: u16,
}

impl RxInfo {
    /// Nothing was found.
    pub const NONE: Self =
        Self { flags: RxFlags::NONE, packet_type: PacketType::UNKNOWN, rss_hash: 0, vlan_tci: 0 };
}

/// Lengths of a frame's headers, for a device that shall do something with them.
///
/// One word, as in DPDK's `tx_offload`: 7 bits of layer 2, 9 of layer 3, 8 of layer 4, 16 of the
/// segments' data, 9 of the outer layer 3, 7 of the outer layer 2.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct TxLengths(u64);

impl TxLengths {
    /// Headers of so many bytes; of a tunnel, the inner ones, where `l2` is all from the end of
    /// the outer layer 3 to the inner layer 3. `None` if a field can't hold it: at most 127, 511
    /// and 255.
    #[must_use]
    pub const fn new(l2: u8, l3: u16, l4: u8) -> Option<Self> {
        if l2 > 0x7f || l3 > 0x1ff {
            return None;
        }
        Some(Self(l2 as u64 | (l3 as u64) << 7 | (l4 as u64) << 16))
    }

    /// A tunnel's outer headers, too. `None` if a field can't hold it: at most 127 and 511.
    #[must_use]
    pub const fn outer(self, l2: u8, l3: u16) -> Option<Self> {
        if l2 > 0x7f || l3 > 0x1ff {
            return None;
        }
        let cleared = self.0 & !(0xffff << 40);
        Some(Self(cleared | (l3 as u64) << 40 | (l2 as u64) << 49))
    }

    /// Bytes of data in each segment that the device shall cut.
    #[must_use]
    pub const fn segment(self, len_bytes: u16) -> Self {
        Self(self.0 & !(0xffff << 24) | (len_bytes as u64) << 24)
    }

    /// Bytes of the (inner) layer 2 header.
    #[inline(always)]
    #[must_use]
    pub const fn l2_len_bytes(self) -> u16 {
        (self.0 & 0x7f) as u16
    }

    /// Bytes of the (inner) layer 3 header.
    #[inline(always)]
    #[must_use]
    pub const fn l3_len_bytes(self) -> u16 {
        (self.0 >> 7 & 0x1ff) as u16
    }

    /// Bytes of the (inner) layer 4 header.
    #[inline(always)]
    #[must_use]
    pub const fn l4_len_bytes(self) -> u16 {
        (self.0 >> 16 & 0xff) as u16
    }

    /// Bytes of data in each segment.
    #[inline(always)]
    #[must_use]
    pub const fn segment_len_bytes(self) -> u16 {
        (self.0 >> 24 & 0xffff) as u16
    }

    /// Bytes of the outer layer 3 header.
    #[inline(always)]
    #[must_use]
    pub const fn outer_l3_len_bytes(self) -> u16 {
        (self.0 >> 40 & 0x1ff) as u16
    }

    /// Bytes of the outer layer 2 header.
    #[inline(always)]
    #[must_use]
    pub const fn outer_l2_len_bytes(self) -> u16 {
        (self.0 >> 49 & 0x7f) as u16
    }

    /// Where the (inner) layer 3 header starts, and where layer 4 does.
    pub(super) fn places(self) -> (usize, usize) {
        let outer = self.outer_l2_len_bytes() + self.outer_l3_len_bytes();
        let l3 = outer + self.l2_len_bytes();
        (l3.into(), (l3 + self.l3_len_bytes()).into())
    }
}

impl std::fmt::Debug for TxLengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxLengths")
            .field("l2", &self.l2_len_bytes())
            .field("l3", &self.l3_len_bytes())
            .field("l4", &self.l4_len_bytes())
            .field("segment", &self.segment_len_bytes())
            .field("outer_l2", &self.outer_l2_len_bytes())
            .field("outer_l3", &self.outer_l3_len_bytes())
            .finish()
    }
}

/// What a program asks of the device that sends a frame.
///
/// ```
/// use packetboat::mbuf::{TxFlags, TxLengths, TxRequest};
/// // Ethernet, IPv4 and TCP without options, cut into segments of 1,448 bytes of data.
/// let lengths = TxLengths::new(14, 20, 20).ok_or("too long")?.segment(1448);
/// let request = TxRequest { flags: TxFlags::IPV4 | TxFlags::TCP_SEGMENT, lengths };
/// # let _ = request;
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxRequest {
    /// What to do. [`TxFlags::VLAN`] and [`TxFlags::QINQ`] are set by [`Mbuf::insert_vlan`] and
    /// [`Mbuf::insert_qinq`], which take the tags.
    pub flags: TxFlags,
    /// Where the headers stand.
    pub lengths: TxLengths,
}

/// A request that makes no sense for its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// A checksum or segments are asked for, without saying of which layer 3; or both are said.
    #[error("{flags:?} needs exactly one of IPV4 and IPV6 (IPV4 for IP_CHECKSUM)")]
    Layer3 {
        /// What was asked for.
        flags: TxFlags,
    },
    /// Segments are asked for without their length or that of the header in front.
    #[error("segments of {segment_len_bytes} bytes behind a header of {l4_len_bytes} bytes")]
    Segment {
        /// Bytes of data in each.
        segment_len_bytes: u16,
        /// Bytes of the layer 4 header.
        l4_len_bytes: u16,
    },
    /// The headers are longer than the frame's first segment.
    #[error("headers of {headers} bytes are asked for, but the first segment holds {len_bytes}")]
    Headers {
        /// Sum of their lengths.
        headers: usize,
        /// Bytes in the first segment.
        len_bytes: usize,
    },
    /// What only a device does.
    #[error("{flags:?} can't be done in software; send it by a port that can")]
    NotInSoftware {
        /// What was asked for.
        flags: TxFlags,
    },
    /// The headers would have to be changed, and others read them.
    #[error("the frame shares its data; make it writable first")]
    Shared,
}

/// Getters that an [`Mbuf`] and a [`Lent`] have in common.
macro_rules! tx_getters {
    ($type:ident) => {
        impl $type {
            /// Whether the frame asks its device for anything: one test, in the first line.
            #[inline(always)]
            #[must_use]
            pub fn requests_any(&self) -> bool {
                self.header().meta.flags & TxFlags::ALL != 0
            }

            /// What the frame asks its device for.
            #[inline(always)]
            #[must_use]
            pub fn tx_flags(&self) -> TxFlags {
                TxFlags::from_word(self.header().meta.flags)
            }

            /// Lengths of its headers; means something if [`Self::requests_any`] says so.
            #[inline(always)]
            #[must_use]
            pub fn tx_lengths(&self) -> TxLengths {
                TxLengths(self.header().meta.tx_offload)
            }

            /// The tag to be inserted ([`TxFlags::VLAN`]), or that was received
            /// ([`RxFlags::VLAN`]).
            #[inline(always)]
            #[must_use]
            pub fn vlan_tci(&self) -> u16 {
                self.header().meta.vlan_tci
            }

            /// The outer one of two.
            #[inline(always)]
            #[must_use]
            pub fn vlan_tci_outer(&self) -> u16 {
                self.header().meta.vlan_tci_outer
            }
        }
    };
}

tx_getters!(Mbuf);
tx_getters!(Lent);

impl Mbuf {
    /// What the device found when it received the frame.
    #[inline(always)]
    #[must_use]
    pub fn rx_flags(&self) -> RxFlags {
        RxFlags::from_word(self.header().meta.flags)
    }

    /// What the frame is; unknown unless device or program has found out.
    #[inline(always)]
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        PacketType::from_bits(self.meta().packet_type)
    }

    /// Notes what the frame is.
    #[inline(always)]
    pub fn set_packet_type(&mut self, packet_type: PacketType) {
        self.meta_mut().packet_type = packet_type.bits();
    }

    /// The hash by which the device chose the queue.
    #[inline(always)]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        let header = self.meta();
        RxFlags::from_word(header.flags).contains(RxFlags::RSS_HASH).then_some(header.rss_hash)
    }

    /// What the flow director rule that matched has said.
    #[inline(always)]
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        let header = self.meta();
        RxFlags::from_word(header.flags).contains(RxFlags::MARK).then_some(header.mark)
    }

    /// The VLAN tag that the device found.
    #[inline(always)]
    #[must_use]
    pub fn vlan(&self) -> Option<u16> {
        self.rx_flags().contains(RxFlags::VLAN).then_some(self.vlan_tci())
    }

    /// Writes what the device found, all at once; requests to a sending device are forgotten.
    #[inline(always)]
    pub fn set_received(&mut self, info: RxInfo) {
        let header = self.meta_mut();
        header.flags = info.flags.word();
        header.packet_type = info.packet_type.bits();
        header.rss_hash = info.rss_hash;
        header.vlan_tci = info.vlan_tci;
    }

    /// The device found a second, outer tag, and has taken both out if `stripped`.
    #[inline]
    pub fn set_received_outer_vlan(&mut self, tci: u16, stripped: bool) {
        let flags = match stripped {
            true => RxFlags::QINQ | RxFlags::QINQ_STRIPPED,
            false => RxFlags::QINQ,
        };
        let header = self.meta_mut();
        header.vlan_tci_outer = tci;
        header.flags |= flags.word();
    }

    /// A flow director rule with this mark has matched.
    #[inline]
    pub fn set_received_mark(&mut self, mark: u32) {
        let header = self.meta_mut();
        header.mark = mark;
        header.flags |= RxFlags::MARK.word();
    }

    /// Asks the device that will send this frame for `request`, instead of what was asked before.
    /// Tags to be inserted stay as they are. Segmentation asks for the checksums it needs, too.
    ///
    /// # Errors
    /// If the request makes no sense for this frame; nothing is asked for then.
    pub fn request(&mut self, request: TxRequest) -> Result<(), OffloadError> {
        let TxRequest { mut flags, lengths } = request;
        let tags = TxFlags::VLAN | TxFlags::QINQ;
        self.meta_mut().flags &= RxFlags::ALL | super::flags::DYNAMIC | tags.word();
        let (ipv4, ipv6) = (flags.contains(TxFlags::IPV4), flags.contains(TxFlags::IPV6));
        let segments = flags.intersects(TxFlags::TCP_SEGMENT | TxFlags::UDP_SEGMENT);
        if segments {
            flags |= match flags.contains(TxFlags::TCP_SEGMENT) {
                true => TxFlags::TCP_CHECKSUM,
                false => TxFlags::UDP_CHECKSUM,
            };
            if ipv4 {
                flags |= TxFlags::IP_CHECKSUM;
            }
        }
        let layer3_said = match flags.l4_checksum() {
            Some(_) => ipv4 != ipv6,
            None => !(ipv4 && ipv6),
        };
        if !layer3_said || flags.contains(TxFlags::IP_CHECKSUM) && !ipv4 {
            return Err(OffloadError::Layer3 { flags });
        }
        let (segment_len_bytes, l4_len_bytes) =
            (lengths.segment_len_bytes(), lengths.l4_len_bytes());
        if segments && (segment_len_bytes == 0 || l4_len_bytes == 0) {
            return Err(OffloadError::Segment { segment_len_bytes, l4_len_bytes });
        }
        let (_, layer4) = lengths.places();
        let (headers, len_bytes) = (layer4 + usize::from(l4_len_bytes), self.data().len());
        if headers > len_bytes {
            return Err(OffloadError::Headers { headers, len_bytes });
        }
        let header = self.meta_mut();
        header.flags |= flags.word();
        header.tx_offload = lengths.0;
        Ok(())
    }

    /// Asks for a VLAN tag to be inserted.
    #[inline]
    pub fn insert_vlan(&mut self, tci: u16) {
        let header = self.meta_mut();
        header.vlan_tci = tci;
        header.flags |= TxFlags::VLAN.word();
    }

    /// Asks for two tags to be inserted.
    #[inline]
    pub fn insert_qinq(&mut self, outer_tci: u16, tci: u16) {
        let header = self.meta_mut();
        header.vlan_tci = tci;
        header.vlan_tci_outer = outer_tci;
        header.flags |= (TxFlags::VLAN | TxFlags::QINQ).word();
    }

    /// Doesn't ask for these any more.
    pub(super) fn stop_requesting(&mut self, flags: TxFlags) {
        self.meta_mut().flags &= !flags.word();
    }

    /// Asks for nothing any more.
    #[inline]
    pub fn clear_requests(&mut self) {
        self.meta_mut().flags &= !TxFlags::ALL;
    }
}
