//! virtio-net over a socket: the vhost-user protocol, as its front end (the driver's side).
//!
//! From the bottom up: [`message`] is the protocol as bytes, [`socket`] a connection and where it
//! comes from, [`session`] a conversation with one back end, [`backend`] one session after the other,
//! [`port`] what lives through all of them, [`options`] what `--vdev vhost-user,…` says.
//!
//! The `vhost` crate has a front end, too. It is the tests' other side here (as a back end) and not
//! this one: it waits for an answer for ever, as a read that timed out is tried again without end,
//! and it has no SET_STATUS.

mod backend;
mod message;
mod options;
mod port;
mod session;
mod socket;

use std::sync::Arc;

use packetboat::bus::{Vdev, VdevError};
use packetboat::memory::Memory;
use packetboat::port::{Port, PortError, VirtualDriver};

use options::{KIND, Options};
#[cfg(any(fuzzing, test))]
pub(crate) use {session::Session, socket::Connection};

/// Makes vhost-user ports.
#[derive(Debug)]
pub(crate) struct VhostUser;

impl VirtualDriver for VhostUser {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn check(&self, vdev: &Vdev) -> Result<(), VdevError> {
        Options::read(vdev).map(drop)
    }

    fn probe(&self, vdev: &Vdev, memory: &Arc<Memory>) -> Result<Box<dyn Port>, PortError> {
        let options =
            Options::read(vdev).map_err(|why| PortError::Vdev { vdev: vdev.to_string(), why })?;
        Ok(Box::new(port::VhostPort::new(vdev, options, memory)?))
    }
}
