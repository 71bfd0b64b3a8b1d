//! Pools of objects of one size: what is in use is lent out, what isn't waits in a shared ring and
//! in per-lcore caches.
//!
//! An lcore takes from and returns to its own cache, and touches the shared ring only when the
//! cache runs empty or full, and then for half a cache at once: a core that only allocates and a
//! core that only frees both meet the others once per `cache_size / 2` objects. Threads that
//! aren't lcores use the ring directly.
//!
//! What an object is isn't the mempool's business: it hands out addresses. [`crate::mbuf::MbufPool`]
//! makes mbufs of them.

mod cache;
#[cfg(all(test, loom))]
mod loom_tests;
mod pool;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use pool::Object;
pub use pool::{MAX_CACHE_SIZE, Mempool, MempoolError};
