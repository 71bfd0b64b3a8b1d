//! The pcapng file format, as far as frames need it (draft-ietf-opsawg-pcapng).

use std::io::{self, Read, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const SIMPLE_PACKET: u32 = 3;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const MAX_BLOCK: usize = 1 << 20;

/// Which way a frame went, as seen from the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the NIC.
    In = 1,
    /// From the NIC.
    Out = 2,
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let len = u32::try_from(12 + body.len() + padding).map_err(io::Error::other)?;
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(body)?;
    out.write_all(&[0; 3][..padding])?;
    out.write_all(&len.to_le_bytes())
}

/// Begins a file with one Ethernet interface whose times are in nanoseconds.
///
/// # Errors
/// As writing.
pub fn write_start(out: &mut impl Write) -> io::Result<()> {
    let mut section = Vec::new();
    section.extend_from_slice(&BYTE_ORDER.to_le_bytes());
    section.extend_from_slice(&[1, 0, 0, 0]);
    section.extend_from_slice(&u64::MAX.to_le_bytes()); // its length isn't known
    block(out, SECTION, &section)?;
    let mut interface = Vec::new();
    interface.extend_from_slice(&ETHERNET.to_le_bytes());
    interface.extend_from_slice(&[0; 6]);
    interface.extend_from_slice(&IF_TSRESOL.to_le_bytes());
    interface.extend_from_slice(&[1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    block(out, INTERFACE, &interface)
}

/// Adds a frame.
///
/// # Errors
/// As writing.
pub fn write_frame(out: &mut impl Write, time_ns: u64, frame: &[u8], way: Way) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut body = Vec::with_capacity(frame.len() + 40);
    body.extend_from_slice(&0u32.to_le_bytes());
    body.extend_from_slice(&((time_ns >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(time_ns as u32).to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(frame);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend_from_slice(&EPB_FLAGS.to_le_bytes());
    body.extend_from_slice(&[4, 0, way as u8, 0, 0, 0, 0, 0, 0, 0]);
    block(out, PACKET, &body)
}

/// All frames of a file, of whatever interface.
///
/// # Errors
/// `InvalidData` if it isn't pcapng in this machine's byte order.
pub fn read_frames(mut file: impl Read) -> io::Result<Vec<Vec<u8>>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut frames = Vec::new();
    let mut head = [0u8; 8];
    let mut first = true;
    loop {
        match file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !first => {
                return Ok(frames);
            }
            Err(error) => return Err(error),
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (kind, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let len = len as usize;
        if first && kind != SECTION {
            return Err(bad("not a pcapng file: it doesn't begin with a section header"));
        }
        if !(12..=MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
            return Err(bad("a block of impossible length, or another byte order"));
        }
        first = false;
        let mut body = vec![0; len - 8];
        file.read_exact(&mut body)?;
        let word = |at: usize| {
            body.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        };
        let frame = match kind {
            SECTION if word(0) != Some(BYTE_ORDER as usize) => {
                return Err(bad("a section in another byte order"));
            }
            PACKET => word(12).and_then(|len| body.get(20..20usize.checked_add(len)?)),
            SIMPLE_PACKET => word(0).and_then(|len| body.get(4..4usize.checked_add(len)?)),
            _ => continue,
        };
        frames.push(frame.ok_or_else(|| bad("a frame that is longer than its block"))?.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut file = Vec::new();
        write_start(&mut file).unwrap();
        let frames: Vec<Vec<u8>> = (60..64).map(|len| vec![len as u8; len]).collect();
        for frame in &frames {
            write_frame(&mut file, 1 << 40, frame, Way::Out).unwrap();
        }
        assert_eq!(read_frames(&file[..]).unwrap(), frames);
        for len in [1, 7, 20, 50, file.len() - 3] {
            let _ = read_frames(&file[..len]); // no panic
        }
        assert!(read_frames(&b"0123456789abcdef"[..]).is_err());
    }
}
