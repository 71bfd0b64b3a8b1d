//! Rows of two cores: what one puts in the other takes out. Their spread is wide, and there is no
//! bar for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use packetboat::memory::Memory;
use packetboat::mempool::{MempoolConfig, ObjectPool, Pooled};
use packetboat::ring::{Multi, Single, ring};
use packetboat::sys::lcore_id::LcoreClaim;
use packetboat::sys::{cpu, tsc};

use crate::row::{Row, Took, give_up};

/// The other CPU's thread, which runs what it is sent.
#[derive(Clone)]
struct Other(Sender<Box<dyn FnOnce() + Send>>);

impl Other {
    fn start(on: u32) -> Self {
        let (sender, jobs) = channel::<Box<dyn FnOnce() + Send>>();
        std::thread::spawn(move || {
            let _lcore = LcoreClaim::claim(1);
            if let Err(error) = cpu::pin_current_thread(on) {
                give_up(&error);
            }
            jobs.into_iter().for_each(|job| job());
        });
        Self(sender)
    }

    /// Starts `job` there; returns when it runs.
    fn run(&self, job: impl FnOnce() + Send + 'static) {
        let ready = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&ready);
        let job = move || {
            runs.store(true, Ordering::Release);
            job();
        };
        if self.0.send(Box::new(job)).is_err() {
            give_up(&"the other CPU's thread has ended");
        }
        while !ready.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
    }
}

pub(crate) fn rows(memory: &Arc<Memory>, on: u32, rows: &mut Vec<Row>) {
    let other = Other::start(on);
    macro_rules! exchange {
        ($name:literal, $producers:ty, $consumers:ty, $count:literal) => {{
            let other = other.clone();
            let round = move |total: u64| {
                let Ok(ends) = ring::<u64, $producers, $consumers>(4095) else {
                    give_up(&"no memory for a ring")
                };
                #[allow(unused_mut, reason = "the same lines for all modes")]
                let (mut producer, mut consumer) = ends;
                let done = Arc::new(AtomicU64::new(0));
                let taken = Arc::clone(&done);
                other.run(move || {
                    let (mut got, mut to) = (0, [0_u64; $count]);
                    while got < total {
                        got += consumer.dequeue_burst(&mut to) as u64;
                    }
                    taken.store(got, Ordering::Release);
                });
                let (start, from) = (tsc::now(), [7_u64; $count]);
                let mut sent = 0;
                while sent < total {
                    let wanted = $count.min((total - sent) as usize);
                    sent += producer.enqueue_burst(&from[..wanted]) as u64;
                }
                while done.load(Ordering::Acquire) < total {
                    std::hint::spin_loop();
                }
                Took { cycles: tsc::now() - start, operations: total }
            };
            let name = format!("two cores: ring {} burst n={}", $name, $count);
            rows.push(Row {
                name,
                unit: "cycles/element",
                iterations: 128_000,
                round: Box::new(round),
            });
        }};
    }
    exchange!("sp/sc", Single, Single, 1);
    exchange!("sp/sc", Single, Single, 8);
    exchange!("sp/sc", Single, Single, 32);
    exchange!("mp/mc", Multi, Multi, 1);
    exchange!("mp/mc", Multi, Multi, 8);
    exchange!("mp/mc", Multi, Multi, 32);
    mempool_row(memory, &other, rows);
}

/// One core takes objects, the other gives them back: each meets the free list, never the other's
/// cache.
fn mempool_row(memory: &Arc<Memory>, other: &Other, rows: &mut Vec<Row>) {
    let config = MempoolConfig {
        cache_size: 256,
        cookies: false,
        ..MempoolConfig::new("exchanged", 32_767, 0)
    };
    let pool = ObjectPool::new(memory, &config, |_, _| [0_u64; 8]);
    // For ever: a count of who uses it, touched on both cores for each object, would be what is
    // measured. The peer's objects don't know their pool either.
    let pool: &'static ObjectPool<_> =
        Box::leak(Box::new(pool.unwrap_or_else(|error| give_up(&error))));
    let other = other.clone();
    let round = move |total: u64| {
        let Ok((mut producer, mut consumer)) =
            ring::<Pooled<[u64; 8], &'static ObjectPool<[u64; 8]>>, Single, Single>(4095)
        else {
            give_up(&"no memory for a ring")
        };
        let done = Arc::new(AtomicU64::new(0));
        let taken = Arc::clone(&done);
        other.run(move || {
            let mut got = 0;
            while got < total {
                got += u64::from(consumer.pop().is_some());
            }
            taken.store(got, Ordering::Release);
        });
        let start = tsc::now();
        let mut sent = 0;
        while sent < total {
            let Some(object) = pool.get() else { continue };
            let mut waiting = Err(object);
            while let Err(object) = waiting {
                waiting = producer.push(object);
            }
            sent += 1;
        }
        while done.load(Ordering::Acquire) < total {
            std::hint::spin_loop();
        }
        Took { cycles: tsc::now() - start, operations: total }
    };
    rows.push(Row {
        name: "two cores: mempool get here, put there".to_owned(),
        unit: "cycles/object",
        iterations: 64_000,
        round: Box::new(round),
    });
}
