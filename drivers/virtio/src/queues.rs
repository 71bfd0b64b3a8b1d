//! Which path the frames take: the kind of ring and of queue that fits what was agreed on. Chosen
//! once, at the start.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::dma::Area;
use packetboat::mbuf::{MbufPool, Quiesced};
use packetboat::memory::Memory;
use packetboat::port::{PortError, QueueCounters, Queues, RxQueue, TxQueue};

use crate::features::Features;
use crate::gate::Passage;
use crate::offload::{Agreed, OffloadRx};
use crate::ring::{Doorbell, PackedRing, QueueMemory, Ring, SplitRing, Straight};
use crate::rx::{OwnRx, VirtioRx, room_bytes};
use crate::tx::{Headers, Offloads, OwnTx, Tables, VirtioTx};

/// What decides on the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) packed: bool,
    in_order: bool,
    pub(crate) mergeable: bool,
    pub(crate) indirect: bool,
    event_index: bool,
    receiving: Agreed,
    sending: Agreed,
}

impl Path {
    pub(crate) fn of(features: Features) -> Self {
        Self {
            packed: features.has(Features::RING_PACKED),
            in_order: features.has(Features::IN_ORDER),
            mergeable: features.has(Features::MRG_RXBUF),
            indirect: features.has(Features::INDIRECT_DESC),
            event_index: features.has(Features::EVENT_IDX),
            receiving: Agreed::receiving(features),
            sending: Agreed::sending(features),
        }
    }
}

/// `split in-order, mergeable receive buffers, indirect descriptors, event index`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.packed, self.in_order) {
            (false, false) => SplitRing::<false>::NAME,
            (false, true) => SplitRing::<true>::NAME,
            (true, false) => PackedRing::<false>::NAME,
            (true, true) => PackedRing::<true>::NAME,
        })?;
        for (has, name) in [
            (self.mergeable, "mergeable receive buffers"),
            (self.indirect, "indirect descriptors"),
            (self.event_index, "event index"),
        ] {
            if has {
                write!(f, ", {name}")?;
            }
        }
        for (agreed, way) in [(self.receiving, "received"), (self.sending, "sent")] {
            if agreed.any() {
                write!(f, ", {way}: {}", agreed.words())?;
            }
        }
        Ok(())
    }
}

/// What a queue of either direction is made of.
pub(crate) struct Parts<'a> {
    pub(crate) memory: &'a QueueMemory,
    pub(crate) doorbell: Doorbell,
    pub(crate) counters: Arc<QueueCounters>,
    pub(crate) passage: Passage,
    /// Of a receive queue that shall be able to wake an lcore.
    pub(crate) interrupt: Option<EventFd>,
}

/// Makes a receive queue.
pub(crate) fn receive_queue(
    path: Path,
    parts: Parts<'_>,
    pool: MbufPool,
    port: u16,
) -> Result<Box<dyn OwnRx>, PortError> {
    fn make<R: Straight, const MERGEABLE: bool>(
        path: Path,
        parts: Parts<'_>,
        pool: MbufPool,
        port: u16,
    ) -> Result<Box<dyn OwnRx>, PortError> {
        let Parts { memory, doorbell, counters, passage, interrupt } = parts;
        let ring = R::new(memory, doorbell, path.event_index, room_bytes(&pool))?;
        let queue = VirtioRx::<R, MERGEABLE>::new(ring, pool, port, counters, passage, interrupt);
        Ok(Box::new(queue))
    }
    let make = match (path.packed, path.in_order, path.mergeable) {
        (false, false, false) => make::<SplitRing<false>, false>,
        (false, false, true) => make::<SplitRing<false>, true>,
        (false, true, false) => make::<SplitRing<true>, false>,
        (false, true, true) => make::<SplitRing<true>, true>,
        (true, false, false) => make::<PackedRing<false>, false>,
        (true, false, true) => make::<PackedRing<false>, true>,
        (true, true, false) => make::<PackedRing<true>, false>,
        (true, true, true) => make::<PackedRing<true>, true>,
    };
    let counters = parts.counters.clone();
    let queue = make(path, parts, pool, port)?;
    Ok(match path.receiving.any() {
        true => Box::new(OffloadRx::new(queue, path.receiving, counters)),
        false => queue,
    })
}

/// What a transmit queue has besides its ring, all of it to be read by the device.
pub(crate) struct Extras {
    /// Zero bytes: the header of frames without room for one.
    pub(crate) header: Area,
    pub(crate) tables: Option<Tables>,
    headers: Option<Headers>,
}

impl Extras {
    /// For a queue of `size` entries called `name`, as its path wants it. `header` is an area of
    /// at least [`HEADER_BYTES`](crate::header::HEADER_BYTES) zero bytes.
    pub(crate) fn new(
        path: Path,
        memory: &Arc<Memory>,
        name: &str,
        node: Option<u32>,
        size: u16,
        header: Area,
    ) -> Result<Self, PortError> {
        let tables = || Tables::new(memory, &format!("{name} tables"), node, size);
        let headers = || Headers::new(memory, &format!("{name} headers"), node, size);
        Ok(Self {
            header,
            tables: path.indirect.then(tables).transpose()?,
            headers: path.sending.any().then(headers).transpose()?,
        })
    }

    /// The areas that are its own.
    pub(crate) fn areas(&self) -> impl Iterator<Item = Area> {
        let headers = self.headers.as_ref().map(Headers::area);
        self.tables.as_ref().map(Tables::area).into_iter().chain(headers).cloned()
    }
}

/// Makes a transmit queue.
pub(crate) fn transmit_queue(
    path: Path,
    parts: Parts<'_>,
    extras: Extras,
) -> Result<Box<dyn OwnTx>, PortError> {
    fn make<R: Straight>(
        path: Path,
        parts: Parts<'_>,
        extras: Extras,
    ) -> Result<Box<dyn OwnTx>, PortError> {
        let Parts { memory, doorbell, counters, passage, .. } = parts;
        let Extras { header, tables, headers } = extras;
        let ring = R::new(memory, doorbell, path.event_index, 0)?;
        let offloads = Offloads { agreed: path.sending, headers };
        Ok(Box::new(VirtioTx::new(ring, header, tables, offloads, counters, passage)))
    }
    let make = match (path.packed, path.in_order) {
        (false, false) => make::<SplitRing<false>>,
        (false, true) => make::<SplitRing<true>>,
        (true, false) => make::<PackedRing<false>>,
        (true, true) => make::<PackedRing<true>>,
    };
    make(path, parts, extras)
}

/// A port's queues as the application has them.
pub(crate) fn hand_out(rx: Vec<Box<dyn OwnRx>>, tx: Vec<Box<dyn OwnTx>>) -> Queues {
    Queues {
        rx: rx.into_iter().map(|queue| queue as _).collect(),
        tx: tx.into_iter().map(|queue| queue as _).collect(),
    }
}

/// Gives back what the device had of the queues that are ours.
pub(crate) fn reclaim(queues: Queues, reset: &Quiesced) {
    queues.rx.into_iter().for_each(|queue| reclaim_rx(queue, reset));
    queues.tx.into_iter().for_each(|queue| reclaim_tx(queue, reset));
}

/// Tries one kind after the other: a queue comes back from the application as a queue of any
/// driver's.
macro_rules! reclaim {
    ($queue:expr, $reset:expr, $method:ident: $($kind:ty),*) => {{
        let queue: Box<dyn Any> = $queue;
        $(
            let queue = match queue.downcast::<$kind>() {
                Ok(mut queue) => return queue.$method($reset),
                Err(queue) => queue,
            };
        )*
        drop(queue);
    }};
}

/// Gives back what the device had of a receive queue, if it is one of ours.
fn reclaim_rx(queue: Box<dyn RxQueue>, reset: &Quiesced) {
    reclaim!(queue, reset, reclaim:
        OffloadRx,
        VirtioRx<SplitRing<false>, false>, VirtioRx<SplitRing<false>, true>,
        VirtioRx<SplitRing<true>, false>, VirtioRx<SplitRing<true>, true>,
        VirtioRx<PackedRing<false>, false>, VirtioRx<PackedRing<false>, true>,
        VirtioRx<PackedRing<true>, false>, VirtioRx<PackedRing<true>, true>
    );
}

/// Gives back what the device had of a transmit queue, if it is one of ours.
fn reclaim_tx(queue: Box<dyn TxQueue>, reset: &Quiesced) {
    reclaim!(queue, reset, reclaim_all:
        VirtioTx<SplitRing<false>>, VirtioTx<SplitRing<true>>,
        VirtioTx<PackedRing<false>>, VirtioTx<PackedRing<true>>
    );
}
