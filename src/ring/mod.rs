//! Bounded rings between lcores, without locks.
//!
//! A ring is made with [`ring`] (plain memory) or [`ring_in`] (a zone of a NUMA node) and comes as
//! its two ends, [`Producer`] and [`Consumer`]. How the threads of an end agree is its type, its
//! mode, and any mode of producers goes with any of consumers:
//!
//! | mode | threads of a side | if one is preempted inside an operation |
//! |---|---|---|
//! | [`Single`] | one (`&mut self`, not `Clone`) | nobody else is there |
//! | [`Multi`] | many, finishing in order | later ones spin until it has finished |
//! | [`Rts`] | many, finishing in any order | others go on; the other side sees nothing new until it has finished; an eighth of the ring further on they wait |
//! | [`Hts`] | many, one at a time | others wait before they claim |
//!
//! In all modes the other side goes on with what was finished before.
//!
//! **bulk** moves all or nothing, **burst** as many as fit. [`Single`] and [`Hts`] ends can also
//! write and read values where they stand: [`Producer::reserve_burst`], [`Consumer::peek_burst`].
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
//! Feeding a single-producer ring from two threads does not compile:
//!
//! ```compile_fail,E0599
//! use packetboat::ring::{ring, Single};
//! let (producer, _consumer) = ring::<u64, Single, Single>(8)?;
//! let second = producer.clone(); // a Single end can't be cloned
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```
//!
//! ```compile_fail,E0499
//! use packetboat::ring::{ring, Single};
//! let (mut producer, _consumer) = ring::<u64, Single, Single>(8)?;
//! std::thread::scope(|scope| {
//!     scope.spawn(|| producer.push(1));
//!     scope.spawn(|| producer.push(2)); // nor lent to two threads
//! });
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```
//!
//! Nor does passing on what won't live long enough, or keeping a look at what was consumed:
//!
//! ```compile_fail,E0597
//! use packetboat::ring::{ring, Multi, Producer, Single};
//! fn push_short<'a>(producer: &Producer<&'a str, Multi, Single>, value: &'a str) {
//!     let _ = producer.push(value);
//! }
//! let (producer, mut consumer) = ring::<&'static str, Multi, Single>(8)?;
//! {
//!     let short = String::from("gone");
//!     push_short(&producer, &short);
//! }
//! println!("{:?}", consumer.pop());
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```
//!
//! ```compile_fail,E0505
//! use packetboat::ring::{ring, Single};
//! let (mut producer, mut consumer) = ring::<u64, Single, Single>(8)?;
//! let peeked = consumer.peek_burst(1).unwrap();
//! let first = peeked.iter().next();
//! peeked.consume(1);
//! println!("{first:?}");
//! # Ok::<(), packetboat::ring::RingError>(())
//! ```

mod core;
mod ends;
mod error;
mod home;
#[cfg(all(test, loom))]
mod loom_tests;
mod mode;
mod slots;
#[cfg(all(test, not(loom)))]
mod tests;
mod zero_copy;

#[cfg(test)]
pub(crate) use self::core::Core;
pub use ends::{Consumer, Ends, Producer, ring, ring_in};
pub use error::{MAX_CAPACITY, RingError};
pub(crate) use home::Hold;
pub(crate) use mode::Amount;
pub use mode::{Hts, Mode, Multi, Rts, SharedMode, Single, ZeroCopy};
pub use zero_copy::{Peeked, Reserved};
