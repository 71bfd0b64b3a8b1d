//! From configuring to stopping: what every driver's port does alike.
//!
//! A driver's port has a [`Lifecycle`] and asks it at each step whether that step may be done now;
//! the work on the device is the driver's own. Memory that the device was shown, and mbufs that it
//! was lent, are given back only for a [`Quiesced`]: whichever way a step fails, what the device may
//! still write to stays out of use.
//!
//! ```
//! # use packetboat::mbuf::{MbufPool, Quiesced};
//! # use packetboat::port::*;
//! # struct Nic { life: Lifecycle<()>, info: PortInfo }
//! # impl Nic {
//! # fn reset(&self) -> Result<Quiesced, PortError> { Ok(Quiesced::after_reset()) }
//! # fn bring_up(&mut self, _: &PortConfig, _: &[MbufPool], _: &mut BringUp<(), ()>) -> Result<(), PortError> { Ok(()) }
//! fn configure(&mut self, config: &PortConfig) -> Result<(), PortError> {
//!     self.life.check_configure(config, &self.info, &Capabilities::default())?;
//!     self.life.configured(config);
//!     Ok(())
//! }
//!
//! fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
//!     let config = self.life.check_start(pools)?;
//!     let mut up = BringUp::default();
//!     match self.bring_up(&config, pools, &mut up) {
//!         Ok(running) => self.life.started(running, up.shown),
//!         Err(error) => {
//!             up.give_up(self.reset(), |rx, reset| { /* what it lent goes back */ });
//!             return Err(error);
//!         }
//!     }
//!     Ok(Queues::default()) // up.rx and up.tx
//! }
//!
//! fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
//!     let reset = self.life.stop()?.release(self.reset())?;
//!     // What the queues lent goes back.
//!     Ok(())
//! }
//! # }
//! ```

use std::sync::{Mutex, PoisonError};

use super::{Capabilities, PortConfig, PortCounters, PortError, PortInfo};
use crate::dma::Area;
use crate::mbuf::{MbufPool, Quiesced};

/// What devices that couldn't be reset may still write to.
static KEPT: Mutex<Vec<Area>> = Mutex::new(Vec::new());

/// Memory that a device was shown. It may write there until it is reset, even if the queue that the
/// memory was for is gone. Dropped without a [`release`](Self::release), it is never used again.
#[derive(Debug, Default)]
pub struct Shown(Vec<Area>);

impl Shown {
    /// The device will know this one, too.
    pub fn push(&mut self, area: Area) {
        self.0.push(area);
    }

    /// The device will know these, too.
    pub fn extend(&mut self, areas: impl IntoIterator<Item = Area>) {
        self.0.extend(areas);
    }

    /// The device is reset: the memory is free.
    pub fn release(mut self, _reset: &Quiesced) {
        self.0.clear();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.0);
        }
    }
}

/// What a device was shown, and its queues as their driver has them, while it is brought up.
#[derive(Debug)]
pub struct BringUp<Rx, Tx> {
    /// Noted before the device hears of it.
    pub shown: Shown,
    /// Receive queues so far; noted before mbufs are lent through them.
    pub rx: Vec<Rx>,
    /// Transmit queues so far.
    pub tx: Vec<Tx>,
}

impl<Rx, Tx> Default for BringUp<Rx, Tx> {
    fn default() -> Self {
        Self { shown: Shown::default(), rx: Vec::new(), tx: Vec::new() }
    }
}

impl<Rx, Tx> BringUp<Rx, Tx> {
    /// The device didn't come up. If it could be reset, each receive queue is given to `reclaim`,
    /// and the memory is free. If not, both are lost; that is said in the log, as the first error
    /// is the one to return.
    pub fn give_up(
        self,
        reset: Result<Quiesced, PortError>,
        mut reclaim: impl FnMut(Rx, &Quiesced),
    ) {
        match reset {
            Ok(reset) => {
                self.rx.into_iter().for_each(|queue| reclaim(queue, &reset));
                self.shown.release(&reset);
            }
            Err(second) => tracing::error!("{second}"),
        }
    }
}

/// What a running port has: `R`, which is its driver's, and what its device was shown.
#[derive(Debug)]
pub struct Running<R> {
    own: R,
    shown: Shown,
}

impl<R> Running<R> {
    /// Gives up what it has, once the device is reset; without a reset its memory is never used
    /// again.
    ///
    /// # Errors
    /// The reset's.
    pub fn release(self, reset: Result<Quiesced, PortError>) -> Result<Quiesced, PortError> {
        reset.inspect(|reset| self.shown.release(reset))
    }

    /// The same where nobody is there to be told: the error goes to the log.
    pub fn release_last(self, reset: Result<Quiesced, PortError>) {
        if let Err(error) = self.release(reset) {
            tracing::error!("{error}; its DMA memory is not used again");
        }
    }
}

/// Where a port is between configuring and stopping, and what it has there.
#[derive(Debug)]
pub struct Lifecycle<R> {
    device: String,
    config: Option<PortConfig>,
    counters: PortCounters,
    running: Option<Running<R>>,
}

impl<R> Lifecycle<R> {
    /// Of a port that isn't configured yet. Errors name `device`.
    #[must_use]
    pub fn new(device: &str) -> Self {
        let (config, counters) = (None, PortCounters::default());
        Self { device: device.to_owned(), config, counters, running: None }
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What it was configured with last.
    #[must_use]
    pub fn config(&self) -> Option<&PortConfig> {
        self.config.as_ref()
    }

    /// The counters of as many queues as it was configured with.
    #[must_use]
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Whether it may be configured so: it is stopped, and can do all of it.
    ///
    /// # Errors
    /// If it runs, or as [`PortConfig::check`].
    pub fn check_configure(
        &self,
        config: &PortConfig,
        info: &PortInfo,
        can: &Capabilities,
    ) -> Result<(), PortError> {
        if self.is_running() {
            return Err(self.state_error("be configured", "running"));
        }
        config.check(info, can)
    }

    /// It is configured. Counters go on from before; those of queues that are new start.
    pub fn configured(&mut self, config: &PortConfig) {
        self.counters.resize(config.rx_queues, config.tx_queues);
        self.config = Some(config.clone());
    }

    /// Whether it may be started with these pools: it is configured, stopped, and there is a pool for
    /// each receive queue. Returns what it is to be started with.
    ///
    /// # Errors
    /// If not.
    pub fn check_start(&self, pools: &[MbufPool]) -> Result<PortConfig, PortError> {
        let state = match &self.config {
            _ if self.is_running() => "running",
            None => "not configured",
            Some(config) if pools.len() < usize::from(config.rx_queues) => {
                "short of pools: one a receive queue"
            }
            Some(config) => return Ok(config.clone()),
        };
        Err(self.state_error("start", state))
    }

    /// It runs, and has `own` while it does.
    pub fn started(&mut self, own: R, shown: Shown) {
        self.running = Some(Running { own, shown });
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What its driver has while it runs.
    #[must_use]
    pub fn running(&self) -> Option<&R> {
        self.running.as_ref().map(|running| &running.own)
    }

    /// The same, to be changed.
    pub fn running_mut(&mut self) -> Option<&mut R> {
        self.running.as_mut().map(|running| &mut running.own)
    }

    /// The same, for `action`, which needs a port that runs.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn must_run(&mut self, action: &'static str) -> Result<&mut R, PortError> {
        match &mut self.running {
            Some(running) => Ok(&mut running.own),
            None => Err(PortError::State { device: self.device.clone(), action, state: "stopped" }),
        }
    }

    /// It is to be stopped, and counts as stopped from here on, whether the device can be reset or
    /// not.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn stop(&mut self) -> Result<Running<R>, PortError> {
        self.running.take().ok_or_else(|| self.state_error("stop", "stopped"))
    }

    /// The error for `action` while the port is `state`.
    #[must_use]
    pub fn state_error(&self, action: &'static str, state: &'static str) -> PortError {
        PortError::State { device: self.device.clone(), action, state }
    }
}
