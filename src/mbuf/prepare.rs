//! Headers prepared for a device that shall fill in checksums, and checksums filled in without one.

use super::flags::{L4Checksum, TxFlags};
use super::frame::Mbuf;
use super::offload::OffloadError;
use crate::net::{InternetSum, internet_checksum, ipv4_pseudo_header, ipv6_pseudo_header};

/// Places in the headers, in bytes from their start.
const IPV4_TOTAL_LEN: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: usize = 12;
const IPV6_PAYLOAD_LEN: usize = 4;
const IPV6_ADDRESSES: usize = 8;
const IPV6_BYTES: u16 = 40;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const SCTP_CHECKSUM: usize = 8;

impl Mbuf {
    /// Writes what devices expect where they fill in checksums: zero in the IPv4 header, the sum of
    /// the pseudo-header in TCP and UDP headers (without the length if the device makes segments,
    /// as it knows that better). DPDK's `rte_net_intel_cksum_prepare`.
    ///
    /// # Errors
    /// If the headers aren't all in the first segment (or shorter than such headers are), or the
    /// data is shared.
    pub fn prepare_checksums(&mut self) -> Result<(), OffloadError> {
        let (flags, lengths) = (self.tx_flags(), self.tx_lengths());
        let checksum = flags.l4_checksum();
        if !flags.contains(TxFlags::IP_CHECKSUM) && checksum.is_none() {
            return Ok(());
        }
        let (layer3, layer4) = lengths.places();
        let len_bytes = self.data().len();
        let data = self.data_mut().ok_or(OffloadError::Shared)?;
        let too_short = |headers| OffloadError::Headers { headers, len_bytes };
        let field = |data: &mut [u8], at: usize, value: &[u8]| {
            let end = at + value.len();
            data.get_mut(at..end).ok_or(too_short(end)).map(|place| place.copy_from_slice(value))
        };
        if flags.contains(TxFlags::IP_CHECKSUM) {
            field(data, layer3 + IPV4_CHECKSUM, &[0, 0])?;
        }
        let segments = flags.intersects(TxFlags::TCP_SEGMENT | TxFlags::UDP_SEGMENT);
        let (at, protocol) = match checksum {
            None => return Ok(()),
            // CRC32c, over no pseudo-header (RFC 9260, 6.8).
            Some(L4Checksum::Sctp) => return field(data, layer4 + SCTP_CHECKSUM, &[0; 4]),
            Some(L4Checksum::Tcp) => (TCP_CHECKSUM, 6),
            Some(L4Checksum::Udp) => (UDP_CHECKSUM, 17),
        };
        let l3_len = lengths.l3_len_bytes();
        let seed: InternetSum = if flags.contains(TxFlags::IPV4) {
            let total = u16::from_be_bytes(read(data, layer3 + IPV4_TOTAL_LEN, too_short)?);
            let len = if segments { 0 } else { total.saturating_sub(l3_len) };
            ipv4_pseudo_header(&read(data, layer3 + IPV4_ADDRESSES, too_short)?, protocol, len)
        } else {
            let payload = u16::from_be_bytes(read(data, layer3 + IPV6_PAYLOAD_LEN, too_short)?);
            let extensions = l3_len.saturating_sub(IPV6_BYTES);
            let len = if segments { 0 } else { payload.saturating_sub(extensions) };
            let addresses = read(data, layer3 + IPV6_ADDRESSES, too_short)?;
            ipv6_pseudo_header(&addresses, protocol, len.into())
        };
        field(data, layer4 + at, &seed.folded().to_bytes())
    }
}

/// Filling in checksums that no device fills in.
impl Mbuf {
    /// Fills in the checksums that the frame asks its device for, in software; then it doesn't ask
    /// for them any more. For a frame that leaves by a port which can't.
    ///
    /// # Errors
    /// As for [`Self::prepare_checksums`]; also if it asks to be cut into segments, or for SCTP's
    /// checksum. It then asks for what it did before.
    pub fn fill_checksums(&mut self) -> Result<(), OffloadError> {
        let (flags, lengths) = (self.tx_flags(), self.tx_lengths());
        let checksum = flags.l4_checksum();
        if flags.intersects(TxFlags::TCP_SEGMENT | TxFlags::UDP_SEGMENT)
            || checksum == Some(L4Checksum::Sctp)
        {
            return Err(OffloadError::NotInSoftware { flags });
        }
        self.prepare_checksums()?;
        let (layer3, layer4) = lengths.places();
        let len_bytes = self.data().len();
        let too_short = |headers| OffloadError::Headers { headers, len_bytes };
        if flags.contains(TxFlags::IP_CHECKSUM) {
            let data = self.data_mut().ok_or(OffloadError::Shared)?;
            let header = data.get_mut(layer3..layer4).ok_or(too_short(layer4))?;
            let sum = internet_checksum(header);
            let place = header.get_mut(IPV4_CHECKSUM..).and_then(<[u8]>::first_chunk_mut);
            *place.ok_or(too_short(layer3 + IPV4_CHECKSUM + 2))? = sum.to_bytes();
        }
        let at = match checksum {
            None | Some(L4Checksum::Sctp) => None,
            Some(L4Checksum::Tcp) => Some(TCP_CHECKSUM),
            Some(L4Checksum::Udp) => Some(UDP_CHECKSUM),
        };
        if let Some(at) = at {
            // What stands behind the packet, to fill up a short frame, doesn't count.
            let (data, l3_len) = (self.data(), usize::from(lengths.l3_len_bytes()));
            let len: usize = match flags.contains(TxFlags::IPV4) {
                true => u16::from_be_bytes(read(data, layer3 + IPV4_TOTAL_LEN, too_short)?).into(),
                false => {
                    let len = u16::from_be_bytes(read(data, layer3 + IPV6_PAYLOAD_LEN, too_short)?);
                    usize::from(len) + usize::from(IPV6_BYTES)
                }
            };
            self.complete_checksum(layer4, layer4 + at, len.saturating_sub(l3_len))?;
        }
        self.stop_requesting(
            TxFlags::IP_CHECKSUM | TxFlags::UDP_CHECKSUM | TxFlags::IPV4 | TxFlags::IPV6,
        );
        Ok(())
    }

    /// Completes a checksum whose place, at `at`, holds what is to be added to the sum of
    /// `len_bytes` bytes from `start` on (or of as many as there are).
    ///
    /// # Errors
    /// If its place isn't in the first segment, or the data is shared.
    pub fn complete_checksum(
        &mut self,
        start: usize,
        at: usize,
        len_bytes: usize,
    ) -> Result<(), OffloadError> {
        let mut sum = InternetSum::new();
        let (mut skip, mut left) = (start, len_bytes);
        for segment in self.segments() {
            let bytes = segment.get(skip..).unwrap_or_default();
            skip -= skip.min(segment.len());
            let bytes = bytes.get(..left).unwrap_or(bytes);
            left -= bytes.len();
            sum.add(bytes);
        }
        let len_bytes = self.data().len();
        let data = self.data_mut().ok_or(OffloadError::Shared)?;
        let place = data.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
        // Never zero, which would say that there is none in UDP, and is the same elsewhere.
        *place.ok_or(OffloadError::Headers { headers: at + 2, len_bytes })? =
            sum.checksum_not_zero().to_bytes();
        Ok(())
    }
}

fn read<const N: usize>(
    data: &[u8],
    at: usize,
    too_short: impl Fn(usize) -> OffloadError,
) -> Result<[u8; N], OffloadError> {
    let bytes = data.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().ok_or_else(|| too_short(at + N))
}
