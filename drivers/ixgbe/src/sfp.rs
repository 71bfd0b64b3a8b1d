//! The SFP+ module: read over two wires, bit by bit (SFF-8472; 82599 datasheet 8.2.3.1, I2CCTL).

use std::fmt;
use std::time::Duration;

use packetboat::port::PortError;

use crate::bar::Bar;
use crate::clock::pause;
use crate::eeprom::{self, Shared};
use crate::registers::{CORECTL, I2CCTL};

/// The wires, as the register has them.
const CLOCK_OUT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;
/// Half of a bit's time at 100 kHz.
const HALF_BIT: Duration = Duration::from_micros(5);
/// The module's address, with the bit that says reading.
const ADDRESS: u8 = 0xa0;
const READ: u8 = 1;
/// A module may be busy for a moment.
const TRIES: u32 = 3;

/// Places in the module's memory (SFF-8472, table 4-1).
const IDENTIFIER: u8 = 0;
const CODES_10G: u8 = 3;
const CODES_1G: u8 = 6;
const CABLE: u8 = 8;
/// An SFP or SFP+.
const IS_SFP: u8 = 3;

/// What kind of module it is, as far as the MAC's set-up differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    /// A copper cable with its ends.
    DirectAttach,
    /// Optical, short or long reach.
    Optical,
    /// 1000BASE-T, or optical at one gigabit.
    Gigabit {
        /// 1000BASE-T.
        copper: bool,
    },
}

impl Module {
    /// Its number in the EEPROM's list of set-ups (6.3.1, SFP+ initialisation): for port 0; the
    /// other port's is the next.
    fn setup_number(self) -> u16 {
        match self {
            Self::DirectAttach => 3,
            Self::Optical => 5,
            Self::Gigabit { copper: true } => 9,
            Self::Gigabit { copper: false } => 11,
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DirectAttach => "direct attach cable",
            Self::Optical => "10G optical module",
            Self::Gigabit { copper: true } => "1000BASE-T module",
            Self::Gigabit { copper: false } => "1G optical module",
        })
    }
}

/// What module there is; none if the cage is empty.
pub(crate) fn identify(bar: &Bar, second_port: bool) -> Result<Option<Module>, PortError> {
    let _held = eeprom::hold(bar, Shared::Phy(second_port))?;
    let wires = Wires { bar };
    let Some(identifier) = wires.read_byte(IDENTIFIER) else { return Ok(None) };
    if identifier != IS_SFP {
        return Err(bar.fault(format!(
            "its cage holds something that isn't an SFP+ (identifier {identifier:#x}); plug in one"
        )));
    }
    let byte = |at| wires.read_byte(at).unwrap_or_default();
    let (codes_10g, codes_1g, cable) = (byte(CODES_10G), byte(CODES_1G), byte(CABLE));
    // Passive or active cable; short or long reach; 1000BASE-T, SX, LX.
    let module = if cable & 0x0c != 0 {
        Module::DirectAttach
    } else if codes_10g & 0x30 != 0 {
        Module::Optical
    } else if codes_1g & 0x08 != 0 {
        Module::Gigabit { copper: true }
    } else if codes_1g & 0x03 != 0 {
        Module::Gigabit { copper: false }
    } else {
        return Err(bar.fault(format!(
            "its SFP+ module is of no kind that this driver knows (codes {codes_10g:#04x}, \
             {codes_1g:#04x}, cable {cable:#04x})"
        )));
    };
    Ok(Some(module))
}

/// Where the EEPROM's list of set-ups is pointed to, and how it and a set-up end.
const SETUPS: u16 = 0x2b;
const END: u16 = 0xffff;
/// The most entries that are followed.
const ENTRIES_MAX: u16 = 1024;

/// Writes the analog set-up for `module` that the EEPROM has.
pub(crate) fn set_up(bar: &Bar, module: Module, second_port: bool) -> Result<(), PortError> {
    let wanted = module.setup_number() + u16::from(second_port);
    let list = eeprom::read(bar, SETUPS)?;
    let nothing = || bar.fault(format!("its EEPROM has no set-up for a {module}"));
    if matches!(list, 0 | END) {
        return Err(nothing());
    }
    let mut at = list.wrapping_add(1);
    let setup = loop {
        let number = eeprom::read(bar, at)?;
        if number == END || at.wrapping_sub(list) > ENTRIES_MAX {
            return Err(nothing());
        }
        if number == wanted {
            break eeprom::read(bar, at.wrapping_add(1))?;
        }
        at = at.wrapping_add(2);
    };
    if matches!(setup, 0 | END) {
        return Err(nothing());
    }
    let _held = eeprom::hold(bar, Shared::Mac)?;
    for step in 1..=ENTRIES_MAX {
        let value = eeprom::read(bar, setup.wrapping_add(step))?;
        if value == END {
            return Ok(());
        }
        bar.write(CORECTL, u32::from(value));
    }
    Err(bar.fault(format!("its EEPROM's set-up for a {module} doesn't end")))
}

/// The two wires: a clock and data, both pulled up, so that writing 1 lets go of one.
struct Wires<'a> {
    bar: &'a Bar,
}

impl Wires<'_> {
    fn set(&self, clock: bool, data: bool) {
        let value = if clock { CLOCK_OUT } else { 0 } | if data { DATA_OUT } else { 0 };
        self.bar.change(I2CCTL, CLOCK_OUT | DATA_OUT, value);
        pause(HALF_BIT);
    }

    fn data(&self) -> bool {
        self.bar.read(I2CCTL) & DATA_IN != 0
    }

    fn start(&self) {
        self.set(true, true);
        self.set(true, false);
        self.set(false, false);
    }

    fn stop(&self) {
        self.set(false, false);
        self.set(true, false);
        self.set(true, true);
    }

    /// One bit out; what the other end made of it.
    fn bit(&self, bit: bool) -> bool {
        self.set(false, bit);
        self.set(true, bit);
        let seen = self.data();
        self.set(false, bit);
        seen
    }

    /// A byte out; whether it was acknowledged.
    fn send(&self, byte: u8) -> bool {
        for at in (0..8).rev() {
            self.bit(byte >> at & 1 != 0);
        }
        !self.bit(true)
    }

    fn receive(&self) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
        self.bit(true); // the last one: not acknowledged
        byte
    }

    /// One byte of the module's memory; none if nobody answers.
    fn read_byte(&self, at: u8) -> Option<u8> {
        for _ in 0..TRIES {
            self.start();
            if self.send(ADDRESS) && self.send(at) {
                self.start();
                if self.send(ADDRESS | READ) {
                    let byte = self.receive();
                    self.stop();
                    return Some(byte);
                }
            }
            self.stop();
            if self.bar.is_gone() {
                return None;
            }
        }
        None
    }
}
