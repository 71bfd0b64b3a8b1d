//! Devices that a program makes itself: the option `--vdev`.

use core::fmt;
use core::str::FromStr;

use super::DeviceArgument;

/// A value of `--vdev`: what kind of device, and what its driver is told about it.
///
/// Read from `KIND[,key=value…]`: `vhost-user,path=/run/x.sock,queues=2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vdev {
    /// Which driver makes it: `vhost-user`.
    pub kind: String,
    /// For its driver, in the order given; no key twice.
    pub arguments: Vec<DeviceArgument>,
}

/// Why a `--vdev` can't be read, or isn't what its driver takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VdevError {
    /// No kind in front.
    #[error(
        "a kind of device is missing: wanted KIND[,KEY=VALUE…], as in vhost-user,path=/run/x.sock"
    )]
    NoKind,
    /// An argument without a key.
    #[error("{argument:?} has no key: wanted KEY=VALUE or KEY")]
    NoKey {
        /// As given.
        argument: String,
    },
    /// The same key twice.
    #[error("{key} is given twice; give it once")]
    Twice {
        /// The key.
        key: String,
    },
    /// A key that the driver doesn't know.
    #[error("{kind} knows no {key:?}; it knows {known}")]
    UnknownKey {
        /// The kind of device.
        kind: String,
        /// As given.
        key: String,
        /// All it knows.
        known: String,
    },
    /// A key that has to be given.
    #[error("{kind} needs {key}: {example}")]
    Missing {
        /// The kind of device.
        kind: String,
        /// What is missing.
        key: &'static str,
        /// How it is given.
        example: &'static str,
    },
    /// A value that makes no sense.
    #[error("{key}={value}: wanted {wanted}")]
    BadValue {
        /// The key.
        key: String,
        /// As given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
}

impl FromStr for Vdev {
    type Err = VdevError;

    fn from_str(text: &str) -> Result<Self, VdevError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default().trim();
        if kind.is_empty() || kind.contains('=') {
            return Err(VdevError::NoKind);
        }
        let mut arguments: Vec<DeviceArgument> = Vec::new();
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if key.is_empty() {
                return Err(VdevError::NoKey { argument: part.to_owned() });
            }
            if arguments.iter().any(|argument| argument.key == key) {
                return Err(VdevError::Twice { key: key.to_owned() });
            }
            arguments.push(DeviceArgument { key: key.to_owned(), value: value.to_owned() });
        }
        Ok(Self { kind: kind.to_owned(), arguments })
    }
}

/// As it was given.
impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        for DeviceArgument { key, value } in &self.arguments {
            match value.is_empty() {
                true => write!(f, ",{key}")?,
                false => write!(f, ",{key}={value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_arguments_are_read_and_written() {
        let text = "vhost-user,path=/run/x.sock,server,queues=2";
        let vdev: Vdev = text.parse().unwrap();
        assert_eq!(vdev.kind, "vhost-user");
        let pairs: Vec<_> =
            vdev.arguments.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
        assert_eq!(pairs, [("path", "/run/x.sock"), ("server", ""), ("queues", "2")]);
        assert_eq!(vdev.to_string(), text);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, part) in [
            ("", "kind"),
            (",path=x", "kind"),
            ("path=x", "kind"),
            ("vhost-user,", "no key"),
            ("vhost-user,=3", "no key"),
            ("vhost-user,a=1,a=2", "twice"),
        ] {
            let error = text.parse::<Vdev>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
