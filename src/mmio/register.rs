#![expect(unsafe_code, reason = "volatile access to mapped device registers")]
//! One register of a device, and the widths that a register can have.

use core::fmt;
use core::ptr::NonNull;
use std::sync::Arc;

use super::order::{order_dma_reads, order_dma_writes};
use super::region::{RegionInner, RegionIo};

/// One register: where it is, and that access to it is allowed, were settled when
/// [`Region::register`](super::Region::register) made it.
///
/// Keeps its region's mapping (or connection) alive.
pub struct Register<T> {
    place: Place<T>,
}

enum Place<T> {
    /// `pointer` is valid and aligned for `T` as long as `keep` lives.
    Mapped {
        pointer: NonNull<T>,
        keep: Arc<RegionInner>,
    },
    Remote {
        io: Arc<dyn RegionIo>,
        offset: u64,
    },
}

impl<T: Value> Register<T> {
    /// Reads the register: exactly one access of its width.
    ///
    /// The compiler neither drops, repeats nor reorders it against other register accesses.
    /// Nothing is said about DMA memory: see [`read_before_dma`](Self::read_before_dma).
    /// A device that has gone from its slot reads as all ones.
    #[inline]
    pub fn read(&self) -> T {
        match &self.place {
            // SAFETY: `mapped` was given a pointer valid and aligned for T while `keep` lives,
            // and `self` holds `keep`.
            Place::Mapped { pointer, .. } => T::from_device(unsafe { pointer.read_volatile() }),
            Place::Remote { io, offset } => T::from_bits(io.read(*offset, T::WIDTH)),
        }
    }

    /// Writes the register: exactly one access of its width.
    ///
    /// In order with other register accesses of this thread. A device that is to fetch memory
    /// because of this write needs [`write_after_dma`](Self::write_after_dma) instead.
    #[inline]
    pub fn write(&self, value: T) {
        match &self.place {
            // SAFETY: as in `read`; device registers are shared with the device only, and access
            // is by volatile loads and stores from every thread, never by reference.
            Place::Mapped { pointer, .. } => unsafe { pointer.write_volatile(value.to_device()) },
            Place::Remote { io, offset } => io.write(*offset, T::WIDTH, value.to_bits()),
        }
    }

    /// A doorbell: whatever this thread wrote to DMA memory before is visible to the device when
    /// the write reaches it.
    #[inline]
    pub fn write_after_dma(&self, value: T) {
        order_dma_writes();
        self.write(value);
    }

    /// Reads the register, before any read of DMA memory that follows.
    #[inline]
    pub fn read_before_dma(&self) -> T {
        let value = self.read();
        order_dma_reads();
        value
    }

    /// # Safety
    /// `pointer` must be valid for volatile reads and writes of `T`, and aligned for it, as long
    /// as `keep` lives.
    pub(super) unsafe fn mapped(pointer: NonNull<T>, keep: Arc<RegionInner>) -> Self {
        Self { place: Place::Mapped { pointer, keep } }
    }

    pub(super) fn remote(io: Arc<dyn RegionIo>, offset: u64) -> Self {
        Self { place: Place::Remote { io, offset } }
    }
}

// SAFETY: the pointer leads to device registers, which belong to no thread; the mapping lives as
// long as `keep`, an Arc of a Send + Sync type.
unsafe impl<T: Value> Send for Register<T> {}
// SAFETY: reads and writes through a shared reference are single volatile accesses of register
// width, which the bus performs one after the other whichever thread they come from.
unsafe impl<T: Value> Sync for Register<T> {}

impl<T> Clone for Register<T> {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Mapped { pointer, keep } => {
                Place::Mapped { pointer: *pointer, keep: Arc::clone(keep) }
            }
            Place::Remote { io, offset } => Place::Remote { io: Arc::clone(io), offset: *offset },
        };
        Self { place }
    }
}

impl<T> fmt::Debug for Register<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Mapped { pointer, .. } => write!(f, "Register(mapped at {pointer:p})"),
            Place::Remote { offset, .. } => write!(f, "Register(remote at {offset:#x})"),
        }
    }
}

/// How wide one access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 8 bits.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// 64 bits.
    U64,
}

impl Width {
    /// The width in bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }
}

/// What a register can hold: `u8`, `u16`, `u32` or `u64`. Devices are little-endian.
pub trait Value: Copy + Send + Sync + 'static + sealed::Sealed {
    /// The width of one access.
    const WIDTH: Width;
    /// From the device's byte order to the host's.
    fn from_device(raw: Self) -> Self;
    /// From the host's byte order to the device's.
    fn to_device(self) -> Self;
    /// From the low bits of `bits`; higher ones are ignored.
    fn from_bits(bits: u64) -> Self;
    /// Zero-extended to 64 bits.
    fn to_bits(self) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! value {
    ($type:ty, $width:expr) => {
        impl sealed::Sealed for $type {}
        impl Value for $type {
            const WIDTH: Width = $width;
            #[inline(always)]
            fn from_device(raw: Self) -> Self {
                Self::from_le(raw)
            }
            #[inline(always)]
            fn to_device(self) -> Self {
                self.to_le()
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(self)
            }
        }
    };
}

value!(u8, Width::U8);
value!(u16, Width::U16);
value!(u32, Width::U32);
value!(u64, Width::U64);
