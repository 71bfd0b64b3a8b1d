//! What a port may do for a program besides moving frames: wanted, and had.

use super::PortError;

/// What a port shall do for the program; nothing unless asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Check IP and TCP/UDP checksums of received frames
    /// ([`RxFlags`](crate::mbuf::RxFlags) say what was found).
    pub rx_checksum: bool,
    /// Take VLAN tags out of received frames and note them with the mbuf.
    pub rx_vlan_strip: bool,
    /// Receive frames that are longer than an mbuf, as chains.
    pub rx_scatter: bool,
    /// Receive TCP segments of one flow joined into long frames, which ask for being cut again
    /// ([`TxFlags::TCP_SEGMENT`](crate::mbuf::TxFlags)) when they are sent.
    pub rx_lro: bool,
    /// Drop tagged frames of VLANs that weren't asked for with
    /// [`Port::filter_vlan`](super::Port::filter_vlan), from the start on: for devices that have
    /// to know before.
    pub rx_vlan_filter: bool,
    /// Note the packet type and the RSS hash with the mbuf.
    pub rx_classify: bool,
    /// Spread received frames over the queues by a hash of their flow. `None`: as the driver does
    /// it when there are several queues.
    pub rss: Option<Rss>,
    /// Fill in checksums of frames that ask for it ([`TxFlags`](crate::mbuf::TxFlags)).
    pub tx_checksum: bool,
    /// Cut long TCP frames into segments.
    pub tx_segment: bool,
    /// Put VLAN tags into frames.
    pub tx_vlan: bool,
}

impl Offloads {
    /// Whether nothing is asked for of received frames.
    #[must_use]
    pub fn rx_is_plain(&self) -> bool {
        !(self.rx_checksum
            || self.rx_vlan_strip
            || self.rx_scatter
            || self.rx_lro
            || self.rx_classify)
    }

    /// Whether nothing is asked for of frames that are sent.
    #[must_use]
    pub fn tx_is_plain(&self) -> bool {
        !(self.tx_checksum || self.tx_segment || self.tx_vlan)
    }

    /// Whether a port that can do `can` can do all of it.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] with the first that it can't.
    pub fn check(&self, device: &str, can: &Capabilities) -> Result<(), PortError> {
        let rss = self.rss.as_ref();
        for (wanted, has, what) in [
            (self.rx_checksum, can.rx_checksum, "receive checksum offload"),
            (self.rx_vlan_strip, can.rx_vlan_strip, "VLAN stripping"),
            (self.rx_scatter, can.rx_scatter, "frames in several mbufs"),
            (self.rx_lro, can.rx_lro, "joining of received TCP segments"),
            (self.rx_vlan_filter, can.vlan_filter, "filtering by VLAN"),
            (self.rx_classify, can.rx_classify, "packet types and hashes"),
            (self.tx_checksum, can.tx_checksum, "transmit checksum offload"),
            (self.tx_segment, can.tx_segment, "TCP segmentation offload"),
            (self.tx_vlan, can.tx_vlan, "VLAN insertion"),
            (rss.is_some(), can.rss_table_len != 0, "RSS"),
        ] {
            if wanted && !has {
                return Err(PortError::NotSupported { device: device.to_owned(), what });
            }
        }
        let Some(rss) = rss else { return Ok(()) };
        let bad = |what: String| Err(PortError::Rss { device: device.to_owned(), what });
        if let Some(key) = &rss.key
            && key.len() != can.rss_key_len
        {
            return bad(format!("a key of {} bytes; it takes {}", key.len(), can.rss_key_len));
        }
        if let Some(table) = &rss.table
            && (table.is_empty() || !can.rss_table_len.is_multiple_of(table.len()))
        {
            let len = can.rss_table_len;
            return bad(format!("a table of {} entries; it has {len}", table.len()));
        }
        if rss.hash.0 & !can.rss_hash.0 != 0 {
            return bad("a hash over fields that it can't hash".to_owned());
        }
        Ok(())
    }
}

/// How received frames are spread over queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key; `None`: the driver's.
    pub key: Option<Vec<u8>>,
    /// Which queue each value of the hash's lower bits leads to, repeated to the device's length;
    /// `None`: all queues in turn.
    pub table: Option<Vec<u16>>,
    /// What is hashed; empty: the driver's choice.
    pub hash: RssHash,
}

/// Kinds of packets of which addresses (and ports) are hashed. A set: join with `|`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RssHash(pub u16);

impl RssHash {
    /// IPv4 addresses.
    pub const IPV4: Self = Self(1 << 0);
    /// IPv4 addresses and TCP ports.
    pub const IPV4_TCP: Self = Self(1 << 1);
    /// IPv4 addresses and UDP ports.
    pub const IPV4_UDP: Self = Self(1 << 2);
    /// IPv6 addresses.
    pub const IPV6: Self = Self(1 << 3);
    /// IPv6 addresses and TCP ports.
    pub const IPV6_TCP: Self = Self(1 << 4);
    /// IPv6 addresses and UDP ports.
    pub const IPV6_UDP: Self = Self(1 << 5);
    /// All of them.
    pub const ALL: Self = Self(0x3f);

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for RssHash {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a port can do besides moving frames; nothing unless its driver says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// As [`Offloads::rx_checksum`].
    pub rx_checksum: bool,
    /// As [`Offloads::rx_vlan_strip`].
    pub rx_vlan_strip: bool,
    /// As [`Offloads::rx_scatter`].
    pub rx_scatter: bool,
    /// As [`Offloads::rx_lro`].
    pub rx_lro: bool,
    /// As [`Offloads::rx_classify`].
    pub rx_classify: bool,
    /// As [`Offloads::tx_checksum`].
    pub tx_checksum: bool,
    /// As [`Offloads::tx_segment`].
    pub tx_segment: bool,
    /// As [`Offloads::tx_vlan`].
    pub tx_vlan: bool,
    /// Bytes of an RSS key; 0: no RSS.
    pub rss_key_len: usize,
    /// Entries of the RSS table; 0: no RSS.
    pub rss_table_len: usize,
    /// What can be hashed.
    pub rss_hash: RssHash,
    /// The MTUs that can be set; `None`: none can.
    pub mtu: Option<(u16, u16)>,
    /// MAC addresses besides its own that it can filter.
    pub mac_filters: usize,
    /// Whether it can filter by VLAN.
    pub vlan_filter: bool,
    /// Whether its receive queues can wake an lcore.
    pub rx_interrupts: bool,
}

/// Which pause frames a port makes and heeds (IEEE 802.3, annex 31B).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowControl {
    /// Stops sending when told so.
    pub heed: bool,
    /// Tells the other side to stop when its own buffer fills.
    pub send: bool,
}

/// A register, as a dump shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterValue {
    /// Its datasheet name, with its number where there are several: `RDT[1]`.
    pub name: String,
    /// Where it stands, in bytes.
    pub offset: u32,
    /// What it held.
    pub value: u32,
    /// What it is for.
    pub meaning: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_cannot_do_is_named() {
        let can = Capabilities {
            rx_checksum: true,
            rss_key_len: 40,
            rss_table_len: 128,
            rss_hash: RssHash::ALL,
            ..Capabilities::default()
        };
        let check = |wanted: Offloads, can: &Capabilities| {
            wanted.check("nic", can).map_err(|error| error.to_string())
        };
        assert_eq!(check(Offloads::default(), &Capabilities::default()), Ok(()));
        let checksum = Offloads { rx_checksum: true, ..Offloads::default() };
        assert_eq!(check(checksum.clone(), &can), Ok(()));
        let error = check(checksum, &Capabilities::default()).unwrap_err();
        assert!(error.contains("nic") && error.contains("receive checksum offload"), "{error}");
        let rss = |rss| Offloads { rss: Some(rss), ..Offloads::default() };
        assert_eq!(check(rss(Rss::default()), &can), Ok(()));
        assert!(check(rss(Rss::default()), &Capabilities::default()).is_err());
        let short = Rss { key: Some(vec![1; 16]), ..Rss::default() };
        assert!(check(rss(short), &can).unwrap_err().contains("16 bytes"));
        let table = Rss { table: Some(vec![0; 3]), ..Rss::default() };
        assert!(check(rss(table), &can).unwrap_err().contains("3 entries"));
    }
}
