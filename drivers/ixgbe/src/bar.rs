//! Access to the registers, typed by the table.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use packetboat::bus::{BusError, Device};
use packetboat::mmio::{self, Region};
use packetboat::port::{PortError, RegisterValue};

use crate::clock::{Instant, sleep};
use crate::registers::{Rc, Readable, Register, TABLE, Writable};

/// The registers' part of BAR 0 (82599 datasheet 8.2.1): behind it comes the flash.
pub(crate) const BAR_LEN_BYTES: u64 = 128 * 1024;

/// What a device that has left its slot reads as.
const GONE: u32 = u32::MAX;

/// The device with its registers.
pub(crate) struct Bar {
    name: String,
    /// Its own among this program's, for names that have to be short.
    number: u32,
    device: Box<dyn Device>,
    region: Region,
}

impl Bar {
    /// Maps BAR 0.
    pub(crate) fn new(device: Box<dyn Device>) -> Result<Self, PortError> {
        let name = device.name();
        // Checked once, so that no register of the table can be out of reach later.
        let region = device
            .bar(0)?
            .window(0, BAR_LEN_BYTES)
            .map_err(|source| BusError::Mmio { device: name.clone(), source })?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { name, number, device, region })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    pub(crate) fn fault(&self, what: impl Into<String>) -> PortError {
        PortError::Device { device: self.name.clone(), what: what.into() }
    }

    fn word(&self, offset: u64) -> Option<mmio::Register<u32>> {
        self.region.register(offset).ok() // every offset of the table is inside, and a multiple of 4
    }

    /// A register to keep: a tail that a queue rings.
    pub(crate) fn handle<M: Writable>(
        &self,
        register: Register<M>,
        n: u16,
    ) -> Result<mmio::Register<u32>, PortError> {
        let kept = self.region.register(register.at(n));
        Ok(kept.map_err(|source| BusError::Mmio { device: self.name.clone(), source })?)
    }

    /// Reads the first of a register.
    pub(crate) fn read<M: Readable>(&self, register: Register<M>) -> u32 {
        self.read_at(register, 0)
    }

    /// Reads number `n` of a register.
    pub(crate) fn read_at<M: Readable>(&self, register: Register<M>, n: u16) -> u32 {
        self.word(register.at(n)).map_or(GONE, |word| word.read())
    }

    /// Reads a register that reading changes. A device that has gone has counted nothing.
    pub(crate) fn take_at(&self, register: Register<Rc>, n: u16) -> u32 {
        self.word(register.at(n)).map_or(GONE, |word| word.read())
    }

    /// Writes the first of a register.
    pub(crate) fn write<M: Writable>(&self, register: Register<M>, value: u32) {
        self.write_at(register, 0, value);
    }

    /// Writes number `n` of a register.
    pub(crate) fn write_at<M: Writable>(&self, register: Register<M>, n: u16, value: u32) {
        if let Some(word) = self.word(register.at(n)) {
            word.write(value);
        }
    }

    /// Writes all of a register.
    pub(crate) fn write_all<M: Writable>(&self, register: Register<M>, value: u32) {
        for n in 0..register.count() {
            self.write_at(register, n, value);
        }
    }

    /// Clears and sets bits of the first of a register.
    pub(crate) fn change<M: Readable + Writable>(
        &self,
        register: Register<M>,
        clear: u32,
        set: u32,
    ) {
        self.change_at(register, 0, clear, set);
    }

    /// Clears and sets bits of number `n` of a register.
    pub(crate) fn change_at<M: Readable + Writable>(
        &self,
        register: Register<M>,
        n: u16,
        clear: u32,
        set: u32,
    ) {
        let value = self.read_at(register, n);
        self.write_at(register, n, value & !clear | set);
    }

    /// Waits until `bits` of a register are all set, or until they are all clear.
    pub(crate) fn await_bits<M: Readable>(
        &self,
        (register, n): (Register<M>, u16),
        bits: u32,
        set: bool,
        limit: Duration,
        what: &str,
    ) -> Result<(), PortError> {
        let wanted = if set { bits } else { 0 };
        let start = Instant::now();
        loop {
            let value = self.read_at(register, n);
            if value & bits == wanted {
                return Ok(());
            }
            if value == GONE || start.elapsed() > limit {
                let ms = limit.as_millis();
                let why = if value == GONE { "is gone".to_owned() } else { format!("{ms} ms") };
                return Err(self.fault(format!("{what}, waited for {why}")));
            }
            sleep(Duration::from_micros(100));
        }
    }

    /// Whether the device is still there: no register that exists reads as all ones.
    pub(crate) fn is_gone(&self) -> bool {
        self.read(crate::registers::STATUS) == GONE
    }

    /// All registers whose reading changes nothing.
    pub(crate) fn dump(&self) -> Vec<RegisterValue> {
        let mut values = Vec::new();
        for line in TABLE.iter().filter(|line| line.quiet) {
            for n in 0..line.count {
                let offset = line.offset + n * line.stride;
                let value = self.word(u64::from(offset)).map_or(GONE, |word| word.read());
                let name = match line.count {
                    1 => line.name.to_owned(),
                    _ => format!("{}[{n}]", line.name),
                };
                values.push(RegisterValue { name, offset, value, meaning: line.meaning });
            }
        }
        values
    }
}

impl std::fmt::Debug for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bar({})", self.name)
    }
}
