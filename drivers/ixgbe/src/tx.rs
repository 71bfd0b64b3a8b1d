//! Sending: lend frames to the device, and give those that it is done with back to their pools.

use std::sync::Arc;

use packetboat::dma::{Array, Fifo, Moved, SendRing};
use packetboat::mbuf::{Burst, L4Checksum, Mbuf, Quiesced, TxFlags};
use packetboat::mmio::{Register, order_dma_reads};
use packetboat::port::{QueueCounters, TxDrop, TxQueue};
use packetboat::telemetry::Counter;

use crate::descriptor::{
    CHECK_CONTEXT, Context, EOP, PAYLEN_SHIFT, POPTS_IP, POPTS_L4, RS, TSE, TX_DD, TX_PART,
    TX_PLAIN, VLE,
};

/// The device tells that it is done with a descriptor once in so many, in a ring large enough.
const REPORT_EVERY: usize = 32;
/// The most buffers that a frame may be in (7.2.1.1: 40, less two).
const MAX_SEGMENTS: usize = 38;
/// The shortest frame (7.2.3.2.4), and the longest: 9.5 KiB with CRC.
const MIN_FRAME_BYTES: u64 = 17;
const MAX_FRAME_BYTES: u64 = 9728 - 4;
/// TCP's data offset counts 15 words at most.
const TCP_HEADER_MAX_BYTES: u16 = 60;
/// The most that is cut into segments.
const MAX_SEGMENTED_BYTES: u64 = 256 * 1024 - 1;

/// A transmit queue.
///
/// A frame of one buffer that asks for nothing is one descriptor of two stores; one that asks, or
/// is a chain, goes another way.
#[derive(Debug)]
pub(crate) struct IxgbeTx {
    ring: SendRing,
    /// Where the device was asked to tell that it is done, oldest first.
    reports: Fifo<Report>,
    /// Counts descriptors that the device is done with.
    done: usize,
    /// Counts descriptors up to the last report.
    reported: usize,
    /// The device is asked to report once so many descriptors were written since the last time.
    report_every: usize,
    /// The most buffers that a frame may be in: less in a small ring, where they have to fit beside
    /// what wasn't reported yet.
    max_segments: usize,
    number: u16,
    doorbell: Register<u32>,
    /// What the port was configured to do.
    may: TxFlags,
    /// The context that the device has.
    context: Option<Context>,
    counters: Arc<QueueCounters>,
    progress: Arc<Progress>,
    stopped: bool,
}

/// For those who watch whether a queue gets on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Descriptors written.
    pub(crate) written: Counter,
    /// Descriptors that the device is done with.
    pub(crate) done: Counter,
    /// Times that there was no room for all frames.
    pub(crate) refused: Counter,
}

/// A descriptor that the device shall mark when it is done with it and all before.
#[derive(Debug, Clone, Copy)]
struct Report {
    /// Its number, counted through.
    at: usize,
    /// Frames lent up to it.
    frames: usize,
}

/// What a queue is made of.
pub(crate) struct Parts {
    pub(crate) ring: Array<[u64; 2]>,
    /// Its number on the port.
    pub(crate) number: u16,
    pub(crate) doorbell: Register<u32>,
    pub(crate) may: TxFlags,
    pub(crate) counters: Arc<QueueCounters>,
    pub(crate) progress: Arc<Progress>,
}

impl IxgbeTx {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { ring, number, doorbell, may, counters, progress } = parts;
        let size = ring.count();
        let report_every = REPORT_EVERY.min(size / 4);
        Self {
            ring: SendRing::new(ring),
            report_every,
            max_segments: MAX_SEGMENTS.min(size.saturating_sub(report_every + 2)),
            reports: Fifo::new(size),
            done: 0,
            reported: 0,
            number,
            doorbell,
            may,
            context: None,
            counters,
            progress,
            stopped: false,
        }
    }

    /// Its number on its port.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.stopped
    }

    /// The device was reset: what it had goes back to its pools. `head` is where it stood before:
    /// frames from there on weren't sent. Without one, nobody knows of any.
    pub(crate) fn reclaim_all(&mut self, reset: &Quiesced, head: Option<u32>) {
        self.clean();
        let outstanding = self.ring.written().wrapping_sub(self.done);
        let unsent = head.map_or(outstanding, |head| {
            (self.ring.tail() + self.size()).wrapping_sub(head as usize) % self.size()
        });
        let mut sent = outstanding.saturating_sub(unsent);
        while let Some(frame) = self.ring.pop() {
            // Contexts aren't noted, so behind some a frame too few counts as in flight.
            let descriptors = frame.segments().filter(|(_, len)| *len != 0).count();
            if descriptors > sent {
                self.counters.tx_dropped(TxDrop::InFlight);
            }
            sent = sent.saturating_sub(descriptors);
            drop(frame.reclaim(reset));
        }
    }

    /// Takes no more frames. True once the device has sent all that it had: the caller waits for
    /// its head to reach the tail, and only then turns the queue off.
    pub(crate) fn stop(&mut self) -> u32 {
        self.stopped = true;
        self.ring.tail() as u32
    }

    /// It wasn't turned off after all.
    pub(crate) fn resume(&mut self) {
        self.stopped = false;
    }

    /// The queue was turned off with its head at its tail: everything was sent. It starts anew, at
    /// the first descriptor.
    pub(crate) fn restart(&mut self) {
        self.ring.give_back(self.ring.lent());
        while self.reports.pop().is_some() {}
        self.progress.done.add(self.ring.written().wrapping_sub(self.done) as u64);
        self.ring.rewind();
        (self.done, self.reported) = (0, 0);
        self.context = None;
        self.stopped = false;
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.ring.count()
    }

    /// Descriptors that can be written. One always stays free: a tail that has caught up with the
    /// head means that there is nothing to send.
    #[inline(always)]
    fn free(&self) -> usize {
        self.size() - 1 - self.ring.written().wrapping_sub(self.done)
    }

    /// Gives back what the device is done with: up to the last report that it has answered.
    #[inline(always)]
    fn clean(&mut self) {
        let before = self.done;
        while let Some(report) = self.reports.first().copied() {
            if self.ring.upper(report.at) & TX_DD == 0 {
                break;
            }
            order_dma_reads();
            self.reports.pop();
            self.done = report.at.wrapping_add(1);
            self.ring.give_back(report.frames);
        }
        if self.done != before {
            self.progress.done.add(self.done.wrapping_sub(before) as u64);
        }
    }

    /// A chain, or a frame that asks for something: its descriptors are written, or it comes back if
    /// there is no room for them now. One that can't be sent at all is counted and dropped.
    #[inline(never)]
    fn lend_other(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let flags = mbuf.tx_flags();
        let segmented = flags.contains(TxFlags::TCP_SEGMENT);
        let longest = if segmented { MAX_SEGMENTED_BYTES } else { MAX_FRAME_BYTES };
        let segments = mbuf.segments().filter(|part| !part.is_empty()).count();
        let why = if !(MIN_FRAME_BYTES..=longest).contains(&(mbuf.len_bytes() as u64)) {
            Some(TxDrop::BadLength)
        } else if segments > self.max_segments {
            Some(TxDrop::TooManySegments)
        } else if !self.may.contains(flags) || !possible(&mbuf, flags) {
            Some(TxDrop::BadRequest)
        } else {
            None
        };
        if let Some(why) = why {
            self.counters.tx_dropped(why);
            return Ok(()); // dropped
        }
        // A context is one more.
        if segments + 1 > self.free() {
            return Err(mbuf);
        }
        let mut upper = TX_PART;
        let mut payload = mbuf.len_bytes();
        if !flags.is_empty() {
            let lengths = mbuf.tx_lengths();
            let context = context(&mbuf, flags);
            if self.context != Some(context) {
                self.ring.write(context.words());
                self.context = Some(context);
            }
            if flags.contains(TxFlags::VLAN) {
                upper |= VLE;
            }
            if flags.contains(TxFlags::IP_CHECKSUM) {
                upper |= POPTS_IP | CHECK_CONTEXT;
            }
            if flags.l4_checksum().is_some() {
                upper |= POPTS_L4 | CHECK_CONTEXT;
            }
            if segmented {
                upper |= TSE;
                let headers =
                    lengths.l2_len_bytes() + lengths.l3_len_bytes() + lengths.l4_len_bytes();
                payload -= usize::from(headers); // checked by `possible`
            }
        }
        upper |= (payload as u64) << PAYLEN_SHIFT;
        let frame = mbuf.lend();
        let mut left = segments;
        for (address, len) in frame.segments().filter(|(_, len)| *len != 0) {
            left -= 1;
            let last = if left == 0 { EOP } else { 0 };
            self.ring.write([address.0, upper | last | u64::from(len)]);
        }
        drop(self.ring.keep(frame)); // there is a place: a frame is a descriptor at least
        Ok(())
    }

    /// Lends up to `count` frames, for which there are descriptors, as long as they are plain: one
    /// buffer, and nothing asked.
    #[inline(always)]
    fn take_plain(&mut self, burst: &mut Burst, count: usize) -> Moved {
        self.ring.lend_run(burst, count, |frame| {
            let (address, len) = frame.data_iova();
            let len = u64::from(len);
            let fits = len.wrapping_sub(MIN_FRAME_BYTES) <= MAX_FRAME_BYTES - MIN_FRAME_BYTES;
            if !frame.is_single() || frame.requests_any() || !fits {
                return None;
            }
            Some(([address.0, TX_PLAIN | len | len << PAYLEN_SHIFT], len))
        })
    }

    /// Lends what isn't plain, one frame, from the front; whether it did.
    #[inline(never)]
    fn take_other(&mut self, burst: &mut Burst, bytes: &mut u64) -> bool {
        let taken = burst.take_front(1, |mbuf| {
            let (len, lent) = (mbuf.len_bytes() as u64, self.ring.lent());
            self.lend_other(mbuf)?;
            if self.ring.lent() != lent {
                *bytes += len; // and wasn't dropped
            }
            Ok(())
        });
        taken != 0
    }

    /// Asks the device to tell when it is done with the last descriptor written.
    #[inline(always)]
    fn report(&mut self) {
        let at = self.ring.written().wrapping_sub(1);
        self.ring.set_upper_bits(at, RS);
        let _ = self.reports.push(Report { at, frames: self.ring.lent() });
        self.reported = self.ring.written();
    }
}

/// Whether the device can do what the frame asks: headers in the first buffer, and lengths that
/// make sense together.
fn possible(mbuf: &Mbuf, flags: TxFlags) -> bool {
    let lengths = mbuf.tx_lengths();
    let (l2, l3, l4) = (lengths.l2_len_bytes(), lengths.l3_len_bytes(), lengths.l4_len_bytes());
    let l4_min = match flags.l4_checksum() {
        Some(L4Checksum::Tcp) => 20,
        Some(L4Checksum::Udp) => 8,
        Some(L4Checksum::Sctp) => 12,
        None => 0,
    };
    let l3_min = if flags.contains(TxFlags::IPV6) { 40 } else { 20 };
    let headers = usize::from(l2) + usize::from(l3) + usize::from(l4.max(l4_min));
    let looks = flags.contains(TxFlags::IP_CHECKSUM) || flags.l4_checksum().is_some();
    if looks && (l2 < 14 || l3 < l3_min || headers > mbuf.data().len()) {
        return false;
    }
    let segment = usize::from(lengths.segment_len_bytes());
    !flags.contains(TxFlags::TCP_SEGMENT)
        || segment != 0
            && (l4_min..=TCP_HEADER_MAX_BYTES).contains(&l4)
            && headers < mbuf.len_bytes()
            && (headers + segment) as u64 <= MAX_FRAME_BYTES
}

fn context(mbuf: &Mbuf, flags: TxFlags) -> Context {
    let lengths = mbuf.tx_lengths();
    let segmented = flags.contains(TxFlags::TCP_SEGMENT);
    let tagged = flags.contains(TxFlags::VLAN);
    Context {
        vlan_tci: if tagged { mbuf.vlan_tci() } else { 0 },
        l2_len_bytes: lengths.l2_len_bytes(),
        l3_len_bytes: lengths.l3_len_bytes(),
        l4_len_bytes: if segmented { lengths.l4_len_bytes() } else { 0 },
        segment_len_bytes: if segmented { lengths.segment_len_bytes() } else { 0 },
        ipv4: flags.contains(TxFlags::IPV4),
        l4_type: match flags.l4_checksum() {
            Some(L4Checksum::Tcp) => 1,
            Some(L4Checksum::Sctp) => 2,
            Some(L4Checksum::Udp) | None => 0,
        },
    }
}

impl TxQueue for IxgbeTx {
    fn send(&mut self, burst: &mut Burst) {
        if self.stopped || burst.is_empty() {
            return;
        }
        // What has been sent is looked for when it is needed, and a batch ahead of that.
        if self.free() < burst.len() + REPORT_EVERY {
            self.clean();
        }
        let (written, lent) = (self.ring.written(), self.ring.lent());
        let mut bytes = 0;
        loop {
            let count = self.free().min(burst.len());
            let moved = self.take_plain(burst, count);
            bytes += moved.bytes;
            if moved.frames == count || !self.take_other(burst, &mut bytes) {
                break;
            }
        }
        if !burst.is_empty() {
            self.progress.refused.add(1);
        }
        if self.ring.written() == written {
            return;
        }
        if self.ring.written().wrapping_sub(self.reported) >= self.report_every {
            self.report();
        }
        self.doorbell.write_after_dma(self.ring.tail() as u32);
        self.counters.packets.add(self.ring.lent().wrapping_sub(lent) as u64);
        self.counters.bytes.add(bytes);
        self.progress.written.add(self.ring.written().wrapping_sub(written) as u64);
    }

    fn reclaim(&mut self) {
        if !self.stopped {
            self.clean();
        }
    }
}
