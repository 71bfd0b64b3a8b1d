//! Pools of objects of one size: what is in use is lent out, what isn't waits in a shared list and
//! in per-lcore caches.
//!
//! An lcore takes from and returns to its own cache, and touches the shared list only when the
//! cache runs empty or full, and then for half a cache at once: a core that only allocates and a
//! core that only frees both meet the others once per `cache_size / 2` objects. Threads that
//! aren't lcores use the list directly. The list is a ring or a stack: see [`Backend`].
//!
//! [`ObjectPool`] is a pool of values of one type, for programs; [`crate::mbuf::MbufPool`] one of
//! frames. Both stand on [`Mempool`], which hands out addresses.

mod audit;
mod batch;
mod cache;
mod chunks;
mod config;
mod cookie;
mod free_list;
mod layout;
#[cfg(all(test, loom))]
mod loom_tests;
mod pool;
mod stack;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;
mod typed;

pub use audit::{AuditError, AuditReport};
pub use batch::{Batch, Local, LocalPool, Places, Source};
pub use chunks::Chunk;
pub use config::{MAX_CACHE_SIZE, MempoolConfig, MempoolError};
pub use cookie::Fault;
pub use free_list::Backend;
pub use layout::{ELEMENT_ALIGN_BYTES, ObjectLayout};
pub use pool::Mempool;
pub(crate) use pool::Object;
pub use stats::MempoolStats;
pub use typed::{ObjectPool, ObjectsOut, Pooled, PooledArray};
