//! mbuf.
