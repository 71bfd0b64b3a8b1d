//! Looking at a frame: a dump for people, a check of everything that must be true of it.
#![expect(unsafe_code, reason = "looks at the headers of a frame's segments")]

use std::fmt::{self, Write as _};

use super::chain::MAX_SEGMENTS;
use super::flags::{RxFlags, TxFlags};
use super::frame::Mbuf;
use super::header::{Header, Kind};

/// What is wrong with a frame. Segments are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A header without a pool, or without a buffer.
    #[error("segment {segment}: no {what}")]
    Missing {
        /// Which one.
        segment: usize,
        /// What isn't there.
        what: &'static str,
    },
    /// Data that isn't in its buffer.
    #[error("segment {segment}: {len} bytes of data from {offset} on, in a buffer of {buf_len}")]
    Data {
        /// Which one.
        segment: usize,
        /// Where they begin.
        offset: u16,
        /// How many they are.
        len: u16,
        /// How long the buffer is.
        buf_len: u16,
    },
    /// A count of owners that doesn't go with whose buffer it is.
    #[error("segment {segment}: {owners} owners of a buffer that is {whose}")]
    Owners {
        /// Which one.
        segment: usize,
        /// What the header says.
        owners: u16,
        /// Its own, or another's.
        whose: &'static str,
    },
    /// Another number of segments than the first one says, or more than there can be.
    #[error(
        "a chain of {found} segments at least, where {said} are said, and at most {MAX_SEGMENTS} can be"
    )]
    Segments {
        /// What the first one says.
        said: usize,
        /// What there are.
        found: usize,
    },
    /// Another length than the first segment says.
    #[error("{found} bytes in the chain, where {said} are said")]
    Length {
        /// What the first segment says.
        said: usize,
        /// Sum over the segments.
        found: usize,
    },
}

impl Mbuf {
    /// Whether everything that must be true of the frame is: of each segment's buffer, data and
    /// owners, and of the counts for the whole. Safe code can't break it; this is for tests, and
    /// for whoever suspects a device or other people's `unsafe`. DPDK's `rte_mbuf_check`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        let said = self.segment_count();
        let (mut found, mut len_bytes) = (0, 0);
        for header in self.headers() {
            if found == said.min(MAX_SEGMENTS) {
                return Err(CheckError::Segments { said, found: found + 1 });
            }
            // SAFETY: a segment of this frame.
            check_segment(found, unsafe { &*header })?;
            // SAFETY: as above.
            len_bytes += usize::from(unsafe { (*header).meta.data_len });
            found += 1;
        }
        if found != said {
            return Err(CheckError::Segments { said, found });
        }
        let said = self.len_bytes();
        if len_bytes != said {
            return Err(CheckError::Length { said, found: len_bytes });
        }
        Ok(())
    }

    /// The frame in words and its first `most` bytes in hexadecimal, for people. DPDK's
    /// `rte_pktmbuf_dump`.
    ///
    /// ```
    /// # use packetboat::memory::{Memory, MemoryConfig};
    /// # use packetboat::mbuf::{MbufPool, MbufPoolConfig};
    /// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
    /// # let pool = MbufPool::new(&memory, &MbufPoolConfig::new("dumped", 8))?;
    /// let mut frame = pool.alloc().ok_or("none left")?;
    /// frame.append(20)?.copy_from_slice(b"a frame of 20 bytes.");
    /// assert_eq!(
    ///     frame.dump(usize::MAX).to_string(),
    ///     "frame of 20 bytes in 1 segment, port none, type unknown\n\
    ///      segment 0 of pool \"dumped\": 20 bytes, headroom 128, tailroom 2028\n\
    ///      0000  61 20 66 72 61 6d 65 20  6f 66 20 32 30 20 62 79  |a frame of 20 by|\n\
    ///      0010  74 65 73 2e                                       |tes.|\n"
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn dump(&self, most: usize) -> Dump<'_> {
        Dump { mbuf: self, most }
    }
}

fn check_segment(segment: usize, header: &Header) -> Result<(), CheckError> {
    let (place, meta) = (&header.place, &header.meta);
    for (missing, what) in [(meta.pool.is_null(), "pool"), (place.buf.is_null(), "buffer")] {
        if missing {
            return Err(CheckError::Missing { segment, what });
        }
    }
    let (offset, len, buf_len) = (place.data_off, meta.data_len, meta.buf_len);
    if u32::from(offset) + u32::from(len) > u32::from(buf_len) {
        return Err(CheckError::Data { segment, offset, len, buf_len });
    }
    let owners = header.owners.count();
    let whose = match meta.kind {
        Kind::Own if owners == 0 => "its own",
        Kind::Clone | Kind::External if owners != 0 => "another's",
        Kind::Clone | Kind::External if meta.source.is_null() => {
            return Err(CheckError::Missing { segment, what: "owner of the buffer" });
        }
        _ => return Ok(()),
    };
    Err(CheckError::Owners { segment, owners, whose })
}

/// Shows a frame: see [`Mbuf::dump`].
#[derive(Debug)]
pub struct Dump<'a> {
    mbuf: &'a Mbuf,
    most: usize,
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mbuf = self.mbuf;
        let (count, len) = (mbuf.segment_count(), mbuf.len_bytes());
        let segments = if count == 1 { "segment" } else { "segments" };
        write!(f, "frame of {len} bytes in {count} {segments}, port ")?;
        match mbuf.port() {
            u16::MAX => f.write_str("none")?,
            port => write!(f, "{port}")?,
        }
        write!(f, ", type {}", mbuf.packet_type())?;
        if mbuf.rx_flags() != RxFlags::NONE {
            write!(f, ", {:?}", mbuf.rx_flags())?;
        }
        if mbuf.tx_flags() != TxFlags::NONE {
            write!(f, ", {:?}", mbuf.tx_flags())?;
        }
        f.write_char('\n')?;
        let mut left = self.most;
        for ((nth, header), data) in mbuf.headers().enumerate().zip(mbuf.segments()) {
            // SAFETY: a segment of this frame; its pool outlives it.
            let (header, pool) = unsafe { (&*header, (*(*header).meta.pool).objects.name()) };
            let (headroom, len) = (header.place.data_off, header.meta.data_len);
            let tailroom = usize::from(header.meta.buf_len)
                .saturating_sub(usize::from(headroom) + usize::from(len));
            write!(f, "segment {nth} of pool {pool:?}: {len} bytes, headroom {headroom}")?;
            write!(f, ", tailroom {tailroom}")?;
            match header.meta.kind {
                Kind::Own if header.owners.count() > 1 => {
                    write!(f, ", {} owners", header.owners.count())?;
                }
                Kind::Own => {}
                Kind::Clone => f.write_str(", in another mbuf's buffer")?,
                Kind::External => f.write_str(", in external memory")?,
            }
            f.write_char('\n')?;
            let shown = data.len().min(left);
            left -= shown;
            for (line, bytes) in data.get(..shown).unwrap_or_default().chunks(16).enumerate() {
                hex_line(f, line * 16, bytes)?;
            }
        }
        Ok(())
    }
}

/// Offset, up to 16 bytes in two groups, and what of them is text.
fn hex_line(f: &mut fmt::Formatter<'_>, offset: usize, bytes: &[u8]) -> fmt::Result {
    write!(f, "{offset:04x} ")?;
    for nth in 0..16 {
        let gap = if nth == 8 { "  " } else { " " };
        match bytes.get(nth) {
            Some(byte) => write!(f, "{gap}{byte:02x}")?,
            None => write!(f, "{gap}  ")?,
        }
    }
    f.write_str("  |")?;
    for &byte in bytes {
        let shown = byte.is_ascii_graphic() || byte == b' ';
        f.write_char(if shown { byte.into() } else { '.' })?;
    }
    f.write_str("|\n")
}
