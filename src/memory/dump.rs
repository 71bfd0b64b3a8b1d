//! The memory's state for a person to read.

use super::registry::Memory;
use super::segment::describe_runs;
use super::size::Size;
use std::io::{self, Write};

impl Memory {
    /// Writes segments, zones and free blocks, and segments that were added later, one a line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn dump(&self, out: &mut dyn Write) -> io::Result<()> {
        let mode = self.iova_mode();
        let zones = self.zones();
        let (len, free) = (Size(self.len_bytes()), Size(self.free_len_bytes()));
        writeln!(out, "memory: {len}, of which {free} free, IOVA mode {mode}")?;
        for ((index, segment), blocks) in self.segments().iter().enumerate().zip(self.free_blocks())
        {
            let runs = describe_runs(mode, segment);
            writeln!(out, "segment {index}: {segment}, {runs}")?;
            let end = segment.va() + segment.len_bytes() as u64;
            let mut lines: Vec<(u64, u64, &str)> = zones
                .iter()
                .filter(|zone| (segment.va()..end).contains(&zone.va))
                .map(|zone| (zone.va, zone.len_bytes as u64, zone.name.as_str()))
                .collect();
            let free = blocks.iter().map(|(offset, len)| (*offset as u64, *len as u64));
            lines.extend(free.map(|(offset, len)| (segment.va() + offset, len, "(free)")));
            lines.sort_unstable();
            for (va, len, name) in lines {
                writeln!(out, "  {va:#014x}  {:>12}  {name}", Size(len))?;
            }
        }
        for segment in self.added_segments() {
            writeln!(out, "added: {segment}, {}", describe_runs(mode, &segment))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::{Memory, MemoryConfig, ZoneRequest};

    #[test]
    fn segments_zones_and_free_blocks_are_shown_in_order() {
        let memory = Memory::reserve(&MemoryConfig::no_huge(4)).unwrap();
        let _first = memory.zone(&ZoneRequest::new("first", 1 << 20)).unwrap();
        let gap = memory.zone(&ZoneRequest::new("gap", 4096)).unwrap();
        let _last = memory.zone(&ZoneRequest::new("last", 100)).unwrap();
        drop(gap);
        let mut text = Vec::new();
        memory.dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[0].starts_with("memory: 4 MiB, of which "), "{text}");
        assert!(lines[1].contains("any node, 4 KiB pages, 0x"), "{text}");
        assert!(lines[1].ends_with("4 MiB, iova = va"), "{text}");
        let endings = ["1 MiB  first", "4 KiB  (free)", "100 bytes  last", "(free)"];
        for (line, ending) in lines[2..].iter().zip(endings) {
            assert!(line.ends_with(ending), "{text}");
        }
    }
}
