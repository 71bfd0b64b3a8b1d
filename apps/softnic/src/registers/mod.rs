//! The register file: one table says what there is, storage and access rules follow from it.

mod file;
mod table;

pub use file::{Access, RegisterFile, Written};
pub use table::{ALIASES, Alias, BAR_LEN_BYTES, FILE_LEN_BYTES, Mode, Register, TABLE, at};
