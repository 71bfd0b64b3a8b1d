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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{HEADROOM_BYTES, MbufPool, MbufPoolConfig};
    use crate::memory::{Memory, MemoryConfig};

    #[test]
    fn a_plain_frame_goes_out_behind_its_prefix_and_comes_back_as_it_was() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("plain", 4)).unwrap();
        let mut mbuf = pool.alloc().unwrap();
        mbuf.append(60).unwrap().fill(7);
        let (lent, at, len) = mbuf.lend_plain([1, 2, 3]).unwrap();
        let (data_at, data_len) = lent.data_iova();
        assert_eq!((at.0 + 3, len, data_len), (data_at.0, 63, 60));
        let mut mbuf = lent.take_back();
        assert_eq!((mbuf.len_bytes(), mbuf.headroom_bytes()), (60, usize::from(HEADROOM_BYTES)));
        assert_eq!(mbuf.data(), [7; 60]);
        assert_eq!(mbuf.prepend(3).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn any_other_frame_comes_back() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("plain", 8)).unwrap();
        let full = || {
            let mut mbuf = pool.alloc().unwrap();
            mbuf.append(60).unwrap().fill(7);
            mbuf
        };
        let empty = pool.alloc().unwrap();
        let mut chain = full();
        chain.chain(full()).map_err(|(error, _)| error).unwrap();
        let mut no_room = full();
        no_room.prepend(usize::from(HEADROOM_BYTES) - 2).unwrap();
        let mut asks = full();
        asks.insert_vlan(5);
        let shared = full();
        let second = shared.share(&pool).unwrap();
        for (mbuf, why) in [
            (empty, "empty"),
            (chain, "a chain"),
            (no_room, "no room in front"),
            (asks, "asks for something"),
            (shared, "shares its data"),
            (second, "has another's data"),
        ] {
            assert!(mbuf.lend_plain([0; 3]).is_err(), "{why}");
        }
    }
}
