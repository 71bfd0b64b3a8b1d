//! Bounded rings between lcores, without locks.
//!
//! A ring is made with [`ring`] and comes as its two ends, [`Producer`] and [`Consumer`]. Which
//! protocol an end follows is its type: [`Single`] ends belong to one thread (`&mut self`, not
//! `Clone`), [`Multi`] ends can be cloned and used from many. Feeding a single-producer ring from
//! two threads does not compile:
//!
//! ```compile_fail
//! use packetboat::ring::{ring, Single};
//! let (producer, _consumer) = ring::<u64, Single, Single>(8)?;
//! let second = producer.clone(); // a Single end can't be cloned
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```
//!
//! ```
//! use packetboat::ring::{ring, Multi, Single};
//! let (producer, mut consumer) = ring::<u64, Multi, Single>(8)?;
//! let second = producer.clone();
//! assert!(producer.enqueue_bulk(&[1, 2, 3]));
//! assert!(second.push(4).is_ok());
//! let mut out = [0; 8];
//! assert_eq!(consumer.dequeue_burst(&mut out), 4);
//! assert_eq!(out[..4], [1, 2, 3, 4]);
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```
//!
//! **bulk** moves all or nothing, **burst** as many as fit.

mod core;
mod ends;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use self::core::{Amount, Core};
pub use self::core::{MAX_CAPACITY, RingError};
pub use ends::{Consumer, Mode, Multi, Producer, Single, ring};
