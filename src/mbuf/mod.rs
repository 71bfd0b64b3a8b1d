//! Frames in DMA memory: an [`Mbuf`] is the one owner of a buffer (or a chain of them) and its
//! metadata, and gives it back to its pool when dropped, on whatever lcore that happens.
//!
//! ```text
//!  one object of the pool
//!  ┌──────────────────┬───────────────┬──────────────────────────┬───────────┐
//!  │ header, 128 bytes│ headroom, 128 │ data (data_len)          │ tailroom  │
//!  │ RX line, TX line │               │                          │           │
//!  └──────────────────┴───────────────┴──────────────────────────┴───────────┘
//!                     ▲ buf            ▲ buf + data_off
//! ```
//!
//! Who may touch the data is a matter of types: an [`Mbuf`] that is given to a device becomes
//! [`Lent`], which has an address for the device and no access for the program, until the driver
//! takes it back.

mod builder;
mod burst;
mod chain;
mod dynamic;
mod external;
mod flags;
mod frame;
mod free;
mod header;
mod inspect;
mod lent;
#[cfg(all(test, loom))]
mod loom_tests;
mod offload;
mod owners;
mod plain;
mod pool;
mod prepare;
mod private;
mod room;
mod share;
#[cfg(all(test, not(loom)))]
mod tests;

pub use builder::ChainBuilder;
pub use burst::{Burst, MAX_BURST};
pub use chain::{MAX_SEGMENTS, Segments, SegmentsMut};
pub use dynamic::{DYN_BYTES, DynError, DynField, DynFlag, Timestamp};
pub use external::{ExternalBuffer, ExternalMemory, NotContiguous};
pub use flags::{Checksum, L4Checksum, RxFlags, TxFlags};
pub use frame::{Mbuf, MbufError};
pub use header::HEADROOM_BYTES;
pub use inspect::{CheckError, Dump};
pub use lent::{Lent, LentSegments, Quiesced};
pub use offload::{OffloadError, RxInfo, TxLengths, TxRequest};
pub use pool::{DEFAULT_DATA_ROOM_BYTES, MbufPool, MbufPoolConfig, MbufPoolError};
pub use room::LentRoom;

pub use crate::net::PacketType;
