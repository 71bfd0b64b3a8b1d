//! Copies of a handful of values.
#![expect(unsafe_code, reason = "copies by address, in chunks of constant length")]

use std::ptr;

/// Elements that are copied at a time: of 8 bytes each, two vector registers' worth.
const CHUNK: usize = 4;

/// Copies `count` values. For a handful, which is what passes through a ring or a cache at a time,
/// it is quicker than a call to `memcpy`.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`].
#[inline(always)]
pub(crate) unsafe fn copy_few<T>(source: *const T, target: *mut T, count: usize) {
    let mut done = 0;
    // SAFETY: the caller's promise: each step stays below `count`.
    unsafe {
        while done + CHUNK <= count {
            ptr::copy_nonoverlapping(source.add(done), target.add(done), CHUNK);
            done += CHUNK;
        }
        while done < count {
            ptr::copy_nonoverlapping(source.add(done), target.add(done), 1);
            done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_as_many_are_copied() {
        for count in 0..20 {
            let source: Vec<u64> = (1..=20).collect();
            let mut target = vec![0; 21];
            // SAFETY: both are longer than `count`.
            unsafe { copy_few(source.as_ptr(), target.as_mut_ptr(), count) };
            assert_eq!(target[..count], source[..count]);
            assert!(target[count..].iter().all(|value| *value == 0));
        }
    }
}
