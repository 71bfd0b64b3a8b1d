//! What frames look like: addresses and header views, read and written in place.

mod ethernet;

pub use ethernet::{EthernetHeader, MacAddress, MacAddressError};
