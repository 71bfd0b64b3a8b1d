//! Bringing the device up, in the order of the 82599 datasheet's section 4.6.3.

use std::time::Duration;

use packetboat::dma::{Area, Array};
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{FlowControl, Offloads, PortError, Rss, RssHash};
use std::sync::Arc;

use crate::bar::Bar;
use crate::clock::sleep;
use crate::descriptor::DESCRIPTOR_BYTES;
use crate::registers::{
    AUTOC, CTRL, CTRL_EXT, DCA_RXCTRL, DCA_TXCTRL, DMATXCTL, DTXMXSZRQ, EEC, EEMNGCTL, EIAC,
    EIAM_EX, EICR, EIMC, EIMC_EX, EIMS, EITR, FCTRL, FTQF, GPIE, HLREG0, IVAR, IVAR_MISC, MAXFRS,
    MCSTCTRL, MRQC, MTA, MTQC, PFUTA, RAL, RDBAH, RDBAL, RDH, RDLEN, RDRXCTL, RDT, RETA, RFCTL,
    RQSMR, RSCCTL, RSSRK, RTTDCS, RXCSUM, RXCTRL, RXDCTL, RXPBSIZE, SECRXCTRL, SECRXSTAT, SRRCTL,
    STATUS, TDBAH, TDBAL, TDH, TDLEN, TDT, TDWBAL, TQSM, TXDCTL, TXPBSIZE, TXPBTHRESH, VFTA,
    VLNCTRL,
};
use crate::statistics::Statistics;
use crate::{Media, eeprom, filters, link};

/// CTRL: no new requests to memory; reset of the link; reset of the rest.
const MASTER_DISABLE: u32 = 1 << 2;
const LINK_RESET: u32 = 1 << 3;
const RESET: u32 = 1 << 26;
/// STATUS: requests to memory are possible, or under way.
const MASTER_ENABLED: u32 = 1 << 19;
/// CTRL_EXT.
const NO_SNOOP_DISABLED: u32 = 1 << 16;
pub(crate) const DRIVER_LOADED: u32 = 1 << 28;
/// EEMNGCTL: configuration of port 0 is done; the next bit is port 1's.
const CONFIGURED: u32 = 1 << 18;
/// RDRXCTL: strip the CRC; DMA is ready; the first packet's size in coalescing; two that have to
/// be set.
const STRIP_CRC: u32 = 1 << 1;
const DMA_READY: u32 = 1 << 3;
const FIRST_SIZE: u32 = 0x1f << 17;
const MUST_BE_SET: u32 = 1 << 25 | 1 << 26;
/// HLREG0: add, and strip, the CRC; long frames; padding of short ones; loopback.
const ADD_CRC: u32 = 1 << 0;
const HL_STRIP_CRC: u32 = 1 << 1;
const JUMBO: u32 = 1 << 2;
const PAD: u32 = 1 << 10;
const LOOPBACK: u32 = 1 << 15;
/// RXCSUM: payload checksum; the hash stands where its fragment would.
const PAYLOAD_CHECKSUM: u32 = 1 << 12;
const HASH_NOT_CHECKSUM: u32 = 1 << 13;
/// RFCTL: coalescing is off; NFS headers aren't looked for.
const NO_COALESCING: u32 = 1 << 5 | 1 << 6 | 1 << 7;
/// SRRCTL: advanced descriptors with one buffer; frames for a full queue are dropped.
const ONE_BUFFER: u32 = 1 << 25;
const DROP_WHEN_FULL: u32 = 1 << 28;
/// RXDCTL and TXDCTL: on. RXDCTL: tags are taken out.
pub(crate) const ENABLE: u32 = 1 << 25;
const STRIP_VLAN: u32 = 1 << 30;
/// TXDCTL: descriptors are fetched when so many are in the cache, if so many are there; they are
/// written back at once (a must with RS on some of them only: 7.2.3.4).
const PREFETCH: u32 = 36;
const HOST: u32 = 8;
/// SECRXCTRL: the receive path is held; SECRXSTAT: it is empty.
const HELD: u32 = 1 << 1;
const EMPTY: u32 = 1 << 0;
/// RTTDCS.
const ARBITER_DISABLED: u32 = 1 << 6;
/// Packet buffers without traffic classes: KiB from bit 10 (4.6.11.3.4).
const RX_BUFFER: u32 = 512 << 10;
const TX_BUFFER: u32 = 160 << 10;
/// The transmit buffer, less the longest frame, in KiB.
const TX_THRESHOLD: u32 = 160 - 10;
/// GPIE: MSI-X; other causes are cleared on their own; masked on message; pending bits cleared.
const GPIE_MSIX: u32 = 1 << 4 | 1 << 5 | 1 << 30 | 1 << 31;
/// EIMS: the link changed; any other cause.
const CAUSE_LINK: u32 = 1 << 20;
const CAUSE_OTHER: u32 = 1 << 31;
/// IVAR: the entry means something.
const IVAR_VALID: u32 = 1 << 7;
/// The vector for the link; queues have those behind it.
pub(crate) const LINK_VECTOR: u16 = 0;
/// The longest frame of the device, CRC included.
pub(crate) const MAX_FRAME_WITH_CRC: u32 = 9728;
/// What a frame may have beyond its MTU: header, one tag, CRC.
pub(crate) const OVERHEAD_BYTES: u32 = 14 + 4 + 4;
/// What is longer than this, CRC and tag included, needs jumbo mode.
const USUAL_FRAME_WITH_CRC: u32 = 1522;

/// How long the device may take.
const RESET_LIMIT: Duration = Duration::from_millis(100);
const AFTER_RESET: Duration = Duration::from_millis(10);
const READY_LIMIT: Duration = Duration::from_millis(500);
const QUEUE_LIMIT: Duration = Duration::from_millis(100);

/// Resets the device and waits until it has configured itself (4.6.3, steps 1 to 5).
pub(crate) fn reset(bar: &Bar) -> Result<(), PortError> {
    disable_interrupts(bar);
    // Requests under way have to end first (5.2.5.3.2); one that hangs needs two resets.
    bar.change(CTRL, 0, MASTER_DISABLE);
    let quiet = bar.await_bits((STATUS, 0), MASTER_ENABLED, false, RESET_LIMIT, "");
    for _ in 0..if quiet.is_ok() { 1 } else { 2 } {
        // The link stays as it is while somebody else may use it; a stale one is set up anew.
        bar.change(CTRL, MASTER_DISABLE, RESET | LINK_RESET);
        let what = "its reset doesn't end";
        bar.await_bits((CTRL, 0), RESET | LINK_RESET, false, RESET_LIMIT, what)?;
        sleep(AFTER_RESET); // 4.6.3.2
    }
    disable_interrupts(bar);
    bar.await_bits((EEC, 0), eeprom::AUTO_READ_DONE, true, READY_LIMIT, "its EEPROM isn't read")?;
    let configured = CONFIGURED << u32::from(link::is_second_port(bar));
    let done = bar.await_bits((EEMNGCTL, 0), configured, true, READY_LIMIT, "it isn't configured");
    if let Err(error) = done {
        // Without firmware for management nobody sets the bit (4.6.3): say so, and go on.
        tracing::debug!("{error}");
    }
    bar.await_bits((RDRXCTL, 0), DMA_READY, true, READY_LIMIT, "its DMA isn't ready")
}

fn disable_interrupts(bar: &Bar) {
    bar.write(EIMC, 0x7fff_ffff);
    bar.write_all(EIMC_EX, u32::MAX);
    bar.write(EICR, 0x7fff_ffff);
}

/// What the device as a whole is to be like.
pub(crate) struct Wanted<'a> {
    pub(crate) media: Media,
    pub(crate) mac: MacAddress,
    pub(crate) offloads: &'a Offloads,
    pub(crate) rx_queues: u16,
    /// The longest frame, CRC and tag included.
    pub(crate) max_frame_with_crc: u32,
    pub(crate) flow_control: FlowControl,
    pub(crate) default_key: &'a [u8],
}

/// Link, statistics, receive and transmit, without their queues (4.6.3, steps 6 to 9).
pub(crate) fn configure(bar: &Bar, wanted: &Wanted<'_>) -> Result<(), PortError> {
    // The firmware leaves the device to a driver that says it is there.
    bar.change(CTRL_EXT, 0, DRIVER_LOADED);
    link::set_up(bar, wanted.media)?;
    Statistics::clear(bar);
    configure_receive(bar, wanted);
    configure_transmit(bar);
    link::set_flow_control(bar, wanted.flow_control);
    tracing::trace!("{}: AUTOC {:#x}", bar.name(), bar.read(AUTOC));
    Ok(())
}

/// 4.6.7.
fn configure_receive(bar: &Bar, wanted: &Wanted<'_>) {
    bar.change(RXCTRL, 1, 0);
    filters::set_address(bar, 0, Some(wanted.mac));
    for slot in 1..RAL.count() {
        if filters::address(bar, slot).1 {
            filters::set_address(bar, slot, None);
        }
    }
    for table in [MTA, VFTA, PFUTA] {
        bar.write_all(table, 0);
    }
    for filter in 0..FTQF.count() {
        bar.write_at(FTQF, filter, 0);
    }
    bar.write(MCSTCTRL, 0);
    bar.write(FCTRL, filters::BROADCAST);
    bar.write(VLNCTRL, 0x8100);
    bar.write(RFCTL, NO_COALESCING);
    let checksum = if wanted.offloads.rx_checksum { PAYLOAD_CHECKSUM } else { 0 };
    bar.write(RXCSUM, HASH_NOT_CHECKSUM | checksum);
    bar.change(RDRXCTL, FIRST_SIZE, STRIP_CRC | MUST_BE_SET);
    bar.write_at(RXPBSIZE, 0, RX_BUFFER);
    for buffer in 1..RXPBSIZE.count() {
        bar.write_at(RXPBSIZE, buffer, 0);
    }
    let jumbo = wanted.max_frame_with_crc > USUAL_FRAME_WITH_CRC;
    bar.change(
        HLREG0,
        JUMBO | LOOPBACK,
        ADD_CRC | HL_STRIP_CRC | PAD | if jumbo { JUMBO } else { 0 },
    );
    bar.write(MAXFRS, wanted.max_frame_with_crc << 16);
    let rss = wanted.offloads.rss.clone().unwrap_or_default();
    if wanted.rx_queues > 1 || wanted.offloads.rss.is_some() || wanted.offloads.rx_classify {
        configure_rss(bar, &rss, wanted.rx_queues, wanted.default_key);
    } else {
        bar.write(MRQC, 0);
    }
    // Drops of queue n are counted in QPRDC[n]: four queues a register (8.2.3.23).
    for group in 0..4 {
        let four = (0..4).fold(0, |word, n| word | u32::from(group * 4 + n) << (8 * n));
        bar.write_at(RQSMR, group, four);
        bar.write_at(TQSM, group, four);
    }
}

/// Entries of RETA, and bytes of the key (7.1.2.8).
pub(crate) const RSS_TABLE_LEN: usize = 128;
pub(crate) const RSS_KEY_LEN: usize = 40;

fn configure_rss(bar: &Bar, rss: &Rss, queues: u16, default_key: &[u8]) {
    let key = rss.key.as_deref().unwrap_or(default_key);
    for (n, word) in (0..).zip(key.chunks_exact(4).take(RSS_KEY_LEN / 4)) {
        let bytes = word.first_chunk().copied().unwrap_or_default();
        bar.write_at(RSSRK, n, u32::from_le_bytes(bytes));
    }
    let all: Vec<u16> = (0..queues).collect();
    let table = rss.table.as_deref().filter(|table| !table.is_empty()).unwrap_or(&all);
    let entries: Vec<u8> =
        (0..RSS_TABLE_LEN).map(|n| table[n % table.len()].min(queues - 1) as u8).collect();
    for (n, word) in (0..).zip(entries.chunks_exact(4)) {
        let bytes = word.first_chunk().copied().unwrap_or_default();
        bar.write_at(RETA, n, u32::from_le_bytes(bytes));
    }
    let hash = if rss.hash == RssHash::default() { RssHash::ALL } else { rss.hash };
    // MRQC, bits 31:16 (8.2.3.7).
    let fields = [
        (RssHash::IPV4_TCP, 1 << 16),
        (RssHash::IPV4, 1 << 17),
        (RssHash::IPV6, 1 << 20),
        (RssHash::IPV6_TCP, 1 << 21),
        (RssHash::IPV4_UDP, 1 << 22),
        (RssHash::IPV6_UDP, 1 << 23),
    ];
    let fields = fields.iter().filter(|(kind, _)| hash.contains(*kind));
    bar.write(MRQC, fields.fold(1, |word, (_, bit)| word | bit));
}

/// 4.6.8.
fn configure_transmit(bar: &Bar) {
    bar.change(RTTDCS, 0, ARBITER_DISABLED);
    bar.write_at(TXPBSIZE, 0, TX_BUFFER);
    bar.write_at(TXPBTHRESH, 0, TX_THRESHOLD);
    for buffer in 1..TXPBSIZE.count() {
        bar.write_at(TXPBSIZE, buffer, 0);
        bar.write_at(TXPBTHRESH, buffer, 0);
    }
    bar.write(MTQC, 0);
    bar.write(DTXMXSZRQ, 0xfff);
    bar.change(RTTDCS, ARBITER_DISABLED, 0);
}

/// Memory for a ring of `count` descriptors, a power of two, that the device may see.
pub(crate) fn ring(
    bar: &Bar,
    memory: &Arc<Memory>,
    what: &str,
    count: u16,
) -> Result<(Area, Array<[u64; 2]>), PortError> {
    let len_bytes = usize::from(count) * DESCRIPTOR_BYTES;
    let name = format!("ixgbe {} {what}", bar.number());
    // 128 bytes would do (7.1.9); a page keeps two rings out of each other's lines and pages.
    let area = Area::new(memory, &name, len_bytes, 4096, bar.device().numa_node())?;
    let array = area.array(0, usize::from(count))?;
    Ok((area, array))
}

/// Tells the device of a receive queue's ring and buffers (4.6.7, per queue). It isn't on yet.
pub(crate) fn set_up_rx(
    bar: &Bar,
    queue: u16,
    area: &Area,
    count: u16,
    buffer_kib: u32,
    offloads: &Offloads,
    drop_when_full: bool,
) {
    let base = area.iova(0).0;
    bar.write_at(RDBAL, queue, base as u32);
    bar.write_at(RDBAH, queue, (base >> 32) as u32);
    bar.write_at(RDLEN, queue, u32::from(count) * DESCRIPTOR_BYTES as u32);
    bar.write_at(RDH, queue, 0);
    bar.write_at(RDT, queue, 0);
    let drop = if drop_when_full { DROP_WHEN_FULL } else { 0 };
    bar.write_at(SRRCTL, queue, buffer_kib | ONE_BUFFER | drop);
    bar.write_at(RSCCTL, queue, 0);
    let strip = if offloads.rx_vlan_strip { STRIP_VLAN } else { 0 };
    bar.change_at(RXDCTL, queue, STRIP_VLAN, strip);
    bar.change_at(DCA_RXCTRL, queue, 1 << 12, 0);
}

/// Turns a receive queue on or off (4.6.7.1). Only when this has returned may its tail be moved,
/// or its buffers be touched.
pub(crate) fn turn_rx(bar: &Bar, queue: u16, on: bool) -> Result<(), PortError> {
    if on {
        bar.write_at(RDH, queue, 0);
        bar.write_at(RDT, queue, 0);
    }
    bar.change_at(RXDCTL, queue, ENABLE, if on { ENABLE } else { 0 });
    let what = format!("receive queue {queue} doesn't go {}", if on { "on" } else { "off" });
    bar.await_bits((RXDCTL, queue), ENABLE, on, QUEUE_LIMIT, &what)?;
    if !on {
        // What is under way still comes (4.6.7.1.2).
        sleep(Duration::from_micros(100));
        settle(bar);
    }
    Ok(())
}

/// Lets frames in, once all receive queues are on (4.6.7).
pub(crate) fn open_receive(bar: &Bar) -> Result<(), PortError> {
    bar.change(SECRXCTRL, 0, HELD);
    bar.await_bits((SECRXSTAT, 0), EMPTY, true, QUEUE_LIMIT, "its receive path doesn't empty")?;
    bar.change(RXCTRL, 0, 1);
    bar.change(SECRXCTRL, HELD, 0);
    bar.change(CTRL_EXT, 0, NO_SNOOP_DISABLED);
    Ok(())
}

/// Tells the device of a transmit queue's ring, and turns it on (4.6.8, per queue).
pub(crate) fn set_up_tx(bar: &Bar, queue: u16, area: &Area, count: u16) -> Result<(), PortError> {
    let base = area.iova(0).0;
    bar.write_at(TDBAL, queue, base as u32);
    bar.write_at(TDBAH, queue, (base >> 32) as u32);
    bar.write_at(TDLEN, queue, u32::from(count) * DESCRIPTOR_BYTES as u32);
    bar.write_at(TDWBAL, queue, 0);
    // Write-backs in order.
    bar.change_at(DCA_TXCTRL, queue, 1 << 11, 0);
    bar.write_at(TXDCTL, queue, PREFETCH | HOST << 8);
    if queue == 0 {
        bar.change(DMATXCTL, 0, 1);
    }
    turn_tx(bar, queue, true)
}

/// Turns a transmit queue on or off.
pub(crate) fn turn_tx(bar: &Bar, queue: u16, on: bool) -> Result<(), PortError> {
    if on {
        bar.write_at(TDH, queue, 0);
        bar.write_at(TDT, queue, 0);
    }
    bar.change_at(TXDCTL, queue, ENABLE, if on { ENABLE } else { 0 });
    let what = format!("transmit queue {queue} doesn't go {}", if on { "on" } else { "off" });
    bar.await_bits((TXDCTL, queue), ENABLE, on, QUEUE_LIMIT, &what)?;
    if !on {
        settle(bar);
    }
    Ok(())
}

/// What the device wrote before this is in memory: a read pushes writes ahead of it (PCI Express
/// ordering), and softnic answers once its data plane has paused.
fn settle(bar: &Bar) {
    bar.read(STATUS);
}

/// Waits until a transmit queue has sent all up to `tail`.
pub(crate) fn await_sent(bar: &Bar, queue: u16, tail: u32) -> Result<(), PortError> {
    let what = format!("transmit queue {queue} doesn't come to its end");
    for _ in 0..1000 {
        if bar.read_at(TDH, queue) == tail {
            return Ok(());
        }
        sleep(Duration::from_micros(100));
    }
    Err(bar.fault(what))
}

/// Directs interrupts (4.6.3.1, 7.3.4): the link's to vector 0, receive queue n's to vector n + 1.
/// A queue's vector masks itself when its message goes out, so that it rings once.
pub(crate) fn direct_interrupts(bar: &Bar, rx_queues: u16) {
    bar.write(GPIE, GPIE_MSIX);
    bar.write(IVAR_MISC, (u32::from(LINK_VECTOR) | IVAR_VALID) << 8);
    let vectors: u32 = (0..rx_queues).map(|queue| 1 << rx_vector(queue)).sum();
    for pair in 0..rx_queues.div_ceil(2) {
        let entry = |queue: u16| match queue < rx_queues {
            true => u32::from(rx_vector(queue)) | IVAR_VALID,
            false => 0,
        };
        bar.write_at(IVAR, pair, entry(2 * pair) | entry(2 * pair + 1) << 16);
    }
    for queue in 0..rx_queues {
        bar.write_at(EITR, rx_vector(queue), 0);
    }
    bar.write(EIAC, vectors);
    bar.write_at(EIAM_EX, 0, vectors);
}

/// Lets the link's interrupt out. Its message is a write to memory: it is lost while the device may
/// not write there, and no other one comes until this one is answered.
pub(crate) fn allow_interrupts(bar: &Bar) {
    bar.write(EIMS, CAUSE_LINK | CAUSE_OTHER);
}

/// The vector of a receive queue.
pub(crate) fn rx_vector(queue: u16) -> u16 {
    queue + 1
}
