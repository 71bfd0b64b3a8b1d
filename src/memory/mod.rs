//! Hugepages become segments, segments hand out zones, and every byte has an address that the
//! device knows.
//!
//! [`Memory::reserve`] takes pages from the kernel at start-up ([`Memory::add_segment`] takes more later), and places them from
//! `--base-virtaddr` upwards. Each node and page size becomes one [`Segment`]: one file, mapped
//! in one piece, so adjacent pages are merged by construction and another process (a vhost-user
//! back-end, a test device) can map the same file. [`Memory::zone`] lends out parts of a segment
//! by name; dropping the [`Zone`] gives them back. Nothing outlives the process: the files have
//! no name (`memfd`), or are unlinked when dropped and by the next start after a crash.
//!
//! Reading order: `config` says what can be asked, [`hugepages`] what the machine has,
//! [`preflight`] and `plan` which pages to take, `reserve` takes them; `segment`, `registry` and
//! `zone` are what the rest of the program uses.

mod config;
mod dump;
mod error;
mod freelist;
mod growth;
pub mod heap;
mod hugedir;
pub mod hugepages;
mod iova;
mod place;
mod plan;
pub mod preflight;
mod registry;
mod reserve;
mod segment;
mod shortage;
mod size;
mod zone;

pub use config::{Backing, IovaModeRequest, MemoryConfig};
pub use error::MemoryError;
pub use growth::{AddedSegment, DmaListener, DmaRegion, ListenerError};
pub use iova::{Iova, IovaMode, IovaRun};
pub use plan::Take;
pub use registry::Memory;
pub use segment::Segment;
pub use shortage::Shortage;
pub use size::Size;
pub use zone::{Zone, ZoneInfo, ZoneRequest};

#[cfg(test)]
mod tests;
