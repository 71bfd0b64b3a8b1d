//! From a cause to a message: EICR, masks, throttling, MSI-X (82599 datasheet 7.3).

use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::registers::{RegisterFile, at};

/// How many MSI-X vectors there are.
pub const VECTORS: usize = 64;
/// EICR: link status change.
pub const LSC: u32 = 1 << 20;
/// EICR: a receive packet buffer overran.
pub const RX_MISS: u32 = 1 << 17;
/// EICR: descriptor handler error.
pub const DESCRIPTOR_ERROR: u32 = 1 << 29;

const QUEUES: u32 = 0xffff;
const OTHERS: u32 = 0x7fff_0000;
const MULTIPLE_MSIX: u32 = 1 << 4;
const EIAME: u32 = 1 << 30;
const VALID: u32 = 0x80;

/// Causes, masks and the descriptors through which vectors are signalled.
#[derive(Debug)]
pub struct Interrupts {
    cause: u64, // by vector
    other: u32, // EICR bits 30:16
    mask: u64,
    mask_other: u32,
    announced: u64, // a message went out and nobody has cleared the cause
    announced_other: u32,
    pending: u64, // a message that can't be delivered: the pending bit array
    auto_mask: u64,
    not_before_ns: [u64; VECTORS],
    eventfds: Vec<Option<OwnedFd>>,
    started: Instant,
    sent: [u64; VECTORS],
    waiting: bool, // a message waits for its time
}

impl Interrupts {
    /// Nothing pending, all masked.
    pub fn new() -> Self {
        Self {
            cause: 0,
            other: 0,
            mask: 0,
            mask_other: 0,
            announced: 0,
            announced_other: 0,
            pending: 0,
            auto_mask: 0,
            not_before_ns: [0; VECTORS],
            eventfds: (0..VECTORS).map(|_| None).collect(),
            started: Instant::now(),
            sent: [0; VECTORS],
            waiting: false,
        }
    }

    /// As after power-on; the eventfds stay.
    pub fn reset(&mut self) {
        let eventfds = std::mem::take(&mut self.eventfds);
        *self = Self { eventfds, started: self.started, sent: self.sent, ..Self::new() };
    }

    /// Takes away all eventfds.
    pub fn disconnect(&mut self) {
        self.eventfds.iter_mut().for_each(|fd| *fd = None);
        self.pending = 0;
    }

    /// Where vector `n` is signalled from now on. A message that waits for it goes out.
    pub fn connect(&mut self, n: usize, eventfd: Option<OwnedFd>) {
        if let Some(slot) = self.eventfds.get_mut(n) {
            *slot = eventfd;
            if slot.is_some() && self.pending >> n & 1 != 0 {
                self.pending &= !(1 << n);
                self.signal(n);
            }
        }
    }

    /// Sends a message for vector `n`, cause or not.
    pub fn signal(&mut self, n: usize) {
        match self.eventfds.get(n) {
            Some(Some(eventfd)) => {
                self.sent[n] += 1;
                // Full means that the client has signals enough to read.
                let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
            }
            Some(None) => self.pending |= 1 << n,
            None => {}
        }
    }

    /// Bits 63:32 or 31:0 of the pending bit array.
    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    pub fn pending(&self, high: bool) -> u32 {
        if high { (self.pending >> 32) as u32 } else { self.pending as u32 }
    }

    /// How many messages went out.
    pub fn sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Whether a message waits for its time.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// A receive queue has frames, or a transmit queue has sent some.
    pub fn queue(&mut self, registers: &RegisterFile, queue: u32, transmit: bool) {
        let ivar = registers.get(at::IVAR + 4 * (queue / 2));
        let entry = ivar >> (16 * (queue & 1) + if transmit { 8 } else { 0 });
        if entry & VALID != 0 {
            self.cause |= 1 << (entry & 0x3f);
        }
    }

    /// Something else happened: bits of EICR.
    pub fn raise(&mut self, causes: u32) {
        self.other |= causes & OTHERS;
    }

    /// EICR as software sees it.
    #[expect(clippy::cast_possible_truncation, reason = "bits 15:0")]
    pub fn eicr(&self) -> u32 {
        let other = if self.other != 0 { 1 << 31 } else { 0 };
        (self.cause as u32 & QUEUES) | self.other | other
    }

    /// A read of one of the interrupt registers, or `None` if `base` isn't one.
    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    pub fn read(&mut self, base: u32, n: u32) -> Option<u32> {
        Some(match base {
            at::EICR => {
                let value = self.eicr();
                self.clear(value);
                value
            }
            at::EICS => self.eicr(),
            at::EIMS | at::EIMC => (self.mask as u32 & QUEUES) | self.mask_other,
            at::EIMS_EX | at::EIMC_EX => (self.mask >> (32 * n)) as u32,
            at::EICS_EX => (self.cause >> (32 * n)) as u32,
            at::EIAM => self.auto_mask as u32 & QUEUES,
            at::EIAM_EX => (self.auto_mask >> (32 * n)) as u32,
            _ => return None,
        })
    }

    /// A write to one of the interrupt registers; `false` if `base` isn't one.
    pub fn write(&mut self, base: u32, n: u32, value: u32) -> bool {
        let half = u64::from(value) << (32 * (n & 1));
        let queues = u64::from(value & QUEUES);
        match base {
            at::EICR => self.clear(value),
            at::EICS => {
                self.cause |= queues;
                self.other |= value & OTHERS;
            }
            at::EICS_EX => self.cause |= half,
            at::EIMS => {
                self.mask |= queues;
                self.mask_other |= value & OTHERS;
                self.announced &= !queues;
                self.announced_other &= !value;
            }
            at::EIMS_EX => {
                self.mask |= half;
                self.announced &= !half;
            }
            at::EIMC => {
                self.mask &= !queues;
                self.mask_other &= !value;
            }
            at::EIMC_EX => self.mask &= !half,
            at::EIAM => self.auto_mask = (self.auto_mask & !u64::from(QUEUES)) | queues,
            at::EIAM_EX => {
                self.auto_mask &= !(0xffff_ffff << (32 * (n & 1)));
                self.auto_mask |= half;
            }
            _ => return false,
        }
        true
    }

    fn clear(&mut self, value: u32) {
        self.cause &= !u64::from(value & QUEUES);
        self.announced &= !u64::from(value & QUEUES);
        self.other &= !value;
        self.announced_other &= !value;
    }

    /// Sends what is enabled and whose time has come. To be called after causes or masks change, and
    /// from time to time while [`is_waiting`](Self::is_waiting).
    pub fn pump(&mut self, registers: &RegisterFile) {
        let vectors = self.cause & self.mask & !self.announced;
        let others = self.other & self.mask_other & !self.announced_other;
        self.waiting = false;
        if vectors == 0 && others == 0 {
            return;
        }
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let gpie = registers.get(at::GPIE);
        let several = gpie & MULTIPLE_MSIX != 0;
        let auto_clear = registers.get(at::EIAC);
        for n in (0..VECTORS).filter(|n| vectors >> n & 1 != 0) {
            if !self.send(registers, if several { n } else { 0 }, now_ns) {
                continue;
            }
            let bit = 1u64 << n;
            if several && (n >= 16 || auto_clear >> n & 1 != 0) {
                self.cause &= !bit;
            } else {
                self.announced |= bit;
            }
            if gpie & EIAME != 0 {
                self.mask &= !(bit & self.auto_mask);
            }
        }
        if others != 0 {
            let entry = registers.get(at::IVAR_MISC) >> 8;
            let vector = if several { entry & VALID != 0 } else { true };
            let n = if several { (entry & 0x3f) as usize } else { 0 };
            if vector && self.send(registers, n, now_ns) {
                self.announced_other |= others;
            }
        }
    }

    /// Sends a message unless the vector's interval isn't over.
    fn send(&mut self, registers: &RegisterFile, n: usize, now_ns: u64) -> bool {
        if now_ns < self.not_before_ns[n] {
            self.waiting = true;
            return false;
        }
        let eitr = match u32::try_from(n).unwrap_or(0) {
            n @ 0..24 => registers.get(at::EITR + 4 * n),
            n => registers.get(at::EITR_HI + 4 * (n - 24)),
        };
        // Bits 11:3 count 2 microseconds at 10 Gbit/s (82599 datasheet 7.3.2.1.1).
        self.not_before_ns[n] = now_ns + u64::from(eitr >> 3 & 0x1ff) * 2000;
        self.signal(n);
        true
    }
}

impl Default for Interrupts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    fn set_up() -> (RegisterFile, Interrupts, OwnedFd) {
        let registers = RegisterFile::new().unwrap();
        registers.set(at::GPIE, MULTIPLE_MSIX | EIAME);
        registers.set(at::IVAR, 0x8180_8180); // queues 0 and 1: receive 0, transmit 1
        registers.set(at::IVAR_MISC, 0x8000);
        let mut interrupts = Interrupts::new();
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        interrupts.connect(0, Some(fd.try_clone().unwrap()));
        (registers, interrupts, fd)
    }

    #[test]
    fn a_masked_cause_waits_for_its_mask() {
        let (registers, mut interrupts, fd) = set_up();
        interrupts.queue(&registers, 0, false);
        interrupts.pump(&registers);
        assert_eq!(count(&fd), 0);
        interrupts.write(at::EIMS, 0, 1);
        interrupts.pump(&registers);
        interrupts.pump(&registers);
        assert_eq!(count(&fd), 1);
        assert_eq!(interrupts.read(at::EICS, 0), Some(1), "not cleared by itself");
        assert_eq!(interrupts.read(at::EICR, 0), Some(1));
        assert_eq!(interrupts.read(at::EICR, 0), Some(0), "cleared by the read");
    }

    #[test]
    fn auto_clear_and_auto_mask() {
        let (registers, mut interrupts, fd) = set_up();
        registers.set(at::EIAC, 1);
        interrupts.write(at::EIAM_EX, 0, 1);
        interrupts.write(at::EIMS_EX, 0, 1);
        interrupts.queue(&registers, 1, false);
        interrupts.pump(&registers);
        assert_eq!((count(&fd), interrupts.eicr()), (1, 0));
        interrupts.queue(&registers, 1, false);
        interrupts.pump(&registers);
        assert_eq!(count(&fd), 0, "the message masked its vector");
        interrupts.write(at::EIMS_EX, 0, 1);
        interrupts.pump(&registers);
        assert_eq!(count(&fd), 1);
    }

    #[test]
    fn an_interval_holds_the_second_message_back() {
        let (registers, mut interrupts, fd) = set_up();
        registers.set(at::EIAC, 1);
        registers.set(at::EITR, 511 << 3); // 1022 microseconds
        interrupts.write(at::EIMS, 0, 1);
        for _ in 0..2 {
            interrupts.queue(&registers, 0, false);
            interrupts.pump(&registers);
        }
        assert_eq!((count(&fd), interrupts.is_waiting()), (1, true));
        std::thread::sleep(std::time::Duration::from_millis(2));
        interrupts.pump(&registers);
        assert_eq!((count(&fd), interrupts.is_waiting()), (1, false));
    }

    #[test]
    fn other_causes_go_to_their_own_vector_and_stay_until_cleared() {
        let (registers, mut interrupts, fd) = set_up();
        interrupts.write(at::EIMS, 0, LSC);
        interrupts.raise(LSC);
        interrupts.pump(&registers);
        interrupts.pump(&registers);
        assert_eq!(count(&fd), 1);
        assert_eq!(interrupts.eicr(), LSC | 1 << 31);
        interrupts.write(at::EICR, 0, LSC);
        assert_eq!(interrupts.eicr(), 0);
    }

    #[test]
    fn a_vector_without_an_eventfd_is_pending() {
        let (registers, mut interrupts, _) = set_up();
        interrupts.write(at::EIMS, 0, 2);
        interrupts.queue(&registers, 0, true);
        interrupts.pump(&registers);
        assert_eq!(interrupts.pending(false), 2);
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        interrupts.connect(1, Some(fd.try_clone().unwrap()));
        assert_eq!((count(&fd), interrupts.pending(false)), (1, 0));
    }
}
