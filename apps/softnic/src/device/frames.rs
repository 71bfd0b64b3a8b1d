//! A NIC's frames: what moves them both ways, and what is told of it afterwards.

use std::time::Duration;

use super::{Device, GIO_MASTER, WhenFull};
use crate::interrupts;
use crate::registers::at;
use crate::rx::{self, Outcome, Receiver};
use crate::tx::{self, Transmitter};
use crate::wire::Wire;

const LOOPBACK: u32 = 1 << 15;
const RX_BURST: usize = 64;
const SCAN_EVERY: u32 = 64;
// More than a ring can have descriptors: where filters refuse all frames, a fill must end, too.
const LONGEST_RING: usize = 65_536;

impl Device {
    /// Moves frames both ways. Gives how many moved.
    pub fn poll(&mut self) -> usize {
        if self.until_scan == 0 {
            // A client with shared pages rings no bell when it enables a queue.
            self.until_scan = SCAN_EVERY;
            self.transmitter.scan(&self.registers);
        }
        self.until_scan -= 1;
        let moved = if self.identity.full_rings {
            0 // frames move when doorbells ring
        } else {
            self.transmit(false) + self.receive(RX_BURST)
        };
        if moved > 0 || self.interrupts.is_waiting() {
            self.after_burst();
        }
        if moved == 0 {
            self.until_scan = 0;
        }
        moved
    }

    /// How long the other side has told this NIC to hold its frames.
    pub fn paused(&self) -> Option<Duration> {
        self.pause.left()
    }

    /// Receives until no descriptor is free, or the wire has no more. With full rings each write of
    /// RDT does so; a driver that writes it before it switches the receiver on needs one more.
    pub fn fill(&mut self) {
        self.receive(LONGEST_RING);
        self.after_burst();
    }

    /// How many frames `poll` may still have to move by itself.
    pub fn is_loopback(&self) -> bool {
        self.registers.get(at::HLREG0) & LOOPBACK != 0
    }

    fn can_move(&self) -> bool {
        self.config.is_bus_master()
            && !self.config.is_asleep()
            && self.registers.get(at::STATUS) & GIO_MASTER != 0
    }

    pub(super) fn transmit(&mut self, everything: bool) -> usize {
        let loopback = self.is_loopback();
        if !self.can_move() || !Transmitter::is_on(&self.registers) || !(self.cable || loopback) {
            return 0;
        }
        if !loopback && self.pause.left().is_some() {
            return 0;
        }
        let wire: &mut dyn Wire = if loopback { &mut self.loopback } else { self.wire.as_mut() };
        let recorder = &mut self.recorder;
        let mut context = tx::Context {
            registers: &self.registers,
            memory: &self.memory,
            wire,
            tally: &mut self.tally,
            faults: &mut self.faults,
            tap: &mut |frame| {
                if let Some(recorder) = recorder {
                    recorder.sent(frame);
                }
            },
        };
        self.transmitter.poll(&mut context, everything)
    }

    fn receive(&mut self, budget: usize) -> usize {
        let loopback = self.is_loopback();
        let wire: &mut dyn Wire = if loopback { &mut self.loopback } else { self.wire.as_mut() };
        let listening = self.config.is_bus_master()
            && !self.config.is_asleep()
            && Receiver::is_on(&self.registers)
            && (self.cable || loopback);
        if !listening {
            wire.discard();
            return 0;
        }
        let mut context = rx::Context {
            registers: &self.registers,
            memory: &self.memory,
            tally: &mut self.tally,
            faults: &mut self.faults,
        };
        let (mut moved, mut stuck) = (0, false);
        self.receiver.begin();
        while moved < budget {
            let Some(frame) = wire.front() else { break };
            let heard = if loopback { None } else { self.pause.hear(&self.registers, frame) };
            if let Some(heard) = heard {
                context.tally.pauses_heard(heard.stop, frame.len());
            }
            if heard.is_some_and(|heard| !heard.passed_on) {
                wire.pop();
                moved += 1;
                continue;
            }
            if let Outcome::NoRoom(queue) = self.receiver.receive(&mut context, frame) {
                // In its handler a doorbell fills what is free: what doesn't fit wasn't sent.
                if self.identity.when_full == WhenFull::Wait || self.identity.full_rings {
                    stuck = true;
                    break;
                }
                Receiver::miss(&mut context, frame, queue);
                self.interrupts.raise(interrupts::RX_MISS);
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.received(frame);
            }
            wire.pop();
            moved += 1;
        }
        // Waiting frames are what a packet buffer would hold.
        if !loopback
            && (stuck || moved > 0)
            && let Some(pause) = self.pause.tell(&self.registers, stuck)
            && let Some(room) = wire.room()
        {
            room.set_len(pause.len()).copy_from_slice(&pause);
            wire.commit();
            self.tally.pause_sent(stuck, &pause);
            if let Some(recorder) = &mut self.recorder {
                recorder.sent(&pause);
            }
            wire.flush();
        }
        moved
    }

    /// Heads, interrupts and wires learn of what has moved.
    pub(super) fn after_burst(&mut self) {
        for n in self.receiver.finish(&self.registers) {
            self.interrupts.queue(&self.registers, *n, false);
        }
        self.receiver.forget_touched();
        let (interrupts, registers) = (&mut self.interrupts, &self.registers);
        self.transmitter.take_touched(|n| interrupts.queue(registers, n, true));
        self.interrupts.pump(&self.registers);
        self.wire.flush();
        if let Some(counters) = &self.counters {
            counters.publish(&self.tally, self.doorbells);
        }
    }
}
