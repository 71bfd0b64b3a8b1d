//! From which port to which: `-p` and `--portmap`.

use std::fmt;
use std::str::FromStr;

/// The value of `-p`: bit N stands for port N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortMask(u64);

/// The value of `--portmap`: pairs of ports that forward to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortMap(Vec<(u16, u16)>);

/// A way for frames: those that port `from` receives leave by port `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    /// Where frames come in.
    pub(crate) from: u16,
    /// Where they go out.
    pub(crate) to: u16,
}

/// Options that don't fit the ports there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortMapError {
    /// The mask names a port that isn't there.
    #[error(
        "-p/--portmask {mask} names port {port}, and {ports}; leave its bit out, or add a device \
         with -a"
    )]
    MaskBeyond {
        /// The mask.
        mask: PortMask,
        /// The lowest port that isn't there.
        port: u16,
        /// Those that are, in words.
        ports: String,
    },
    /// No pairs to be made.
    #[error(
        "odd number of ports in the portmask (enabled: {enabled}), and ports are paired two by two: \
         enable an even number with -p, add a device with -a, or name pairs with --portmap, as in \
         --portmap=\"(0,1)\""
    )]
    Odd {
        /// The ports that are enabled.
        enabled: String,
    },
    /// The map names a port that isn't there.
    #[error(
        "--portmap: port {port} is in pair ({},{}), and {ports}; use those, or add a device with \
         -a", .pair.0, .pair.1
    )]
    MapBeyond {
        /// The port.
        port: u16,
        /// Its pair.
        pair: (u16, u16),
        /// Those that are there, in words.
        ports: String,
    },
    /// The map names a port that the mask leaves out.
    #[error(
        "--portmap: port {port} is in pair ({},{}), and -p/--portmask {mask} leaves it out; set \
         bit {port} of the mask, or leave -p out", .pair.0, .pair.1
    )]
    NotEnabled {
        /// The port.
        port: u16,
        /// Its pair.
        pair: (u16, u16),
        /// The mask.
        mask: PortMask,
    },
}

/// The routes between ports, ordered by where they start. `names` has one name for each port
/// there is. Without a map, ports are paired in order: 0 with 1, 2 with 3 of those enabled.
///
/// # Errors
/// If mask or map name ports that aren't there, or the ports can't be paired.
pub(crate) fn routes(
    names: &[String],
    mask: Option<PortMask>,
    map: Option<&PortMap>,
) -> Result<Vec<Route>, PortMapError> {
    let count = u16::try_from(names.len()).unwrap_or(u16::MAX);
    if let Some(mask) = mask
        && let Some(port) = (count..64).find(|port| mask.has(*port))
    {
        return Err(PortMapError::MaskBeyond { mask, port, ports: in_words(names) });
    }
    let enabled = |port: u16| mask.is_none_or(|mask| mask.has(port));
    let pairs = match map {
        Some(PortMap(pairs)) => {
            for &pair in pairs {
                for port in [pair.0, pair.1] {
                    if port >= count {
                        let ports = in_words(names);
                        return Err(PortMapError::MapBeyond { port, pair, ports });
                    }
                    if let Some(mask) = mask.filter(|_| !enabled(port)) {
                        return Err(PortMapError::NotEnabled { port, pair, mask });
                    }
                }
            }
            pairs.clone()
        }
        None => {
            let ports: Vec<u16> = (0..count).filter(|port| enabled(*port)).collect();
            if !ports.len().is_multiple_of(2) {
                let list: Vec<String> = ports.iter().map(u16::to_string).collect();
                return Err(PortMapError::Odd { enabled: list.join(", ") });
            }
            ports.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
        }
    };
    let both = |(a, b)| [Route { from: a, to: b }, Route { from: b, to: a }];
    let mut routes: Vec<Route> = pairs.into_iter().flat_map(both).collect();
    routes.sort_unstable();
    Ok(routes)
}

/// `there are 2 ports: 0 (0000:01:00.0), 1 (0000:02:00.0)`.
fn in_words(names: &[String]) -> String {
    let list: Vec<String> =
        names.iter().enumerate().map(|(port, name)| format!("{port} ({name})")).collect();
    match list.as_slice() {
        [] => "there are no ports".to_owned(),
        [one] => format!("there is 1 port: {one}"),
        all => format!("there are {} ports: {}", all.len(), all.join(", ")),
    }
}

impl PortMask {
    fn has(self, port: u16) -> bool {
        port < 64 && self.0 >> port & 1 == 1
    }
}

impl FromStr for PortMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let mask = hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        match mask {
            Some(0) => Err("no port is enabled; bit N stands for port N, so 0x3 enables ports 0 \
                            and 1"
                .to_owned()),
            Some(mask) => Ok(Self(mask)),
            None => Err("wanted a mask of at most 64 bits in hexadecimal, such as 0x3 or 3 for \
                         ports 0 and 1"
                .to_owned()),
        }
    }
}

impl fmt::Display for PortMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "wanted pairs of ports, such as (0,1),(2,3)".to_owned();
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let inner = compact.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let mut pairs: Vec<(u16, u16)> = Vec::new();
        let mut seen = Vec::new();
        for pair in inner.ok_or_else(wrong)?.split("),(") {
            let (a, b) = pair.split_once(',').ok_or_else(wrong)?;
            let port = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                if digits { text.parse::<u16>().map_err(|_| wrong()) } else { Err(wrong()) }
            };
            let pair = (port(a)?, port(b)?);
            for port in [pair.0, pair.1] {
                if seen.contains(&port) {
                    return Err(format!(
                        "port {port} is named twice; each port has one other that it forwards to"
                    ));
                }
                seen.push(port);
            }
            pairs.push(pair);
        }
        Ok(Self(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(
        ports: usize,
        mask: Option<&str>,
        map: Option<&str>,
    ) -> Result<Vec<(u16, u16)>, String> {
        let names: Vec<String> = (0..ports).map(|port| format!("0000:0{port}:00.0")).collect();
        let mask = mask.map(|text| text.parse().unwrap());
        let map = map.map(|text| text.parse::<PortMap>().unwrap());
        routes(&names, mask, map.as_ref())
            .map(|routes| routes.iter().map(|route| (route.from, route.to)).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ports_are_paired_in_order() {
        assert_eq!(outcome(2, Some("0x3"), None).unwrap(), [(0, 1), (1, 0)]);
        assert_eq!(outcome(4, None, None).unwrap(), [(0, 1), (1, 0), (2, 3), (3, 2)]);
    }

    #[test]
    fn disabled_ports_are_left_out_of_the_pairing() {
        assert_eq!(outcome(4, Some("0xa"), None).unwrap(), [(1, 3), (3, 1)]);
    }

    #[test]
    fn a_map_says_who_forwards_to_whom() {
        let routes = [(0, 3), (1, 2), (2, 1), (3, 0)];
        assert_eq!(outcome(4, None, Some("(0,3),(1,2)")).unwrap(), routes);
        assert_eq!(outcome(4, Some("f"), Some(" (0, 3), (1,2) ")).unwrap(), routes);
        assert_eq!(outcome(3, Some("7"), Some("(2,0)")).unwrap(), [(0, 2), (2, 0)]);
    }

    #[test]
    fn wrong_ports_are_named() {
        let says = |outcome: Result<_, String>, parts: &[&str]| {
            let error: String = outcome.unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
        };
        says(outcome(2, Some("0x5"), None), &["-p", "0x5", "port 2", "2 ports: 0 (0000:00:00.0)"]);
        says(outcome(1, Some("2"), None), &["port 1", "there is 1 port"]);
        says(outcome(64, Some("7"), None), &["odd number of ports in the portmask", "--portmap"]);
        says(outcome(1, None, None), &["odd number"]);
        says(outcome(2, None, Some("(0,2)")), &["--portmap", "port 2", "(0,2)", "2 ports"]);
        says(outcome(4, Some("7"), Some("(0,1),(2,3)")), &["port 3", "(2,3)", "0x7", "bit 3"]);
    }

    #[test]
    fn masks_are_read_with_or_without_prefix() {
        for (text, mask) in [("3", 3), ("0x3", 3), ("0Xff", 255), ("ffffffffffffffff", u64::MAX)] {
            assert_eq!(text.parse(), Ok(PortMask(mask)));
        }
        for text in ["", "0x", "g", "-1", "+3", "0x10000000000000000", "0x 3"] {
            assert!(text.parse::<PortMask>().unwrap_err().contains("hexadecimal"), "{text:?}");
        }
        assert!("0x0".parse::<PortMask>().unwrap_err().contains("no port is enabled"));
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        for text in ["", "()", "(0)", "0,1", "(0,1", "(0,1)(2,3)", "(0,1),", "(a,b)", "(0,70000)"] {
            assert!(text.parse::<PortMap>().unwrap_err().contains("(0,1),(2,3)"), "{text:?}");
        }
        for text in ["(0,0)", "(0,1),(1,2)", "(0,1),(0,1)"] {
            assert!(text.parse::<PortMap>().unwrap_err().contains("named twice"), "{text:?}");
        }
    }
}
