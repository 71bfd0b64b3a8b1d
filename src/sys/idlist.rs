//! Lists of CPUs and nodes as the kernel writes them: `0-3,8,10-11`.

use std::fmt;

/// Every id of a list such as `0-3,8`, in ascending order, each once. An empty text is an empty
/// list, as in `/sys/devices/system/cpu/offline`.
///
/// ```
/// use packetboat::sys::idlist;
/// assert_eq!(idlist::parse("0-2,8"), Ok(vec![0, 1, 2, 8]));
/// ```
///
/// # Errors
/// The part that isn't a number or a rising range.
pub fn parse(text: &str) -> Result<Vec<u32>, IdListError> {
    let mut ids = Vec::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || IdListError { part: part.to_owned() };
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || last > MAX_ID {
            return Err(wrong());
        }
        ids.extend(first..=last);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Far above any machine's CPU count (Linux' own limit is 8192); keeps `0-4294967295` from
/// becoming 16 GiB of numbers.
const MAX_ID: u32 = 65_535;

/// The shortest list that names `ids`: `0-2,8`. The ids must be in ascending order.
pub fn format(ids: &[u32]) -> String {
    let mut text = String::new();
    for run in ids.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        if !text.is_empty() {
            text.push(',');
        }
        match run {
            [only] => text.push_str(&only.to_string()),
            [first, .., last] => text.push_str(&format!("{first}-{last}")),
            [] => {}
        }
    }
    text
}

/// A part of a list that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdListError {
    /// The part as it was found.
    pub part: String,
}

impl fmt::Display for IdListError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "wanted a number or a rising range such as 0-3, found {:?}", self.part)
    }
}

impl std::error::Error for IdListError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("\n"), Ok(vec![]));
        assert_eq!(parse("0\n"), Ok(vec![0]));
        assert_eq!(parse("4, 0-2,1"), Ok(vec![0, 1, 2, 4]));
    }

    #[test]
    fn wrong_parts_are_named() {
        for (text, part) in
            [("0,x", "x"), ("3-1", "3-1"), ("1-", "1-"), ("0-99999999", "0-99999999")]
        {
            assert_eq!(parse(text).unwrap_err().part, part);
        }
    }

    #[test]
    fn written_lists_are_short() {
        assert_eq!(format(&[]), "");
        assert_eq!(format(&[0, 1, 2, 8, 10, 11]), "0-2,8,10-11");
        assert_eq!(parse(&format(&[1, 3, 4])), Ok(vec![1, 3, 4]));
    }
}
