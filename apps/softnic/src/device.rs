//! One NIC: its registers and what they set going.

mod frames;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tracing::{debug, info};

use crate::counters::{Counters, Doorbells};
use crate::eeprom::Eeprom;
use crate::faults::Faults;
use crate::i2c::Module;
use crate::interrupts::{self, Interrupts, VECTORS};
use crate::memory::DmaSpace;
use crate::pause::Pause;
use crate::pci::{self, ConfigSpace, Effect};
use crate::record::Recorder;
use crate::registers::{FILE_LEN_BYTES, Mode, RegisterFile, TABLE, at};
use crate::rx::Receiver;
use crate::statistics::Tally;
use crate::tx::Transmitter;
use crate::wire::{Reflect, Wire};

const RST: u32 = 1 << 26;
const LRST: u32 = 1 << 3;
const GIO_DIS: u32 = 1 << 2;
const GIO_MASTER: u32 = 1 << 19;
const AN_RESTART: u32 = 1 << 12;
const LINK_IS_UP: u32 = 0xf000_0080; // up, 10 Gbit/s, up at this moment

/// What becomes of a frame whose ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted, as on real hardware.
    Drop,
    /// It waits on the wire: nothing is ever lost.
    Wait,
}

/// What a NIC is like.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PCI device id.
    pub device_id: u16,
    /// Its address.
    pub mac: [u8; 6],
    /// What a full ring means.
    pub when_full: WhenFull,
    /// Take client memory whose size isn't sealed.
    pub trust_clients: bool,
    /// Fill every free receive descriptor inside the write of RDT, complete every transmit
    /// descriptor inside that of TDT.
    pub full_rings: bool,
}

/// A NIC.
pub struct Device {
    /// What it is like.
    pub identity: Identity,
    /// Its registers.
    pub registers: RegisterFile,
    /// The client's memory.
    pub memory: DmaSpace,
    /// Its interrupts.
    pub interrupts: Interrupts,
    /// Its configuration space.
    pub config: ConfigSpace,
    /// What it has counted since it was made.
    pub tally: Tally,
    /// What is to go wrong with it.
    pub faults: Faults,
    /// Where its frames are written down.
    pub recorder: Option<Recorder>,
    /// Doorbells since it was made.
    pub doorbells: Doorbells,
    /// A page that others count by.
    pub counters: Option<Counters>,
    published: Tally,
    pause: Pause,
    eeprom: Eeprom,
    module: Module,
    receiver: Receiver,
    transmitter: Transmitter,
    wire: Box<dyn Wire>,
    loopback: Reflect,
    cable: bool,
    msix_table: Vec<u8>,
    until_scan: u32,
    request: Option<OwnedFd>, // tells the client to give the device back
}

impl Device {
    /// A NIC after power-on, plugged into `wire`.
    ///
    /// # Errors
    /// When there is no memory for its registers.
    pub fn new(identity: Identity, wire: Box<dyn Wire>) -> io::Result<Self> {
        let registers = RegisterFile::new()?;
        let mut device = Self {
            memory: DmaSpace::new(identity.trust_clients),
            interrupts: Interrupts::new(),
            config: ConfigSpace::new(identity.device_id, identity.mac, VECTORS as u16),
            tally: Tally::new(),
            published: Tally::new(),
            pause: Pause::default(),
            faults: Faults::default(),
            recorder: None,
            doorbells: Doorbells::default(),
            counters: None,
            eeprom: Eeprom::new(identity.mac, identity.device_id),
            module: Module::new(),
            receiver: Receiver::new(&registers),
            transmitter: Transmitter::new(),
            wire,
            loopback: Reflect::new(),
            cable: true,
            msix_table: vec![0; pci::MSIX_BAR_LEN_BYTES as usize],
            until_scan: 0,
            request: None,
            identity,
            registers,
        };
        device.reset();
        Ok(device)
    }

    // ---- resets and the client's coming and going

    /// As CTRL.RST does it: rings, filters, interrupts and registers are as after power-on.
    pub fn reset(&mut self) {
        self.publish();
        self.registers.reset(|name| matches!(name, "SWSM" | "GSSR"));
        let [a, b, c, d, e, f] = self.identity.mac;
        self.registers.set(at::RAL, u32::from_le_bytes([a, b, c, d]));
        self.registers.set(at::RAH, u32::from_le_bytes([e, f, 0, 0x80]));
        self.interrupts.reset();
        self.receiver.reset();
        self.transmitter.reset();
        self.loopback.discard();
        self.faults.reset();
        self.pause.reset();
        self.until_scan = 0;
    }

    /// A function level reset: the configuration space, too.
    pub fn function_reset(&mut self) {
        self.config.reset();
        self.registers.set(at::SWSM, 0);
        self.registers.set(at::GSSR, 0);
        self.msix_table.fill(0);
        self.reset();
    }

    /// The client is gone: nothing of it may be touched any more.
    pub fn disconnected(&mut self) {
        self.function_reset();
        self.memory.clear();
        self.interrupts.disconnect();
        self.request = None;
    }

    /// The eventfd by which the client wants to hear that it must let go of the device.
    pub fn set_request(&mut self, eventfd: Option<OwnedFd>) {
        self.request = eventfd;
    }

    /// Asks the client to let go of the device. `false`: it gave no eventfd for this.
    pub fn unplug(&mut self) -> bool {
        match &self.request {
            Some(eventfd) => rustix::io::write(eventfd, &1u64.to_ne_bytes()).is_ok(),
            None => false,
        }
    }

    // ---- link

    /// Whether the cable is in.
    pub fn has_cable(&self) -> bool {
        self.cable
    }

    /// Puts the cable in or takes it out.
    pub fn set_cable(&mut self, cable: bool) {
        if self.cable != cable {
            self.cable = cable;
            info!("link {}", if cable { "up" } else { "down" });
            self.interrupts.raise(interrupts::LSC);
            self.interrupts.pump(&self.registers);
        }
    }

    // ---- BAR 0

    /// A read by software.
    pub fn read_register(&mut self, offset: u32) -> u32 {
        let Some(access) = self.registers.locate(offset) else {
            debug!("read of {offset:#07x}, which isn't modelled: 0");
            return 0;
        };
        if let Some(value) = self.interrupts.read(access.base, access.n) {
            return value;
        }
        if TABLE[access.line].mode == Mode::Rc {
            self.publish();
        }
        match access.base {
            at::LINKS => {
                if self.cable {
                    LINK_IS_UP
                } else {
                    0
                }
            }
            at::TFCS => u32::from(self.pause.left().is_none()),
            at::SWSM => {
                let value = self.registers.get(at::SWSM);
                self.registers.set(at::SWSM, value | 1);
                value
            }
            _ => self.registers.read(access),
        }
    }

    /// A write by software.
    pub fn write_register(&mut self, offset: u32, value: u32) {
        let Some(access) = self.registers.locate(offset) else {
            debug!("write of {value:#x} to {offset:#07x}, which isn't modelled: ignored");
            return;
        };
        if self.interrupts.write(access.base, access.n, value) {
            self.interrupts.pump(&self.registers);
            return;
        }
        let written = self.registers.write(access, value);
        match access.base {
            at::CTRL => self.write_control(value),
            at::EERD => {
                let word = self.eeprom.read((value >> 2 & 0x3fff) as usize);
                let done = if value & 1 != 0 { 2 } else { 0 };
                self.registers.set(at::EERD, u32::from(word) << 16 | value & 0xfffc | done);
            }
            at::EEWR => {
                if value & 1 != 0 {
                    self.eeprom.write((value >> 2 & 0x3fff) as usize, (value >> 16) as u16);
                }
                self.registers.set(at::EEWR, value & !1 | 2);
            }
            at::EEC => {
                let granted = if written.value & 1 << 6 != 0 { 1 << 7 } else { 0 };
                self.registers.change(at::EEC, 1 << 7, granted);
            }
            at::I2CCTL => {
                let value = self.module.drive(value);
                self.registers.set(at::I2CCTL, value);
            }
            at::AUTOC if value & AN_RESTART != 0 => {
                self.registers.change(at::AUTOC, AN_RESTART, 0);
                self.interrupts.raise(interrupts::LSC);
                self.interrupts.pump(&self.registers);
            }
            at::TXDCTL => self.transmitter.scan(&self.registers),
            at::RDT | at::RDT_HI => {
                self.doorbells.rdt += 1;
                if self.identity.full_rings {
                    self.fill();
                }
            }
            at::TDT => {
                self.doorbells.tdt += 1;
                if self.identity.full_rings {
                    self.transmit(true);
                    self.after_burst();
                }
            }
            at::FCTRL
            | at::VLNCTRL
            | at::MCSTCTRL
            | at::RAL
            | at::RAH
            | at::MRQC
            | at::RETA
            | at::RSSRK
            | at::HLREG0
            | at::MAXFRS
            | at::RXCSUM
            | at::RDRXCTL => {
                self.receiver.settings_changed();
            }
            _ => {}
        }
    }

    fn write_control(&mut self, value: u32) {
        if value & (RST | LRST) != 0 {
            debug!("reset by CTRL");
            self.reset(); // CTRL, too: GIO_DIS is gone
            return;
        }
        let master = if value & GIO_DIS != 0 { 0 } else { GIO_MASTER };
        self.registers.change(at::STATUS, GIO_MASTER, master);
    }

    // ---- the other regions

    /// The configuration space: a write by software.
    pub fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        match self.config.write(offset, bytes) {
            Effect::None => {}
            Effect::Reset => self.function_reset(),
            Effect::WokeUp => self.reset(),
        }
    }

    /// MSI-X table and pending bits.
    pub fn read_msix(&self, offset: u64, to: &mut [u8]) {
        for (n, byte) in to.iter_mut().enumerate() {
            let at = offset + n as u64;
            *byte = match at.checked_sub(pci::PENDING_OFFSET) {
                Some(bit) if bit < 8 => {
                    self.interrupts.pending(bit >= 4).to_le_bytes()[bit as usize % 4]
                }
                _ => self.msix_table.get(at as usize).copied().unwrap_or(0),
            };
        }
    }

    /// The MSI-X table keeps what is written; clients that virtualise it never write here.
    pub fn write_msix(&mut self, offset: u64, from: &[u8]) {
        for (n, byte) in from.iter().enumerate() {
            if let Some(slot) = self.msix_table.get_mut(offset as usize + n)
                && offset as usize + n < VECTORS * 16
            {
                *slot = *byte;
            }
        }
    }

    /// What a client may map of BAR 0: the queue registers.
    pub fn shared_pages(&self) -> BorrowedFd<'_> {
        self.registers.memfd()
    }

    // ---- what it says of itself

    /// Counters into their registers.
    fn publish(&mut self) {
        self.tally.publish(&self.published, &self.registers);
        self.published.clone_from(&self.tally);
    }

    /// Says something to the wire.
    ///
    /// # Errors
    /// What the wire wanted, what it found.
    pub fn wire_command(&mut self, words: &[&str]) -> Result<String, String> {
        self.wire.command(words)
    }

    /// The wire, for reports and for waiting.
    pub fn wire(&self) -> &dyn Wire {
        self.wire.as_ref()
    }

    /// All registers that aren't 0, as text.
    pub fn dump(&mut self) -> String {
        self.publish();
        self.registers.dump()
    }
}

/// Pages of BAR 0 that a client may map: receive queues 0-63 and 64-127, transmit queues.
pub const SHARED_AREAS: [(u64, u64); 3] = [(0x1000, 0x1000), (0x6000, 0x2000), (0xd000, 0x1000)];

const _: () = assert!(SHARED_AREAS[2].0 + SHARED_AREAS[2].1 <= FILE_LEN_BYTES as u64);
