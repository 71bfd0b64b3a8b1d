#![expect(unsafe_code, reason = "hands out registers that point into a mapping")]
//! A span of a device's register space.

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use std::sync::Arc;

use super::register::{Register, Value, Width};

/// A span of device registers: mapped into this process, or reached by messages.
///
/// Cheap to clone; every clone, window and register keeps the mapping or the connection alive.
#[derive(Clone)]
pub struct Region {
    inner: Arc<RegionInner>,
    /// Where this window starts in `inner`, in bytes.
    start: u64,
    len_bytes: u64,
}

/// Register access by messages: a vfio-user socket, a VFIO region that can't be mapped, or a
/// device model in a test.
///
/// Access can't fail visibly, as on a bus: an implementation that has lost its device answers
/// reads with all ones and drops writes.
pub trait RegionIo: Send + Sync {
    /// Reads `width` at `offset` bytes from the region's start; the value stands in the low bits.
    fn read(&self, offset: u64, width: Width) -> u64;
    /// Writes the low `width` of `value` at `offset` bytes from the region's start.
    fn write(&self, offset: u64, width: Width, value: u64);
}

/// A register or window was asked for that the region doesn't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MmioError {
    /// The span doesn't lie within the region.
    #[error(
        "registers {offset:#x}..{:#x} were wanted, but the device's register region has \
         {region_len_bytes:#x} bytes",
        .offset.saturating_add(*.len_bytes)
    )]
    OutOfBounds {
        /// Start of the span, in bytes from the region's start.
        offset: u64,
        /// Length of the span in bytes.
        len_bytes: u64,
        /// What the region has, in bytes.
        region_len_bytes: u64,
    },
    /// The offset isn't a multiple of the register's width.
    #[error(
        "a register of {width_bytes} bytes was wanted at offset {offset:#x}, which isn't a multiple of its width"
    )]
    Misaligned {
        /// Offset in bytes from the region's start.
        offset: u64,
        /// Width in bytes.
        width_bytes: u64,
    },
    /// The register is in a part of the region that is neither mapped nor reachable by messages.
    #[error(
        "the register at offset {offset:#x} is in a part of the region that the kernel doesn't let this process reach"
    )]
    Unreachable {
        /// Offset in bytes from the region's start.
        offset: u64,
    },
}

impl Region {
    /// A region of `len_bytes` whose registers are all reached through `io`.
    pub fn remote(io: Arc<dyn RegionIo>, len_bytes: u64) -> Self {
        let inner = RegionInner { areas: Vec::new(), io: Some(io) };
        Self { inner: Arc::new(inner), start: 0, len_bytes }
    }

    /// A region of which `areas` are mapped; the rest is reached through `io`, if there is one.
    pub(crate) fn mapped(
        areas: Vec<MappedArea>,
        io: Option<Arc<dyn RegionIo>>,
        len_bytes: u64,
    ) -> Self {
        Self { inner: Arc::new(RegionInner { areas, io }), start: 0, len_bytes }
    }

    /// The region's length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// A part of this region, `len_bytes` from `offset`; offsets count from its own start.
    ///
    /// # Errors
    /// [`MmioError::OutOfBounds`] if the part isn't wholly inside.
    pub fn window(&self, offset: u64, len_bytes: u64) -> Result<Self, MmioError> {
        self.check(offset, len_bytes)?;
        Ok(Self { inner: Arc::clone(&self.inner), start: self.start + offset, len_bytes })
    }

    /// The register of type `T` at `offset` bytes.
    ///
    /// # Errors
    /// If it isn't wholly inside, not aligned to its width, or in a part that can't be reached.
    pub fn register<T: Value>(&self, offset: u64) -> Result<Register<T>, MmioError> {
        let width_bytes = T::WIDTH.len_bytes() as u64;
        self.check(offset, width_bytes)?;
        let place = self.start + offset;
        // The bus sees the place in the BAR, so that is what has to be aligned.
        if !place.is_multiple_of(width_bytes) {
            return Err(MmioError::Misaligned { offset: place, width_bytes });
        }
        if let Some(area) = self.inner.areas.iter().find(|area| area.holds(place, width_bytes)) {
            // SAFETY: `holds` says that place..place+width lies in the area, whose maker vouched
            // for the mapping (see `MappedArea::new`); the offset fits isize because the mapping
            // does.
            let pointer = unsafe { area.base.add((place - area.offset) as usize) }.cast::<T>();
            if !pointer.is_aligned() {
                return Err(MmioError::Misaligned { offset: place, width_bytes });
            }
            // SAFETY: valid and aligned as checked above; `inner` owns the area's keeper.
            return Ok(unsafe { Register::mapped(pointer, Arc::clone(&self.inner)) });
        }
        match &self.inner.io {
            Some(io) => Ok(Register::remote(Arc::clone(io), place)),
            None => Err(MmioError::Unreachable { offset: place }),
        }
    }

    fn check(&self, offset: u64, len_bytes: u64) -> Result<(), MmioError> {
        match offset.checked_add(len_bytes) {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => {
                Err(MmioError::OutOfBounds { offset, len_bytes, region_len_bytes: self.len_bytes })
            }
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.inner.areas.is_empty() { "remote" } else { "mapped" };
        write!(f, "Region({how}, {:#x} bytes from {:#x})", self.len_bytes, self.start)
    }
}

/// What all windows and registers of one region share.
pub(super) struct RegionInner {
    areas: Vec<MappedArea>,
    io: Option<Arc<dyn RegionIo>>,
}

/// A mapped part of a region.
pub(crate) struct MappedArea {
    /// Where in the region it starts, in bytes.
    offset: u64,
    len_bytes: u64,
    base: NonNull<u8>,
    /// Whatever unmaps when dropped.
    _keep: Arc<dyn Any + Send + Sync>,
}

impl MappedArea {
    /// The part of a region from `offset` (bytes) that is mapped at `base`.
    ///
    /// # Safety
    /// `base..base+len_bytes` must stay mapped readable and writable, and be accessed by nobody
    /// through references, as long as `keep` lives.
    pub(crate) unsafe fn new(
        offset: u64,
        len_bytes: u64,
        base: NonNull<u8>,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { offset, len_bytes, base, _keep: keep }
    }

    fn holds(&self, place: u64, len_bytes: u64) -> bool {
        place
            .checked_sub(self.offset)
            .and_then(|from| from.checked_add(len_bytes))
            .is_some_and(|end| end <= self.len_bytes)
    }
}

// SAFETY: the pointer leads to a mapping that belongs to no thread and that `_keep` keeps; access
// is by volatile loads and stores only.
unsafe impl Send for MappedArea {}
// SAFETY: as for Send; a shared MappedArea gives out addresses only.
unsafe impl Sync for MappedArea {}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// 64 bytes of memory that play a mapped BAR; `u64` for the alignment.
    fn mapped(areas: &[(u64, u64)], io: Option<Arc<dyn RegionIo>>) -> (Region, NonNull<u64>) {
        let memory = NonNull::from(Box::leak(Box::new([0_u64; 8]))).cast::<u64>();
        struct Owner(NonNull<u64>);
        // SAFETY: the pointer is only used to free the box, once.
        unsafe impl Send for Owner {}
        // SAFETY: as above.
        unsafe impl Sync for Owner {}
        impl Drop for Owner {
            fn drop(&mut self) {
                // SAFETY: made by Box::leak of a [u64; 8] in `mapped`, freed here only.
                drop(unsafe { Box::from_raw(self.0.cast::<[u64; 8]>().as_ptr()) });
            }
        }
        let keep: Arc<dyn Any + Send + Sync> = Arc::new(Owner(memory));
        let areas = areas
            .iter()
            .map(|&(offset, len)| {
                // SAFETY: the box lives as long as `keep`, and areas stay inside its 64 bytes.
                unsafe {
                    let base = memory.cast::<u8>().add(offset as usize);
                    MappedArea::new(offset, len, base, Arc::clone(&keep))
                }
            })
            .collect();
        (Region::mapped(areas, io, 64), memory)
    }

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u64, Width, Option<u64>)>>);

    impl RegionIo for Recorder {
        fn read(&self, offset: u64, width: Width) -> u64 {
            self.0.lock().unwrap().push((offset, width, None));
            0x8877_6655_4433_2211
        }
        fn write(&self, offset: u64, width: Width, value: u64) {
            self.0.lock().unwrap().push((offset, width, Some(value)));
        }
    }

    #[test]
    fn mapped_registers_are_little_endian_and_as_wide_as_asked() {
        let (region, memory) = mapped(&[(0, 64)], None);
        region.register::<u32>(4).unwrap().write(0x1122_3344);
        region.register::<u8>(1).unwrap().write(0xaa);
        region.register::<u16>(2).unwrap().write_after_dma(0xbbcc);
        // SAFETY: the region still lives, so the memory does.
        let bytes = unsafe { memory.read_volatile() }.to_ne_bytes();
        assert_eq!(bytes, [0, 0xaa, 0xcc, 0xbb, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(region.register::<u64>(0).unwrap().read(), 0x1122_3344_bbcc_aa00);
        assert_eq!(region.register::<u16>(6).unwrap().read_before_dma(), 0x1122);
    }

    #[test]
    fn a_register_outlives_its_region() {
        let (region, _) = mapped(&[(0, 64)], None);
        let register = region.window(8, 8).unwrap().register::<u32>(4).unwrap();
        drop(region);
        register.clone().write(7);
        assert_eq!(register.read(), 7);
    }

    #[test]
    fn windows_shift_offsets_and_bound_them() {
        let (region, memory) = mapped(&[(0, 64)], None);
        let inner = region.window(16, 32).unwrap().window(8, 8).unwrap();
        assert_eq!(inner.len_bytes(), 8);
        inner.register::<u64>(0).unwrap().write(9);
        // SAFETY: inside the 64 bytes, which live as long as the region.
        assert_eq!(unsafe { memory.add(3).read_volatile() }, 9);
        let beyond = inner.register::<u64>(8).unwrap_err();
        assert_eq!(beyond, MmioError::OutOfBounds { offset: 8, len_bytes: 8, region_len_bytes: 8 });
    }

    #[test]
    fn bounds_and_alignment_are_checked() {
        let (region, _) = mapped(&[(0, 64)], None);
        assert!(region.register::<u64>(56).is_ok());
        for offset in [57, 64, u64::MAX - 3, u64::MAX] {
            assert!(matches!(region.register::<u64>(offset), Err(MmioError::OutOfBounds { .. })));
        }
        assert!(matches!(region.window(1, u64::MAX), Err(MmioError::OutOfBounds { .. })));
        assert_eq!(
            region.register::<u32>(6).unwrap_err(),
            MmioError::Misaligned { offset: 6, width_bytes: 4 }
        );
        // An odd window shifts what is aligned on the bus.
        let odd = region.window(2, 8).unwrap();
        assert!(odd.register::<u32>(0).is_err());
        assert!(odd.register::<u32>(2).is_ok());
    }

    #[test]
    fn remote_registers_pass_place_and_width() {
        let recorder = Arc::new(Recorder::default());
        let region = Region::remote(Arc::clone(&recorder) as Arc<dyn RegionIo>, 0x100);
        let window = region.window(0x40, 0x20).unwrap();
        assert_eq!(window.register::<u16>(2).unwrap().read(), 0x2211);
        window.register::<u64>(8).unwrap().write(5);
        let seen = recorder.0.lock().unwrap();
        assert_eq!(*seen, [(0x42, Width::U16, None), (0x48, Width::U64, Some(5))]);
    }

    #[test]
    fn what_is_not_mapped_goes_by_message_or_is_refused() {
        let recorder = Arc::new(Recorder::default());
        let io = Arc::clone(&recorder) as Arc<dyn RegionIo>;
        let (region, _) = mapped(&[(0, 16), (32, 32)], Some(io));
        region.register::<u32>(12).unwrap().write(1);
        region.register::<u32>(32).unwrap().write(2);
        assert!(recorder.0.lock().unwrap().is_empty());
        region.register::<u32>(16).unwrap().write(3);
        assert_eq!(*recorder.0.lock().unwrap(), [(16, Width::U32, Some(3))]);

        let (region, _) = mapped(&[(0, 16)], None);
        assert_eq!(region.register::<u32>(16).unwrap_err(), MmioError::Unreachable { offset: 16 });
    }
}
