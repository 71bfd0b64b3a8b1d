//! The kernel's answers to VFIO's questions, taken apart: plain functions over bytes.
//!
//! Layouts are those of `linux/vfio.h`. An answer with the CAPS flag carries a chain of
//! capabilities, each beginning with a `vfio_info_cap_header` that gives the next one's place as
//! an offset from the start of the whole answer. The chain is followed forward only and within
//! the bytes there are.

use core::ops::Range;

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS,
};

/// What a type 1 IOMMU can do (`VFIO_IOMMU_GET_INFO`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct IommuInfo {
    /// Page sizes as a bit mask: bit 12 for 4 KiB. 0 if the kernel doesn't say.
    pub(super) page_sizes: u64,
    /// IOVAs that can be mapped, as the kernel orders them; `None` before Linux 5.4.
    pub(super) ranges: Option<Vec<IovaRange>>,
    /// How many more mappings the container may make; `None` before Linux 5.10.
    pub(super) mappings_available: Option<u32>,
}

/// IOVAs from `first` to `last`, both included (`last` may be `u64::MAX`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IovaRange {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What is said about one of a device's regions (`VFIO_DEVICE_GET_REGION_INFO`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::bus) struct RegionInfo {
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub(in crate::bus) flags: u32,
    /// In bytes; 0: the device has no such region.
    pub(in crate::bus) len_bytes: u64,
    /// Where in the device's file it starts, in bytes.
    pub(in crate::bus) file_offset: u64,
    /// The only parts that may be mapped; `None`: all of it may.
    pub(in crate::bus) sparse: Option<Vec<Range<u64>>>,
    /// Whether the pages with the MSI-X table may be mapped.
    pub(in crate::bus) msix_mappable: bool,
}

/// Why an answer couldn't be taken apart.
pub(in crate::bus) type Nonsense = &'static str;

/// Takes a `vfio_iommu_type1_info` and what follows it apart.
pub(super) fn iommu_info(answer: &[u8]) -> Result<IommuInfo, Nonsense> {
    const TOO_SHORT: Nonsense = "it is shorter than its fixed part";
    let flags = u32_at(answer, 4).ok_or(TOO_SHORT)?;
    let mut info = IommuInfo::default();
    if flags & VFIO_IOMMU_INFO_PGSIZES != 0 {
        info.page_sizes = u64_at(answer, 8).ok_or(TOO_SHORT)?;
    }
    if flags & VFIO_IOMMU_INFO_CAPS == 0 {
        return Ok(info);
    }
    let first = u32_at(answer, 16).ok_or(TOO_SHORT)?;
    for capability in chain(answer, first)? {
        match u32::from(capability.id) {
            VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                info.ranges = Some(iova_ranges(capability.body)?);
            }
            VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => {
                let available = u32_at(capability.body, 8);
                info.mappings_available =
                    Some(available.ok_or("the capability DMA_AVAIL is cut off")?);
            }
            _ => {}
        }
    }
    Ok(info)
}

/// Takes a `vfio_region_info` and what follows it apart.
pub(in crate::bus) fn region_info(answer: &[u8]) -> Result<RegionInfo, Nonsense> {
    const TOO_SHORT: Nonsense = "it is shorter than its fixed part";
    let mut info = RegionInfo {
        flags: u32_at(answer, 4).ok_or(TOO_SHORT)?,
        len_bytes: u64_at(answer, 16).ok_or(TOO_SHORT)?,
        file_offset: u64_at(answer, 24).ok_or(TOO_SHORT)?,
        ..RegionInfo::default()
    };
    let first = u32_at(answer, 12).ok_or(TOO_SHORT)?;
    // Offset 0 with the flag set: there are capabilities, but the buffer had no room for them.
    if info.flags & VFIO_REGION_INFO_FLAG_CAPS == 0 || first == 0 {
        return Ok(info);
    }
    for capability in chain(answer, first)? {
        match u32::from(capability.id) {
            VFIO_REGION_INFO_CAP_SPARSE_MMAP => {
                info.sparse = Some(sparse_areas(capability.body, info.len_bytes)?);
            }
            VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => info.msix_mappable = true,
            _ => {}
        }
    }
    Ok(info)
}

fn iova_ranges(body: &[u8]) -> Result<Vec<IovaRange>, Nonsense> {
    const CUT: Nonsense = "the capability IOVA_RANGE is cut off";
    let count = u32_at(body, 8).ok_or(CUT)? as usize;
    let pairs = body.get(16..).ok_or(CUT)?.chunks_exact(16).take(count);
    if pairs.len() < count {
        return Err(CUT);
    }
    pairs
        .map(|pair| {
            let (first, last) = u64_at(pair, 0).zip(u64_at(pair, 8)).ok_or(CUT)?;
            if first > last {
                return Err("an IOVA range ends before it starts");
            }
            Ok(IovaRange { first, last })
        })
        .collect()
}

fn sparse_areas(body: &[u8], region_len_bytes: u64) -> Result<Vec<Range<u64>>, Nonsense> {
    const CUT: Nonsense = "the capability SPARSE_MMAP is cut off";
    let count = u32_at(body, 8).ok_or(CUT)? as usize;
    let pairs = body.get(16..).ok_or(CUT)?.chunks_exact(16).take(count);
    if pairs.len() < count {
        return Err(CUT);
    }
    let mut areas = Vec::new();
    for pair in pairs {
        let (offset, len_bytes) = u64_at(pair, 0).zip(u64_at(pair, 8)).ok_or(CUT)?;
        let end = offset.checked_add(len_bytes).filter(|&end| end <= region_len_bytes);
        let end = end.ok_or("a mappable area lies outside its region")?;
        if len_bytes > 0 {
            areas.push(offset..end);
        }
    }
    Ok(areas)
}

/// One capability: `body` starts at its header and reaches to the next one, or to the end.
struct Capability<'a> {
    id: u16,
    body: &'a [u8],
}

fn chain(answer: &[u8], first: u32) -> Result<Vec<Capability<'_>>, Nonsense> {
    const HEADER_LEN: usize = 8;
    let mut found = Vec::new();
    let mut at = first as usize;
    while at != 0 {
        let rest = answer.get(at..).unwrap_or_default();
        let head = u16_at(rest, 0).zip(u32_at(rest, 4));
        let (id, next) = head.ok_or("a capability lies outside the answer")?;
        let next = next as usize;
        // Forward only: then the chain ends, whatever it says.
        if next != 0 && next < at + HEADER_LEN {
            return Err("its chain of capabilities turns back");
        }
        let body = if next == 0 { rest } else { rest.get(..next - at).unwrap_or(rest) };
        found.push(Capability { id, body });
        at = next;
    }
    Ok(found)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Low word, high word of a u64 in the host's order.
    fn halves(value: u64) -> [u32; 2] {
        let bytes = value.to_ne_bytes();
        let (a, b) = bytes.split_at(4);
        [a, b].map(|half| u32::from_ne_bytes(half.try_into().unwrap()))
    }

    fn header(id: u16, next: u32) -> [u32; 2] {
        let [a, b] = id.to_ne_bytes();
        let [c, d] = 1_u16.to_ne_bytes();
        [u32::from_ne_bytes([a, b, c, d]), next]
    }

    /// As Linux 6.12 answers behind an Intel IOMMU with 39 bits: migration (skipped), IOVA ranges
    /// without the interrupt window, and how many mappings are left.
    fn answer() -> Vec<u8> {
        let mut all = vec![0, 3, 0, 0, 24, 0];
        [all[2], all[3]] = halves(0x4020_1000);
        all.extend(header(2, 24 + 32));
        all.extend([0, 0, 0, 0, 0, 0]);
        all.extend(header(1, 24 + 32 + 48));
        all.extend([2, 0]);
        for value in [0, 0xfedf_ffff, 0xfef0_0000, 0x7f_ffff_ffff] {
            all.extend(halves(value));
        }
        all.extend(header(3, 0));
        all.extend([65535]);
        all[0] = all.len() as u32 * 4;
        words(&all)
    }

    #[test]
    fn an_iommu_is_read() {
        assert_eq!(
            iommu_info(&answer()).unwrap(),
            IommuInfo {
                page_sizes: 0x4020_1000,
                ranges: Some(vec![
                    IovaRange { first: 0, last: 0xfedf_ffff },
                    IovaRange { first: 0xfef0_0000, last: 0x7f_ffff_ffff },
                ]),
                mappings_available: Some(65535),
            }
        );
    }

    #[test]
    fn an_old_kernel_says_less() {
        let info = iommu_info(&words(&[16, 1, 0x1000, 0])).unwrap();
        assert_eq!((info.page_sizes, info.ranges, info.mappings_available), (0x1000, None, None));
    }

    #[test]
    fn every_cut_of_an_answer_is_an_error_and_none_a_panic() {
        let whole = answer();
        for len in 0..whole.len() {
            assert!(iommu_info(&whole[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn chains_that_turn_back_or_lead_out_are_refused() {
        for (next, why) in [(24, "turns back"), (31, "turns back"), (4096, "outside")] {
            let mut lying = answer();
            lying[28..32].copy_from_slice(&u32::to_ne_bytes(next));
            let error = iommu_info(&lying).unwrap_err();
            assert!(error.contains(why), "{next}: {error}");
        }
        let mut lying = answer();
        lying[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(iommu_info(&lying).is_err());
    }

    #[test]
    fn counts_beyond_the_capability_are_refused() {
        let mut lying = answer();
        lying[64..68].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(iommu_info(&lying).unwrap_err().contains("IOVA_RANGE"));
        let mut backward = answer();
        backward[72..80].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(iommu_info(&backward).unwrap_err().contains("ends before"));
    }

    fn region(flags: u32, len_bytes: u64, capabilities: &[u32]) -> Vec<u8> {
        let mut all = vec![32 + capabilities.len() as u32 * 4, flags, 0];
        all.push(if capabilities.is_empty() { 0 } else { 32 });
        all.extend(halves(len_bytes));
        all.extend(halves(1 << 40));
        all.extend(capabilities);
        words(&all)
    }

    #[test]
    fn regions_are_read_with_their_sparse_areas() {
        let plain = region_info(&region(7, 0x4000, &[])).unwrap();
        assert_eq!((plain.flags, plain.len_bytes, plain.file_offset), (7, 0x4000, 1 << 40));
        assert_eq!((plain.sparse, plain.msix_mappable), (None, false));

        let mut capabilities = Vec::from(header(3, 32 + 8));
        capabilities.extend(header(1, 0));
        capabilities.extend([3, 0]);
        for value in [0, 0x1000, 0x2000, 0, 0x3000, 0x1000] {
            capabilities.extend(halves(value));
        }
        let sparse = region_info(&region(0xf, 0x4000, &capabilities)).unwrap();
        assert_eq!(sparse.sparse, Some(vec![0..0x1000, 0x3000..0x4000]));
        assert!(sparse.msix_mappable);
        let outside = region_info(&region(0xf, 0x3fff, &capabilities)).unwrap_err();
        assert!(outside.contains("outside its region"), "{outside}");
    }

    proptest! {
        #[test]
        fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..200), first in 0_u32..64) {
            let mut answer = answer;
            for at in [12, 16] {
                if let Some(slot) = answer.get_mut(at..at + 4) {
                    slot.copy_from_slice(&first.to_ne_bytes());
                }
            }
            let _ = iommu_info(&answer);
            let _ = region_info(&answer);
        }
    }
}
