//! Storage and access rules of the registers, as the table says.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use packetboat::sys::memfd;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::table::{ALIASES, FILE_LEN_BYTES, Mode, TABLE};

const WORDS: usize = FILE_LEN_BYTES / 4;

/// Where an offset leads, aliases followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset of the register itself.
    pub offset: u32,
    /// Offset of the first of its kind, as in [`super::at`].
    pub base: u32,
    /// Which one it is.
    pub n: u32,
    /// Line of the table.
    pub line: usize,
}

/// What a write did.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Which register.
    pub access: Access,
    /// Its value before.
    pub before: u32,
    /// What software wrote, unmasked.
    pub raw: u32,
    /// Its value now.
    pub value: u32,
}

/// All registers of one NIC. They lie in a memfd of fixed size, so that the pages of the queue
/// registers can be shared with a client. What a client writes there goes around the masks: whoever
/// reads a queue register takes nothing in it for granted.
#[derive(Debug)]
pub struct RegisterFile {
    words: MmapRegion,
    memfd: OwnedFd,
    index: Arc<Vec<Option<Access>>>,
}

impl RegisterFile {
    /// A register file with every register at its reset value.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> io::Result<Self> {
        let memfd = memfd::create("softnic-registers", None)?;
        memfd::allocate(memfd.as_fd(), FILE_LEN_BYTES as u64)?;
        memfd::seal_size(memfd.as_fd())?;
        let file = FileOffset::new(File::from(memfd.try_clone()?), 0);
        let words = MmapRegion::from_file(file, FILE_LEN_BYTES).map_err(io::Error::other)?;
        let registers = Self { words, memfd, index: Arc::new(index()) };
        registers.reset(|_| false);
        Ok(registers)
    }

    /// The file that a client may map.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Every register to its reset value, but those that `keep` names.
    pub fn reset(&self, keep: impl Fn(&str) -> bool) {
        for register in TABLE.iter().filter(|register| !keep(register.name)) {
            for n in 0..register.count {
                self.set(register.offset + n * register.stride, register.reset);
            }
        }
    }

    /// What stands at `offset`: no rules, no effects. Offsets outside the file read as 0.
    pub fn get(&self, offset: u32) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// As [`get`](Self::get); what the other side wrote before it wrote this register can be seen
    /// afterwards.
    pub fn get_acquire(&self, offset: u32) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Puts `value` at `offset`: no rules, no effects.
    pub fn set(&self, offset: u32, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets and clears bits: no rules, no effects.
    pub fn change(&self, offset: u32, clear: u32, set: u32) {
        self.set(offset, (self.get(offset) & !clear) | set);
    }

    /// Adds to a counter of 32 bits.
    pub fn add(&self, offset: u32, n: u64) {
        if n != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "counters wrap")]
            self.set(offset, self.get(offset).wrapping_add(n as u32));
        }
    }

    /// Adds to a counter whose upper half stands at `high`.
    pub fn add_wide(&self, low: u32, high: u32, n: u64) {
        if n != 0 {
            let sum = (u64::from(self.get(high)) << 32 | u64::from(self.get(low))).wrapping_add(n);
            #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
            self.set(low, sum as u32);
            self.set(high, (sum >> 32) as u32);
        }
    }

    /// Which register an offset leads to, or `None` if the model has none there.
    pub fn locate(&self, offset: u32) -> Option<Access> {
        *self.index.get(offset as usize / 4)?
    }

    /// A read by software: counters are cleared.
    pub fn read(&self, access: Access) -> u32 {
        match TABLE[access.line].mode {
            Mode::Wo => 0,
            Mode::Ro | Mode::Rw => self.get(access.offset),
            Mode::Rc => {
                let value = self.get(access.offset);
                self.set(access.offset, 0);
                value
            }
        }
    }

    /// A write by software: only the writable bits change.
    pub fn write(&self, access: Access, raw: u32) -> Written {
        let writable = TABLE[access.line].writable;
        let before = self.get(access.offset);
        let value = (before & !writable) | (raw & writable);
        self.set(access.offset, value);
        Written { access, before, raw, value }
    }

    /// Lines `NAME[n] offset value` of all registers that aren't 0. Nothing is cleared.
    pub fn dump(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for register in TABLE {
            for n in 0..register.count {
                let offset = register.offset + n * register.stride;
                let value = self.get(offset);
                if value != 0 {
                    let name = if register.count > 1 {
                        format!("{}[{n}]", register.name)
                    } else {
                        register.name.to_owned()
                    };
                    let _ = writeln!(text, "{name:<16} {offset:#07x} {value:#010x}");
                }
            }
        }
        text
    }

    fn word(&self, offset: u32) -> Option<&AtomicU32> {
        self.words.get_atomic_ref::<AtomicU32>(offset as usize).ok()
    }
}

fn index() -> Vec<Option<Access>> {
    let mut index = vec![None; WORDS];
    for (line, register) in TABLE.iter().enumerate() {
        for n in 0..register.count {
            let offset = register.offset + n * register.stride;
            index[offset as usize / 4] = Some(Access { offset, base: register.offset, n, line });
        }
    }
    for alias in ALIASES {
        for n in 0..alias.count {
            index[(alias.offset + n * alias.stride) as usize / 4] =
                index[(alias.target + n * alias.target_stride) as usize / 4];
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::super::at;
    use super::*;

    fn read(registers: &RegisterFile, offset: u32) -> u32 {
        registers.locate(offset).map_or(0, |access| registers.read(access))
    }

    #[test]
    fn reset_values_masks_and_aliases_follow_from_the_table() {
        let registers = RegisterFile::new().unwrap();
        assert_eq!(read(&registers, at::AUTOC), 0x6000);
        let written = registers.write(registers.locate(at::RDBAL + 0x40).unwrap(), 0xffff_ffff);
        assert_eq!((written.value, written.access.n), (0xffff_ff80, 1));
        registers.write(registers.locate(0x2100 + 4 * 3).unwrap(), 0x1234);
        assert_eq!(read(&registers, at::SRRCTL + 0x40 * 3), 0x1234);
        registers.write(registers.locate(at::STATUS).unwrap(), 0);
        assert_eq!(read(&registers, at::STATUS), 0x0008_0000);
    }

    #[test]
    fn counters_clear_on_read_and_carry_into_their_upper_half() {
        let registers = RegisterFile::new().unwrap();
        registers.set(at::GORCL, 0xffff_fffe);
        registers.add_wide(at::GORCL, at::GORCH, 3);
        assert_eq!(read(&registers, at::GORCL), 1);
        assert_eq!(read(&registers, at::GORCL), 0);
        assert_eq!(read(&registers, at::GORCH), 1);
    }

    #[test]
    fn offsets_without_a_register_are_known_as_such() {
        let registers = RegisterFile::new().unwrap();
        assert_eq!(registers.locate(0x1101c), registers.locate(0x1101c));
        assert!(registers.locate(0x0000c).is_none());
        assert!(registers.locate(0xffff_fffc).is_none());
        assert_eq!(registers.get(0xffff_fffc), 0);
    }

    #[test]
    fn a_dump_names_what_is_set_and_clears_nothing() {
        let registers = RegisterFile::new().unwrap();
        registers.add(at::QPRC + 0x40, 7);
        let dump = registers.dump();
        assert!(dump.contains("QPRC[1]"), "{dump}");
        assert!(dump.contains("0x00000007"), "{dump}");
        assert_eq!(read(&registers, at::QPRC + 0x40), 7);
    }
}
