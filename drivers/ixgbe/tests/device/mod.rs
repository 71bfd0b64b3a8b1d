//! An 82599 that is only registers: enough of them for the driver to start, and rings that the
//! test fills and empties by hand. It knows nothing of its own accord, so it can tell any lie;
//! what a truthful one does is tested against softnic.
//!
//! Shared by this crate's tests, the fuzz target and benches/ixgbe.
#![allow(dead_code, unreachable_pub, reason = "each of its users needs another part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a helper of tests")]

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat::bus::{BusError, Device, EventFd, PciIds, Quiesced};
use packetboat::memory::Memory;
use packetboat::mmio::{Region, RegionIo, Width};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub const MAC: [u8; 6] = [0x02, 0x50, 0x42, 0, 0, 7];
const BAR_LEN: usize = 128 * 1024;

/// EFD_NONBLOCK.
const NONBLOCK: i32 = 0o4000;
pub const CTRL: u64 = 0x0;
pub const EIMS: u64 = 0x880;
pub const STATUS: u64 = 0x8;
pub const CTRL_EXT: u64 = 0x18;
pub const EERD: u64 = 0x10014;
pub const LINKS: u64 = 0x42a4;
pub const SRRCTL: u64 = 0x1014;
pub const RXDCTL: u64 = 0x1028;
const EEC: u64 = 0x10010;
const EEMNGCTL: u64 = 0x10110;
const SWSM: u64 = 0x10140;
const RDRXCTL: u64 = 0x2f00;
const SECRXSTAT: u64 = 0x8d04;
const I2CCTL: u64 = 0x28;
const ANLP1: u64 = 0x42b0;
const RAL: u64 = 0xa200;
const RAH: u64 = 0xa204;
const RDBAL: u64 = 0x1000;
const TDBAL: u64 = 0x6000;

/// Descriptor bits.
pub const DD: u64 = 1;
pub const EOP: u64 = 2;
const TX_RS: u64 = 1 << 27;
const TX_EOP: u64 = 1 << 24;
const TX_CONTEXT: u64 = 2 << 20;
const TX_TYPE: u64 = 0xf << 20;
const TX_DD: u64 = 1 << 32;

/// The test's hand on the device.
#[derive(Clone)]
pub struct Nic(Arc<Shared>);

struct Shared {
    /// A name of its own.
    number: usize,
    memory: GuestMemoryMmap,
    state: Mutex<State>,
}

struct State {
    registers: Vec<u32>,
    eeprom: Vec<u16>,
    ids: PciIds,
    /// Fills a receive ring within the write of its tail, and completes a transmit ring likewise.
    full_rings: Option<Vec<u8>>,
    /// Reads give these instead, for as long as there are any.
    lies: Vec<u32>,
    gone: bool,
    resets: usize,
    vectors: u16,
    bus_master: bool,
    /// Interrupts that were allowed while their messages couldn't go out.
    lost_interrupts: usize,
    /// Frames that were sent in full rings.
    sent: u64,
    received: u64,
}

/// The device as the driver gets it.
struct Function(Arc<Shared>);

impl Nic {
    pub fn new(memory: &Memory) -> Self {
        let ranges: Vec<(GuestAddress, usize, Option<FileOffset>)> = memory
            .segments()
            .iter()
            .flat_map(|segment| {
                let file = Arc::new(File::from(segment.file().try_clone_to_owned().unwrap()));
                segment.iova_runs().iter().map(move |run| {
                    let offset = FileOffset::from_arc(file.clone(), run.va - segment.va());
                    (GuestAddress(run.iova.0), run.len_bytes as usize, Some(offset))
                })
            })
            .collect();
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let mut eeprom = vec![0; 0x400];
        for pointer in &mut eeprom[3..0xf] {
            *pointer = 0xffff;
        }
        let mut state = State {
            registers: vec![0; BAR_LEN / 4],
            eeprom,
            ids: PciIds { vendor: 0x8086, device: 0x10fb, class: 0x02_0000, ..PciIds::default() },
            full_rings: None,
            lies: Vec::new(),
            gone: false,
            resets: 0,
            vectors: 0,
            bus_master: false,
            lost_interrupts: 0,
            sent: 0,
            received: 0,
        };
        state.sign_eeprom();
        state.reset();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Shared { number, memory, state: Mutex::new(state) }))
    }

    pub fn function(&self) -> Box<dyn Device> {
        Box::new(Function(self.0.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub fn set_device_id(&self, device: u16) {
        self.state().ids.device = device;
    }

    /// Changes a word of the EEPROM, and its checksum if `signed`.
    pub fn set_eeprom(&self, at: usize, word: u16, signed: bool) {
        let mut state = self.state();
        state.eeprom[at] = word;
        if signed {
            state.sign_eeprom();
        }
    }

    /// From now on, and until they run out, reads of registers give these.
    pub fn lie(&self, values: impl IntoIterator<Item = u32>) {
        let mut values: Vec<u32> = values.into_iter().collect();
        values.reverse();
        self.state().lies = values;
    }

    pub fn pull_out(&self) {
        self.state().gone = true;
    }

    pub fn fill_rings(&self, frame: &[u8]) {
        self.state().full_rings = Some(frame.to_vec());
    }

    /// Frames put into, and taken out of, full rings.
    pub fn moved(&self) -> (u64, u64) {
        let state = self.state();
        (state.received, state.sent)
    }

    pub fn resets(&self) -> usize {
        self.state().resets
    }

    /// From now on it has MSI-X vectors.
    pub fn offer_vectors(&self, count: u16) {
        self.state().vectors = count;
    }

    pub fn lost_interrupts(&self) -> usize {
        self.state().lost_interrupts
    }

    pub fn register(&self, offset: u64) -> u32 {
        self.state().registers[offset as usize / 4]
    }

    pub fn set_register(&self, offset: u64, value: u32) {
        self.state().registers[offset as usize / 4] = value;
    }

    fn ring(&self, base: u64, queue: u64) -> (u64, u64, u64, u64) {
        let state = self.state();
        let at =
            |offset: u64| u64::from(state.registers[(base + offset + 0x40 * queue) as usize / 4]);
        (at(0) | at(4) << 32, at(8) / 16, at(0x10), at(0x18))
    }

    /// How many receive descriptors the device has.
    pub fn free(&self, queue: u64) -> u64 {
        let (_, len, head, tail) = self.ring(RDBAL, queue);
        (tail + len - head) % len.max(1)
    }

    /// The address in the receive descriptor that comes next.
    pub fn buffer(&self, queue: u64) -> u64 {
        let (base, _, head, _) = self.ring(RDBAL, queue);
        self.0.memory.read_obj(GuestAddress(base + 16 * head)).unwrap()
    }

    /// Writes `data` into the next receive buffer and `words` into its descriptor, and goes on to
    /// the next.
    pub fn write_back(&self, queue: u64, data: &[u8], words: [u64; 2]) {
        let (base, len, head, _) = self.ring(RDBAL, queue);
        let buffer = self.buffer(queue);
        let _ = self.0.memory.write_slice(data, GuestAddress(buffer));
        self.0.memory.write_obj(words, GuestAddress(base + 16 * head)).unwrap();
        self.set_register(RDBAL + 0x10 + 0x40 * queue, ((head + 1) % len.max(1)) as u32);
    }

    /// A whole frame for a queue.
    pub fn deliver(&self, queue: u64, data: &[u8]) {
        assert!(self.free(queue) > 0, "no descriptor");
        self.write_back(queue, data, [0, DD | EOP | (data.len() as u64) << 32]);
    }

    /// Any words into any receive descriptor.
    pub fn scribble_rx(&self, queue: u64, index: u64, words: [u64; 2]) {
        let (base, len, ..) = self.ring(RDBAL, queue);
        if len != 0 {
            let _ = self.0.memory.write_obj(words, GuestAddress(base + 16 * (index % len)));
        }
    }

    /// Any words into any transmit descriptor.
    pub fn scribble_tx(&self, queue: u64, index: u64, words: [u64; 2]) {
        let (base, len, ..) = self.ring(TDBAL, queue);
        if len != 0 {
            let _ = self.0.memory.write_obj(words, GuestAddress(base + 16 * (index % len)));
        }
    }

    /// Descriptors between head and tail of a transmit queue.
    pub fn pending(&self, queue: u64) -> Vec<[u64; 2]> {
        let (base, len, mut head, tail) = self.ring(TDBAL, queue);
        let mut found = Vec::new();
        while len != 0 && head != tail {
            found.push(self.0.memory.read_obj(GuestAddress(base + 16 * head)).unwrap());
            head = (head + 1) % len;
        }
        found
    }

    /// Sends all that a queue has: the frames. Reports as asked.
    pub fn transmit(&self, queue: u64) -> Vec<Vec<u8>> {
        let (base, len, mut head, tail) = self.ring(TDBAL, queue);
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        while len != 0 && head != tail {
            let at = GuestAddress(base + 16 * head);
            let [lower, upper]: [u64; 2] = self.0.memory.read_obj(at).unwrap();
            if upper & TX_TYPE != TX_CONTEXT {
                let mut part = vec![0; upper as usize & 0xffff];
                // From an address that isn't there come zeros.
                let _ = self.0.memory.read_slice(&mut part, GuestAddress(lower));
                frame.extend(part);
                if upper & TX_EOP != 0 {
                    frames.push(std::mem::take(&mut frame));
                }
            }
            if upper & TX_RS != 0 {
                self.0.memory.write_obj([0, TX_DD], at).unwrap();
            }
            head = (head + 1) % len;
        }
        self.set_register(TDBAL + 0x10 + 0x40 * queue, head as u32);
        frames
    }

    fn fill_rx(&self, queue: u64) {
        let Some(frame) = self.state().full_rings.clone() else { return };
        let (base, len, mut head, tail) = self.ring(RDBAL, queue);
        let mut count = 0;
        while len != 0 && head != tail {
            let at = GuestAddress(base + 16 * head);
            let buffer: u64 = self.0.memory.read_obj(at).unwrap();
            self.0.memory.write_slice(&frame, GuestAddress(buffer)).unwrap();
            let upper = DD | EOP | 0x60 | (frame.len() as u64) << 32;
            self.0.memory.write_obj([0x0001_0000_0111_u64, upper], at).unwrap();
            head = (head + 1) % len;
            count += 1;
        }
        self.set_register(RDBAL + 0x10 + 0x40 * queue, head as u32);
        self.state().received += count;
    }

    fn empty_tx(&self, queue: u64) {
        let (base, len, mut head, tail) = self.ring(TDBAL, queue);
        let mut count = 0;
        while len != 0 && head != tail {
            let at = GuestAddress(base + 16 * head + 8);
            let upper: u64 = self.0.memory.read_obj(at).unwrap();
            count += u64::from(upper & TX_EOP != 0);
            if upper & TX_RS != 0 {
                self.0.memory.write_obj(TX_DD, at).unwrap();
            }
            head = (head + 1) % len;
        }
        self.set_register(TDBAL + 0x10 + 0x40 * queue, head as u32);
        self.state().sent += count;
    }
}

impl State {
    fn sign_eeprom(&mut self) {
        self.eeprom[0x3f] = 0;
        let sum = self.eeprom[..0x3f].iter().fold(0_u16, |sum, word| sum.wrapping_add(*word));
        self.eeprom[0x3f] = 0xbaba_u16.wrapping_sub(sum);
    }

    fn reset(&mut self) {
        self.registers.fill(0);
        let [a, b, c, d, e, f] = MAC;
        self.registers[RAL as usize / 4] = u32::from_le_bytes([a, b, c, d]);
        self.registers[RAH as usize / 4] = u32::from_le_bytes([e, f, 0, 0x80]);
        self.registers[LINKS as usize / 4] = 0x7000_0000;
    }

    fn read(&mut self, offset: u64) -> u32 {
        if self.gone {
            return u32::MAX;
        }
        if let Some(lie) = self.lies.pop() {
            return lie;
        }
        let value = self.registers[offset as usize / 4];
        match offset {
            CTRL => value & !(1 << 26 | 1 << 3),
            STATUS => {
                if self.registers[0] & 4 != 0 {
                    0
                } else {
                    0x0008_0000
                }
            }
            EEC => 0x2300,
            EEMNGCTL => 0xc_0000,
            RDRXCTL => value | 8,
            SECRXSTAT => 1,
            ANLP1 => 0x1_0000,
            I2CCTL => 0xf, // nobody pulls a wire down
            SWSM => {
                self.registers[offset as usize / 4] |= 1;
                value
            }
            _ => value,
        }
    }
}

/// Registers by message: what a write sets going happens within it.
struct Io(Nic);

impl RegionIo for Io {
    fn read(&self, offset: u64, width: Width) -> u64 {
        assert_eq!(width, Width::U32);
        u64::from(self.0.state().read(offset))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        assert_eq!(width, Width::U32);
        let value = value as u32;
        {
            let mut state = self.0.state();
            match offset {
                EIMS if !state.bus_master => state.lost_interrupts += 1,
                CTRL if value & (1 << 26) != 0 => state.reset(),
                EERD => {
                    let word = state.eeprom.get(value as usize >> 2).copied().unwrap_or(0xffff);
                    state.registers[EERD as usize / 4] = u32::from(word) << 16 | 2;
                }
                _ => state.registers[offset as usize / 4] = value,
            }
            if state.full_rings.is_none() {
                return;
            }
        }
        match offset {
            0x1000..0x2000 if offset & 0x3f == 0x18 => self.0.fill_rx((offset - 0x1000) / 0x40),
            0x6000..0x8000 if offset & 0x3f == 0x18 => self.0.empty_tx((offset - 0x6000) / 0x40),
            // The receiver goes on: the rings are there already.
            0x3000 if value & 1 != 0 => (0..16).for_each(|queue| self.0.fill_rx(queue)),
            _ => {}
        }
    }
}

impl Device for Function {
    fn name(&self) -> String {
        format!("test:{}", self.0.number)
    }

    fn ids(&self) -> PciIds {
        Nic(self.0.clone()).state().ids
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn config_read(&self, _: u16, _: Width) -> Result<u32, BusError> {
        Ok(0)
    }

    fn config_write(&self, _: u16, _: Width, _: u32) -> Result<(), BusError> {
        Ok(())
    }

    fn bar(&self, index: u8) -> Result<Region, BusError> {
        assert_eq!(index, 0);
        Ok(Region::remote(Arc::new(Io(Nic(self.0.clone()))), BAR_LEN as u64))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        Nic(self.0.clone()).state().bus_master = on;
        Ok(())
    }

    fn reset(&self) -> Result<Quiesced, BusError> {
        let nic = Nic(self.0.clone());
        let mut state = nic.state();
        state.resets += 1;
        state.reset();
        Ok(Quiesced::after_reset())
    }

    fn msix_vectors(&self) -> u16 {
        Nic(self.0.clone()).state().vectors
    }

    fn enable_msix(&self, count: u16) -> Result<Vec<EventFd>, BusError> {
        Ok((0..count).map(|_| EventFd::new(NONBLOCK).unwrap()).collect())
    }

    fn disable_msix(&self) -> Result<(), BusError> {
        Ok(())
    }

    fn removal_requested(&self) -> bool {
        Nic(self.0.clone()).state().gone
    }
}
