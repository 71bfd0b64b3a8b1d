//! Device registers: typed, bounds-checked once, read and written one access at a time.
//!
//! A [`Region`] is a span of a device's register space (a PCI BAR, or a window of one). A driver
//! asks it for [`Register`]s when it starts; asking checks bounds and alignment, so that using
//! them later can't fail and costs one load or store.
//!
//! A region is either mapped into this process (VFIO on a kernel device), or reached by messages
//! (a vfio-user socket, a device model in a test). Drivers don't see which.
//!
//! The `safe-mmio` crate was considered: it models registers as fields of a mapped structure, and
//! has no variant for registers that are reached by messages.

mod order;
mod region;
mod register;

pub use order::{order_dma_all, order_dma_reads, order_dma_writes};
pub(crate) use region::MappedArea;
pub use region::{MmioError, Region, RegionIo};
pub use register::{Register, Value, Width};
