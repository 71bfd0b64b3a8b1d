//! What frames look like: addresses and header views, read and written in place.
//!
//! The views are laid over a frame's data without a copy: `mbuf.view::<EthernetHeader>()`, or
//! [`zerocopy::FromBytes::ref_from_prefix`] for what follows. Any bytes are valid in all of them;
//! what they say is for the program to check. Numbers stand in network byte order, and are read by
//! `get`.

mod arp;
mod checksum;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod numbers;
mod packet_type;
mod parse;
mod tcp;
mod udp;
mod vlan;

pub use arp::ArpMessage;
pub use checksum::{
    InternetSum, internet_checksum, ipv4_pseudo_header, ipv6_pseudo_header, updated_checksum,
};
pub use ethernet::{EthernetHeader, MacAddress, MacAddressError};
pub use icmp::IcmpHeader;
pub use ipv4::Ipv4Header;
pub use ipv6::{Ipv6Extensions, Ipv6Header, ipv6_extensions};
pub use numbers::{EtherType, IpProtocol};
pub use packet_type::PacketType;
pub use parse::{Headers, parse};
pub use tcp::TcpHeader;
pub use udp::UdpHeader;
pub use vlan::VlanTag;
