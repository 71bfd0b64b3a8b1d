//! What a walk over a pool finds.

use super::cookie::Fault;

/// A pool in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditReport {
    /// Objects in the pool.
    pub count: usize,
    /// Objects that nobody has, as counted.
    pub available: usize,
    /// Objects whose cookie says so; `None` without cookies.
    pub marked_free: Option<usize>,
}

/// A pool that isn't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// An object's cookies aren't whole.
    #[error("mempool {name:?}: object {number} at {address:#x}: {fault}")]
    Object {
        /// The pool's name.
        name: String,
        /// The object's number.
        number: usize,
        /// Its element's address.
        address: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// The counts don't match: an object was put back twice, or lost.
    #[error(
        "mempool {name:?}: {} objects are in its lists, {:?} are marked as free, and there are {}",
        report.available, report.marked_free, report.count
    )]
    Counts {
        /// The pool's name.
        name: String,
        /// What was counted.
        report: AuditReport,
    },
}
