//! The port: what starts and stops the device and its queues.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use packetboat::bus::{Device, EventFd};
use packetboat::dma::Area;
use packetboat::mbuf::{MbufPool, Quiesced, TxFlags};
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{
    Capabilities, DescriptorLimits, FlowControl, Link, Offloads, Port, PortConfig, PortError,
    PortInfo, PortStats, QueueCounters, Queues, RegisterValue, RssHash, RxQueue, TxQueue,
};

use crate::bar::Bar;
use crate::registers::{EICR, EICS, EIMC_EX, EIMS, EIMS_EX, RAL, RDT, TDT};
use crate::rx::{Full, Interrupt, IxgbeRx, Lean, Path};
use crate::start::{
    self, LINK_VECTOR, MAX_FRAME_WITH_CRC, OVERHEAD_BYTES, RSS_KEY_LEN, RSS_TABLE_LEN, Wanted,
    rx_vector,
};
use crate::statistics::Statistics;
use crate::tx::{self, IxgbeTx};
use crate::watch::Watch;
use crate::{Media, eeprom, filters, link, media, rx};

/// The most queues: RSS reaches 16 (7.1.2.8); vectors and drop counters are reckoned for as many.
const RX_QUEUES_MAX: u16 = 16;
const TX_QUEUES_MAX: u16 = 64;
const DESCRIPTORS: DescriptorLimits =
    DescriptorLimits { min: 64, max: 4096, default: 512, power_of_two: true };
const DEFAULT_MTU: u16 = 1500;
const MTU_MIN: u16 = 68;
const MTU_MAX: u16 = (MAX_FRAME_WITH_CRC - OVERHEAD_BYTES) as u16;
/// Buffers are counted in KiB, 16 at most (8.2.3.8, SRRCTL).
const BUFFER_KIB_MAX: u16 = 16;

/// Microsoft's example of a key, which everybody's tables of expected hashes are made with.
const RSS_KEY: [u8; RSS_KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// What a running port has.
#[derive(Debug)]
struct Running {
    link_event: Option<EventFd>,
    promiscuous: bool,
    all_multicast: bool,
    watch: RefCell<Watch>,
    /// Every ring that the device was shown. It may write to them until it is reset, even if a
    /// queue was dropped: so they are kept here until then.
    _shown: Vec<Area>,
}

/// An 82599 or X540 as a port.
#[derive(Debug)]
pub(crate) struct IxgbePort {
    bar: Bar,
    media: Media,
    memory: Arc<Memory>,
    mac: MacAddress,
    config: Option<PortConfig>,
    flow_control: FlowControl,
    led: Option<u32>,
    rx_counters: Vec<Arc<QueueCounters>>,
    tx_counters: Vec<Arc<QueueCounters>>,
    statistics: Statistics,
    running: Option<Running>,
}

impl IxgbePort {
    /// Takes a device over: resets it, and reads what it is.
    pub(crate) fn new(device: Box<dyn Device>, memory: &Arc<Memory>) -> Result<Self, PortError> {
        let ids = device.ids();
        let bar = Bar::new(device)?;
        let Some((media, ran)) = media(&ids) else {
            return Err(bar.fault(format!("{ids} is no device of this driver")));
        };
        if !ran {
            tracing::warn!(
                "{}: this driver has never run on a device with ids {ids}; please tell how it goes",
                bar.name()
            );
        }
        start::reset(&bar)?;
        eeprom::check(&bar)?;
        // The device has loaded it from its EEPROM (4.6.7).
        let (mac, valid) = filters::address(&bar, 0);
        if !valid || mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
            return Err(bar.fault(format!("its EEPROM holds no address that can be used ({mac})")));
        }
        Ok(Self {
            bar,
            media,
            memory: memory.clone(),
            mac,
            config: None,
            flow_control: FlowControl::default(),
            led: None,
            rx_counters: Vec::new(),
            tx_counters: Vec::new(),
            statistics: Statistics::new(),
            running: None,
        })
    }

    fn name(&self) -> String {
        self.bar.name().to_owned()
    }

    fn state_error(&self, action: &'static str, state: &'static str) -> PortError {
        PortError::State { device: self.name(), action, state }
    }

    fn must_run(&self, action: &'static str) -> Result<(), PortError> {
        match self.running {
            Some(_) => Ok(()),
            None => Err(self.state_error(action, "stopped")),
        }
    }

    fn max_frame_with_crc(config: &PortConfig) -> u32 {
        u32::from(config.mtu.unwrap_or(DEFAULT_MTU)) + OVERHEAD_BYTES
    }

    /// Buffers of a pool in KiB, as the device counts them.
    fn buffer_kib(&self, config: &PortConfig, pool: &MbufPool) -> Result<u32, PortError> {
        let room = pool.room_len_bytes();
        let kib = (room / 1024).min(BUFFER_KIB_MAX);
        let needed = Self::max_frame_with_crc(config) - 4;
        let mtu = |rule| PortError::Mtu {
            device: self.name(),
            wanted: config.mtu.unwrap_or(DEFAULT_MTU),
            rule,
        };
        if kib == 0 {
            return Err(mtu(format!("mbufs of {room} bytes are too small: 1024 are needed")));
        }
        if !config.offloads.rx_scatter && u32::from(kib) * 1024 < needed {
            return Err(mtu(format!(
                "frames of {needed} bytes don't fit into mbufs of {room} bytes: receive them in \
                 several (--scatter)"
            )));
        }
        Ok(kib.into())
    }

    /// Brings the device up with its queues in place. What it was shown is in `shown`, and what
    /// it was lent in the queues, whether this succeeds or not.
    fn bring_up(
        &mut self,
        config: &PortConfig,
        pools: &[MbufPool],
        shown: &mut Vec<Area>,
        rx: &mut Vec<RxBox>,
        tx: &mut Vec<IxgbeTx>,
    ) -> Result<Running, PortError> {
        self.bar.device().reset()?;
        start::reset(&self.bar)?;
        let wanted = Wanted {
            media: self.media,
            mac: self.mac,
            offloads: &config.offloads,
            rx_queues: config.rx_queues,
            max_frame_with_crc: Self::max_frame_with_crc(config),
            flow_control: self.flow_control,
            default_key: &RSS_KEY,
        };
        start::configure(&self.bar, &wanted)?;
        let (link_event, wakers) = self.enable_vectors(config)?;
        let mut wakers = wakers.into_iter();
        let mut progress = (Vec::new(), Vec::new());
        for (queue, counters) in (0..).zip(self.rx_counters.clone()) {
            let pool = pools
                .get(usize::from(queue))
                .ok_or_else(|| self.state_error("start", "short of pools: one a receive queue"))?;
            let count = config.rx_descriptors.unwrap_or(DESCRIPTORS.default);
            let (area, ring) =
                start::ring(&self.bar, &self.memory, &format!("receive ring {queue}"), count)?;
            shown.push(area.clone());
            let kib = self.buffer_kib(config, pool)?;
            // With several queues, a full one must not hold up the others (4.6.7, SRRCTL.Drop_En).
            let drop = config.rx_queues > 1;
            start::set_up_rx(&self.bar, queue, &area, count, kib, &config.offloads, drop);
            let notes = Arc::new(rx::Progress::default());
            progress.0.push((notes.clone(), count));
            let parts = rx::Parts {
                ring,
                number: queue,
                doorbell: self.bar.handle(RDT, queue)?,
                pool: pool.clone(),
                port: config.number,
                counters,
                progress: notes,
                interrupt: wakers.next(),
            };
            // Pushed before it is filled: on an error its buffers are reclaimed with the others'.
            rx.push(match config.offloads.rx_is_plain() {
                true => RxBox::Lean(IxgbeRx::new(parts, Lean::default())),
                false => {
                    let longest = (MAX_FRAME_WITH_CRC as usize).saturating_sub(4);
                    RxBox::Full(IxgbeRx::new(parts, Full::new(longest)))
                }
            });
            if let Some(added) = rx.last_mut() {
                added.fill(self.bar.name(), queue)?;
            }
        }
        self.bar.device().set_bus_master(true)?;
        for (queue, counters) in (0..).zip(self.tx_counters.clone()) {
            let count = config.tx_descriptors.unwrap_or(DESCRIPTORS.default);
            let (area, ring) =
                start::ring(&self.bar, &self.memory, &format!("transmit ring {queue}"), count)?;
            shown.push(area.clone());
            start::set_up_tx(&self.bar, queue, &area, count)?;
            let notes = Arc::new(tx::Progress::default());
            progress.1.push(notes.clone());
            tx.push(IxgbeTx::new(tx::Parts {
                ring,
                number: queue,
                doorbell: self.bar.handle(TDT, queue)?,
                may: may(&config.offloads),
                counters,
                progress: notes,
            }));
        }
        for (queue, rx) in (0..).zip(rx.iter()) {
            start::turn_rx(&self.bar, queue, true)?;
            rx.ring_doorbell();
        }
        start::open_receive(&self.bar)?;
        Ok(Running {
            link_event,
            promiscuous: false,
            all_multicast: false,
            watch: RefCell::new(Watch::new(progress.0, progress.1)),
            _shown: Vec::new(),
        })
    }

    /// Turns interrupts on: the link's eventfd, and what wakes each receive queue's lcore.
    fn enable_vectors(
        &self,
        config: &PortConfig,
    ) -> Result<(Option<EventFd>, Vec<Interrupt>), PortError> {
        let queues = if config.rx_interrupts { config.rx_queues } else { 0 };
        let vectors = self.bar.device().msix_vectors();
        if vectors == 0 && queues == 0 {
            return Ok((None, Vec::new()));
        }
        if vectors < 1 + queues {
            return Err(PortError::Unsupported {
                device: self.name(),
                what: format!("wake lcores for {queues} receive queues"),
                why: format!("it has {vectors} MSI-X vectors, and {} are needed", 1 + queues),
            });
        }
        let mut eventfds = self.bar.device().enable_msix(1 + queues)?;
        start::enable_interrupts(&self.bar, queues);
        let mut wakers = Vec::new();
        for (queue, eventfd) in (0..queues).zip(eventfds.split_off(1)) {
            wakers.push(Interrupt {
                eventfd,
                enable: self.bar.handle(EIMS_EX, 0)?,
                disable: self.bar.handle(EIMC_EX, 0)?,
                bit: 1 << rx_vector(queue),
            });
        }
        Ok((eventfds.into_iter().nth(usize::from(LINK_VECTOR)), wakers))
    }

    /// Stops DMA: proof that nothing the device had is written to any more.
    fn quiesce(&self) -> Result<Quiesced, PortError> {
        if let Err(error) = self.bar.device().disable_msix() {
            tracing::debug!("{error}");
        }
        Ok(self.bar.device().reset()?)
    }
}

/// What frames may ask of a transmit queue.
fn may(offloads: &Offloads) -> TxFlags {
    let mut may = TxFlags::NONE;
    if offloads.tx_checksum || offloads.tx_segment {
        may |= TxFlags::IP_CHECKSUM | TxFlags::UDP_CHECKSUM | TxFlags::IPV4 | TxFlags::IPV6;
    }
    if offloads.tx_segment {
        may |= TxFlags::TCP_SEGMENT;
    }
    if offloads.tx_vlan {
        may |= TxFlags::VLAN;
    }
    may
}

/// A receive queue of either path.
enum RxBox {
    Lean(IxgbeRx<Lean>),
    Full(IxgbeRx<Full>),
}

impl RxBox {
    fn fill(&mut self, device: &str, queue: u16) -> Result<(), PortError> {
        match self {
            Self::Lean(rx) => rx.fill(device, queue),
            Self::Full(rx) => rx.fill(device, queue),
        }
    }

    fn ring_doorbell(&self) {
        match self {
            Self::Lean(rx) => rx.ring_doorbell(),
            Self::Full(rx) => rx.ring_doorbell(),
        }
    }

    fn reclaim(&mut self, reset: &Quiesced) {
        match self {
            Self::Lean(rx) => rx.reclaim(reset),
            Self::Full(rx) => rx.reclaim(reset),
        }
    }

    fn into_queue(self) -> Box<dyn RxQueue> {
        match self {
            Self::Lean(rx) => Box::new(rx),
            Self::Full(rx) => Box::new(rx),
        }
    }
}

/// Takes back what a queue of this path had, if it is one.
fn reclaim_rx<P: Path>(queue: Box<dyn RxQueue>, reset: &Quiesced) -> Option<Box<dyn RxQueue>> {
    if !(queue.as_ref() as &dyn Any).is::<IxgbeRx<P>>() {
        return Some(queue);
    }
    if let Ok(mut queue) = (queue as Box<dyn Any>).downcast::<IxgbeRx<P>>() {
        queue.reclaim(reset);
    }
    None
}

impl Port for IxgbePort {
    fn info(&self) -> PortInfo {
        PortInfo {
            device: self.name(),
            driver: "ixgbe",
            mac: self.mac,
            node: self.bar.device().numa_node(),
            max_rx_queues: RX_QUEUES_MAX,
            max_tx_queues: TX_QUEUES_MAX,
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
            max_frame_bytes: MAX_FRAME_WITH_CRC - 4,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            rx_checksum: true,
            rx_vlan_strip: true,
            rx_scatter: true,
            rx_lro: false,
            rx_classify: true,
            tx_checksum: true,
            tx_segment: true,
            tx_vlan: true,
            rss_key_len: RSS_KEY_LEN,
            rss_table_len: RSS_TABLE_LEN,
            rss_hash: RssHash::ALL,
            mtu: Some((MTU_MIN, MTU_MAX)),
            mac_filters: usize::from(RAL.count()) - 1,
            vlan_filter: true,
            rx_interrupts: self.bar.device().msix_vectors() > 1,
        }
    }

    fn paths(&self) -> String {
        let Some(config) = &self.config else { return String::new() };
        let rx = if config.offloads.rx_is_plain() { "lean" } else { "full" };
        let tx = if config.offloads.tx_is_plain() { "lean" } else { "full" };
        format!("rx {rx}, tx {tx}")
    }

    fn configure(&mut self, config: &PortConfig) -> Result<(), PortError> {
        if self.running.is_some() {
            return Err(self.state_error("configure", "running"));
        }
        let queues = |kind, wanted, most| {
            let device = self.name();
            Err(PortError::Queues { device, kind, wanted, most })
        };
        if !(1..=RX_QUEUES_MAX).contains(&config.rx_queues) {
            return queues("receive", config.rx_queues, RX_QUEUES_MAX);
        }
        if !(1..=TX_QUEUES_MAX).contains(&config.tx_queues) {
            return queues("transmit", config.tx_queues, TX_QUEUES_MAX);
        }
        for (kind, option, wanted) in [
            ("receive", "--rxd", config.rx_descriptors),
            ("transmit", "--txd", config.tx_descriptors),
        ] {
            let Some(wanted) = wanted.filter(|wanted| !DESCRIPTORS.allow(*wanted)) else {
                continue;
            };
            let DescriptorLimits { min, max, .. } = DESCRIPTORS;
            let rule = format!("wanted is a power of two from {min} to {max}");
            return Err(PortError::Descriptors { device: self.name(), kind, wanted, option, rule });
        }
        config.offloads.check(self.bar.name(), &self.capabilities())?;
        let mtu = config.mtu.unwrap_or(DEFAULT_MTU);
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            let rule = format!("it can do {MTU_MIN} to {MTU_MAX}");
            return Err(PortError::Mtu { device: self.name(), wanted: mtu, rule });
        }
        // Counters go on over a restart; those of queues that are new start.
        let grow = |counters: &mut Vec<Arc<QueueCounters>>, count: u16| {
            counters.resize_with(usize::from(count), Arc::default);
        };
        grow(&mut self.rx_counters, config.rx_queues);
        grow(&mut self.tx_counters, config.tx_queues);
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
        let (mut shown, mut rx, mut tx) = (Vec::new(), Vec::new(), Vec::new());
        match self.bring_up(&config, pools, &mut shown, &mut rx, &mut tx) {
            Ok(running) => {
                tracing::info!("{}: paths: {}", self.bar.name(), self.paths());
                self.running = Some(Running { _shown: shown, ..running });
                Ok(Queues {
                    rx: rx.into_iter().map(RxBox::into_queue).collect(),
                    tx: tx.into_iter().map(|queue| Box::new(queue) as _).collect(),
                })
            }
            Err(error) => {
                // What was lent already comes back; if the device can't even be reset it is lost,
                // and the first error is the one to tell.
                match self.quiesce() {
                    Ok(reset) => rx.iter_mut().for_each(|queue| queue.reclaim(&reset)),
                    Err(second) => {
                        tracing::error!("{second}");
                        std::mem::forget(shown);
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
        let rx_queues = self.config.as_ref().map_or(0, |config| config.rx_queues);
        self.statistics.update(&self.bar, rx_queues);
        let reset = match self.quiesce() {
            Ok(reset) => reset,
            Err(error) => {
                // The device may go on writing: its memory can never be used again.
                std::mem::forget(running);
                return Err(error);
            }
        };
        for queue in queues.rx {
            drop(reclaim_rx::<Lean>(queue, &reset).and_then(|q| reclaim_rx::<Full>(q, &reset)));
        }
        for queue in queues.tx {
            if let Ok(mut queue) = (queue as Box<dyn Any>).downcast::<IxgbeTx>() {
                queue.reclaim_all(&reset);
            }
        }
        Ok(())
    }

    fn link(&mut self) -> Result<Link, PortError> {
        Ok(link::look(&self.bar))
    }

    fn link_changed(&mut self) -> bool {
        let Some(event) = self.running.as_ref().and_then(|running| running.link_event.as_ref())
        else {
            return true;
        };
        if event.read().is_err() {
            return false;
        }
        // Read without clearing, then cleared: but not the queues' causes, which clear themselves.
        let causes = self.bar.read(EICS) & 0x7fff_0000;
        self.bar.write(EICR, causes);
        self.bar.write(EIMS, causes);
        true
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        self.must_run("be made promiscuous")?;
        if let Some(running) = &mut self.running {
            running.promiscuous = on;
            filters::set_promiscuous(&self.bar, on, running.all_multicast);
        }
        Ok(())
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), PortError> {
        self.must_run("receive all multicast frames")?;
        if let Some(running) = &mut self.running {
            running.all_multicast = on;
            filters::set_promiscuous(&self.bar, running.promiscuous, on);
        }
        Ok(())
    }

    fn filter_mac(&mut self, address: MacAddress, on: bool) -> Result<(), PortError> {
        self.must_run("filter an address")?;
        filters::filter_address(&self.bar, address, on)
    }

    fn filter_vlan(&mut self, vlan: u16, on: bool) -> Result<(), PortError> {
        self.must_run("filter a VLAN")?;
        filters::filter_vlan(&self.bar, vlan, on)
    }

    fn flow_control(&self) -> Result<FlowControl, PortError> {
        Ok(self.flow_control)
    }

    fn set_flow_control(&mut self, flow_control: FlowControl) -> Result<(), PortError> {
        self.flow_control = flow_control;
        if self.running.is_some() {
            link::set_flow_control(&self.bar, flow_control);
        }
        Ok(())
    }

    fn identify(&mut self, on: bool) -> Result<(), PortError> {
        match (self.led, on) {
            (None, true) => self.led = Some(link::blink(&self.bar)),
            (Some(before), false) => {
                link::stop_blinking(&self.bar, before);
                self.led = None;
            }
            _ => {}
        }
        Ok(())
    }

    fn run_rx(&mut self, queue: &mut dyn RxQueue, on: bool) -> Result<(), PortError> {
        self.must_run("stop or start a queue")?;
        let any = queue as &mut dyn Any;
        if let Some(queue) = any.downcast_mut::<IxgbeRx<Lean>>() {
            return run_rx(&self.bar, queue, on);
        }
        match any.downcast_mut::<IxgbeRx<Full>>() {
            Some(queue) => run_rx(&self.bar, queue, on),
            None => Err(self.bar.fault("the queue to be stopped or started isn't its own")),
        }
    }

    fn run_tx(&mut self, queue: &mut dyn TxQueue, on: bool) -> Result<(), PortError> {
        self.must_run("stop or start a queue")?;
        let Some(queue) = (queue as &mut dyn Any).downcast_mut::<IxgbeTx>() else {
            return Err(self.bar.fault("the queue to be stopped or started isn't its own"));
        };
        let number = queue.number();
        if on == queue.is_running() {
            return Ok(());
        }
        if on {
            start::turn_tx(&self.bar, number, true)?;
            queue.restart();
            return Ok(());
        }
        start::await_sent(&self.bar, number, queue.stop())?;
        start::turn_tx(&self.bar, number, false)
    }

    fn stats(&self) -> PortStats {
        PortStats::read(&self.rx_counters, &self.tx_counters)
    }

    fn extended_stats(&mut self) -> Vec<(String, u64)> {
        let rx_queues = self.config.as_ref().map_or(0, |config| config.rx_queues);
        if self.running.is_some() {
            self.statistics.update(&self.bar, rx_queues);
        }
        self.statistics.named(rx_queues)
    }

    fn registers(&self) -> Result<Vec<RegisterValue>, PortError> {
        Ok(self.bar.dump())
    }

    fn fault(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let up = || link::look(&self.bar).up;
        running.watch.borrow_mut().look(&self.bar, up)
    }

    fn removed(&self) -> bool {
        self.bar.device().removal_requested()
    }
}

fn run_rx<P: Path>(bar: &Bar, queue: &mut IxgbeRx<P>, on: bool) -> Result<(), PortError> {
    let number = queue.number();
    if on == queue.is_running() {
        return Ok(());
    }
    if on {
        queue.restart();
        start::turn_rx(bar, number, true)?;
        queue.ring_doorbell();
        return Ok(());
    }
    queue.stop();
    start::turn_rx(bar, number, false)
}

impl Drop for IxgbePort {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Err(error) = self.quiesce()
        {
            tracing::error!("{error}; its DMA memory is not used again");
            std::mem::forget(running);
        }
    }
}
