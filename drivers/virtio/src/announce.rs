//! Telling the network where a port is: a device that was moved to another machine asks for it
//! (`VIRTIO_NET_S_ANNOUNCE`, virtio 1.3, 5.1.6.5.4).

use packetboat::mbuf::{Mbuf, MbufPool};
use packetboat::net::MacAddress;

/// A frame without its FCS is at least so long (IEEE 802.3, 4A.4.2).
const LEN_BYTES: usize = 60;

/// "Who am I, `mac`?", to everybody (RARP, RFC 903): switches learn by it where `mac` is. It takes no IP
/// address, and a forwarder has none. `None`: the pool is empty.
pub(crate) fn frame(pool: &MbufPool, mac: MacAddress) -> Option<Mbuf> {
    let parts: [&[u8]; 6] = [
        &MacAddress::BROADCAST.0,
        &mac.0,
        // RARP's type; Ethernet, IPv4, and the lengths of their addresses; request reverse.
        &[0x80, 0x35, 0, 1, 0x08, 0, 6, 4, 0, 3],
        &mac.0,
        &[0; 4], // the sender's IP address, that it doesn't know
        &mac.0,
    ];
    let mut mbuf = pool.alloc()?;
    let place = mbuf.append(LEN_BYTES).ok()?;
    place.fill(0);
    for (byte, value) in place.iter_mut().zip(parts.concat()) {
        *byte = value;
    }
    Some(mbuf)
}
