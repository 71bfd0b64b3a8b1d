//! The table of DMA mappings: what of our memory the IOMMU lets devices reach.
//!
//! Type 1 version 2 unmaps only what was mapped as one piece: asked for anything else it may
//! return success and a size of 0, and DMA goes on into the old pages. So the table keeps what
//! was mapped, unmaps exactly that, and takes a short size for an error.

use std::io;

use super::info::{IommuInfo, IovaRange};
use crate::bus::BusError;
use crate::memory::{Iova, IovaMode, IovaRun};

/// Checks `runs` against what the IOMMU can do, and gives the mappings to make: in order of their
/// IOVAs, those that are contiguous both ways merged into one.
///
/// # Errors
/// If a mapping lies outside the IOMMU's ranges or off its page size, or there are too many.
pub(super) fn plan(
    runs: impl IntoIterator<Item = IovaRun>,
    mode: IovaMode,
    info: &IommuInfo,
    dma_entry_limit: impl FnOnce() -> Option<u64>,
) -> Result<Vec<IovaRun>, BusError> {
    let plan = merge(runs.into_iter().collect());
    for run in &plan {
        check(run, &plan, mode, info)?;
    }
    if let Some(available) = info.mappings_available
        && plan.len() > available as usize
    {
        let limit = dma_entry_limit().map_or("unknown".to_owned(), |limit| limit.to_string());
        return Err(BusError::DmaEntryLimit { need: plan.len(), available, limit });
    }
    Ok(plan)
}

fn merge(mut runs: Vec<IovaRun>) -> Vec<IovaRun> {
    runs.sort_by_key(|run| run.iova.0);
    let mut merged: Vec<IovaRun> = Vec::new();
    for run in runs {
        if run.len_bytes == 0 {
            continue;
        }
        match merged.last_mut() {
            Some(last)
                if last.va.checked_add(last.len_bytes) == Some(run.va)
                    && last.iova.0.checked_add(last.len_bytes) == Some(run.iova.0) =>
            {
                last.len_bytes += run.len_bytes;
            }
            _ => merged.push(run),
        }
    }
    merged
}

fn check(
    run: &IovaRun,
    plan: &[IovaRun],
    mode: IovaMode,
    info: &IommuInfo,
) -> Result<(), BusError> {
    let &IovaRun { iova: Iova(iova), len_bytes, .. } = run;
    if info.page_sizes != 0 {
        let page_len_bytes = 1 << info.page_sizes.trailing_zeros();
        if (iova | len_bytes | run.va) & (page_len_bytes - 1) != 0 {
            return Err(BusError::IovaMisaligned { iova, len_bytes, page_len_bytes });
        }
    }
    let Some(ranges) = &info.ranges else { return Ok(()) };
    let last = iova.saturating_add(len_bytes - 1);
    if ranges.iter().any(|range| range.first <= iova && last <= range.last) {
        return Ok(());
    }
    Err(BusError::IovaOutOfRange {
        iova,
        end: iova.saturating_add(len_bytes),
        offered: offered(ranges),
        remedy: remedy(plan, mode, ranges),
    })
}

/// The ranges in words: `0x0–0xfedfffff and 0xfef00000–0x7fffffffff`.
fn offered(ranges: &[IovaRange]) -> String {
    let texts: Vec<_> =
        ranges.iter().map(|range| format!("{:#x}–{:#x}", range.first, range.last)).collect();
    if texts.is_empty() { "no range at all".to_owned() } else { texts.join(" and ") }
}

/// What to start with instead. In mode `va` that is a base address, on a 1 GiB boundary so that
/// every hugepage fits it, from which all of `plan` would lie in one range.
fn remedy(plan: &[IovaRun], mode: IovaMode, ranges: &[IovaRange]) -> String {
    const GIB: u64 = 1 << 30;
    if mode == IovaMode::Pa {
        return "--iova-mode va, so that the addresses can be chosen".to_owned();
    }
    let from = plan.first().map_or(0, |run| run.iova.0);
    let to = plan.last().map_or(0, |run| run.iova.0.saturating_add(run.len_bytes - 1));
    // Below 4 GiB live programs, their heaps, and the interrupt window.
    let base = ranges.iter().find_map(|range| {
        let base = range.first.max(4 * GIB).checked_next_multiple_of(GIB)?;
        (base.checked_add(to - from)? <= range.last).then_some(base)
    });
    match base {
        Some(base) => format!("another --base-virtaddr, such as {base:#x}"),
        None => "another --base-virtaddr, or less memory (-m)".to_owned(),
    }
}

/// What the table asks of the kernel; a test listens in its place.
pub(super) trait DmaCalls {
    /// Lets devices read and write `run`.
    fn map(&self, run: &IovaRun) -> io::Result<()>;
    /// Takes `len_bytes` from `iova` away; gives the number of bytes that went.
    fn unmap(&self, iova: Iova, len_bytes: u64) -> io::Result<u64>;
}

/// What is mapped now, in the order it was mapped.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    made: Vec<IovaRun>,
}

/// Why a mapping couldn't be made: which, how many were before it, and the kernel's answer.
#[derive(Debug)]
pub(super) struct MapFailure {
    pub(super) run: IovaRun,
    pub(super) made: usize,
    pub(super) source: io::Error,
}

impl Mappings {
    /// Makes all mappings of `plan`, or none.
    pub(super) fn make(plan: &[IovaRun], calls: &impl DmaCalls) -> Result<Self, MapFailure> {
        let mut mappings = Self::default();
        for run in plan {
            if let Err(source) = calls.map(run) {
                let made = mappings.len();
                for left in mappings.remove(calls) {
                    tracing::warn!("{left}");
                }
                return Err(MapFailure { run: *run, made, source });
            }
            mappings.made.push(*run);
        }
        Ok(mappings)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.made.len()
    }

    /// How many bytes they cover.
    pub(super) fn len_bytes(&self) -> u64 {
        self.made.iter().map(|run| run.len_bytes).sum()
    }

    /// Unmaps everything, piece by piece as it was mapped, the last first. Goes on after a
    /// failure, so that as little as possible stays behind; the errors are what did.
    pub(super) fn remove(&mut self, calls: &impl DmaCalls) -> Vec<BusError> {
        let mut errors = Vec::new();
        while let Some(run) = self.made.pop() {
            let IovaRun { iova, len_bytes, .. } = run;
            match calls.unmap(iova, len_bytes) {
                Ok(found) if found == len_bytes => {}
                Ok(found) => {
                    errors.push(BusError::UnmapShort { iova: iova.0, wanted: len_bytes, found });
                }
                Err(source) => errors.push(BusError::Unmap { iova: iova.0, len_bytes, source }),
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 2 << 20;

    fn run(va: u64, iova: u64, len_bytes: u64) -> IovaRun {
        IovaRun { va, iova: Iova(iova), len_bytes }
    }

    fn info(ranges: &[(u64, u64)]) -> IommuInfo {
        let ranges = ranges.iter().map(|&(first, last)| IovaRange { first, last }).collect();
        IommuInfo { page_sizes: 0x4020_1000, ranges: Some(ranges), mappings_available: Some(100) }
    }

    const BITS_39: (u64, u64) = (0xfef0_0000, 0x7f_ffff_ffff);

    #[test]
    fn neighbours_are_merged_if_they_are_neighbours_both_ways() {
        let base = 4 << 30;
        let runs = [
            run(base + PAGE, base + PAGE, PAGE),
            run(base, base, PAGE),
            run(base + 4 * PAGE, base + 2 * PAGE, PAGE), // next by IOVA only
            run(base + 2 * PAGE, base + 9 * PAGE, PAGE), // next by VA only
            run(0, 0, 0),
        ];
        let plan = plan(runs, IovaMode::Va, &info(&[BITS_39]), || None).unwrap();
        assert_eq!(
            plan,
            [
                run(base, base, 2 * PAGE),
                run(base + 4 * PAGE, base + 2 * PAGE, PAGE),
                run(base + 2 * PAGE, base + 9 * PAGE, PAGE),
            ]
        );
    }

    #[test]
    fn memory_beyond_the_iommus_reach_is_refused_with_what_would_do() {
        let high = 1 << 40;
        let ranges = info(&[(0, 0xfedf_ffff), BITS_39]);
        let error =
            plan([run(high, high, PAGE)], IovaMode::Va, &ranges, || None).unwrap_err().to_string();
        assert_eq!(
            error,
            "DMA memory at IOVA 0x10000000000..0x10000200000 can't be mapped: this machine's \
             IOMMU offers 0x0–0xfedfffff and 0xfef00000–0x7fffffffff; start with another \
             --base-virtaddr, such as 0x100000000"
        );
        // One that starts inside and ends outside, and one over the interrupt window.
        for (iova, len) in [(0x7f_ffe0_0000, 2 * PAGE), (0xfec0_0000, 4 * PAGE)] {
            let error = plan([run(iova, iova, len)], IovaMode::Va, &ranges, || None).unwrap_err();
            assert!(matches!(error, BusError::IovaOutOfRange { .. }), "{error}");
        }
        // The very last page of a range still fits.
        assert!(plan([run(PAGE, 0x7f_ffe0_0000, PAGE)], IovaMode::Va, &ranges, || None).is_ok());
        // Nothing would fit: nothing is suggested.
        let small = info(&[(0, 0xffff_ffff)]);
        let error =
            plan([run(high, high, PAGE)], IovaMode::Va, &small, || None).unwrap_err().to_string();
        assert!(error.ends_with("another --base-virtaddr, or less memory (-m)"), "{error}");
        let error = plan([run(PAGE, high, PAGE)], IovaMode::Pa, &small, || None).unwrap_err();
        assert!(error.to_string().contains("--iova-mode va"), "{error}");
    }

    #[test]
    fn a_kernel_that_names_no_ranges_is_not_second_guessed() {
        let info = IommuInfo { ranges: None, ..info(&[]) };
        assert!(plan([run(1 << 50, 1 << 50, PAGE)], IovaMode::Va, &info, || None).is_ok());
    }

    #[test]
    fn memory_off_the_iommus_pages_is_refused() {
        for (va, iova, len) in [(PAGE, PAGE, 0x800), (PAGE, PAGE + 0x10, PAGE)] {
            let error = plan([run(va, iova, len)], IovaMode::Va, &info(&[(0, u64::MAX)]), || None)
                .unwrap_err();
            assert!(matches!(error, BusError::IovaMisaligned { page_len_bytes: 4096, .. }));
        }
    }

    #[test]
    fn too_many_mappings_are_refused_by_name_of_the_limit() {
        let runs: Vec<_> = (0..3).map(|n| run(n * 4 * PAGE, n * 4 * PAGE, PAGE)).collect();
        let info = IommuInfo { mappings_available: Some(2), ..info(&[(0, u64::MAX)]) };
        let error = plan(runs, IovaMode::Va, &info, || Some(5)).unwrap_err().to_string();
        assert!(
            error
                .starts_with("3 DMA mappings are needed, 2 are to be had (dma_entry_limit is 5): "),
            "{error}"
        );
    }

    /// A kernel that keeps mappings as type 1 version 2 does.
    #[derive(Default)]
    struct Kernel {
        mapped: RefCell<Vec<IovaRun>>,
        limit: usize,
    }

    impl DmaCalls for Kernel {
        fn map(&self, run: &IovaRun) -> io::Result<()> {
            let mut mapped = self.mapped.borrow_mut();
            if mapped.len() == self.limit {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            mapped.push(*run);
            Ok(())
        }

        fn unmap(&self, iova: Iova, len_bytes: u64) -> io::Result<u64> {
            let mut mapped = self.mapped.borrow_mut();
            let before = mapped.len();
            mapped.retain(|run| (run.iova, run.len_bytes) != (iova, len_bytes));
            // No exact match: success, and nothing done.
            Ok(if mapped.len() < before { len_bytes } else { 0 })
        }
    }

    #[test]
    fn a_failure_half_way_leaves_nothing_mapped() {
        let plan: Vec<_> = (0..4).map(|n| run(n * 4 * PAGE, n * 4 * PAGE, PAGE)).collect();
        let kernel = Kernel { limit: 3, ..Kernel::default() };
        let failure = Mappings::make(&plan, &kernel).unwrap_err();
        assert_eq!((failure.run, failure.made), (plan[3], 3));
        assert_eq!(failure.source.raw_os_error(), Some(libc::ENOSPC));
        assert!(kernel.mapped.borrow().is_empty());
    }

    #[test]
    fn a_short_unmap_is_an_error_and_the_rest_is_still_unmapped() {
        let plan: Vec<_> = (0..3).map(|n| run(n * 4 * PAGE, n * 4 * PAGE, PAGE)).collect();
        let kernel = Kernel { limit: 9, ..Kernel::default() };
        let mut mappings = Mappings::make(&plan, &kernel).unwrap();
        assert_eq!((mappings.len(), mappings.len_bytes()), (3, 3 * PAGE));
        kernel.mapped.borrow_mut()[1].len_bytes += PAGE;
        let errors = mappings.remove(&kernel);
        assert!(matches!(
            errors[..],
            [BusError::UnmapShort { iova, wanted: PAGE, found: 0 }] if iova == 4 * PAGE
        ));
        assert_eq!((mappings.len(), kernel.mapped.borrow().len()), (0, 1));
    }

    proptest! {
        /// Whatever the runs: the plan covers the same bytes at the same IOVAs, in order, and
        /// what it maps is unmapped exactly.
        #[test]
        fn a_plan_covers_what_was_asked_and_goes_wholly(
            gaps in prop::collection::vec((0_u64..3, 0_u64..3, 1_u64..4), 0..20),
        ) {
            let (mut va, mut iova, mut runs) = (PAGE, 64 * PAGE, Vec::new());
            for (va_gap, iova_gap, pages) in gaps {
                va += va_gap * PAGE;
                iova += iova_gap * PAGE;
                runs.push(run(va, iova, pages * PAGE));
                va += pages * PAGE;
                iova += pages * PAGE;
            }
            let pages = |runs: &[IovaRun]| -> Vec<(u64, u64)> {
                runs.iter()
                    .flat_map(|run| {
                        (0..run.len_bytes / PAGE)
                            .map(|n| (run.va + n * PAGE, run.iova.0 + n * PAGE))
                    })
                    .collect()
            };
            let plan = plan(runs.clone(), IovaMode::Va, &info(&[(0, u64::MAX)]), || None).unwrap();
            prop_assert_eq!(pages(&plan), pages(&runs));
            prop_assert!(plan.len() <= runs.len());
            let kernel = Kernel { limit: 100, ..Kernel::default() };
            let mut mappings = Mappings::make(&plan, &kernel).unwrap();
            prop_assert!(mappings.remove(&kernel).is_empty());
            prop_assert!(kernel.mapped.borrow().is_empty());
        }
    }
}
