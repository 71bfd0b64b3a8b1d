//! Frames to a guest that sends each one back with its addresses exchanged: how many come back says
//! what its NIC let in.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::frame::{MIN_LEN_BYTES, Mac};
use crate::stream::{Event, FrameReader, write_frame};

/// Where the frames come from.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// IEEE 802.1Q, and IEEE 802 local experimental 1.
const VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo {
    /// To whom.
    pub(crate) to: Mac,
    /// Tagged so.
    pub(crate) vlan: Option<u16>,
    /// How many, and how many of them may be on their way.
    pub(crate) frames: u32,
    pub(crate) window: usize,
    /// What is on its way is given up after so long without a frame.
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Echoed {
    /// Sent.
    pub(crate) sent: u32,
    /// Came back, each in its turn and as it should be.
    pub(crate) back: u32,
    /// Came back otherwise, or weren't ours.
    pub(crate) wrong: u32,
    /// Weren't ours: from RARP's type, the addresses that announced themselves.
    pub(crate) announced: Vec<Mac>,
}

impl Echo {
    fn frame(&self, run: u32, number: u32) -> Vec<u8> {
        let mut frame = [self.to.0, SENDER].concat();
        if let Some(vlan) = self.vlan {
            frame.extend(VLAN);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ETHERTYPE);
        frame.extend(run.to_be_bytes());
        frame.extend(number.to_be_bytes());
        frame.resize(usize::from(MIN_LEN_BYTES), number as u8);
        frame
    }

    /// Sends, and counts what comes back.
    ///
    /// # Errors
    /// What the socket reports.
    pub(crate) fn run(&self, mut socket: UnixStream) -> io::Result<Echoed> {
        let run = crate::unix_now().as_micros() as u32;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut frames = FrameReader::new(socket.try_clone()?);
        let mut outstanding: VecDeque<u32> = VecDeque::new();
        let mut found = Echoed::default();
        let mut last = Instant::now();
        while found.sent < self.frames || !outstanding.is_empty() {
            while found.sent < self.frames && outstanding.len() < self.window {
                write_frame(&mut socket, &self.frame(run, found.sent))?;
                outstanding.push_back(found.sent);
                found.sent += 1;
            }
            match frames.next()? {
                Event::Frame(frame) => {
                    last = Instant::now();
                    self.judge(run, frame, &mut outstanding, &mut found);
                }
                Event::Nothing if last.elapsed() > self.patience => {
                    outstanding.clear();
                    last = Instant::now();
                }
                Event::Nothing => {}
                Event::Closed => {
                    let what = "QEMU closed the connection";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
                }
            }
        }
        Ok(found)
    }

    fn judge(&self, run: u32, frame: &[u8], outstanding: &mut VecDeque<u32>, found: &mut Echoed) {
        if let [_, _, _, _, _, _, a, b, c, d, e, f, 0x80, 0x35, ..] = *frame {
            found.announced.push(Mac([a, b, c, d, e, f]));
            return;
        }
        // Those before it in the queue are lost: nothing overtakes anything.
        let at = outstanding.iter().position(|&number| {
            let mut expected = self.frame(run, number);
            expected[..6].copy_from_slice(&SENDER);
            expected[6..12].copy_from_slice(&self.to.0);
            expected == frame
        });
        match at {
            Some(at) => {
                outstanding.drain(..=at);
                found.back += 1;
            }
            None => found.wrong += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const ECHO: Echo = Echo {
        to: Mac([2; 6]),
        vlan: Some(5),
        frames: 100,
        window: 8,
        patience: Duration::from_millis(100),
    };

    /// Sends back what `change` makes of each frame, by its number.
    fn against(change: impl Fn(u32, &mut Vec<u8>) -> bool + Send + 'static) -> Echoed {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let guest = thread::spawn(move || {
            let mut to = theirs.try_clone().expect("clone");
            let mut frames = FrameReader::new(theirs);
            let mut number = 0;
            while let Ok(Event::Frame(frame)) = frames.next() {
                let mut back = [&frame[6..12], &frame[..6], &frame[12..]].concat();
                if change(number, &mut back) {
                    let _ = write_frame(&mut to, &back);
                }
                number += 1;
            }
        });
        let found = ECHO.run(ours).expect("a socket that works");
        guest.join().expect("guest");
        found
    }

    #[test]
    fn what_comes_back_is_counted() {
        let all = Echoed { sent: 100, back: 100, ..Echoed::default() };
        assert_eq!(against(|_, _| true), all);
        assert_eq!(against(|_, _| false), Echoed { back: 0, ..all });
    }

    #[test]
    fn what_is_lost_changed_or_strange_is_told_apart() {
        let found = against(|number, frame| {
            match number {
                10 => frame[30] ^= 1,
                20 => frame[12..14].copy_from_slice(&[0x80, 0x35]),
                _ => {}
            }
            number % 50 != 49
        });
        assert_eq!((found.sent, found.back, found.wrong), (100, 96, 1));
        assert_eq!(found.announced, [Mac([2; 6])]);
    }
}
