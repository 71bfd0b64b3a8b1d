//! More threads than cores, on every pairing of shared modes: nothing lost, nothing doubled.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const PER_THREAD: u64 = 10_000;
const THREADS: u64 = 3;

macro_rules! loses_nothing {
    ($name:ident, $p:ty, $c:ty) => {
        #[test]
        fn $name() {
            let (producer, consumer) = ring::<u64, $p, $c>(61).unwrap();
            let (sum, count) = (AtomicU64::new(0), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let producer = producer.clone();
                    scope.spawn(move || {
                        let mut next = 0;
                        while next < PER_THREAD {
                            let end = (next + 7).min(PER_THREAD);
                            let items: Vec<u64> =
                                (next..end).map(|n| thread * PER_THREAD + n).collect();
                            let done = producer.enqueue_burst(&items);
                            if done == 0 {
                                std::thread::yield_now();
                            }
                            next += done as u64;
                        }
                    });
                    let (consumer, sum, count) = (consumer.clone(), &sum, &count);
                    scope.spawn(move || {
                        let mut out = [0; 5];
                        while count.load(Ordering::Relaxed) < THREADS * PER_THREAD {
                            let got = consumer.dequeue_burst(&mut out);
                            if got == 0 {
                                std::thread::yield_now();
                            }
                            sum.fetch_add(out[..got].iter().sum(), Ordering::Relaxed);
                            count.fetch_add(got as u64, Ordering::Relaxed);
                        }
                    });
                }
            });
            let total = THREADS * PER_THREAD;
            assert_eq!(count.into_inner(), total);
            assert_eq!(sum.into_inner(), total * (total - 1) / 2);
        }
    };
}
loses_nothing!(multi_to_multi, Multi, Multi);
loses_nothing!(multi_to_rts, Multi, Rts);
loses_nothing!(multi_to_hts, Multi, Hts);
loses_nothing!(rts_to_multi, Rts, Multi);
loses_nothing!(rts_to_rts, Rts, Rts);
loses_nothing!(rts_to_hts, Rts, Hts);
loses_nothing!(hts_to_multi, Hts, Multi);
loses_nothing!(hts_to_rts, Hts, Rts);
loses_nothing!(hts_to_hts, Hts, Hts);
