//! The rows: what is done in each, and with which objects. Lengths of bulks are constants of the
//! compiler's on both sides, as they are in programs.

use std::array;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use packetboat::mbuf::{Burst, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::Memory;
use packetboat::memory::heap::{Block, Heap, HeapConfig, Request};
use packetboat::mempool::{MempoolConfig, ObjectPool, Places};
use packetboat::ring::{Hts, Multi, Rts, Single, ring};
use packetboat::sys::tsc;

use crate::row::{Row, Took, counted_part, give_up};
use crate::two_cores;

/// The memory that all rows work on.
pub(crate) struct Side {
    memory: Arc<Memory>,
    heap: Arc<Heap>,
}

/// 64 bytes, as the peer's objects.
type Object = [u64; 8];

impl Side {
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self, Box<dyn Error>> {
        let heap = Heap::new(
            &memory,
            HeapConfig::new("bench", 256 << 20).guarded(false).keep_bytes(256 << 20),
        )?;
        Ok(Self { memory, heap })
    }

    /// All of them; those of two cores only with a second CPU.
    pub(crate) fn rows(&self, other: Option<u32>) -> Vec<Row> {
        let mut rows = Vec::new();
        for cache_size in [0, 256, 512] {
            self.mempool_rows(cache_size, &mut rows);
        }
        ring_rows(&mut rows);
        for cache_size in [0, 256, 512] {
            self.mbuf_rows(cache_size, &mut rows);
        }
        for (len_bytes, keep, pairs) in
            [(64, 1024, 5000), (1024, 1024, 5000), (65_536, 256, 500), (1_048_576, 64, 100)]
        {
            self.heap_rows(len_bytes, keep, pairs, &mut rows);
        }
        if let Some(cpu) = other {
            two_cores::rows(&self.memory, cpu, &mut rows);
        }
        rows
    }

    fn mempool_rows(&self, cache_size: usize, rows: &mut Vec<Row>) {
        let config = MempoolConfig {
            cache_size,
            cookies: false,
            ..MempoolConfig::new(format!("objects {cache_size}"), 32_767, 0)
        };
        let pool = ObjectPool::new(&self.memory, &config, |_, _| [0_u64; 8]);
        let pool = Arc::new(pool.unwrap_or_else(|error| give_up(&error)));
        mempool_row::<1, 32>(&pool, cache_size, rows);
        mempool_row::<4, 32>(&pool, cache_size, rows);
        mempool_row::<32, 32>(&pool, cache_size, rows);
        mempool_row::<1, 128>(&pool, cache_size, rows);
        mempool_row::<4, 128>(&pool, cache_size, rows);
        mempool_row::<32, 128>(&pool, cache_size, rows);
    }

    fn mbuf_rows(&self, cache_size: usize, rows: &mut Vec<Row>) {
        let config = MbufPoolConfig {
            cache_size,
            cookies: false,
            ..MbufPoolConfig::new(format!("mbufs {cache_size}"), 16_383)
        };
        let pool = MbufPool::new(&self.memory, &config).unwrap_or_else(|error| give_up(&error));
        let mut row = |name: &str, each, work: Box<dyn Fn(&MbufPool)>| {
            let (name, pool) = (format!("mbuf cache={cache_size} {name}"), pool.clone());
            let work = move |count| (0..count).for_each(|_| work(&pool));
            rows.push(Row::new(name, "cycles/mbuf", 2000, each, work));
        };
        row("alloc+free keep=1", 1, Box::new(|pool| drop(black_box(pool.alloc()))));
        row(
            "alloc+free keep=32",
            32,
            Box::new(|pool| {
                let kept: [Option<Mbuf>; 32] = array::from_fn(|_| pool.alloc());
                black_box(&kept);
            }),
        );
        row("alloc_bulk+free_bulk 32", 32, Box::new(bulks::<1>));
        row("alloc_bulk+free_bulk 4x32 keep=128", 128, Box::new(bulks::<4>));
    }

    fn heap_rows(&self, len_bytes: usize, keep: usize, pairs: u64, rows: &mut Vec<Row>) {
        let request = Request::new(len_bytes);
        let heap = Arc::clone(&self.heap);
        let pair = move |count| {
            for _ in 0..count {
                let block = alloc(&heap, &request);
                free(&heap, black_box(block));
            }
        };
        rows.push(Row::new(
            format!("heap alloc+free {len_bytes} keep=1"),
            "cycles/pair",
            pairs,
            1,
            pair,
        ));
        for shuffled in [false, true] {
            for freeing in [false, true] {
                let (what, order) = (
                    if freeing { "free" } else { "alloc" },
                    if shuffled { "random" } else { "fifo" },
                );
                let name = format!("heap {what} {len_bytes} keep={keep} {order}");
                let heap = Arc::clone(&self.heap);
                let (mut blocks, mut numbers) = (Vec::with_capacity(keep), Numbers(12_345));
                // One iteration is all of them; what isn't asked for isn't timed.
                let round = move |count| {
                    let mut cycles = 0;
                    for _ in 0..count {
                        let mut take = || {
                            (0..keep).for_each(|_| blocks.push(alloc(&heap, &request)));
                        };
                        let start = tsc::now();
                        if freeing {
                            take();
                        } else {
                            counted_part(take);
                        }
                        let filled = tsc::now();
                        if shuffled {
                            numbers.shuffle(&mut blocks);
                        }
                        let mut give = || blocks.drain(..).for_each(|block| free(&heap, block));
                        let shuffled = tsc::now();
                        if freeing {
                            counted_part(give);
                        } else {
                            give();
                        }
                        let emptied = tsc::now();
                        cycles += if freeing { emptied - shuffled } else { filled - start };
                    }
                    Took { cycles, operations: count * keep as u64 }
                };
                rows.push(Row { name, unit: "cycles/call", iterations: 1, round: Box::new(round) });
            }
        }
    }
}

#[inline(always)]
fn alloc(heap: &Heap, request: &Request) -> Block {
    match heap.alloc(request) {
        Ok(block) => block,
        Err(error) => give_up(&error),
    }
}

#[inline(always)]
fn free(heap: &Heap, block: Block) {
    if let Err(error) = heap.free(block) {
        give_up(&error);
    }
}

/// `KEEP` objects taken, then given back, `BULK` at a time. As the peer does, it looks for the
/// lcore's cache once.
fn mempool_row<const BULK: usize, const KEEP: usize>(
    pool: &Arc<ObjectPool<Object>>,
    cache_size: usize,
    rows: &mut Vec<Row>,
) {
    let name = format!("mempool cache={cache_size} keep={KEEP} bulk={BULK} get+put");
    let pool = Arc::clone(pool);
    let work = move |count| {
        let local = pool.local();
        let mut places = Places::<KEEP>::new();
        let mut kept = local.batch(&mut places);
        for _ in 0..count {
            for _ in 0..KEEP / BULK {
                if !kept.take(BULK) {
                    give_up(&"the mempool is empty");
                }
            }
            for _ in 0..KEEP / BULK {
                kept.give_back(BULK);
            }
        }
    };
    rows.push(Row::new(name, "cycles/object", 2000, KEEP as u64, work));
}

/// `K` bursts of 32 mbufs allocated, then freed.
#[inline(always)]
fn bulks<const K: usize>(pool: &MbufPool) {
    let mut bursts: [Burst; K] = [const { Burst::with_limit(32) }; K];
    for burst in &mut bursts {
        if !pool.alloc_bulk(burst, 32) {
            give_up(&"the pool of mbufs is empty");
        }
    }
    black_box(&bursts);
    for burst in &mut bursts {
        burst.clear();
    }
}

/// Rows of a ring in the given modes: bulk and burst, 1, 8 and 32 elements of 8 bytes.
macro_rules! ring_rows_of {
    ($rows:ident, $name:literal, $producers:ty, $consumers:ty) => {
        ring_rows_of!($rows, $name, $producers, $consumers, 1);
        ring_rows_of!($rows, $name, $producers, $consumers, 8);
        ring_rows_of!($rows, $name, $producers, $consumers, 32);
    };
    ($rows:ident, $name:literal, $producers:ty, $consumers:ty, $count:literal) => {
        ring_row!(
            $rows,
            $name,
            $producers,
            $consumers,
            $count,
            "bulk",
            enqueue_bulk,
            dequeue_bulk,
            true
        );
        ring_row!(
            $rows,
            $name,
            $producers,
            $consumers,
            $count,
            "burst",
            enqueue_burst,
            dequeue_burst,
            $count
        );
    };
}
macro_rules! ring_row {
    ($rows:ident, $name:literal, $producers:ty, $consumers:ty, $count:literal, $kind:literal,
     $enqueue:ident, $dequeue:ident, $all:expr) => {
        // A single end needs `mut`, a shared one doesn't.
        #[allow(unused_mut, reason = "the same lines for all modes")]
        {
            let (mut producer, mut consumer) = match ring::<u64, $producers, $consumers>(4095) {
                Ok(ends) => ends,
                Err(error) => give_up(&error),
            };
            let name = format!("ring {} {} n={} enqueue+dequeue", $name, $kind, $count);
            let work = move |count| {
                let mut values = Aligned([0_u64; $count]);
                for _ in 0..count {
                    if producer.$enqueue(&values.0) != $all
                        || consumer.$dequeue(&mut values.0) != $all
                    {
                        give_up(&"the ring is full or empty");
                    }
                }
                black_box(values.0);
            };
            $rows.push(Row::new(name, "cycles/pair", 20_000, 1, work));
        }
    };
}

/// At the start of a cache line, as the peer's: or it is chance which of the copies cross one.
#[repr(align(64))]
struct Aligned<T>(T);

fn ring_rows(rows: &mut Vec<Row>) {
    ring_rows_of!(rows, "sp/sc", Single, Single);
    ring_rows_of!(rows, "mp/mc", Multi, Multi);
    ring_rows_of!(rows, "rts", Rts, Rts);
    ring_rows_of!(rows, "hts", Hts, Hts);
}

/// Marsaglia's xorshift of 32 bits, as the peer's.
struct Numbers(u32);

impl Numbers {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            items.swap(last, self.0 as usize % (last + 1));
        }
    }
}
