//! What stands in front of every frame in a virtqueue (virtio 1.3, 5.1.6).

/// Bytes of `struct virtio_net_hdr` with `num_buffers`, as every VERSION_1 device has it. All zero
/// for a frame that asks for no offload.
pub(crate) const HEADER_BYTES: u16 = 12;

/// A header that asks for nothing.
pub(crate) const PLAIN: [u8; HEADER_BYTES as usize] = [0; HEADER_BYTES as usize];

/// How many buffers a received frame is spread over: the last field of its header.
#[inline(always)]
pub(crate) fn buffer_count(header: &[u8]) -> u16 {
    match header.get(10..12) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    }
}
