//! The port: what starts and stops the device and its queues.

mod bring_up;
mod queues;

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use packetboat::bus::{Device, EventFd};
use packetboat::mbuf::{MbufPool, Quiesced};
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{
    BringUp, Capabilities, DescriptorLimits, FlowControl, Lifecycle, Link, Port, PortConfig,
    PortError, PortInfo, PortStats, Queues, RegisterValue, RssHash, RxQueue, TxQueue,
};

use self::queues::RxBox;
use crate::bar::Bar;
use crate::filters::Filters;
use crate::registers::{EICR, EICS, EIMS, RAL, TDH};
use crate::start::{self, MAX_FRAME_WITH_CRC, OVERHEAD_BYTES, RSS_KEY_LEN, RSS_TABLE_LEN};
use crate::statistics::Statistics;
use crate::tx::IxgbeTx;
use crate::watch::Watch;
use crate::{Media, eeprom, filters, link, media};

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
    filters: Filters,
    watch: RefCell<Watch>,
}

/// An 82599 or X540 as a port.
#[derive(Debug)]
pub(crate) struct IxgbePort {
    bar: Bar,
    media: Media,
    memory: Arc<Memory>,
    mac: MacAddress,
    life: Lifecycle<Running>,
    flow_control: FlowControl,
    led: Option<u32>,
    statistics: Statistics,
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
            life: Lifecycle::new(bar.name()),
            bar,
            media,
            memory: memory.clone(),
            mac,
            flow_control: FlowControl::default(),
            led: None,
            statistics: Statistics::new(),
        })
    }

    /// The registers, and which filters are set; only while it runs.
    fn filters(&mut self, action: &'static str) -> Result<(&Bar, &mut Filters), PortError> {
        let running = self.life.must_run(action)?;
        Ok((&self.bar, &mut running.filters))
    }

    /// Receive queues that it was configured with.
    fn rx_queues(&self) -> u16 {
        self.life.config().map_or(0, |config| config.rx_queues)
    }

    fn max_frame_with_crc(config: &PortConfig) -> u32 {
        u32::from(config.mtu.unwrap_or(DEFAULT_MTU)) + OVERHEAD_BYTES
    }

    /// Stops DMA: proof that nothing the device had is written to any more.
    fn quiesce(&self) -> Result<Quiesced, PortError> {
        if let Err(error) = self.bar.device().disable_msix() {
            tracing::debug!("{error}");
        }
        Ok(self.bar.device().reset()?)
    }
}

impl Port for IxgbePort {
    fn info(&self) -> PortInfo {
        PortInfo {
            device: self.bar.name().to_owned(),
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
        let Some(config) = self.life.config() else { return String::new() };
        let rx = if config.offloads.rx_is_plain() { "lean" } else { "full" };
        let tx = if config.offloads.tx_is_plain() { "lean" } else { "full" };
        format!("rx {rx}, tx {tx}")
    }

    fn configure(&mut self, config: &PortConfig) -> Result<(), PortError> {
        self.life.check_configure(config, &self.info(), &self.capabilities())?;
        config.check_vectors(self.bar.name(), self.bar.device().msix_vectors())?;
        self.life.configured(config);
        Ok(())
    }

    fn start(&mut self, pools: &[MbufPool]) -> Result<Queues, PortError> {
        let config = self.life.check_start(pools)?;
        let mut up = BringUp::default();
        match self.bring_up(&config, pools, &mut up) {
            Ok(running) => self.life.started(running, up.shown),
            Err(error) => {
                up.give_up(self.quiesce(), |mut queue, reset| queue.reclaim(reset));
                return Err(error);
            }
        }
        tracing::info!("{}: paths: {}", self.bar.name(), self.paths());
        Ok(Queues {
            rx: up.rx.into_iter().map(RxBox::into_queue).collect(),
            tx: up.tx.into_iter().map(|queue| Box::new(queue) as _).collect(),
        })
    }

    fn stop(&mut self, queues: Queues) -> Result<(), PortError> {
        let running = self.life.stop()?;
        self.statistics.update(&self.bar, self.rx_queues());
        // How far each transmit queue has come is known only until the reset.
        let tx: Vec<(Box<IxgbeTx>, Option<u32>)> = queues
            .tx
            .into_iter()
            .filter_map(|queue| (queue as Box<dyn Any>).downcast::<IxgbeTx>().ok())
            .map(|queue| {
                let head = self.bar.read_at(TDH, queue.number());
                (queue, Some(head).filter(|head| *head != u32::MAX))
            })
            .collect();
        let reset = running.release(self.quiesce())?;
        for queue in queues.rx {
            queues::reclaim_rx(queue, &reset);
        }
        for (mut queue, sent) in tx {
            queue.reclaim_all(&reset, sent);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<Link, PortError> {
        Ok(link::look(&self.bar))
    }

    fn link_changed(&mut self) -> bool {
        let event = self.life.running().and_then(|running| running.link_event.as_ref());
        let Some(event) = event else { return true };
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
        let (bar, filters) = self.filters("be made promiscuous")?;
        filters.set_promiscuous(bar, on);
        Ok(())
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), PortError> {
        let (bar, filters) = self.filters("receive all multicast frames")?;
        filters.set_all_multicast(bar, on);
        Ok(())
    }

    fn filter_mac(&mut self, address: MacAddress, on: bool) -> Result<(), PortError> {
        let (bar, filters) = self.filters("filter an address")?;
        match address.is_multicast() {
            true => filters.set_group(bar, address, on),
            false => filters::set_unicast(bar, address, on)?,
        }
        Ok(())
    }

    fn filter_vlan(&mut self, vlan: u16, on: bool) -> Result<(), PortError> {
        let (bar, filters) = self.filters("filter a VLAN")?;
        filters.set_vlan(bar, vlan, on)
    }

    fn flow_control(&self) -> Result<FlowControl, PortError> {
        Ok(self.flow_control)
    }

    fn set_flow_control(&mut self, flow_control: FlowControl) -> Result<(), PortError> {
        self.flow_control = flow_control;
        if self.life.is_running() {
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
        self.life.must_run("stop or start a queue")?;
        queues::run_rx(&self.bar, queue, on)
    }

    fn run_tx(&mut self, queue: &mut dyn TxQueue, on: bool) -> Result<(), PortError> {
        self.life.must_run("stop or start a queue")?;
        queues::run_tx(&self.bar, queue, on)
    }

    fn stats(&self) -> PortStats {
        self.life.counters().read()
    }

    fn extended_stats(&mut self) -> Vec<(String, u64)> {
        if self.life.is_running() {
            self.statistics.update(&self.bar, self.rx_queues());
        }
        self.statistics.named(self.rx_queues())
    }

    fn registers(&self) -> Result<Vec<RegisterValue>, PortError> {
        Ok(self.bar.dump())
    }

    fn fault(&self) -> Option<String> {
        let running = self.life.running()?;
        let can_send = || link::look(&self.bar).up && !link::is_paused(&self.bar);
        running.watch.borrow_mut().look(&self.bar, can_send)
    }

    fn removed(&self) -> bool {
        self.bar.device().removal_requested()
    }
}

impl Drop for IxgbePort {
    fn drop(&mut self) {
        if let Ok(running) = self.life.stop() {
            running.release_last(self.quiesce());
        }
    }
}
