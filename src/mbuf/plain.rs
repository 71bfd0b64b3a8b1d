//! The common case of sending, in as few steps as it takes.
#![expect(unsafe_code, reason = "writes into the headroom of a frame that is given to a device")]

use super::flags::TxFlags;
use super::frame::Mbuf;
use super::lent::Lent;
use crate::memory::Iova;

impl Mbuf {
    /// Gives a plain frame to a device, with `prefix` written right in front of its data: one
    /// segment, not shared, not empty, that asks its device for nothing and has room for `prefix`.
    /// Returns it with the address of the prefix and the length of both.
    ///
    /// The frame itself doesn't change: the device gives it back as it was.
    ///
    /// # Errors
    /// Any other frame comes back.
    #[inline(always)]
    pub fn lend_plain<const N: usize>(self, prefix: [u8; N]) -> Result<(Lent, Iova, u32), Self> {
        let header = self.header();
        let (start, len) = (header.place.data_off, header.meta.data_len);
        let asks = header.meta.flags & TxFlags::ALL != 0;
        if !self.is_single() || asks || len == 0 || usize::from(start) < N {
            return Err(self);
        }
        let at = Iova(header.place.buf_iova + u64::from(start) - N as u64);
        // SAFETY: N bytes from `start - N` on lie inside the buffer, which is this frame's alone.
        unsafe {
            let place = header.place.buf.add(usize::from(start) - N);
            place.cast::<[u8; N]>().write_unaligned(prefix);
        }
        Ok((self.lend(), at, N as u32 + u32::from(len)))
    }
}
