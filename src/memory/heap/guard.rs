//! Patterns that show who wrote where nothing should be written.
#![expect(unsafe_code, reason = "reads and writes memory by address")]

use std::ptr::NonNull;

/// Behind a block, up to its last granule's end.
pub(super) const RED: u8 = 0xb5;

/// In free memory.
pub(super) const FREED: u8 = 0xdb;

/// Fills `len_bytes` with a pattern.
///
/// # Safety
/// The bytes belong to the heap, and no reference to them exists.
pub(super) unsafe fn paint(start: NonNull<u8>, len_bytes: usize, pattern: u8) {
    // SAFETY: the caller's promise.
    unsafe { start.write_bytes(pattern, len_bytes) };
}

/// Offset of the first byte that doesn't have the pattern.
///
/// # Safety
/// As for `paint`.
pub(super) unsafe fn first_change(
    start: NonNull<u8>,
    len_bytes: usize,
    pattern: u8,
) -> Option<usize> {
    // SAFETY: the caller's promise; extents are initialised memory.
    let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), len_bytes) };
    bytes.iter().position(|byte| *byte != pattern)
}
