//! Virtqueues.

mod split;

pub(crate) use split::{Broken, Descriptor, SplitRing, Used};
