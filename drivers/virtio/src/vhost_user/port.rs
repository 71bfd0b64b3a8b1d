//! A vhost-user port: rings in our memory, a back end in another process that works on them.
//!
//! The back end may go away and come back. [`VhostPort::service`] notices, as often as the
//! application asks for the link: it closes the [`Gate`], so that each queue counts what was in
//! flight and puts its ring back to the beginning; then it waits for a new back end, tells it of
//! the rings, and opens the gate again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use packetboat::bus::{EventFd, Vdev};
use packetboat::dma::Area;
use packetboat::mbuf::{MbufPool, Quiesced};
use packetboat::memory::{DmaListener, DmaRegion, ListenerError, Memory};
use packetboat::net::MacAddress;
use packetboat::port::{
    Capabilities, DescriptorLimits, Link, Offloads, Port, PortConfig, PortError, PortInfo,
    PortStats, Queues,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use super::options::{Options, Wish};
use super::session::{MAX_REGIONS, QueueSetup, Session, SharedMemory};
use super::socket::{Endpoint, SocketError};
use crate::features::Features;
use crate::gate::{Gate, Passage};
use crate::queues::{self, Extras, Parts, Path};
use crate::ring::{Doorbell, QueueMemory};
use crate::rx::OwnRx;
use crate::setup::{self, Counters, FRAME_OVERHEAD_BYTES, local_mac};
use crate::tx::OwnTx;

/// Between two attempts to get a back end again, or to start one anew.
const RETRY: Duration = Duration::from_millis(200);

/// What a running port has.
#[derive(Debug)]
struct Running {
    features: Features,
    gate: Arc<Gate>,
    /// The back end knows the rings.
    up: bool,
    queues: Vec<KnownQueue>,
    /// What the queues' `broken` counters stood at when the rings last began.
    broken_before: u64,
    /// Every piece of memory that the back end may read or write: kept until it has let go.
    shown: Vec<Area>,
    retry_at: Instant,
}

/// What the back end is told of a queue.
#[derive(Debug)]
struct KnownQueue {
    index: u16,
    memory: QueueMemory,
    /// Wakes the back end.
    kick: EventFd,
    /// Wakes an lcore.
    call: Option<EventFd>,
}

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

/// A vhost-user device as a port.
#[derive(Debug)]
pub(crate) struct VhostPort {
    name: String,
    options: Options,
    endpoint: Endpoint,
    session: Option<Session>,
    memory: Arc<Memory>,
    /// Keeps memory from growing as long as the port is there.
    _no_more: Arc<NoMore>,
    offered: Features,
    features: Features,
    mac: MacAddress,
    max_queue_pairs: u16,
    mtu: Option<u16>,
    limits: DescriptorLimits,
    config: Option<PortConfig>,
    counters: Counters,
    running: Option<Running>,
    /// The link as it was last told of.
    told_up: Option<bool>,
    /// The back end can't be made to let go of our memory.
    lost: Option<String>,
}

impl VhostPort {
    /// Connects, and asks the back end what it can.
    pub(crate) fn new(
        vdev: &Vdev,
        options: Options,
        memory: &Arc<Memory>,
    ) -> Result<Self, PortError> {
        let name = format!("vhost-user:{}", options.path.display());
        let no_more = Arc::new(NoMore(name.clone()));
        let listener: Weak<dyn DmaListener> = Arc::downgrade(&(no_more.clone() as _));
        memory
            .add_dma_listener(listener)
            .map_err(|error| PortError::Device { device: name.clone(), what: said(&error) })?;
        let device_error = |what: String| PortError::Device { device: name.clone(), what };
        let regions = SharedMemory::of(memory).region_count();
        if regions > MAX_REGIONS {
            return Err(device_error(format!(
                "memory is in {regions} pieces, and a back end takes {MAX_REGIONS} at most; use \
                 --iova-mode=va, larger hugepages, or --no-huge"
            )));
        }
        let endpoint = match options.server {
            true => Endpoint::server(&options.path),
            false => Ok(Endpoint::client(&options.path)),
        };
        let endpoint = endpoint.map_err(|error| device_error(said(&error)))?;
        let mut session = connect(&endpoint, &options).map_err(device_error)?;
        let offered = session.offered;
        let features = choose(&name, offered, &options, &Offloads::default())?;
        let config = session.net_config(features).map_err(|error| device_error(said(&error)))?;
        let max_queue_pairs = options.queues.min(session.queue_pairs);
        if max_queue_pairs < options.queues {
            tracing::warn!(
                "--vdev {vdev}: the back end has {max_queue_pairs} queue pairs, not {}",
                options.queues
            );
        }
        Ok(Self {
            mac: options.mac.or(config.mac).unwrap_or_else(|| local_mac(&name)),
            mtu: config.mtu,
            limits: setup::limits(32768, options.queue_size),
            name,
            options,
            endpoint,
            session: Some(session),
            memory: memory.clone(),
            _no_more: no_more,
            offered,
            features,
            max_queue_pairs,
            config: None,
            counters: Counters::default(),
            running: None,
            told_up: None,
            lost: None,
        })
    }

    fn fault(&self, what: String) -> PortError {
        PortError::Device { device: self.name.clone(), what }
    }

    fn state_error(&self, action: &'static str, state: &'static str) -> PortError {
        PortError::State { device: self.name.clone(), action, state }
    }

    /// Makes the queues, and tells the back end of them. What was lent is in `rx`, what the back
    /// end may know of in `running`, whether this succeeds or not.
    fn bring_up(
        &mut self,
        config: &PortConfig,
        pools: &[MbufPool],
        running: &mut Running,
        rx: &mut Vec<Box<dyn OwnRx>>,
        tx: &mut Vec<Box<dyn OwnTx>>,
    ) -> Result<(), PortError> {
        let name = self.name.clone();
        let path = Path::of(running.features);
        let header = Area::new(&self.memory, &format!("{name} header"), 64, 64, None)?;
        running.shown.push(header.clone());
        let default = Some(self.limits.default);
        let rx_size = config.rx_descriptors.or(default).unwrap_or(self.limits.min);
        let tx_size = config.tx_descriptors.or(default).unwrap_or(self.limits.min);
        for (pair, counters) in (0..).zip(&self.counters.rx) {
            let (call, interrupt) = match config.rx_interrupts {
                true => self.event(2 * pair).map(|(one, other)| (Some(one), Some(other)))?,
                false => (None, None),
            };
            let (memory, doorbell) = self.queue(path, 2 * pair, rx_size, call, running)?;
            let pool = pools
                .get(usize::from(pair))
                .ok_or_else(|| self.state_error("start", "short of pools: one a receive queue"))?;
            setup::check_room(&name, config.mtu, path, pool)?;
            let passage = Passage::new(&running.gate);
            let counters = counters.clone();
            let parts = Parts { memory: &memory, doorbell, counters, passage, interrupt };
            let mut queue = queues::receive_queue(path, parts, pool.clone(), config.number)?;
            // Pushed before it is filled: on an error its buffers are reclaimed with the others'.
            let filled = queue.fill(&name, pair);
            rx.push(queue);
            filled?;
        }
        for (pair, counters) in (0..).zip(&self.counters.tx) {
            let index = 2 * pair + 1;
            let (memory, doorbell) = self.queue(path, index, tx_size, None, running)?;
            let name = format!("{name} virtqueue {index}");
            let extras = Extras::new(path, &self.memory, &name, None, tx_size, header.clone())?;
            running.shown.extend(extras.areas());
            let passage = Passage::new(&running.gate);
            let counters = counters.clone();
            let parts = Parts { memory: &memory, doorbell, counters, passage, interrupt: None };
            tx.push(queues::transmit_queue(path, parts, extras)?);
        }
        // DPDK's back end wants the queues in order of their numbers.
        running.queues.sort_by_key(|queue| queue.index);
        tracing::info!("{name}: {path}");
        self.tell(running)
    }

    /// Two ends of an event for queue `index`.
    fn event(&self, index: u16) -> Result<(EventFd, EventFd), PortError> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .and_then(|event| Ok((event.try_clone()?, event)))
            .map_err(|error| self.fault(format!("no event for queue {index}: {error}")))
    }

    /// Makes queue `index`.
    fn queue(
        &self,
        path: Path,
        index: u16,
        size: u16,
        call: Option<EventFd>,
        running: &mut Running,
    ) -> Result<(QueueMemory, Doorbell), PortError> {
        let name = format!("{} virtqueue {index}", self.name);
        let memory = QueueMemory::new(&self.memory, &name, None, size, path.packed)?;
        let (kick, mine) = self.event(index)?;
        running.shown.push(memory.area.clone());
        running.queues.push(KnownQueue { index, memory: memory.clone(), kick, call });
        Ok((memory, Doorbell::Event(mine)))
    }

    /// Tells the back end of the rings, which stand at their beginning.
    fn tell(&mut self, running: &mut Running) -> Result<(), PortError> {
        let Some(session) = &mut self.session else {
            return Err(self.fault("there is no back end".to_owned()));
        };
        let queues: Vec<QueueSetup<'_>> = running
            .queues
            .iter()
            .map(|KnownQueue { index, memory, kick, call }| QueueSetup {
                index: *index,
                memory,
                kick,
                call: call.as_ref(),
            })
            .collect();
        let memory = SharedMemory::of(&self.memory);
        session
            .start(running.features, &memory, &queues)
            .map_err(|error| self.fault(said(&error)))?;
        // It may have been told of the queues and have found nothing in them.
        for queue in &running.queues {
            let _ = queue.kick.write(1);
        }
        running.up = true;
        running.broken_before = self.counters.broken();
        Ok(())
    }

    /// Makes the back end let go of our memory: stops the rings, or ends the connection. Keeps the
    /// session if it can go on.
    fn quiesce(&mut self) -> Result<Quiesced, PortError> {
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

    /// Looks after the back end: notices that it is gone, that a queue has broken down, that a new
    /// one is there.
    fn service(&mut self) {
        let gone = self.session.as_mut().is_some_and(Session::is_closed);
        if gone {
            self.session = None;
            tracing::warn!("{}: the back end is gone", self.name);
        }
        let Some(mut running) = self.running.take() else { return };
        if running.up && (gone || self.session.is_none()) {
            running.up = false;
            running.gate.close();
        } else if running.up && self.counters.broken() != running.broken_before {
            tracing::warn!(
                "{}: the back end claims to have completed what it hadn't: starting it anew",
                self.name
            );
            running.up = false;
            if let Err(error) = self.quiesce() {
                tracing::error!("{error}");
            }
            running.gate.close();
        }
        let parked = running.gate.parked() as usize == running.queues.len();
        if !running.up && parked && self.lost.is_none() && Instant::now() >= running.retry_at {
            running.retry_at = Instant::now() + RETRY;
            match self.resume(&mut running) {
                Ok(true) => tracing::info!("{}: the back end is there again", self.name),
                Ok(false) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        self.running = Some(running);
    }

    /// Gets a back end, if there is one, and tells it of the rings; whether it did.
    fn resume(&mut self, running: &mut Running) -> Result<bool, PortError> {
        if self.session.is_none() {
            let connection =
                self.endpoint.try_connect().map_err(|error| self.fault(said(&error)))?;
            let Some(connection) = connection else { return Ok(false) };
            let session = Session::greet(connection).map_err(|error| self.fault(said(&error)))?;
            if !session.offered.has(running.features) {
                let missing = running.features.without(session.offered);
                return Err(self.fault(format!(
                    "a back end is there that lacks what the one before had: {missing:?}; \
                     restart the program to use it"
                )));
            }
            self.session = Some(session);
        }
        if let Err(error) = self.tell(running) {
            self.quiesce()?;
            return Err(error);
        }
        running.gate.open();
        Ok(true)
    }
}

impl Port for VhostPort {
    fn info(&self) -> PortInfo {
        let limit = self.mtu.map_or(u32::from(u16::MAX), u32::from);
        PortInfo {
            device: self.name.clone(),
            driver: "vhost-user",
            mac: self.mac,
            node: None,
            max_rx_queues: self.max_queue_pairs,
            max_tx_queues: self.max_queue_pairs,
            rx_descriptors: self.limits,
            tx_descriptors: self.limits,
            max_frame_bytes: limit + FRAME_OVERHEAD_BYTES,
        }
    }

    fn configure(&mut self, config: &PortConfig) -> Result<(), PortError> {
        if self.running.is_some() {
            return Err(self.state_error("be configured", "running"));
        }
        setup::check(&self.name, config, self.max_queue_pairs, self.limits, self.limits)?;
        setup::check_mtu(&self.name, config.mtu, self.mtu)?;
        config.offloads.check(&self.name, &self.capabilities())?;
        self.counters.resize(config.rx_queues, config.tx_queues);
        self.config = Some(config.clone());
        Ok(())
    }

    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
        if self.running.is_some() {
            return Err(self.state_error("start", "running"));
        }
        let Some(config) = self.config.clone() else {
            return Err(self.state_error("start", "not configured"));
        };
        if let Some(why) = &self.lost {
            return Err(self.fault(why.clone()));
        }
        self.service();
        let offered = match &self.session {
            Some(session) => session.offered,
            None => {
                let session = connect(&self.endpoint, &self.options);
                let session = session.map_err(|what| self.fault(what))?;
                self.session.insert(session).offered
            }
        };
        self.features = choose(&self.name, offered, &self.options, &config.offloads)?;
        self.offered = offered;
        let mut running = Running {
            features: self.features,
            gate: Arc::default(),
            up: false,
            queues: Vec::new(),
            broken_before: 0,
            shown: Vec::new(),
            retry_at: Instant::now(),
        };
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        match self.bring_up(&config, pools, &mut running, &mut rx, &mut tx) {
            Ok(()) => {
                self.running = Some(running);
                Ok(Queues {
                    rx: rx.into_iter().map(|queue| queue as _).collect(),
                    tx: tx.into_iter().map(|queue| queue as _).collect(),
                })
            }
            Err(error) => {
                // What was lent already comes back; if the back end doesn't let go it is lost, and
                // the first error is the one to tell.
                match self.quiesce() {
                    Ok(reset) => rx.iter_mut().for_each(|queue| queue.reclaim(&reset)),
                    Err(second) => {
                        tracing::error!("{second}");
                        std::mem::forget(running.shown);
                    }
                }
                Err(error)
            }
        }
    }

    fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
        let Some(running) = self.running.take() else {
            return Err(self.state_error("stop", "stopped"));
        };
        let reset = match self.quiesce() {
            Ok(reset) => reset,
            Err(error) => {
                // The back end may go on writing: that memory can never be used again.
                std::mem::forget(running);
                return Err(error);
            }
        };
        queues.rx.into_iter().for_each(|queue| queues::reclaim_rx(queue, &reset));
        queues.tx.into_iter().for_each(|queue| queues::reclaim_tx(queue, &reset));
        Ok(())
    }

    /// Up while there is a back end that knows the rings.
    fn link(&mut self) -> Result<Link, PortError> {
        self.service();
        let up = match &self.running {
            Some(running) => running.up,
            None => self.session.is_some(),
        };
        self.told_up = Some(up);
        Ok(Link { up, speed_mbps: None, full_duplex: None })
    }

    /// Looks after the back end, too: it is to be asked a few times a second.
    fn link_changed(&mut self) -> bool {
        self.service();
        let up = self.running.as_ref().map(|running| running.up);
        up != self.told_up
    }

    /// A back end sends whatever it has: there is no filter.
    fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        if on { Ok(()) } else { Err(self.no_filter("filter by destination address")) }
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), PortError> {
        if on { Ok(()) } else { Err(self.no_filter("filter multicast frames")) }
    }

    fn stats(&self) -> PortStats {
        self.counters.read()
    }

    fn capabilities(&self) -> Capabilities {
        let usable = match self.options.mergeable {
            Wish::Off => self.offered.without(Features::MRG_RXBUF),
            Wish::On | Wish::IfOffered => self.offered,
        };
        // Any back end can call.
        let mtu = Some(setup::mtu_range(self.mtu));
        Capabilities { rx_interrupts: true, vlan_filter: false, mtu, ..usable.capabilities() }
    }

    fn paths(&self) -> String {
        self.running
            .as_ref()
            .map(|running| Path::of(running.features).to_string())
            .unwrap_or_default()
    }

    fn fault(&self) -> Option<String> {
        self.lost.clone()
    }

    fn removed(&self) -> bool {
        false
    }
}

impl VhostPort {
    fn no_filter(&self, what: &str) -> PortError {
        PortError::Unsupported {
            device: self.name.clone(),
            what: what.to_owned(),
            why: "a vhost-user back end sends whatever it has".to_owned(),
        }
    }
}

impl Drop for VhostPort {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Err(error) = self.quiesce()
        {
            tracing::error!("{error}; its DMA memory is not used again");
            std::mem::forget(running);
        }
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

/// Picks what to use of what the back end offers.
fn choose(
    device: &str,
    offered: Features,
    options: &Options,
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
        (Features::RING_PACKED, "packed", options.packed),
        (Features::MRG_RXBUF, "mrg-rxbuf", options.mergeable),
        (Features::IN_ORDER, "in-order", options.in_order),
        (Features::INDIRECT_DESC, "indirect", options.indirect),
        (Features::EVENT_IDX, "event-idx", options.event_index),
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
    if options.queues > 1 && offered.has(Features::MQ) {
        chosen = chosen.with(Features::MQ);
    }
    let usable = match chosen.has(Features::MRG_RXBUF) {
        true => offered,
        false => offered.without(Features::MRG_RXBUF),
    };
    Ok(chosen.with(usable.for_offloads(wanted)))
}
