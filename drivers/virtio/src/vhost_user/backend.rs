//! A port's back end: one session after the other, as back ends go away and come back.

use std::sync::{Arc, Weak};

use packetboat::mbuf::Quiesced;
use packetboat::memory::{DmaListener, DmaRegion, ListenerError, Memory};
use packetboat::port::PortError;

use super::options::Options;
use super::session::{MAX_REGIONS, QueueSetup, Session, SharedMemory};
use super::socket::{Endpoint, SocketError};
use crate::features::Features;
use crate::transport::NetConfig;

/// Hears of memory that comes later, and refuses it: back ends map all of it once, and most of them
/// can't be told of more while rings run. What the program has then keeps the bounds that the back
/// end knows.
#[derive(Debug)]
struct NoMore(String);

/// See [`NoMore`].
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}: a vhost-user back end maps the memory when it starts, and isn't told of more; reserve \
     enough at the start, with -m"
)]
struct Fixed(String);

impl DmaListener for NoMore {
    fn map(&self, _region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        Err(Box::new(Fixed(self.0.clone())))
    }

    fn unmap(&self, _region: &DmaRegion<'_>) -> Result<(), ListenerError> {
        Ok(())
    }
}

/// The other end of a port's socket, whether it is there or not.
#[derive(Debug)]
pub(super) struct Backend {
    name: String,
    pub(super) options: Options,
    endpoint: Endpoint,
    session: Option<Session>,
    memory: Arc<Memory>,
    /// Keeps memory from growing as long as the port is there.
    _no_more: Arc<NoMore>,
    /// It can't be made to let go of our memory.
    lost: Option<String>,
}

impl Backend {
    /// Waits for one, as long as the options say, that may map `memory`.
    ///
    /// # Errors
    /// If none comes, or there is too much to be mapped.
    pub(super) fn new(
        name: &str,
        options: Options,
        memory: &Arc<Memory>,
    ) -> Result<Self, PortError> {
        let fault = |what| PortError::Device { device: name.to_owned(), what };
        let no_more = Arc::new(NoMore(name.to_owned()));
        let listener: Weak<dyn DmaListener> = Arc::downgrade(&(no_more.clone() as _));
        memory.add_dma_listener(listener).map_err(|error| fault(said(&error)))?;
        let regions = SharedMemory::of(memory).region_count();
        if regions > MAX_REGIONS {
            return Err(fault(format!(
                "memory is in {regions} pieces, and a back end takes {MAX_REGIONS} at most; use \
                 --iova-mode=va, larger hugepages, or --no-huge"
            )));
        }
        let endpoint = match options.server {
            true => Endpoint::server(&options.path),
            false => Ok(Endpoint::client(&options.path)),
        };
        let endpoint = endpoint.map_err(|error| fault(said(&error)))?;
        let session = connect(&endpoint, &options).map_err(fault)?;
        Ok(Self {
            name: name.to_owned(),
            options,
            endpoint,
            session: Some(session),
            memory: memory.clone(),
            _no_more: no_more,
            lost: None,
        })
    }

    /// The one that is there, waited for if need be.
    ///
    /// # Errors
    /// If none comes, or the one before keeps our memory.
    pub(super) fn get(&mut self) -> Result<&mut Session, PortError> {
        if let Some(why) = &self.lost {
            return Err(self.fault(why.clone()));
        }
        self.look();
        let session = match self.session.take() {
            Some(session) => session,
            None => connect(&self.endpoint, &self.options).map_err(|what| self.fault(what))?,
        };
        Ok(self.session.insert(session))
    }

    /// The port's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration, if it has one.
    ///
    /// # Errors
    /// If none is there, or it doesn't answer.
    pub(super) fn net_config(&mut self, features: Features) -> Result<NetConfig, PortError> {
        self.ask(|session| session.net_config(features))
    }

    /// Whether one is there, as far as is known.
    pub(super) fn is_there(&self) -> bool {
        self.session.is_some()
    }

    /// Why there can't be one any more, if that is so.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Notices that it is gone.
    pub(super) fn look(&mut self) {
        if self.session.as_mut().is_some_and(Session::is_closed) {
            self.session = None;
            tracing::warn!("{}: the back end is gone", self.name);
        }
    }

    /// Gets one that has `features` if one is there by now, without waiting; whether there is.
    ///
    /// # Errors
    /// If what is there doesn't do.
    pub(super) fn try_get(&mut self, features: Features) -> Result<bool, PortError> {
        if self.session.is_some() {
            return Ok(true);
        }
        let connection = self.endpoint.try_connect().map_err(|error| self.fault(said(&error)))?;
        let Some(connection) = connection else { return Ok(false) };
        let session = Session::greet(connection).map_err(|error| self.fault(said(&error)))?;
        if !session.offered.has(features) {
            let missing = features.without(session.offered);
            return Err(self.fault(format!(
                "a back end is there that lacks what the one before had: {missing:?}; restart the \
                 program to use it"
            )));
        }
        self.session = Some(session);
        Ok(true)
    }

    /// Tells it of the rings, which stand at their beginning.
    ///
    /// # Errors
    /// If none is there, or it doesn't take them.
    pub(super) fn tell(
        &mut self,
        features: Features,
        queues: &[QueueSetup<'_>],
    ) -> Result<(), PortError> {
        let memory = self.memory.clone();
        self.ask(|session| session.start(features, &SharedMemory::of(&memory), queues))
    }

    fn ask<T>(
        &mut self,
        what: impl FnOnce(&mut Session) -> Result<T, SocketError>,
    ) -> Result<T, PortError> {
        match self.session.as_mut().map(what) {
            Some(answer) => answer.map_err(|error| self.fault(said(&error))),
            None => Err(self.fault("there is no back end".to_owned())),
        }
    }

    /// Makes it let go of our memory: stops the rings, or ends the connection. Keeps the session
    /// if it can go on.
    ///
    /// # Errors
    /// If it keeps the memory: then it, and the memory, are lost for good.
    pub(super) fn quiesce(&mut self) -> Result<Quiesced, PortError> {
        let Some(mut session) = self.session.take() else {
            return match &self.lost {
                None => Ok(Quiesced::after_reset()),
                Some(why) => Err(self.fault(why.clone())),
            };
        };
        match session.stop() {
            Ok(()) => self.session = Some(session),
            // It closed its end, and had let go before.
            Err(SocketError::Closed) => {}
            Err(error) => {
                tracing::warn!("{}: {}; ending the connection", self.name, said(&error));
                if !session.close() {
                    let why = "the back end keeps the connection, and perhaps our memory, \
                               although it was told to let go"
                        .to_owned();
                    self.lost = Some(why.clone());
                    return Err(self.fault(why));
                }
            }
        }
        Ok(Quiesced::after_reset())
    }

    /// An error of the port that has this back end.
    pub(super) fn fault(&self, what: String) -> PortError {
        PortError::Device { device: self.name.clone(), what }
    }
}

/// Waits for a back end, as long as the options say, and greets it.
fn connect(endpoint: &Endpoint, options: &Options) -> Result<Session, String> {
    let connection = endpoint.connect(options.wait).map_err(|error| said(&error))?;
    let seconds = options.wait.as_secs();
    let connection = connection.ok_or_else(|| match options.server {
        true => format!(
            "no back end has connected to {} within {seconds} s; start it, or wait longer with \
             wait=SECONDS",
            endpoint.path().display()
        ),
        false => format!(
            "no back end listens on {} (waited {seconds} s); start it first, wait longer with \
             wait=SECONDS, or let it connect: server",
            endpoint.path().display()
        ),
    })?;
    Session::greet(connection).map_err(|error| said(&error))
}

/// An error with its cause.
fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
