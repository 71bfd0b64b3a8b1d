//! Memory that a device reads and writes while the program does: descriptor rings and indexes.
//!
//! Nothing here hands out a reference to shared memory: entries are copied in and out by volatile
//! accesses, flags and indexes by atomic ones, because the device may write at any moment. Indexes
//! are masked by the array's own length, so one that a device made up reads a wrong entry of the
//! same array, and nothing else. What an entry says is the driver's to check.

mod array;
mod batch;
mod fifo;
mod rings;
mod slots;
mod words;

pub use array::{Area, Array, Cell, DmaError, Entry, Word};
pub use batch::{Batch, Descriptor};
pub use fifo::Fifo;
pub use rings::{Moved, ReceiveRing, SendRing};
pub use slots::{Slots, Table};
pub use words::{Pairs, Words};
