//! The SFP+ module's two-wire bus, bit by bit, as drivers drive it through I2CCTL.

/// Clock as software reads it.
pub const CLOCK_IN: u32 = 1;
/// Clock as software drives it.
pub const CLOCK_OUT: u32 = 2;
/// Data as software reads it.
pub const DATA_IN: u32 = 4;
/// Data as software drives it.
pub const DATA_OUT: u32 = 8;

const IDENTITY: u8 = 0xa0; // SFF-8472: what the module is
const DIAGNOSTICS: u8 = 0xa2; // SFF-8472: temperature, voltage, power

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Taking a byte from the master: the first is an address.
    Receiving {
        first: bool,
    },
    /// Telling the master that a byte was taken.
    Acknowledging {
        then_send: bool,
    },
    /// Giving a byte to the master.
    Sending,
    /// Waiting for the master's word on whether it wants more.
    Listening,
}

/// The module and its end of the wires.
#[derive(Clone, Debug)]
pub struct Module {
    identity: [u8; 256],
    diagnostics: [u8; 256],
    state: State,
    clock: bool,
    master: bool,
    slave: bool,
    byte: u8,
    bits: u8,
    chip: u8,
    pointer: u8,
    pointer_next: bool,
}

impl Module {
    /// A 10GBASE-SR module.
    pub fn new() -> Self {
        let mut identity = [0u8; 256];
        identity[0] = 3; // SFP
        identity[1] = 4;
        identity[2] = 7; // LC
        identity[3] = 0x10; // 10GBASE-SR
        identity[12] = 103; // 10.3 Gbit/s
        identity[16] = 8; // 80 m
        identity[18] = 30;
        text(&mut identity[20..36], "packetboat");
        identity[37..40].copy_from_slice(&[0x00, 0x1b, 0x21]); // Intel's OUI: known to all drivers
        text(&mut identity[40..56], "SOFTNIC-SR");
        text(&mut identity[56..60], "1");
        identity[60..62].copy_from_slice(&850u16.to_be_bytes()); // nm
        identity[63] = sum(&identity[..63]);
        text(&mut identity[68..84], "0001");
        text(&mut identity[84..92], "260101");
        identity[92] = 0x60; // diagnostics, internally calibrated
        identity[94] = 1;
        identity[95] = sum(&identity[64..95]);
        let mut diagnostics = [0u8; 256];
        diagnostics[96..98].copy_from_slice(&(40i16 << 8).to_be_bytes()); // 40 degrees
        diagnostics[98..100].copy_from_slice(&33_000u16.to_be_bytes()); // 3.3 V
        Self {
            identity,
            diagnostics,
            state: State::Idle,
            clock: true,
            master: true,
            slave: true,
            byte: 0,
            bits: 0,
            chip: 0,
            pointer: 0,
            pointer_next: false,
        }
    }

    /// What software reads after it drove the wires as `written` says.
    pub fn drive(&mut self, written: u32) -> u32 {
        let clock = written & CLOCK_OUT != 0;
        let data = written & DATA_OUT != 0;
        if self.clock && clock && data != self.master {
            self.start_or_stop(data);
        } else if clock && !self.clock {
            self.rising(data);
        } else if !clock && self.clock {
            self.falling();
        }
        self.clock = clock;
        self.master = data;
        let mut value = written & (CLOCK_OUT | DATA_OUT);
        if clock {
            value |= CLOCK_IN;
        }
        if data && self.slave {
            value |= DATA_IN;
        }
        value
    }

    fn start_or_stop(&mut self, data: bool) {
        self.slave = true;
        self.bits = 0;
        self.byte = 0;
        self.state = if data { State::Idle } else { State::Receiving { first: true } };
    }

    fn rising(&mut self, data: bool) {
        match self.state {
            State::Receiving { .. } => {
                self.byte = self.byte << 1 | u8::from(data);
                self.bits += 1;
            }
            State::Sending => self.bits += 1,
            State::Listening => {
                // A high wire says that the master has enough.
                self.state = if data { State::Idle } else { State::Sending };
                self.bits = 0;
                if !data {
                    self.fetch();
                }
            }
            State::Idle | State::Acknowledging { .. } => {}
        }
    }

    fn falling(&mut self) {
        match self.state {
            State::Receiving { first } if self.bits == 8 => self.take(first),
            State::Acknowledging { then_send } => {
                self.slave = true;
                self.bits = 0;
                self.byte = 0;
                if then_send {
                    self.fetch();
                    self.state = State::Sending;
                    self.show();
                } else {
                    self.state = State::Receiving { first: false };
                }
            }
            State::Sending if self.bits == 8 => {
                self.slave = true;
                self.state = State::Listening;
            }
            State::Sending => self.show(),
            State::Idle | State::Receiving { .. } | State::Listening => {}
        }
    }

    fn take(&mut self, first: bool) {
        let mut then_send = false;
        if first {
            self.chip = self.byte & !1;
            if self.chip != IDENTITY && self.chip != DIAGNOSTICS {
                self.state = State::Idle; // nobody answers
                return;
            }
            then_send = self.byte & 1 != 0;
            self.pointer_next = true;
        } else if self.pointer_next {
            self.pointer = self.byte;
            self.pointer_next = false;
        } else {
            self.pointer = self.pointer.wrapping_add(1); // the module can't be written
        }
        self.slave = false;
        self.state = State::Acknowledging { then_send };
    }

    fn fetch(&mut self) {
        let chip = if self.chip == DIAGNOSTICS { &self.diagnostics } else { &self.identity };
        self.byte = chip[usize::from(self.pointer)];
        self.pointer = self.pointer.wrapping_add(1);
    }

    fn show(&mut self) {
        self.slave = self.byte & (0x80 >> (self.bits & 7)) != 0;
    }
}

impl Default for Module {
    fn default() -> Self {
        Self::new()
    }
}

fn text(to: &mut [u8], text: &str) {
    to.fill(b' ');
    to[..text.len()].copy_from_slice(text.as_bytes());
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master as the I2C specification has it.
    struct Master(Module);

    impl Master {
        fn wires(&mut self, clock: bool, data: bool) -> bool {
            let clock = if clock { CLOCK_OUT } else { 0 };
            self.0.drive(clock | if data { DATA_OUT } else { 0 }) & DATA_IN != 0
        }
        fn start(&mut self) {
            self.wires(false, true);
            self.wires(true, true);
            self.wires(true, false);
            self.wires(false, false);
        }
        fn stop(&mut self) {
            self.wires(false, false);
            self.wires(true, false);
            self.wires(true, true);
        }
        fn bit(&mut self, data: bool) -> bool {
            self.wires(false, data);
            let found = self.wires(true, data);
            self.wires(false, data);
            found
        }
        fn write(&mut self, byte: u8) -> bool {
            for n in (0..8).rev() {
                self.bit(byte >> n & 1 != 0);
            }
            !self.bit(true) // low: acknowledged
        }
        fn read(&mut self, last: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
            self.bit(last);
            byte
        }
    }

    #[test]
    fn a_master_reads_one_byte_and_several() {
        let mut master = Master(Module::new());
        for (at, wanted) in [(0u8, 3u8), (3, 0x10), (38, 0x1b)] {
            master.start();
            assert!(master.write(0xa0));
            assert!(master.write(at));
            master.start();
            assert!(master.write(0xa1));
            assert_eq!(master.read(true), wanted, "byte {at}");
            master.stop();
        }
        master.start();
        assert!(master.write(0xa0));
        assert!(master.write(37));
        master.start();
        assert!(master.write(0xa1));
        assert_eq!([master.read(false), master.read(false), master.read(true)], [0, 0x1b, 0x21]);
        master.stop();
    }

    #[test]
    fn nobody_answers_at_another_address() {
        let mut master = Master(Module::new());
        master.start();
        assert!(!master.write(0x50));
        master.stop();
        master.start();
        assert!(master.write(0xa2));
        master.stop();
    }
}
