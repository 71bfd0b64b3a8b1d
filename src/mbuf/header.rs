//! The metadata in front of each buffer: two cache lines, the first for receiving.
#![expect(unsafe_code, reason = "writes a header by its address")]

use std::ptr::null_mut;

use super::offload::RxInfo;
use super::owners::Owners;
use super::pool::Shared;

/// Bytes kept free in front of a received frame, for headers to be put there.
pub const HEADROOM_BYTES: u16 = 128;

/// What stands at the start of each object of an mbuf pool.
///
/// It has three parts, so that a holder may change what is in the first and the last while others
/// count themselves out of the middle one: see [`Owners`].
///
/// While the mbuf waits in its pool: it is single, `next` is null, the buffer is its own, and the
/// fields marked *fixed* hold what the pool wrote when it was made. So taking one from the pool
/// writes only what receiving writes anyway, all of it in the first line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Header {
    pub(super) place: Place,
    pub(super) owners: Owners,
    pub(super) meta: Meta,
}

/// Where the data is. Packed, so that `owners` follows without a gap; the header's own alignment is
/// the one that counts.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Place {
    /// Start of the buffer, headroom included. Fixed, unless another's buffer is used.
    pub(super) buf: *mut u8,
    /// What the device calls `buf`. Fixed likewise.
    pub(super) buf_iova: u64,
    /// Where the data begins, from `buf`. `data_off + data_len <= buf_len`, always.
    pub(super) data_off: u16,
    /// The port it was received on.
    pub(super) port: u16,
}

/// What there is to say of the frame.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Meta {
    // The rest of the first line: what an RX queue writes and a simple TX queue reads.
    /// Offload flags, and those registered by name.
    pub(super) flags: u64,
    /// Packet type as the NIC reported it.
    pub(super) packet_type: u32,
    /// Data in the whole chain, in bytes; meaningful in its first segment.
    pub(super) packet_len: u32,
    /// Data in this segment, in bytes.
    pub(super) data_len: u16,
    /// VLAN tag control information.
    pub(super) vlan_tci: u16,
    /// RSS hash.
    pub(super) rss_hash: u32,
    /// Outer VLAN tag control information.
    pub(super) vlan_tci_outer: u16,
    /// Bytes from `buf` to the end of the buffer. Fixed, unless another's buffer is used.
    pub(super) buf_len: u16,
    /// What a flow director rule said.
    pub(super) mark: u32,
    /// The pool it belongs to. Fixed. The pool's memory outlives every mbuf of it.
    pub(super) pool: *const Shared,

    // Second line: chains, TX offloads, and what only some programs use.
    /// The chain's next segment, or null.
    pub(super) next: *mut Header,
    /// Header lengths and segment size for TX offloads.
    pub(super) tx_offload: u64,
    /// Whose buffer it uses: by `kind` nobody else's (null), an mbuf's (its [`Header`]), or
    /// external memory (an [`super::external::Owner`] by its Arc).
    pub(super) source: *mut (),
    pub(super) kind: Kind,
    /// Bytes of private area between header and buffer. Fixed.
    pub(super) private_len: u16,
    /// For fields that applications register by name: see [`super::dynamic`].
    pub(super) dynamic: [u32; DYNAMIC_WORDS],
}

/// Words of 4 bytes for fields that are registered by name.
pub(super) const DYNAMIC_WORDS: usize = 9;

/// Whose buffer an mbuf uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Its own.
    Own,
    /// Another mbuf's.
    Clone,
    /// Memory that is no pool's.
    External,
}

#[cfg(not(loom))] // loom's atomics are larger
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    const META: usize = offset_of!(Header, meta);
    assert!(size_of::<Header>() == 128, "an mbuf's metadata is two cache lines");
    assert!(align_of::<Header>() == 64);
    assert!(META + offset_of!(Meta, pool) + size_of::<*const Shared>() == 64, "line 1 is full");
    assert!(META + offset_of!(Meta, next) == 64, "chains start on the second line");
    assert!(META + offset_of!(Meta, dynamic) == 92, "fields by name are at the end");
    // What receiving writes stands together: 8-byte stores, or wider.
    assert!(offset_of!(Place, data_off) == 16 && META == 24);
    assert!(offset_of!(Place, port) == 18 && offset_of!(Header, owners) == 20);
    assert!(offset_of!(Meta, flags) == 0 && offset_of!(Meta, packet_type) == 8);
    assert!(offset_of!(Meta, packet_len) == 12 && offset_of!(Meta, data_len) == 16);
    assert!(offset_of!(Meta, vlan_tci) == 18 && offset_of!(Meta, rss_hash) == 20);
};

impl Header {
    /// A new one, for a buffer behind it in the same object.
    pub(super) fn new(
        buf: *mut u8,
        buf_iova: u64,
        buf_len: u16,
        private_len: u16,
        pool: *const Shared,
    ) -> Self {
        Self {
            place: Place { buf, buf_iova, data_off: HEADROOM_BYTES, port: u16::MAX },
            owners: Owners::single(),
            meta: Meta {
                flags: 0,
                packet_type: 0,
                packet_len: 0,
                data_len: 0,
                vlan_tci: 0,
                rss_hash: 0,
                vlan_tci_outer: 0,
                buf_len,
                mark: 0,
                pool,
                next: null_mut(),
                tx_offload: 0,
                source: null_mut(),
                kind: Kind::Own,
                private_len,
                dynamic: [0; DYNAMIC_WORDS],
            },
        }
    }

    /// Writes what receiving writes: the data's place, and what the device said.
    ///
    /// # Safety
    /// The header is the caller's alone, as it was in its pool; the data lies inside the buffer.
    #[inline(always)]
    pub(super) unsafe fn receive(
        header: *mut Self,
        data_off: u16,
        data_len: u16,
        port: u16,
        info: RxInfo,
    ) {
        // One store for each 8 bytes.
        #[cfg(not(loom))]
        {
            let [one, segment] = Owners::SINGLE_HALVES;
            let first = word([data_off, port, one, segment]);
            let [low, high] = halves(info.packet_type.bits());
            let [len_low, len_high] = halves(u32::from(data_len));
            let third = word([low, high, len_low, len_high]);
            let [hash_low, hash_high] = halves(info.rss_hash);
            let fourth = word([data_len, info.vlan_tci, hash_low, hash_high]);
            // SAFETY: the caller's promise; the fields stand where the assertions say.
            unsafe {
                let words = header.cast::<u64>();
                words.add(2).write(first);
                words.add(3).write(info.flags.word());
                words.add(4).write(third);
                words.add(5).write(fourth);
            }
        }
        #[cfg(loom)]
        // SAFETY: the caller's promise.
        unsafe {
            let place = &raw mut (*header).place;
            (*place).data_off = data_off;
            (*place).port = port;
            (&raw mut (*header).owners).write(Owners::single());
            let meta = &raw mut (*header).meta;
            (*meta).flags = info.flags.word();
            (*meta).packet_type = info.packet_type.bits();
            (*meta).packet_len = data_len.into();
            (*meta).data_len = data_len;
            (*meta).vlan_tci = info.vlan_tci;
            (*meta).rss_hash = info.rss_hash;
        }
    }
}

/// Four fields that stand side by side, the first at the lowest address.
#[cfg(not(loom))]
#[inline(always)]
fn word(fields: [u16; 4]) -> u64 {
    let [a, b, c, d] = fields.map(u64::from);
    match cfg!(target_endian = "little") {
        true => a | b << 16 | c << 32 | d << 48,
        false => d | c << 16 | b << 32 | a << 48,
    }
}

/// A field of 32 bits as two of 16, the first at the lower address.
#[cfg(not(loom))]
#[inline(always)]
fn halves(field: u32) -> [u16; 2] {
    match cfg!(target_endian = "little") {
        true => [field as u16, (field >> 16) as u16],
        false => [(field >> 16) as u16, field as u16],
    }
}
