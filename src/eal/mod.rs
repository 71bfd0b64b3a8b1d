//! eal.
