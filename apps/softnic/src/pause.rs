//! Flow control: pause frames, heeded and sent (IEEE 802.3 annex 31B; 82599 datasheet 3.7.7.3).

use std::time::{Duration, Instant};

use crate::registers::{RegisterFile, at};

/// Where pause frames go to.
const DESTINATION: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 1];
/// EtherType of MAC control, and the operation.
const PAUSE: [u8; 4] = [0x88, 0x08, 0, 1];
/// 512 bit times at 10 Gbit/s.
const QUANTUM: Duration = Duration::from_nanos(51);

// MFLCN: pause frames that are heeded don't reach software; they are heeded.
const DISCARD: u32 = 1 << 1;
const HEED: u32 = 1 << 3;
// FCCFG: bits 4:3 are 1 where pause frames are sent.
const SEND_SHIFT: u32 = 3;
// FCRTH, FCRTL: thresholds at which that happens.
const ENABLED: u32 = 1 << 31;

/// Who has told whom to wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    /// The other side told this NIC to wait until then.
    until: Option<Instant>,
    /// This NIC told the other side to wait, then.
    told: Option<Instant>,
}

/// What becomes of a pause frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heeded {
    /// It says stop, not go on.
    pub stop: bool,
    /// Software gets it like any other.
    pub passed_on: bool,
}

impl Pause {
    /// Nobody waits.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// How long this NIC still has to wait, if it has to.
    pub fn left(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// A frame came in. `None`: it is no pause frame, or isn't heeded.
    pub fn hear(&mut self, registers: &RegisterFile, frame: &[u8]) -> Option<Heeded> {
        if frame.get(..6)? != DESTINATION || frame.get(12..16)? != PAUSE {
            return None;
        }
        let mflcn = registers.get(at::MFLCN);
        if mflcn & HEED == 0 {
            return None;
        }
        let quanta = u16::from_be_bytes(*frame.get(16..18)?.first_chunk()?);
        self.until = (quanta > 0).then(|| Instant::now() + QUANTUM * u32::from(quanta));
        Some(Heeded { stop: quanta > 0, passed_on: mflcn & DISCARD == 0 })
    }

    /// Whether frames wait that have no room (`stuck`), or don't any more: what is to be told the
    /// other side now.
    pub fn tell(&mut self, registers: &RegisterFile, stuck: bool) -> Option<[u8; 60]> {
        if registers.get(at::FCCFG) >> SEND_SHIFT & 3 != 1 {
            return None;
        }
        let (high, low) = (registers.get(at::FCRTH), registers.get(at::FCRTL));
        if stuck && high & ENABLED != 0 {
            let again = QUANTUM * (registers.get(at::FCRTV) & 0xffff);
            if self.told.is_some_and(|told| told.elapsed() < again) {
                return None;
            }
            self.told = Some(Instant::now());
            return Some(frame(registers, registers.get(at::FCTTV) as u16));
        }
        let told = self.told.take().filter(|_| !stuck);
        (told.is_some() && low & ENABLED != 0).then(|| frame(registers, 0))
    }
}

/// A pause frame from the NIC's own address.
fn frame(registers: &RegisterFile, quanta: u16) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&DESTINATION);
    frame[6..10].copy_from_slice(&registers.get(at::RAL).to_le_bytes());
    frame[10..12].copy_from_slice(&registers.get(at::RAH).to_le_bytes()[..2]);
    frame[12..16].copy_from_slice(&PAUSE);
    frame[16..18].copy_from_slice(&quanta.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_no_pause_frames_or_too_short_are_let_by() {
        let registers = RegisterFile::new().unwrap();
        let stop = frame(&registers, 9);
        let mut pause = Pause::default();
        assert_eq!(pause.hear(&registers, &stop), None, "not asked for");
        registers.set(at::MFLCN, HEED);
        let heard = pause.hear(&registers, &stop);
        assert_eq!(heard, Some(Heeded { stop: true, passed_on: true }));
        registers.set(at::MFLCN, HEED | DISCARD);
        let heard = pause.hear(&registers, &frame(&registers, 0));
        assert_eq!(heard, Some(Heeded { stop: false, passed_on: false }));
        assert_eq!(pause.left(), None);
        for len in 0..18 {
            assert_eq!(pause.hear(&registers, &stop[..len]), None);
        }
        let mut other = stop;
        other[15] = 2; // another operation
        assert_eq!(pause.hear(&registers, &other), None);
    }
}
