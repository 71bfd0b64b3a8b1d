//! What `--vdev vhost-user,…` says, and which features that makes of what a back end offers.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use packetboat::bus::{Vdev, VdevError};
use packetboat::net::MacAddress;
use packetboat::port::{Offloads, PortError};

use crate::features::Features;
use crate::setup::DEFAULT_DESCRIPTORS;

/// The kind of device that this makes.
pub(crate) const KIND: &str = "vhost-user";
/// All keys, as an error lists them.
const KEYS: &str = "path, server, queues, queue-size, mac, packed, mrg-rxbuf, in-order, indirect, \
                    event-idx, wait";
/// A socket's path is at most this long (`sun_path`, unix(7)).
const MAX_PATH_BYTES: usize = 107;
/// The most queue pairs; vhost-user has 8 bits for a queue's number in some messages.
const MAX_QUEUE_PAIRS: u16 = 127;
const MAX_QUEUE_SIZE: u16 = 32768;

/// Whether a feature is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It must be there.
    On,
    /// It isn't used, even if it is there.
    Off,
    /// If it is there.
    IfOffered,
}

/// The options, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The socket.
    pub(crate) path: PathBuf,
    /// Whether we listen, and the back end connects.
    pub(crate) server: bool,
    /// Queue pairs at most.
    pub(crate) queues: u16,
    /// Descriptors of each queue when nobody asks.
    pub(crate) queue_size: u16,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) packed: Wish,
    pub(crate) mergeable: Wish,
    pub(crate) in_order: Wish,
    pub(crate) indirect: Wish,
    pub(crate) event_index: Wish,
    /// How long to wait for the back end at the start.
    pub(crate) wait: Duration,
}

impl Options {
    /// # Errors
    /// What can't be read, isn't known, or is missing.
    pub(crate) fn read(vdev: &Vdev) -> Result<Self, VdevError> {
        let mut options = Self {
            path: PathBuf::new(),
            server: false,
            queues: 1,
            queue_size: DEFAULT_DESCRIPTORS,
            mac: None,
            // Split rings take fewer instructions here (docs/virtio.md).
            packed: Wish::Off,
            mergeable: Wish::IfOffered,
            in_order: Wish::IfOffered,
            indirect: Wish::IfOffered,
            event_index: Wish::Off,
            wait: Duration::from_secs(5),
        };
        let mut wait = None;
        for argument in &vdev.arguments {
            let (key, value) = (argument.key.as_str(), argument.value.as_str());
            let bad = |wanted| VdevError::BadValue {
                key: key.to_owned(),
                value: value.to_owned(),
                wanted,
            };
            match key {
                "path" => {
                    if value.is_empty() || value.len() > MAX_PATH_BYTES {
                        return Err(bad("a path of 1 to 107 bytes"));
                    }
                    options.path = value.into();
                }
                "server" => {
                    options.server =
                        value.is_empty() || on_or_off(value).ok_or_else(|| bad("on or off"))?;
                }
                "queues" => {
                    options.queues = number(value)
                        .filter(|queues| (1..=MAX_QUEUE_PAIRS).contains(queues))
                        .ok_or_else(|| bad("1 to 127 queue pairs"))?;
                }
                "queue-size" | "queue_size" => {
                    options.queue_size = number(value)
                        .filter(|size: &u16| {
                            size.is_power_of_two() && (2..=MAX_QUEUE_SIZE).contains(size)
                        })
                        .ok_or_else(|| bad("a power of two from 2 to 32768"))?;
                }
                "mac" => {
                    let wanted = "a unicast Ethernet address such as 02:00:00:00:00:01";
                    options.mac = Some(mac(value).ok_or_else(|| bad(wanted))?);
                }
                "wait" => {
                    let seconds = number::<u32>(value).filter(|&seconds| seconds <= 86_400);
                    wait = Some(seconds.ok_or_else(|| bad("seconds, at most 86400"))?);
                }
                _ => {
                    let wish = match key {
                        "packed" => &mut options.packed,
                        "mrg-rxbuf" => &mut options.mergeable,
                        "in-order" => &mut options.in_order,
                        "indirect" => &mut options.indirect,
                        "event-idx" => &mut options.event_index,
                        _ => {
                            return Err(VdevError::UnknownKey {
                                kind: vdev.kind.clone(),
                                key: key.to_owned(),
                                known: KEYS.to_owned(),
                            });
                        }
                    };
                    *wish = match value {
                        "on" | "1" | "" => Wish::On,
                        "off" | "0" => Wish::Off,
                        "auto" => Wish::IfOffered,
                        _ => return Err(bad("on, off or auto")),
                    };
                }
            }
        }
        if options.path.as_os_str().is_empty() {
            return Err(VdevError::Missing {
                kind: vdev.kind.clone(),
                key: "path",
                example: "path=/run/x.sock",
            });
        }
        // Who listens is waited for longer: somebody has to start the other side.
        let default = if options.server { 60 } else { 5 };
        options.wait = Duration::from_secs(u64::from(wait.unwrap_or(default)));
        Ok(options)
    }

    /// Picks what to use of what a back end offers.
    ///
    /// # Errors
    /// What must be there and isn't.
    pub(crate) fn choose(
        &self,
        device: &str,
        offered: Features,
        wanted: &Offloads,
    ) -> Result<Features, PortError> {
        let missing = |feature: Features, why: &str| PortError::Unsupported {
            device: device.to_owned(),
            what: format!("use {feature:?}"),
            why: format!("{why} (the back end offers {offered:?})"),
        };
        if !offered.has(Features::VERSION_1) {
            let why = "a back end without it speaks virtio 0.9 only, which isn't supported";
            return Err(missing(Features::VERSION_1, why));
        }
        let mut chosen = Features::VERSION_1;
        for (feature, key, wish) in [
            (Features::RING_PACKED, "packed", self.packed),
            (Features::MRG_RXBUF, "mrg-rxbuf", self.mergeable),
            (Features::IN_ORDER, "in-order", self.in_order),
            (Features::INDIRECT_DESC, "indirect", self.indirect),
            (Features::EVENT_IDX, "event-idx", self.event_index),
        ] {
            match wish {
                Wish::Off => {}
                Wish::On if !offered.has(feature) => {
                    return Err(missing(
                        feature,
                        &format!("{key}=on asks for it, and it isn't offered"),
                    ));
                }
                Wish::On | Wish::IfOffered if offered.has(feature) => chosen = chosen.with(feature),
                Wish::On | Wish::IfOffered => {}
            }
        }
        // Commands are no affair of a vhost-user back end, so MQ stands without CTRL_VQ: it says that
        // there are more than two queues.
        if self.queues > 1 && offered.has(Features::MQ) {
            chosen = chosen.with(Features::MQ);
        }
        let usable = match chosen.has(Features::MRG_RXBUF) {
            true => offered,
            false => offered.without(Features::MRG_RXBUF),
        };
        Ok(chosen.with(usable.for_offloads(wanted)))
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" | "1" => Some(true),
        "off" | "0" => Some(false),
        _ => None,
    }
}

fn mac(text: &str) -> Option<MacAddress> {
    let address: MacAddress = text.parse().ok()?;
    (address.0[0] & 1 == 0 && address.0 != [0; 6]).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        let vdev: Vdev = text.parse().unwrap();
        Options::read(&vdev).map_err(|error| error.to_string())
    }

    #[test]
    fn all_keys_are_read() {
        let options = read(
            "vhost-user,path=/run/x.sock,server,queues=2,queue-size=1024,mac=02:00:00:00:00:01,\
             packed=on,mrg-rxbuf=off,in-order=on,indirect=off,event-idx=auto,wait=3",
        )
        .unwrap();
        let expected = Options {
            path: "/run/x.sock".into(),
            server: true,
            queues: 2,
            queue_size: 1024,
            mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            packed: Wish::On,
            mergeable: Wish::Off,
            in_order: Wish::On,
            indirect: Wish::Off,
            event_index: Wish::IfOffered,
            wait: Duration::from_secs(3),
        };
        assert_eq!(options, expected);
        let defaults = read("vhost-user,path=x").unwrap();
        assert_eq!((defaults.server, defaults.queues, defaults.queue_size), (false, 1, 256));
        assert_eq!(defaults.packed, Wish::Off);
        assert!(!read("vhost-user,path=x,server=off").unwrap().server);
    }

    #[test]
    fn what_makes_no_sense_names_its_key() {
        for (text, parts) in [
            ("vhost-user", &["needs path", "path=/run"][..]),
            ("vhost-user,path=", &["path=", "107"]),
            ("vhost-user,path=x,queues=0", &["queues=0", "1 to 127"]),
            ("vhost-user,path=x,queues=128", &["queues=128"]),
            ("vhost-user,path=x,queue-size=100", &["queue-size=100", "power of two"]),
            ("vhost-user,path=x,queue-size=65536", &["queue-size=65536"]),
            ("vhost-user,path=x,mac=1", &["mac=1", "02:00"]),
            ("vhost-user,path=x,mac=01:00:00:00:00:00", &["unicast"]),
            ("vhost-user,path=x,mac=+2:00:00:00:00:00", &["unicast"]),
            ("vhost-user,path=x,packed=perhaps", &["packed=perhaps", "on, off or auto"]),
            ("vhost-user,path=x,server=maybe", &["server=maybe", "on or off"]),
            ("vhost-user,path=x,colour=red", &["\"colour\"", "queue-size"]),
        ] {
            let error = read(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}: {part:?} is not in: {error}");
            }
        }
    }
}
