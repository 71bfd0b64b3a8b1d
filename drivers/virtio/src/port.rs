//! The port of a PCI device: what starts and stops the device and its queues.

use std::sync::Arc;

use packetboat::bus::Device;
use packetboat::dma::Area;
use packetboat::mbuf::MbufPool;
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{
    BringUp, Capabilities, DescriptorLimits, Lifecycle, Link, Offloads, Port, PortConfig,
    PortError, PortInfo, PortStats, QueueCounters, Queues, Shown,
};

use crate::announce;
use crate::control::{
    ADDRESS_TABLE, ALL_MULTICAST, ANNOUNCED, Command, ControlQueue, OWN_ADDRESS, PROMISCUOUS,
    QUEUE_PAIRS, RSS_CONFIG, VLAN_ADD, VLAN_REMOVE, address_table,
};
use crate::features::{Features, choose};
use crate::header::HEADER_BYTES;
use crate::known::KnownQueue;
use crate::queues::{self, Extras, Parts, Path};
use crate::ring::{Doorbell, QueueMemory};
use crate::rss;
use crate::rx::OwnRx;
use crate::setup::{
    self, DEFAULT_DESCRIPTORS, FRAME_OVERHEAD_BYTES, largest_power_of_two, local_mac,
};
use crate::transport::{NetConfig, PciTransport, RssLimits, status};
use crate::tx::OwnTx;

/// The MTU of a device that doesn't say.
const DEFAULT_MTU: u16 = 1500;

/// What a running port has.
#[derive(Debug)]
struct Running {
    features: Features,
    control: Option<ControlQueue>,
    queues: Vec<KnownQueue>,
    /// For frames of the port's own.
    pool: Option<MbufPool>,
    /// Addresses that it receives besides its own.
    addresses: Vec<MacAddress>,
    /// What can't be mended without a reset.
    fault: Option<String>,
}

/// MAC addresses that a device is given besides its own.
const MAC_FILTERS: usize = 64;

/// A virtio-net device as a port.
#[derive(Debug)]
pub(crate) struct VirtioPort {
    transport: PciTransport,
    memory: Arc<Memory>,
    offered: Features,
    features: Features,
    mac: MacAddress,
    max_queue_pairs: u16,
    /// The most that the device takes, if it says.
    mtu: Option<u16>,
    rx_limits: DescriptorLimits,
    tx_limits: DescriptorLimits,
    life: Lifecycle<Running>,
    rss: Option<RssLimits>,
}

impl VirtioPort {
    /// Takes a device over: resets it, and reads what it is.
    pub(crate) fn new(device: Box<dyn Device>, memory: &Arc<Memory>) -> Result<Self, PortError> {
        let transport = PciTransport::new(device)?;
        transport.reset()?;
        transport.add_status(status::ACKNOWLEDGE);
        transport.add_status(status::DRIVER);
        let offered = transport.offered()?;
        let none = Offloads::default();
        let features = choose(transport.name(), offered, memory.iova_mode(), &none)?;
        let config = transport.net_config(features)?;
        let rss = config.rss;
        let limits = |index| setup::limits(transport.queue_size_max(index), DEFAULT_DESCRIPTORS);
        let (rx_limits, tx_limits) = (limits(0), limits(1));
        // Without them there is no sending or receiving, whatever else it offers.
        if rx_limits.max < 2 || tx_limits.max < 2 {
            return Err(PortError::Device {
                device: transport.name().to_owned(),
                what: format!(
                    "its first receive and transmit queues have {} and {} entries; at least 2 are \
                     needed",
                    rx_limits.max, tx_limits.max
                ),
            });
        }
        // Not num_queues of the common configuration: QEMU makes the queues of the other pairs
        // when MQ is negotiated, and counts one pair until then. A pair that isn't there after all
        // shows when it's enabled, by a size of 0.
        let max_queue_pairs = config.max_queue_pairs;
        tracing::debug!(
            "{}: features {features:?}, {max_queue_pairs} queue pairs, {config:?}",
            transport.name()
        );
        Ok(Self {
            mac: config.mac.unwrap_or_else(|| local_mac(transport.name())),
            mtu: config.mtu,
            life: Lifecycle::new(transport.name()),
            transport,
            memory: memory.clone(),
            offered,
            features,
            max_queue_pairs,
            rx_limits,
            tx_limits,
            rss,
        })
    }

    fn name(&self) -> String {
        self.transport.name().to_owned()
    }

    /// Brings the device up with its queues in place (virtio 1.3, 3.1.1 and 5.1.5). What it was
    /// shown and lent is in `up`, whether this succeeds or not.
    fn bring_up(
        &mut self,
        config: &PortConfig,
        pools: &[MbufPool],
        up: &mut BringUp<Box<dyn OwnRx>, Box<dyn OwnTx>>,
    ) -> Result<Running, PortError> {
        let device = self.name();
        self.transport.reset()?;
        self.transport.add_status(status::ACKNOWLEDGE);
        self.transport.add_status(status::DRIVER);
        let (offered, iova_mode) = (self.transport.offered()?, self.memory.iova_mode());
        let features = choose(&device, offered, iova_mode, &config.offloads)?;
        self.transport.accept(features)?;
        // Read anew: where the control queue stands depends on it, and it may have changed.
        let NetConfig { max_queue_pairs, rss, .. } = self.transport.net_config(features)?;
        let wakers = if config.rx_interrupts { config.rx_queues } else { 0 };
        let mut interrupts = self.transport.enable_interrupts(wakers)?.into_iter();

        let mut known = Vec::new();
        let pairs = config.rx_queues.max(config.tx_queues);
        let header = Area::new(&self.memory, &format!("{device} header"), 64, 64, None)?;
        up.shown.push(header.clone());
        let (path, counters) = (Path::of(features), self.life.counters());
        for ((pair, counters), pool) in (0..).zip(&counters.rx).zip(pools) {
            let index = 2 * pair;
            let size = self.size(config.rx_descriptors, index, self.rx_limits);
            // Vector 0 is the configuration's.
            let vector = config.rx_interrupts.then_some(1 + pair);
            let (queue, doorbell) =
                self.queue(path, index, size, vector, counters, &mut up.shown)?;
            setup::check_room(&device, config.mtu, path, pool)?;
            let parts = Parts { interrupt: interrupts.next(), ..queue.parts(doorbell) };
            let mut new = queues::receive_queue(path, parts, pool.clone(), config.number)?;
            // Pushed before it is filled: on an error its buffers are reclaimed with the others'.
            let filled = new.fill(&device, pair);
            up.rx.push(new);
            filled?;
            known.push(queue);
        }
        for (pair, counters) in (0..).zip(&counters.tx) {
            let index = 2 * pair + 1;
            let size = self.size(config.tx_descriptors, index, self.tx_limits);
            let (queue, doorbell) = self.queue(path, index, size, None, counters, &mut up.shown)?;
            let name = format!("{device} virtqueue {index}");
            let node = self.transport.device().numa_node();
            let extras = Extras::new(path, &self.memory, &name, node, size, header.clone())?;
            up.shown.extend(extras.areas());
            up.tx.push(queues::transmit_queue(path, queue.parts(doorbell), extras)?);
            known.push(queue);
        }
        tracing::info!("{device}: virtio-net over PCI, {path}");
        let mut control = None;
        if features.has(Features::CTRL_VQ) {
            // Behind all pairs that the device has, used or not (5.1.2).
            let many = features.has(Features::MQ) || features.has(Features::RSS);
            let index = 2 * if many { max_queue_pairs } else { 1 };
            let (queue, areas) =
                ControlQueue::new(&self.transport, &self.memory, index, path.packed)?;
            up.shown.extend(areas);
            control = Some(queue);
        }
        self.transport.device().set_bus_master(true)?;
        self.transport.add_status(status::DRIVER_OK);
        if let Some(control) = &mut control {
            let wanted = config.offloads.rss.as_ref();
            match rss.filter(|_| pairs > 1 || wanted.is_some()) {
                // It says how many pairs there are, too.
                Some(limits) => {
                    let (rx, tx) = (config.rx_queues, pairs);
                    control.command(RSS_CONFIG, &rss::command(limits, wanted, rx, tx))?;
                }
                None if pairs > 1 => control.command(QUEUE_PAIRS, &pairs.to_le_bytes())?,
                None => {}
            }
        }
        for queue in &up.rx {
            queue.kick();
        }
        let pool = pools.first().cloned();
        Ok(Running { features, control, queues: known, pool, addresses: Vec::new(), fault: None })
    }

    /// Makes queue `index` and hands it to the device, which isn't running yet.
    fn queue(
        &self,
        path: Path,
        index: u16,
        size: u16,
        vector: Option<u16>,
        counters: &Arc<QueueCounters>,
        shown: &mut Shown,
    ) -> Result<(KnownQueue, Doorbell), PortError> {
        let name = format!("{} virtqueue {index}", self.transport.name());
        let node = self.transport.device().numa_node();
        let memory = QueueMemory::new(&self.memory, &name, node, size, path.packed)?;
        shown.push(memory.area.clone());
        let register = self.transport.enable_queue(index, size, memory.areas(), vector)?;
        let queue = KnownQueue::new(index, memory, vector, counters.clone());
        Ok((queue, Doorbell::Register(register, index)))
    }

    /// Looks after the queues: one that has broken down is reset alone and enabled again, if the
    /// device agreed to that. Its owner, who polls it, puts its ring back to the beginning between
    /// the two.
    fn service(&mut self) {
        let Some(running) = self.life.running_mut() else { return };
        if running.features.has(Features::RING_RESET) && running.fault.is_none() {
            let transport = &self.transport;
            let mended = running.queues.iter_mut().try_for_each(|queue| queue.mend(transport));
            running.fault = mended.err().map(|error| error.to_string());
        }
    }

    /// Has the first transmit queue tell the network where the port is.
    fn announce(&self) {
        let Some(running) = self.life.running() else { return };
        let queue = running.queues.iter().find(|queue| queue.index() == 1);
        let frame = running.pool.as_ref().and_then(|pool| announce::frame(pool, self.mac));
        match (queue, frame) {
            (Some(queue), Some(frame)) => queue.hand_in(frame),
            _ => tracing::warn!("{}: no mbuf to announce the port with", self.name()),
        }
    }

    /// Gives a command for which the device must have agreed to `feature`.
    fn command(
        &mut self,
        feature: Features,
        what: &str,
        command: Command,
        data: &[u8],
    ) -> Result<(), PortError> {
        let running = self.life.must_run("change what it receives")?;
        match &mut running.control {
            Some(control) if running.features.has(feature) => control.command(command, data),
            _ => Err(PortError::Unsupported {
                device: self.name(),
                what: what.to_owned(),
                why: format!("it doesn't offer {}", feature.name()),
            }),
        }
    }

    /// What was asked for, or the default, within what this very queue takes.
    fn size(&self, asked: Option<u16>, index: u16, limits: DescriptorLimits) -> u16 {
        let most = largest_power_of_two(self.transport.queue_size_max(index)).max(limits.min);
        asked.unwrap_or(limits.default).min(most)
    }
}

impl Port for VirtioPort {
    fn info(&self) -> PortInfo {
        PortInfo {
            device: self.name(),
            driver: "virtio-net",
            mac: self.mac,
            node: self.transport.device().numa_node(),
            max_rx_queues: self.max_queue_pairs,
            max_tx_queues: self.max_queue_pairs,
            rx_descriptors: self.rx_limits,
            tx_descriptors: self.tx_limits,
            max_frame_bytes: u32::from(self.mtu.unwrap_or(DEFAULT_MTU)) + FRAME_OVERHEAD_BYTES,
        }
    }

    fn configure(&mut self, config: &PortConfig) -> Result<(), PortError> {
        self.life.check_configure(config, &self.info(), &self.capabilities())?;
        config.check_vectors(self.transport.name(), self.transport.device().msix_vectors())?;
        self.life.configured(config);
        Ok(())
    }

    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
        let config = self.life.check_start(pools)?;
        let mut up = BringUp::default();
        match self.bring_up(&config, pools, &mut up) {
            Ok(running) => {
                self.features = running.features;
                self.life.started(running, up.shown);
            }
            Err(error) => {
                up.give_up(self.transport.quiesce(), |mut queue, reset| queue.reclaim(reset));
                return Err(error);
            }
        }
        Ok(queues::hand_out(up.rx, up.tx))
    }

    fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
        let reset = self.life.stop()?.release(self.transport.quiesce())?;
        queues::reclaim(queues, &reset);
        Ok(())
    }

    fn link(&mut self) -> Result<Link, PortError> {
        // A device without the status field is always up (5.1.4.2).
        let config = self.transport.net_config(self.features)?;
        if self.transport.status() == status::GONE {
            return Ok(Link { up: false, speed_mbps: None, full_duplex: None });
        }
        if config.announce && self.features.has(Features::GUEST_ANNOUNCE) && self.life.is_running()
        {
            self.announce();
            // The device wants to know that it was heard (5.1.6.5.4.1).
            match self.command(Features::GUEST_ANNOUNCE, "be answered", ANNOUNCED, &[]) {
                Ok(()) => tracing::info!("{}: the device has moved, and was answered", self.name()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let up = config.link_up.unwrap_or(true);
        Ok(Link { up, speed_mbps: None, full_duplex: None })
    }

    fn link_changed(&mut self) -> bool {
        self.service();
        self.transport.config_changed()
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        let data = [u8::from(on)];
        self.command(Features::CTRL_RX, "be made promiscuous", PROMISCUOUS, &data)
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), PortError> {
        let (what, data) = ("receive all multicast frames", [u8::from(on)]);
        self.command(Features::CTRL_RX, what, ALL_MULTICAST, &data)
    }

    fn set_mac(&mut self, address: MacAddress) -> Result<(), PortError> {
        let what = "be given another address";
        self.command(Features::CTRL_MAC_ADDR, what, OWN_ADDRESS, &address.0)?;
        self.mac = address;
        Ok(())
    }

    fn filter_mac(&mut self, address: MacAddress, on: bool) -> Result<(), PortError> {
        let mut addresses = self.life.running().map(|running| running.addresses.clone());
        let addresses = addresses.get_or_insert_default();
        addresses.retain(|other| *other != address);
        if on {
            addresses.push(address);
        }
        if addresses.len() > MAC_FILTERS {
            return Err(PortError::Unsupported {
                device: self.name(),
                what: format!("receive frames to {address}, too"),
                why: format!("it has {MAC_FILTERS} addresses besides its own already"),
            });
        }
        let (what, data) = ("receive frames to other addresses", address_table(addresses));
        self.command(Features::CTRL_RX, what, ADDRESS_TABLE, &data)?;
        if let Some(running) = self.life.running_mut() {
            running.addresses = std::mem::take(addresses);
        }
        Ok(())
    }

    fn filter_vlan(&mut self, vlan: u16, on: bool) -> Result<(), PortError> {
        let asked = self.life.config().is_some_and(|config| config.offloads.rx_vlan_filter);
        if self.offered.has(Features::CTRL_VLAN) && !asked {
            let state = "not configured to (Offloads::rx_vlan_filter)";
            return Err(self.life.state_error("filter by VLAN", state));
        }
        let command = if on { VLAN_ADD } else { VLAN_REMOVE };
        self.command(Features::CTRL_VLAN, "filter by VLAN", command, &vlan.to_le_bytes())
    }

    fn stats(&self) -> PortStats {
        self.life.counters().read()
    }

    fn capabilities(&self) -> Capabilities {
        let commands = self.offered.has(Features::CTRL_VQ);
        let receives = commands && self.offered.has(Features::CTRL_RX);
        let other = Capabilities {
            mac_filters: if receives { MAC_FILTERS } else { 0 },
            vlan_filter: commands && self.offered.has(Features::CTRL_VLAN),
            mtu: Some(setup::mtu_range(self.mtu)),
            rx_interrupts: self.transport.device().msix_vectors() > 1,
            ..self.offered.capabilities()
        };
        rss::capabilities(self.rss, other)
    }

    fn paths(&self) -> String {
        let path = self.life.running().map(|running| Path::of(running.features).to_string());
        path.unwrap_or_default()
    }

    fn fault(&self) -> Option<String> {
        let running = self.life.running()?;
        if let Some(fault) = &running.fault {
            return Some(fault.clone());
        }
        // With RING_RESET this is mended by itself, at the next look at the link.
        if !running.features.has(Features::RING_RESET)
            && running.queues.iter().any(KnownQueue::is_broken)
        {
            return Some(
                "the device claims to have completed more frames than it was given".to_owned(),
            );
        }
        match self.transport.status() {
            status::GONE => Some("the device is gone: its registers read as all ones".to_owned()),
            bits if bits & status::NEEDS_RESET != 0 => {
                Some("the device says that it needs a reset".to_owned())
            }
            _ => None,
        }
    }

    fn removed(&self) -> bool {
        self.transport.device().removal_requested()
    }
}

impl Drop for VirtioPort {
    fn drop(&mut self) {
        if let Ok(running) = self.life.stop() {
            running.release_last(self.transport.quiesce());
        }
    }
}

const _: () = assert!(HEADER_BYTES <= packetboat::mbuf::HEADROOM_BYTES);
