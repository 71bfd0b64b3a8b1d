//! Why a ring can't be made.

use crate::memory::MemoryError;

/// The largest capacity a ring can have: 2^30 elements.
pub const MAX_CAPACITY: usize = 1 << 30;

/// Why a ring can't be made; nothing is taken then.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// No room was asked for, or more than indexes can count.
    #[error("a ring of {0} elements was asked for; it must hold 1 to {MAX_CAPACITY}")]
    Capacity(usize),

    /// The slots are more than can be addressed, or than the allocator gives.
    #[error(
        "a ring of {capacity} elements of {element_len_bytes} bytes was asked for, and there is \
         no memory for {slots} slots (the next power of two): ask for fewer elements, or put \
         indexes or addresses into the ring instead of the elements"
    )]
    NoMemory {
        /// Elements asked for.
        capacity: usize,
        /// Size of each in bytes.
        element_len_bytes: usize,
        /// Slots that they take.
        slots: usize,
    },

    /// The segments have no room for its zone.
    #[error("ring {name:?}: no memory for {capacity} elements of {element_len_bytes} bytes")]
    Zone {
        /// The zone's name.
        name: String,
        /// Elements asked for.
        capacity: usize,
        /// Size of each in bytes.
        element_len_bytes: usize,
        /// Why, and what mends it.
        #[source]
        source: MemoryError,
    },
}
