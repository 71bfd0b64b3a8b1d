//! Fields and flags that programs and libraries register by name at start, and then reach as
//! quickly as any other. DPDK's `rte_mbuf_dyn`.
//!
//! Each mbuf has [`DYN_BYTES`] bytes for them, at the end of its second line, and the bits of its
//! flags word that receiving and sending leave. They are shared by all pools of the process, so
//! that a frame means the same to whoever gets it. What an mbuf that was just taken from its pool
//! has in its fields is what its last owner left there; its flags are clear.
#![expect(unsafe_code, reason = "reads and writes values in a header by their offset")]

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::sync::{Mutex, PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::flags;
use super::frame::Mbuf;
use super::header::{DYNAMIC_WORDS, Header};

/// Room for fields registered by name, in bytes. It starts at a multiple of 4, and the next of 8.
pub const DYN_BYTES: usize = DYNAMIC_WORDS * size_of::<u32>();

/// The room's place in the header, in bytes.
const START: usize = size_of::<Header>() - DYN_BYTES;

/// Why a field or flag can't be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DynError {
    /// Another field has that name.
    #[error(
        "mbuf field {name:?} is registered already, as {found}; {wanted} was asked for. Choose \
         another name, or the same type"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Type that was asked for.
        wanted: &'static str,
        /// Type that it has.
        found: &'static str,
    },
    /// There is no room left of that length and alignment.
    #[error(
        "mbuf field {name:?} of {wanted} bytes, aligned to {align}: of {DYN_BYTES} bytes {free} are \
         free, in the longest piece {longest}"
    )]
    Full {
        /// The name.
        name: String,
        /// Its length in bytes.
        wanted: usize,
        /// Its alignment.
        align: usize,
        /// Bytes that no field has.
        free: usize,
        /// Most of them side by side.
        longest: usize,
    },
    /// All flags are taken.
    #[error("mbuf flag {name:?}: all {count} flags are registered already")]
    NoFlag {
        /// The name.
        name: String,
        /// How many there are.
        count: u32,
    },
}

struct Field {
    name: String,
    kind: &'static str,
    offset: usize,
    len: usize,
    align: usize,
}

/// What is registered: for the life of the process, as frames may be about.
struct Registry {
    fields: Vec<Field>,
    flags: Vec<(String, u64)>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());

impl Registry {
    const fn new() -> Self {
        Self { fields: Vec::new(), flags: Vec::new() }
    }

    /// The offset from the room's start for a field: the one it has, or a new one.
    fn field(
        &mut self,
        name: &str,
        kind: &'static str,
        len: usize,
        align: usize,
    ) -> Result<usize, DynError> {
        if let Some(known) = self.fields.iter().find(|field| field.name == name) {
            let same = known.kind == kind && known.len == len && known.align == align;
            return same.then_some(known.offset).ok_or(DynError::NameTaken {
                name: name.to_owned(),
                wanted: kind,
                found: known.kind,
            });
        }
        let taken = |at: usize| {
            self.fields.iter().any(|field| (field.offset..field.offset + field.len).contains(&at))
        };
        // The shortest free piece that has room for it, so that long ones stay long.
        let mut best: Option<(usize, usize)> = None;
        let (mut free, mut longest, mut at) = (0, 0, 0);
        while at < DYN_BYTES {
            if taken(at) {
                at += 1;
                continue;
            }
            let end = (at..DYN_BYTES).find(|byte| taken(*byte)).unwrap_or(DYN_BYTES);
            free += end - at;
            longest = longest.max(end - at);
            // The header is aligned to a cache line, so offsets in it tell the alignment.
            let start = (START + at).next_multiple_of(align.max(1)) - START;
            let fits = start + len <= end && align <= align_of::<Header>();
            if fits && best.is_none_or(|(piece, _)| end - at < piece) {
                best = Some((end - at, start));
            }
            at = end;
        }
        let Some((_, offset)) = best else {
            let name = name.to_owned();
            return Err(DynError::Full { name, wanted: len, align, free, longest });
        };
        self.fields.push(Field { name: name.to_owned(), kind, offset, len, align });
        Ok(offset)
    }

    fn flag(&mut self, name: &str) -> Result<u64, DynError> {
        if let Some((_, bit)) = self.flags.iter().find(|(known, _)| known == name) {
            return Ok(*bit);
        }
        let taken = self.flags.iter().fold(0, |taken, (_, bit)| taken | bit);
        let left = flags::DYNAMIC & !taken;
        if left == 0 {
            let count = flags::DYNAMIC.count_ones();
            return Err(DynError::NoFlag { name: name.to_owned(), count });
        }
        let bit = 1 << left.trailing_zeros();
        self.flags.push((name.to_owned(), bit));
        Ok(bit)
    }
}

/// A field of every mbuf, registered by name.
///
/// ```
/// # use packetboat::memory::{Memory, MemoryConfig};
/// # use packetboat::mbuf::{DynField, MbufPool, MbufPoolConfig};
/// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// # let pool = MbufPool::new(&memory, &MbufPoolConfig::new("marked", 8))?;
/// let sequence = DynField::<u32>::register("example_sequence")?; // once, at start
/// let mut frame = pool.alloc().ok_or("none left")?;
/// frame.set_field(sequence, 7);
/// assert_eq!(frame.field(sequence), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DynField<T> {
    /// From the room's start: `offset + size_of::<T>() <= DYN_BYTES`, aligned for T.
    offset: usize,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for DynField<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DynField<T> {}

impl<T> fmt::Debug for DynField<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynField<{}>(at {})", type_name::<T>(), self.offset)
    }
}

impl<T: Copy + FromBytes + IntoBytes + Immutable> DynField<T> {
    /// Registers a field, or finds the one of that name.
    ///
    /// # Errors
    /// If the name is taken by one of another type, or there is no room left.
    pub fn register(name: &str) -> Result<Self, DynError> {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        Self::register_in(&mut registry, name)
    }

    fn register_in(registry: &mut Registry, name: &str) -> Result<Self, DynError> {
        let offset = registry.field(name, type_name::<T>(), size_of::<T>(), align_of::<T>())?;
        Ok(Self { offset, value: PhantomData })
    }
}

/// A flag of every mbuf, registered by name; clear in one that was just taken from its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynFlag(u64);

impl DynFlag {
    /// Registers a flag, or finds the one of that name.
    ///
    /// # Errors
    /// If all flags are taken.
    pub fn register(name: &str) -> Result<Self, DynError> {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self(registry.flag(name)?))
    }
}

impl Mbuf {
    /// The value of a field.
    #[inline(always)]
    #[must_use]
    pub fn field<T: Copy + FromBytes>(&self, field: DynField<T>) -> T {
        // SAFETY: registered: inside the room, aligned; any bytes are a valid T.
        unsafe {
            let room = (&raw const self.meta().dynamic).cast::<u8>();
            room.add(field.offset).cast::<T>().read()
        }
    }

    /// Sets a field.
    #[inline(always)]
    pub fn set_field<T: Copy + IntoBytes>(&mut self, field: DynField<T>, value: T) {
        // SAFETY: registered: inside the room, aligned; a T has no bytes that aren't initialised.
        unsafe {
            let room = (&raw mut self.meta_mut().dynamic).cast::<u8>();
            room.add(field.offset).cast::<T>().write(value);
        }
    }

    /// Whether a flag is set.
    #[inline(always)]
    #[must_use]
    pub fn flag(&self, flag: DynFlag) -> bool {
        self.meta().flags & flag.0 != 0
    }

    /// Sets a flag, or clears it.
    #[inline(always)]
    pub fn set_flag(&mut self, flag: DynFlag, on: bool) {
        let flags = &mut self.meta_mut().flags;
        *flags = if on { *flags | flag.0 } else { *flags & !flag.0 };
    }
}

/// When a frame was received: a field and a flag that say so.
///
/// ```
/// # use packetboat::memory::{Memory, MemoryConfig};
/// # use packetboat::mbuf::{MbufPool, MbufPoolConfig, Timestamp};
/// # let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// # let pool = MbufPool::new(&memory, &MbufPoolConfig::new("timed", 8))?;
/// let timestamp = Timestamp::register()?;
/// let mut frame = pool.alloc().ok_or("none left")?;
/// assert_eq!(timestamp.get(&frame), None);
/// timestamp.set(&mut frame, 1_000_000);
/// assert_eq!(timestamp.get(&frame), Some(1_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timestamp {
    field: DynField<u64>,
    flag: DynFlag,
}

impl Timestamp {
    /// The names under which both are registered.
    pub const NAME: &'static str = "packetboat_rx_timestamp";

    /// Registers the two, or finds them.
    ///
    /// # Errors
    /// If there is no room.
    pub fn register() -> Result<Self, DynError> {
        Ok(Self { field: DynField::register(Self::NAME)?, flag: DynFlag::register(Self::NAME)? })
    }

    /// The time, in the unit and from the start that whoever set it goes by; `None` if nobody did.
    #[inline]
    #[must_use]
    pub fn get(&self, mbuf: &Mbuf) -> Option<u64> {
        mbuf.flag(self.flag).then(|| mbuf.field(self.field))
    }

    /// Sets it.
    #[inline]
    pub fn set(&self, mbuf: &mut Mbuf, time: u64) {
        mbuf.set_field(self.field, time);
        mbuf.set_flag(self.flag, true);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_are_apart_and_aligned_and_fill_the_room() {
        let mut registry = Registry::new();
        let mut add = |name: &str, len, align| registry.field(name, "bytes", len, align);
        assert_eq!(add("byte", 1, 1), Ok(0));
        assert_eq!(add("word", 8, 8), Ok(4), "92 + 4 is a multiple of 8");
        assert_eq!(add("half", 2, 2), Ok(2), "in the gap");
        assert_eq!(add("last byte", 1, 1), Ok(1), "in the rest of the gap");
        assert_eq!(add("word", 8, 8), Ok(4), "the same again");
        assert_eq!(add("long", 20, 4), Ok(12));
        let full = DynError::Full { name: "8".into(), wanted: 8, align: 8, free: 4, longest: 4 };
        assert_eq!(add("8", 8, 8), Err(full.clone()));
        assert_eq!(
            full.to_string(),
            "mbuf field \"8\" of 8 bytes, aligned to 8: of 36 bytes 4 are free, in the longest \
             piece 4"
        );
        assert_eq!(add("four", 4, 4), Ok(32), "what does fit is still served");
        assert!(matches!(add("one", 1, 1), Err(DynError::Full { free: 0, .. })));
        assert!(matches!(Registry::new().field("a", "t", 4, 128), Err(DynError::Full { .. })));
        assert!(matches!(Registry::new().field("a", "t", 37, 1), Err(DynError::Full { .. })));
        assert_eq!(Registry::new().field("a", "t", 36, 4), Ok(0));
    }

    #[test]
    fn a_name_has_one_type() {
        let mut registry = Registry::new();
        let first = DynField::<u32>::register_in(&mut registry, "number").unwrap();
        let again = DynField::<u32>::register_in(&mut registry, "number").unwrap();
        assert_eq!(first.offset, again.offset);
        let error = DynField::<i32>::register_in(&mut registry, "number").unwrap_err();
        let name = "number".to_owned();
        assert_eq!(error, DynError::NameTaken { name, wanted: "i32", found: "u32" });
        assert!(DynField::<u16>::register_in(&mut registry, "number").is_err());
    }

    #[test]
    fn flags_are_bits_that_nobody_else_uses() {
        let mut registry = Registry::new();
        let count = flags::DYNAMIC.count_ones();
        let mut seen = 0;
        for nth in 0..count {
            let bit = registry.flag(&format!("flag {nth}")).unwrap();
            assert!(bit.is_power_of_two() && seen & bit == 0 && bit & flags::DYNAMIC != 0);
            seen |= bit;
        }
        let error = registry.flag("one more").unwrap_err();
        assert_eq!(error, DynError::NoFlag { name: "one more".into(), count });
        assert_eq!(registry.flag("flag 0").unwrap().count_ones(), 1);
    }
}
