//! Byte counts as people write them.

use std::fmt;

/// Bytes, shown in the greatest unit that keeps the number exact (`64 MiB`, `1000 bytes`), or
/// with one decimal if it is long otherwise (`1.5 GiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(
    /// The number of bytes.
    pub u64,
);

const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let exact = UNITS.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
        if let Some((shift, unit)) = exact
            && bytes >> shift < 10_240
        {
            return out.pad(&format!("{} {unit}", bytes >> shift));
        }
        match UNITS.iter().find(|(shift, _)| bytes >> shift >= 10) {
            // Tenths, rounded down: a free amount must not look larger than it is.
            Some((shift, unit)) => {
                let tenths = (u128::from(bytes) * 10) >> shift;
                out.pad(&format!("{}.{} {unit}", tenths / 10, tenths % 10))
            }
            None => out.pad(&format!("{bytes} bytes")),
        }
    }
}

/// The number of MiB that holds `bytes`: what a `-m` has to say.
pub(super) fn mib_for(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_never_rounded_up() {
        let cases = [
            (0, "0 bytes"),
            (1000, "1000 bytes"),
            (4096, "4 KiB"),
            (64 << 20, "64 MiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + (512 << 20), "1536 MiB"),
            ((20 << 30) - 1, "19.9 GiB"),
            (20_000, "19.5 KiB"),
            (1 << 47, "128 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(mib_for(1), 1);
        assert_eq!(mib_for(2 << 20), 2);
    }
}
