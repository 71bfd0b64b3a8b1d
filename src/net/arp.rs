//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::{BigEndian, FromBytes, Immutable, IntoBytes, KnownLayout, U16, Unaligned};

use super::{EtherType, MacAddress};

/// A message: 28 bytes behind the Ethernet header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpMessage {
    /// 1 for Ethernet.
    pub hardware: U16<BigEndian>,
    /// 0x0800 for IPv4.
    pub protocol: U16<BigEndian>,
    /// 6 for Ethernet.
    pub hardware_len: u8,
    /// 4 for IPv4.
    pub protocol_len: u8,
    /// 1: request, 2: reply.
    pub operation: U16<BigEndian>,
    /// Who sends it.
    pub sender_mac: MacAddress,
    /// Its address, octet by octet.
    pub sender_ip: [u8; 4],
    /// Whom it is for; in a request nobody knows.
    pub target_mac: MacAddress,
    /// Its address.
    pub target_ip: [u8; 4],
}

impl ArpMessage {
    /// Who has an address?
    pub const REQUEST: u16 = 1;
    /// I have.
    pub const REPLY: u16 = 2;

    /// A message from `sender` to `target`.
    #[must_use]
    pub fn new(
        operation: u16,
        sender: (MacAddress, Ipv4Addr),
        target: (MacAddress, Ipv4Addr),
    ) -> Self {
        Self {
            hardware: U16::new(1),
            protocol: U16::new(EtherType::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// Whether it speaks of IPv4 over Ethernet; nothing else is laid out like this.
    #[must_use]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        (self.hardware.get(), self.protocol.get()) == (1, EtherType::IPV4)
            && (self.hardware_len, self.protocol_len) == (6, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_rfc_says() {
        let sender = (MacAddress([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 18, 0, 1));
        let target = (MacAddress([0; 6]), Ipv4Addr::new(198, 18, 0, 2));
        let message = ArpMessage::new(ArpMessage::REQUEST, sender, target);
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0,
            2,
        ];
        assert_eq!(message.as_bytes(), expected);
        assert!(message.is_ipv4_over_ethernet());
        let mut other = message;
        other.hardware_len = 8;
        assert!(!other.is_ipv4_over_ethernet());
    }
}
