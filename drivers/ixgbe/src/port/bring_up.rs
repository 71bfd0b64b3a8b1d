//! From a configuration to a device that runs.

use std::cell::RefCell;
use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::mbuf::{MbufPool, TxFlags};
use packetboat::port::{BringUp, Offloads, PortConfig, PortError};

use super::queues::RxBox;
use super::{BUFFER_KIB_MAX, DEFAULT_MTU, DESCRIPTORS, IxgbePort, RSS_KEY, Running};
use crate::filters::Filters;
use crate::link;
use crate::registers::{EIMC_EX, EIMS_EX, RDT, TDT};
use crate::rx::{self, Full, Interrupt, IxgbeRx, Lean};
use crate::start::{self, LINK_VECTOR, MAX_FRAME_WITH_CRC, Wanted, rx_vector};
use crate::tx::{self, IxgbeTx};
use crate::watch::Watch;

impl IxgbePort {
    /// Buffers of a pool in KiB, as the device counts them.
    fn buffer_kib(&self, config: &PortConfig, pool: &MbufPool) -> Result<u32, PortError> {
        let room = pool.room_len_bytes();
        let kib = (room / 1024).min(BUFFER_KIB_MAX);
        let needed = Self::max_frame_with_crc(config) - 4;
        let mtu = |rule| PortError::Mtu {
            device: self.bar.name().to_owned(),
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

    /// Brings the device up with its queues in place. What it was shown and lent is in `up`, whether
    /// this succeeds or not.
    pub(super) fn bring_up(
        &mut self,
        config: &PortConfig,
        pools: &[MbufPool],
        up: &mut BringUp<RxBox, IxgbeTx>,
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
        if self.led.is_some() {
            self.led = Some(link::blink(&self.bar)); // the reset has stopped it
        }
        let (link_event, wakers) = self.enable_vectors(config)?;
        let mut wakers = wakers.into_iter();
        let mut progress = (Vec::new(), Vec::new());
        let counters = self.life.counters();
        for ((queue, counters), pool) in (0..).zip(counters.rx.clone()).zip(pools) {
            let count = config.rx_descriptors.unwrap_or(DESCRIPTORS.default);
            let (area, ring) =
                start::ring(&self.bar, &self.memory, &format!("receive ring {queue}"), count)?;
            up.shown.push(area.clone());
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
            up.rx.push(match config.offloads.rx_is_plain() {
                true => RxBox::Lean(IxgbeRx::new(parts, Lean::default())),
                false => {
                    let longest = (MAX_FRAME_WITH_CRC as usize).saturating_sub(4);
                    RxBox::Full(IxgbeRx::new(parts, Full::new(longest)))
                }
            });
            if let Some(added) = up.rx.last_mut() {
                added.fill(self.bar.name(), queue)?;
            }
        }
        self.bar.device().set_bus_master(true)?;
        if link_event.is_some() {
            start::allow_interrupts(&self.bar);
        }
        for (queue, counters) in (0..).zip(counters.tx.clone()) {
            let count = config.tx_descriptors.unwrap_or(DESCRIPTORS.default);
            let (area, ring) =
                start::ring(&self.bar, &self.memory, &format!("transmit ring {queue}"), count)?;
            up.shown.push(area.clone());
            start::set_up_tx(&self.bar, queue, &area, count)?;
            let notes = Arc::new(tx::Progress::default());
            progress.1.push(notes.clone());
            up.tx.push(IxgbeTx::new(tx::Parts {
                ring,
                number: queue,
                doorbell: self.bar.handle(TDT, queue)?,
                may: may(&config.offloads),
                counters,
                progress: notes,
            }));
        }
        for (queue, rx) in (0..).zip(up.rx.iter()) {
            start::turn_rx(&self.bar, queue, true)?;
            rx.ring_doorbell();
        }
        start::open_receive(&self.bar)?;
        Ok(Running {
            link_event,
            filters: Filters::default(),
            watch: RefCell::new(Watch::new(progress.0, progress.1)),
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
        let mut eventfds = self.bar.device().enable_msix(1 + queues)?;
        start::direct_interrupts(&self.bar, queues);
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
