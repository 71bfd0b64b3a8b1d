//! Frames on their way to a transmit queue, gathered so that the queue is called once a burst.

use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat::mbuf::Burst;
use packetboat::port::TxQueue;
use packetboat::telemetry::Counter;

/// A transmit queue with a buffer in front of it.
#[derive(Debug)]
pub(crate) struct TxBuffer {
    queue: Box<dyn TxQueue>,
    waiting: Burst,
    /// Frames for which the queue had no descriptor.
    queue_full: Arc<Counter>,
    /// Rather than being dropped, frames wait for descriptors.
    lossless: bool,
}

impl TxBuffer {
    /// A buffer of `burst_len` frames in front of `queue`.
    pub(crate) fn new(queue: Box<dyn TxQueue>, burst_len: usize) -> Self {
        let waiting = Burst::with_limit(burst_len);
        Self { queue, waiting, queue_full: Arc::default(), lossless: false }
    }

    /// The same, with frames that wait for descriptors if `lossless`.
    pub(crate) fn lossless(self, lossless: bool) -> Self {
        Self { lossless, ..self }
    }

    /// Counts frames that were dropped because the queue was full.
    pub(crate) fn queue_full(&self) -> Arc<Counter> {
        Arc::clone(&self.queue_full)
    }

    /// Takes all frames of `burst`. They go out when the buffer is full, or at the next
    /// [`Self::drain`].
    #[inline(always)]
    pub(crate) fn send(&mut self, burst: &mut Burst) {
        if self.waiting.is_empty() && burst.room() == 0 {
            // Nothing waits, and there is nothing to wait for: no need to move it twice.
            self.queue.send(burst);
            if !burst.is_empty() {
                self.cope(burst);
            }
            return;
        }
        while !burst.is_empty() {
            self.waiting.append(burst);
            if self.waiting.room() == 0 {
                self.flush();
            }
        }
    }

    /// Sends what waits. If nothing does, fetches back what the device is done with, so that an
    /// idle queue keeps no mbufs.
    pub(crate) fn drain(&mut self) {
        if self.waiting.is_empty() { self.queue.reclaim() } else { self.flush() }
    }

    /// The queue itself, to be given back to its port. What waits in front of it is dropped.
    pub(crate) fn into_queue(self) -> Box<dyn TxQueue> {
        self.queue
    }

    fn flush(&mut self) {
        self.queue.send(&mut self.waiting);
        if !self.waiting.is_empty() {
            let mut rest = std::mem::replace(&mut self.waiting, Burst::with_limit(1));
            self.cope(&mut rest);
            self.waiting = rest;
        }
    }

    /// What the queue didn't take is dropped, as DPDK's l2fwd does: a queue that stays full for
    /// longer than a burst won't be helped by a longer one. Unless frames are to wait: then it is
    /// tried again, for as long as a link may take to come back from a pause.
    #[cold]
    fn cope(&mut self, burst: &mut Burst) {
        if self.lossless {
            let start = Instant::now();
            while !burst.is_empty() && start.elapsed() < PATIENCE {
                self.queue.send(burst);
                std::hint::spin_loop();
            }
        }
        if !burst.is_empty() {
            self.queue_full.add(burst.len() as u64);
            burst.clear();
        }
    }
}

/// How long frames wait for descriptors if they are to.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Wire};

    fn burst(pool: &packetboat::mbuf::MbufPool, limit: usize, frames: usize) -> Burst {
        let mut burst = Burst::with_limit(limit);
        for number in 0..frames {
            let mut mbuf = pool.alloc().unwrap();
            mbuf.append(60).unwrap().fill(number as u8);
            burst.push(mbuf).unwrap();
        }
        burst
    }

    #[test]
    fn frames_wait_until_the_buffer_is_full_or_drained() {
        let pool = testing::pool(64);
        let wire = Wire::new(64);
        let mut buffer = TxBuffer::new(wire.tx(), 8);
        buffer.send(&mut burst(&pool, 8, 5));
        assert_eq!(wire.sent_len(), 0);
        buffer.send(&mut burst(&pool, 8, 5));
        assert_eq!(wire.sent_len(), 8);
        buffer.drain();
        assert_eq!(wire.sent_len(), 10);
        buffer.send(&mut burst(&pool, 8, 8));
        assert_eq!(wire.sent_len(), 18, "a full burst goes out at once");
        let firsts: Vec<u8> = wire.take_sent().iter().map(|frame| frame[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(buffer.queue_full().get(), 0);
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_counted_and_freed() {
        let pool = testing::pool(64);
        let wire = Wire::new(4);
        wire.hold();
        let mut buffer = TxBuffer::new(wire.tx(), 8);
        buffer.send(&mut burst(&pool, 8, 8));
        assert_eq!(buffer.queue_full().get(), 4);
        assert_eq!(pool.objects().in_use(), 4);
        buffer.send(&mut burst(&pool, 8, 3));
        buffer.drain();
        assert_eq!(buffer.queue_full().get(), 7);
        wire.release();
        buffer.drain();
        assert_eq!(pool.objects().in_use(), 0, "an idle queue keeps nothing");
        assert_eq!(wire.sent_len(), 4);
    }
}
