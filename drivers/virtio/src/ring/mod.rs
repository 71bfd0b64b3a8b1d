//! Virtqueues.

mod split;

pub(crate) use split::{Descriptor, SplitRing, Used};
