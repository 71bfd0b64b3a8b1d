//! When a forwarder begins to forward, seen from outside.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use crate::frame::{Label, MIN_LEN_BYTES, Mac, Recipe};
use crate::stream::{Event, FrameReader, write_frame};

/// Pause between frames: how exact the answer is.
const STEP: Duration = Duration::from_millis(2);

/// Sends a frame to `mac` over `into` again and again until one of them comes out at `out`. Those
/// that come too early are dropped by QEMU, and no more are sent than the socket takes.
///
/// # Errors
/// What the sockets report, `TimedOut` if none came within `timeout`.
pub(crate) fn first_frame(
    mut into: UnixStream,
    out: UnixStream,
    mac: Mac,
    timeout: Duration,
) -> io::Result<SystemTime> {
    let recipe = Recipe {
        run: crate::unix_now().as_millis() as u32,
        flows: 1,
        min_len_bytes: MIN_LEN_BYTES,
        max_len_bytes: MIN_LEN_BYTES,
        port_macs: vec![mac],
    };
    let end = Instant::now() + timeout;
    into.set_write_timeout(Some(timeout))?;
    out.set_read_timeout(Some(STEP))?;
    let mut frames = FrameReader::new(out);
    let mut seq = 0;
    loop {
        match frames.next()? {
            Event::Frame(frame)
                if Label::read(frame).is_some_and(|label| label.run == recipe.run) =>
            {
                return Ok(SystemTime::now());
            }
            Event::Frame(_) => {}
            Event::Nothing if Instant::now() < end => {
                write_frame(&mut into, &recipe.build(0, seq))?;
                seq += 1;
            }
            Event::Nothing => {
                let message = format!("wanted a frame within {} s, found none", timeout.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            Event::Closed => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "QEMU closed the connection"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_first_frame_that_comes_back_counts() {
        let (into, from) = UnixStream::pair().expect("pair");
        let (to, out) = UnixStream::pair().expect("pair");
        let before = SystemTime::now();
        let guest = thread::spawn(move || {
            let (mut frames, mut to) = (FrameReader::new(from), to);
            let mut dropped = 0;
            while let Ok(Event::Frame(frame)) = frames.next() {
                if dropped == 10 {
                    write_frame(&mut to, &[0; 60]).expect("a stranger first");
                    write_frame(&mut to, frame).expect("write");
                    return SystemTime::now();
                }
                dropped += 1;
            }
            before
        });
        let at = first_frame(into, out, Mac([2; 6]), Duration::from_secs(5)).expect("comes");
        let sent = guest.join().expect("guest");
        assert!(at >= before + 10 * STEP, "ten frames were dropped first");
        assert!(at.duration_since(sent).unwrap_or_default() < Duration::from_secs(1));
    }

    #[test]
    fn none_is_an_error_in_bounded_time() {
        let (into, _from) = UnixStream::pair().expect("pair");
        let (_to, out) = UnixStream::pair().expect("pair");
        let error =
            first_frame(into, out, Mac([2; 6]), Duration::from_millis(50)).expect_err("none");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
