//! A vhost-user port: rings in our memory, a back end in another process that works on them.
//!
//! The back end may go away and come back. [`VhostPort::service`] notices, as often as the
//! application asks for the link: it closes the [`Gate`], so that each queue counts what was in
//! flight and puts its ring back to the beginning; then it waits for a new back end, tells it of
//! the rings, and opens the gate again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat::bus::{EventFd, Vdev};
use packetboat::dma::Area;
use packetboat::mbuf::MbufPool;
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{
    BringUp, Capabilities, DescriptorLimits, Lifecycle, Link, Offloads, Port, PortConfig,
    PortError, PortInfo, PortStats, QueueCounters, Queues, Shown,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use super::backend::Backend;
use super::options::{Options, Wish};
use super::session::QueueSetup;
use crate::features::Features;
use crate::gate::{Gate, Passage};
use crate::queues::{self, Extras, Parts, Path};
use crate::ring::{Doorbell, QueueMemory};
use crate::rx::OwnRx;
use crate::setup::{self, FRAME_OVERHEAD_BYTES, local_mac};
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
    retry_at: Instant,
}

/// What the back end is told of a queue.
#[derive(Debug)]
struct KnownQueue {
    index: u16,
    memory: QueueMemory,
    counters: Arc<QueueCounters>,
    /// Wakes the back end.
    kick: EventFd,
    /// Wakes an lcore.
    call: Option<EventFd>,
}

impl KnownQueue {
    /// What a queue on it is made of.
    fn parts(&self, doorbell: Doorbell, gate: &Arc<Gate>) -> Parts<'_> {
        let (memory, counters) = (&self.memory, self.counters.clone());
        Parts { memory, doorbell, counters, passage: Passage::new(gate), interrupt: None }
    }

    fn setup(&self) -> QueueSetup<'_> {
        let Self { index, memory, kick, call, .. } = self;
        QueueSetup { index: *index, memory, kick, call: call.as_ref() }
    }
}

impl Running {
    /// How often a queue broke down, over all queues.
    fn broken(&self) -> u64 {
        self.queues.iter().map(|queue| queue.counters.broken.get()).sum()
    }

    /// Tells the back end of the rings, which stand at their beginning.
    fn tell(&mut self, backend: &mut Backend) -> Result<(), PortError> {
        let queues: Vec<_> = self.queues.iter().map(KnownQueue::setup).collect();
        backend.tell(self.features, &queues)?;
        // It may have been told of the queues and have found nothing in them.
        for queue in &self.queues {
            let _ = queue.kick.write(1);
        }
        self.up = true;
        self.broken_before = self.broken();
        Ok(())
    }

    /// The back end doesn't work on the rings any more: their owners put them back.
    fn suspend(&mut self) {
        self.up = false;
        self.gate.close();
    }

    /// Goes on with a back end, if there is one by now; whether there is.
    fn resume(&mut self, backend: &mut Backend) -> Result<bool, PortError> {
        if !backend.try_get(self.features)? {
            return Ok(false);
        }
        if let Err(error) = self.tell(backend) {
            backend.quiesce()?;
            return Err(error);
        }
        self.gate.open();
        Ok(true)
    }
}

/// A vhost-user device as a port.
#[derive(Debug)]
pub(crate) struct VhostPort {
    backend: Backend,
    memory: Arc<Memory>,
    offered: Features,
    features: Features,
    mac: MacAddress,
    max_queue_pairs: u16,
    mtu: Option<u16>,
    limits: DescriptorLimits,
    life: Lifecycle<Running>,
    /// The link as it was last told of.
    told_up: Option<bool>,
}

impl VhostPort {
    /// Connects, and asks the back end what it can.
    pub(crate) fn new(
        vdev: &Vdev,
        options: Options,
        memory: &Arc<Memory>,
    ) -> Result<Self, PortError> {
        let name = format!("vhost-user:{}", options.path.display());
        let (mac, queues) = (options.mac, options.queues);
        let limits = setup::limits(32768, options.queue_size);
        let mut backend = Backend::new(&name, options, memory)?;
        let session = backend.get()?;
        let (offered, queue_pairs) = (session.offered, session.queue_pairs);
        let features = backend.options.choose(&name, offered, &Offloads::default())?;
        let config = backend.net_config(features)?;
        let max_queue_pairs = queues.min(queue_pairs);
        if max_queue_pairs < queues {
            tracing::warn!(
                "--vdev {vdev}: the back end has {max_queue_pairs} queue pairs, not {queues}"
            );
        }
        Ok(Self {
            backend,
            memory: memory.clone(),
            offered,
            features,
            mac: mac.or(config.mac).unwrap_or_else(|| local_mac(&name)),
            max_queue_pairs,
            mtu: config.mtu,
            limits,
            life: Lifecycle::new(&name),
            told_up: None,
        })
    }

    /// Makes the queues, and tells the back end of them. What it may know of and was lent is in
    /// `up`, whether this succeeds or not.
    fn bring_up(
        &mut self,
        config: &PortConfig,
        pools: &[MbufPool],
        up: &mut BringUp<Box<dyn OwnRx>, Box<dyn OwnTx>>,
    ) -> Result<Running, PortError> {
        let name = self.life.device();
        let mut running = Running {
            features: self.features,
            gate: Arc::default(),
            up: false,
            queues: Vec::new(),
            broken_before: 0,
            retry_at: Instant::now(),
        };
        let path = Path::of(running.features);
        let header = Area::new(&self.memory, &format!("{name} header"), 64, 64, None)?;
        up.shown.push(header.clone());
        let rx_size = config.rx_descriptors.unwrap_or(self.limits.default);
        let tx_size = config.tx_descriptors.unwrap_or(self.limits.default);
        let counters = self.life.counters();
        for ((pair, counters), pool) in (0..).zip(&counters.rx).zip(pools) {
            let (call, interrupt) = match config.rx_interrupts {
                true => self.event(2 * pair).map(|(one, other)| (Some(one), Some(other)))?,
                false => (None, None),
            };
            let (queue, doorbell) =
                self.queue(path, 2 * pair, rx_size, call, counters, &mut up.shown)?;
            setup::check_room(name, config.mtu, path, pool)?;
            let parts = Parts { interrupt, ..queue.parts(doorbell, &running.gate) };
            let mut new = queues::receive_queue(path, parts, pool.clone(), config.number)?;
            // Pushed before it is filled: on an error its buffers are reclaimed with the others'.
            let filled = new.fill(name, pair);
            up.rx.push(new);
            filled?;
            running.queues.push(queue);
        }
        for (pair, counters) in (0..).zip(&counters.tx) {
            let index = 2 * pair + 1;
            let (queue, doorbell) =
                self.queue(path, index, tx_size, None, counters, &mut up.shown)?;
            let name = format!("{name} virtqueue {index}");
            let extras = Extras::new(path, &self.memory, &name, None, tx_size, header.clone())?;
            up.shown.extend(extras.areas());
            let parts = queue.parts(doorbell, &running.gate);
            up.tx.push(queues::transmit_queue(path, parts, extras)?);
            running.queues.push(queue);
        }
        // DPDK's back end wants the queues in order of their numbers.
        running.queues.sort_by_key(|queue| queue.index);
        tracing::info!("{name}: {path}");
        running.tell(&mut self.backend)?;
        Ok(running)
    }

    /// Two ends of an event for queue `index`.
    fn event(&self, index: u16) -> Result<(EventFd, EventFd), PortError> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .and_then(|event| Ok((event.try_clone()?, event)))
            .map_err(|error| self.backend.fault(format!("no event for queue {index}: {error}")))
    }

    /// Makes queue `index`.
    fn queue(
        &self,
        path: Path,
        index: u16,
        size: u16,
        call: Option<EventFd>,
        counters: &Arc<QueueCounters>,
        shown: &mut Shown,
    ) -> Result<(KnownQueue, Doorbell), PortError> {
        let name = format!("{} virtqueue {index}", self.life.device());
        let memory = QueueMemory::new(&self.memory, &name, None, size, path.packed)?;
        let (kick, mine) = self.event(index)?;
        shown.push(memory.area.clone());
        let queue = KnownQueue { index, memory, counters: counters.clone(), kick, call };
        Ok((queue, Doorbell::Event(mine)))
    }

    /// Looks after the back end: notices that it is gone, that a queue has broken down, that a new
    /// one is there.
    fn service(&mut self) {
        let backend = &mut self.backend;
        backend.look();
        let Some(running) = self.life.running_mut() else { return };
        if running.up && !backend.is_there() {
            running.suspend();
        } else if running.up && running.broken() != running.broken_before {
            tracing::warn!(
                "{}: the back end claims to have completed what it hadn't: starting it anew",
                backend.name()
            );
            if let Err(error) = backend.quiesce() {
                tracing::error!("{error}");
            }
            running.suspend();
        }
        let parked = running.gate.parked() as usize == running.queues.len();
        let may = !running.up && parked && backend.lost().is_none();
        if may && Instant::now() >= running.retry_at {
            running.retry_at = Instant::now() + RETRY;
            match running.resume(backend) {
                Ok(true) => tracing::info!("{}: the back end is there again", backend.name()),
                Ok(false) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

impl Port for VhostPort {
    fn info(&self) -> PortInfo {
        let limit = self.mtu.map_or(u32::from(u16::MAX), u32::from);
        PortInfo {
            device: self.life.device().to_owned(),
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
        self.life.check_configure(config, &self.info(), &self.capabilities())?;
        self.life.configured(config);
        Ok(())
    }

    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
        let config = self.life.check_start(pools)?;
        let offered = self.backend.get()?.offered;
        let options = &self.backend.options;
        self.features = options.choose(self.life.device(), offered, &config.offloads)?;
        self.offered = offered;
        let mut up = BringUp::default();
        match self.bring_up(&config, pools, &mut up) {
            Ok(running) => self.life.started(running, up.shown),
            Err(error) => {
                up.give_up(self.backend.quiesce(), |mut queue, reset| queue.reclaim(reset));
                return Err(error);
            }
        }
        Ok(queues::hand_out(up.rx, up.tx))
    }

    fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
        let reset = self.life.stop()?.release(self.backend.quiesce())?;
        queues::reclaim(queues, &reset);
        Ok(())
    }

    /// Up while there is a back end that knows the rings.
    fn link(&mut self) -> Result<Link, PortError> {
        self.service();
        let up = self.life.running().map_or(self.backend.is_there(), |running| running.up);
        self.told_up = Some(up);
        Ok(Link { up, speed_mbps: None, full_duplex: None })
    }

    /// Looks after the back end, too: it is to be asked a few times a second.
    fn link_changed(&mut self) -> bool {
        self.service();
        let up = self.life.running().map(|running| running.up);
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
        self.life.counters().read()
    }

    fn capabilities(&self) -> Capabilities {
        let usable = match self.backend.options.mergeable {
            Wish::Off => self.offered.without(Features::MRG_RXBUF),
            Wish::On | Wish::IfOffered => self.offered,
        };
        // Any back end can call.
        let mtu = Some(setup::mtu_range(self.mtu));
        Capabilities { rx_interrupts: true, vlan_filter: false, mtu, ..usable.capabilities() }
    }

    fn paths(&self) -> String {
        let path = self.life.running().map(|running| Path::of(running.features).to_string());
        path.unwrap_or_default()
    }

    fn fault(&self) -> Option<String> {
        self.backend.lost().map(str::to_owned)
    }

    fn removed(&self) -> bool {
        false
    }
}

impl VhostPort {
    fn no_filter(&self, what: &str) -> PortError {
        PortError::Unsupported {
            device: self.life.device().to_owned(),
            what: what.to_owned(),
            why: "a vhost-user back end sends whatever it has".to_owned(),
        }
    }
}

impl Drop for VhostPort {
    fn drop(&mut self) {
        if let Ok(running) = self.life.stop() {
            running.release_last(self.backend.quiesce());
        }
    }
}
