//! The private area between an mbuf's header and its buffer.
#![expect(unsafe_code, reason = "makes slices of the area that an Mbuf owns")]

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::frame::Mbuf;
use super::header::Header;

impl Mbuf {
    /// The bytes that the pool's `private_bytes` has set aside for the application. They start on
    /// a cache line, are zero at first, and stay as they are when the mbuf is freed and taken
    /// again.
    #[inline]
    #[must_use]
    pub fn private_bytes(&self) -> &[u8] {
        let len = usize::from(self.meta().private_len);
        // SAFETY: the area is behind the header in the same object, as long as the pool said, and
        // initialised, as the zone's memory is; it is this frame's.
        unsafe {
            let start = self.as_header().as_ptr().cast::<u8>().add(size_of::<Header>());
            std::slice::from_raw_parts(start, len)
        }
    }

    /// The same, to be changed. The area is the header's own, and not shared with the data.
    #[inline]
    pub fn private_bytes_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.meta().private_len);
        // SAFETY: as above, and `&mut self` makes it the only reference.
        unsafe {
            let start = self.as_header().as_ptr().cast::<u8>().add(size_of::<Header>());
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    /// A value at the start of the private area; `None` if the area is too short for it (or it
    /// wants more than the alignment of a cache line).
    ///
    /// ```
    /// # use packetboat::memory::{Memory, MemoryConfig};
    /// # use packetboat::mbuf::{MbufPool, MbufPoolConfig};
    /// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    /// #[repr(C)]
    /// struct Flow { number: u64, hits: u64 }
    /// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
    /// let config = MbufPoolConfig { private_bytes: 16, ..MbufPoolConfig::new("flows", 8) };
    /// let pool = MbufPool::new(&memory, &config)?;
    /// let mut frame = pool.alloc().ok_or("none left")?;
    /// frame.private_mut::<Flow>().ok_or("too short")?.hits += 1;
    /// assert_eq!(frame.private::<Flow>().map(|flow| flow.hits), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn private<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<&T> {
        T::ref_from_prefix(self.private_bytes()).ok().map(|(value, _)| value)
    }

    /// The same, to be changed.
    #[inline]
    pub fn private_mut<T: FromBytes + IntoBytes + KnownLayout + Immutable>(
        &mut self,
    ) -> Option<&mut T> {
        T::mut_from_prefix(self.private_bytes_mut()).ok().map(|(value, _)| value)
    }
}
