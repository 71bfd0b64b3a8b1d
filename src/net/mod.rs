//! What frames look like: addresses and header views, read and written in place.

mod checksum;
mod ethernet;

pub use checksum::{
    InternetSum, internet_checksum, ipv4_pseudo_header, ipv6_pseudo_header, updated_checksum,
};
pub use ethernet::{EthernetHeader, MacAddress, MacAddressError};
