//! What a generator is told: `gen:rate=…,size=…,flows=…`.

use std::str::FromStr;

use crate::wire::MAX_FRAME_LEN;

const MIN: usize = 60;

/// Lengths of frames, without CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Of twelve frames seven have 60 bytes, four 590, one 1,514.
    Imix,
    /// Any length between two, evenly.
    Range(usize, usize),
}

impl Sizes {
    /// The length of frame `n`.
    pub fn of(self, n: u64) -> usize {
        match self {
            Self::Fixed(len) => len,
            Self::Imix => match n * 5 % 12 {
                0..7 => 60,
                7..11 => 590,
                _ => 1514,
            },
            Self::Range(from, to) => {
                from + (super::frame::mix(n) % (to - from + 1) as u64) as usize
            }
        }
    }
}

/// What a generator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Frames a second; `None` for as many as the NIC takes.
    pub rate_fps: Option<u64>,
    /// How long frames are.
    pub sizes: Sizes,
    /// How many flows take turns.
    pub flows: u16,
    /// How many frames, in all.
    pub frames: Option<u64>,
    /// Where they go.
    pub destination: [u8; 6],
    /// Whether it begins by itself.
    pub start: bool,
    /// Whether UDP checksums are filled in.
    pub checksums: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate_fps: None,
            sizes: Sizes::Fixed(MIN),
            flows: 1,
            frames: None,
            destination: [0xff; 6],
            start: true,
            checksums: false,
        }
    }
}

/// A rate: a number with k or M, or `max`.
pub(super) fn rate(text: &str) -> Result<Option<u64>, String> {
    let wrong = || format!("rate: wanted frames a second like 250000, 1.5M or max, found '{text}'");
    if text == "max" {
        return Ok(None);
    }
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate: f64 = number.parse().map_err(|_| wrong())?;
    #[expect(clippy::cast_sign_loss, reason = "checked")]
    let rate = if (0.0..1e10).contains(&rate) { (rate * unit) as u64 } else { 0 };
    if rate == 0 { Err(wrong()) } else { Ok(Some(rate)) }
}

fn size(text: &str) -> Result<Sizes, String> {
    let wrong = || {
        format!(
            "size: wanted bytes without CRC like 60, 60-9014 or imix, {MIN} to {MAX_FRAME_LEN}, found '{text}'"
        )
    };
    let number = |text: &str| {
        let len = text.parse().map_err(|_| wrong())?;
        if (MIN..=MAX_FRAME_LEN).contains(&len) { Ok(len) } else { Err(wrong()) }
    };
    match text.split_once('-') {
        _ if text == "imix" => Ok(Sizes::Imix),
        Some((from, to)) => {
            let (from, to) = (number(from)?, number(to)?);
            if from <= to { Ok(Sizes::Range(from, to)) } else { Err(wrong()) }
        }
        None => number(text).map(Sizes::Fixed),
    }
}

impl FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let number = || {
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or(format!("{name}: wanted a number from 1 on, found '{value}'"))
            };
            match name {
                "rate" => settings.rate_fps = rate(value)?,
                "size" => settings.sizes = size(value)?,
                "frames" => settings.frames = Some(number()?),
                "flows" => {
                    settings.flows = number()?
                        .try_into()
                        .map_err(|_| format!("flows: wanted 1 to 65535, found '{value}'"))?;
                }
                "to" => {
                    settings.destination = value.parse::<crate::options::Mac>()?.0;
                }
                "start" if value == "manual" => settings.start = false,
                "checksums" if value == "on" => settings.checksums = true,
                _ => {
                    return Err(format!(
                        "wanted rate=, size=, flows=, frames=, to=MAC, start=manual or checksums=on, found '{setting}'"
                    ));
                }
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_errors() {
        let settings: Settings =
            "rate=1.5M,size=60-9014,flows=64,frames=10,to=02:00:00:00:00:01,start=manual"
                .parse()
                .unwrap();
        assert_eq!(settings.rate_fps, Some(1_500_000));
        assert_eq!(settings.sizes, Sizes::Range(60, 9014));
        assert!(!settings.start);
        for (text, wanted) in [
            ("rate=0", "frames a second"),
            ("size=59", "60 to"),
            ("size=100-60", "60 to"),
            ("flows=70000", "65535"),
            ("colour=red", "wanted rate="),
            ("to=x", "six bytes"),
        ] {
            let error = text.parse::<Settings>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn imix_is_seven_four_one() {
        let count = |len| (0..1200).filter(|n| Sizes::Imix.of(*n) == len).count();
        assert_eq!((count(60), count(590), count(1514)), (700, 400, 100));
    }
}
