//! Where a segment goes: the lowest free addresses from `--base-virtaddr` on.

use super::error::MemoryError;
use super::size::Size;
use crate::sys::mapping::{Mapping, Placement};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// First address that segments don't use. On x86-64 user space ends here unless it asks for more;
/// aarch64 has at least as much with its usual 48 bits.
const ADDRESS_END: u64 = 1 << 47;

/// Nothing is placed below 1 MiB: the kernel keeps the first pages (`vm.mmap_min_addr`) so that null
/// pointers fault.
const LOWEST: u64 = 1 << 20;

/// How often a place is looked for again, if another thread maps something there meanwhile.
const TRIES: usize = 64;

/// Maps `len_bytes` of `file` at the lowest free address not below `base` that is a multiple of
/// `align_bytes`.
pub(super) fn map_low(
    file: BorrowedFd<'_>,
    len_bytes: u64,
    align_bytes: u64,
    base: u64,
) -> Result<Mapping, MemoryError> {
    let len = usize::try_from(len_bytes).unwrap_or(usize::MAX);
    let from = base.max(LOWEST);
    let mut last = None;
    for _ in 0..TRIES {
        let maps = std::fs::read_to_string("/proc/self/maps")
            .map_err(MemoryError::system("reading /proc/self/maps to find free addresses"))?;
        let Some(address) = find_gap(occupied(&maps), len_bytes, align_bytes, from) else {
            return Err(MemoryError::BaseBeyond {
                base,
                wanted: Size(len_bytes),
                end: ADDRESS_END,
            });
        };
        let place = Placement::Exactly(usize::try_from(address).unwrap_or(usize::MAX));
        match Mapping::shared(file, 0, len, place) {
            Ok(mapping) => return Ok(mapping),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(map_error(len_bytes, address, error)),
        }
    }
    Err(map_error(len_bytes, from, last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into())))
}

fn map_error(len_bytes: u64, address: u64, source: io::Error) -> MemoryError {
    let len = Size(len_bytes);
    let what = format!(
        "mapping a segment of {len} at {address:#x} (limits on address space are `ulimit -v` and \
         vm.overcommit_memory)"
    );
    MemoryError::System { what, source }
}

/// The address ranges of a `/proc/PID/maps`, in the file's ascending order.
fn occupied(maps: &str) -> impl Iterator<Item = Range<u64>> + '_ {
    maps.lines().filter_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    })
}

/// The lowest multiple of `align` (a power of two), not below `from`, with `len` free addresses.
fn find_gap(
    occupied: impl Iterator<Item = Range<u64>>,
    len: u64,
    align: u64,
    from: u64,
) -> Option<u64> {
    let mut address = from.checked_next_multiple_of(align)?;
    for range in occupied {
        if range.end <= address {
            continue;
        }
        if range.start >= address.checked_add(len)? {
            break;
        }
        address = range.end.checked_next_multiple_of(align)?;
    }
    (address.checked_add(len)? <= ADDRESS_END).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_between_what_is_there() {
        let maps = "\
00400000-00500000 r-xp 00000000 fe:00 1 /bin/x
100000000-100001000 rw-p 00000000 00:00 0
100800000-100900000 rw-p 00000000 00:00 0 [heap]
7ffff0000000-7ffffffff000 rw-p 00000000 00:00 0 [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
        let gap = |len, align, from| find_gap(occupied(maps), len, align, from);
        const MIB: u64 = 1 << 20;
        assert_eq!(gap(MIB, 4096, 4 << 30), Some(0x1_0000_1000));
        assert_eq!(gap(2 * MIB, 2 * MIB, 4 << 30), Some(0x1_0020_0000));
        assert_eq!(gap(6 * MIB, 2 * MIB, 4 << 30), Some(0x1_0020_0000));
        assert_eq!(gap(8 * MIB, 2 * MIB, 4 << 30), Some(0x1_00a0_0000));
        assert_eq!(gap(1 << 46, 1 << 30, 4 << 30), Some(0x1_4000_0000));
        assert_eq!(gap(1 << 47, 4096, 4 << 30), None);
        assert_eq!(gap(MIB, 4096, 0x7fff_f000_0000), None);
        assert_eq!(gap(MIB, 4096, u64::MAX), None);
        assert_eq!(gap(u64::MAX, 4096, 4 << 30), None);
    }
}
