//! The metadata in front of each buffer: two cache lines, the first for receiving.
#![expect(unsafe_code, reason = "writes a header by its address")]

use std::mem::{align_of, offset_of, size_of};
use std::sync::atomic::AtomicU16;

use super::offload::RxInfo;
use super::pool::Shared;

/// Bytes kept free in front of a received frame, for headers to be put there.
pub const HEADROOM_BYTES: u16 = 128;

/// What stands at the start of each object of an mbuf pool.
///
/// While the mbuf waits in its pool: `refcnt` is 1, `segments` is 1, `next` is null, and the
/// fields marked *fixed* hold what the pool wrote when it was made. So taking one from the pool
/// writes only what receiving writes anyway, all of it in the first line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Header {
    // First line: what an RX queue writes and a simple TX queue reads.
    /// Start of the buffer, headroom included. Fixed.
    pub(super) buf: *mut u8,
    /// What the device calls `buf`. Fixed.
    pub(super) buf_iova: u64,
    /// Where the data begins, from `buf`. `data_off + data_len <= buf_len`, always.
    pub(super) data_off: u16,
    /// Owners. 1 for every mbuf so far: clones by reference count come with a later version.
    pub(super) refcnt: AtomicU16,
    /// Segments in the chain, this one included; meaningful in its first segment.
    pub(super) segments: u16,
    /// The port it was received on.
    pub(super) port: u16,
    /// Offload flags.
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
    /// Bytes from `buf` to the end of the buffer. Fixed.
    pub(super) buf_len: u16,
    /// What a flow director rule said.
    pub(super) mark: u32,
    /// The pool it belongs to. Fixed. The pool's memory outlives every mbuf of it.
    pub(super) pool: *const Shared,

    // Second line: chains and TX offloads.
    /// The chain's next segment, or null.
    pub(super) next: *mut Header,
    /// Header lengths and segment size for TX offloads.
    pub(super) tx_offload: u64,
    /// External buffer's owner, or null.
    pub(super) external: *mut u8,
    /// Bytes of private area between header and buffer.
    pub(super) private_len: u16,
    pub(super) time_sync: u16,
    /// For fields that applications register by name.
    pub(super) dynamic: [u32; 9],
}

const _: () = {
    assert!(size_of::<Header>() == 128, "an mbuf's metadata is two cache lines");
    assert!(align_of::<Header>() == 64);
    assert!(offset_of!(Header, pool) + size_of::<*const Shared>() == 64, "the RX line is full");
    assert!(offset_of!(Header, next) == 64, "chains start on the second line");
    // The four fields that receiving resets stand together: one 8-byte store.
    assert!(offset_of!(Header, data_off) == 16 && offset_of!(Header, port) == 22);
};

impl Header {
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
        // SAFETY: the caller's promise. Side by side in the order of their places, so that the
        // compiler makes wide stores of them.
        unsafe {
            (*header).data_off = data_off;
            (*header).refcnt = AtomicU16::new(1);
            (*header).segments = 1;
            (*header).port = port;
            (*header).flags = info.flags.word();
            (*header).packet_type = info.packet_type.bits();
            (*header).packet_len = data_len.into();
            (*header).data_len = data_len;
            (*header).vlan_tci = info.vlan_tci;
            (*header).rss_hash = info.rss_hash;
        }
    }
}
