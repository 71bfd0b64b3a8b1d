//! The ring against a plain queue, and under real threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::ends::ring_starting_at;
use super::*;

#[derive(Debug, Clone)]
enum Op {
    EnqueueBulk(usize),
    EnqueueBurst(usize),
    DequeueBulk(usize),
    DequeueBurst(usize),
    Push,
    Pop,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..20usize).prop_map(Op::EnqueueBulk),
        (0..20usize).prop_map(Op::EnqueueBurst),
        (0..20usize).prop_map(Op::DequeueBulk),
        (0..20usize).prop_map(Op::DequeueBurst),
        Just(Op::Push),
        Just(Op::Pop),
    ];
    proptest::collection::vec(op, 1..400)
}

/// Runs the same operations on a ring and on a `VecDeque`; each answer must be the same.
macro_rules! against_model {
    ($producer:ident, $consumer:ident, $capacity:expr, $ops:expr) => {{
        let mut model = VecDeque::new();
        let mut next = 0u64;
        for op in $ops {
            match op {
                Op::EnqueueBulk(n) => {
                    let items: Vec<u64> = (next..next + n as u64).collect();
                    next += n as u64;
                    let fits = model.len() + n <= $capacity;
                    prop_assert_eq!($producer.enqueue_bulk(&items), fits);
                    if fits {
                        model.extend(items);
                    }
                }
                Op::EnqueueBurst(n) => {
                    let items: Vec<u64> = (next..next + n as u64).collect();
                    next += n as u64;
                    let room = n.min($capacity - model.len());
                    prop_assert_eq!($producer.enqueue_burst(&items), room);
                    model.extend(&items[..room]);
                }
                Op::DequeueBulk(n) => {
                    let mut out = vec![u64::MAX; n];
                    let enough = model.len() >= n;
                    prop_assert_eq!($consumer.dequeue_bulk(&mut out), enough);
                    if enough {
                        prop_assert_eq!(out, model.drain(..n).collect::<Vec<_>>());
                    }
                }
                Op::DequeueBurst(n) => {
                    let mut out = vec![u64::MAX; n];
                    let got = $consumer.dequeue_burst(&mut out);
                    prop_assert_eq!(got, n.min(model.len()));
                    prop_assert_eq!(&out[..got], &model.drain(..got).collect::<Vec<_>>()[..]);
                }
                Op::Push => {
                    next += 1;
                    let expected = if model.len() < $capacity { Ok(()) } else { Err(next) };
                    prop_assert_eq!($producer.push(next), expected);
                    if expected.is_ok() {
                        model.push_back(next);
                    }
                }
                Op::Pop => prop_assert_eq!($consumer.pop(), model.pop_front()),
            }
            prop_assert_eq!($producer.len(), model.len());
            prop_assert_eq!($consumer.free(), $capacity - model.len());
        }
    }};
}

/// Somewhere within the longest run of operations below the wrap of the 32-bit indexes.
fn below_the_wrap() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0u32), (1..2_000u32).prop_map(u32::wrapping_neg)]
}

proptest! {
    #[test]
    fn single_ends_behave_as_a_queue(
        capacity in 1..40usize,
        start in below_the_wrap(),
        ops in ops(),
    ) {
        let (mut producer, mut consumer) = ring_starting_at::<u64, Single, Single>(capacity, start).unwrap();
        against_model!(producer, consumer, capacity, ops);
    }

    #[test]
    fn multi_ends_behave_as_a_queue(
        capacity in 1..40usize,
        start in below_the_wrap(),
        ops in ops(),
    ) {
        let (producer, consumer) = ring_starting_at::<u64, Multi, Multi>(capacity, start).unwrap();
        against_model!(producer, consumer, capacity, ops);
    }

    #[test]
    fn mixed_ends_behave_as_a_queue(
        capacity in 1..40usize,
        start in below_the_wrap(),
        ops in ops(),
    ) {
        let (producer, mut consumer) = ring_starting_at::<u64, Multi, Single>(capacity, start).unwrap();
        against_model!(producer, consumer, capacity, ops);
    }
}

#[test]
fn indexes_wrap_through_32_bits() {
    // Capacity 3 stands in 4 slots, so that full, empty and the slots' end all meet the wrap.
    const ROUNDS: u32 = 100;
    let (mut producer, mut consumer) =
        ring_starting_at::<u32, Single, Single>(3, (3 * ROUNDS / 2).wrapping_neg()).unwrap();
    let (many_producer, many_consumer) =
        ring_starting_at::<u32, Multi, Multi>(3, (3 * ROUNDS / 2 + 1).wrapping_neg()).unwrap();
    for round in 0..ROUNDS {
        let items = [round, round + 1, round + 2];
        assert!(producer.enqueue_bulk(&items) && many_producer.enqueue_bulk(&items));
        assert!(producer.push(0).is_err() && many_producer.push(0).is_err());
        assert_eq!((producer.len(), many_producer.len()), (3, 3));
        assert_eq!((consumer.free(), many_consumer.free()), (0, 0));
        let mut out = [0; 3];
        assert!(consumer.dequeue_bulk(&mut out));
        assert_eq!(out, items);
        let mut out = [0; 3];
        assert!(many_consumer.dequeue_bulk(&mut out));
        assert_eq!(out, items);
        assert_eq!((consumer.pop(), many_consumer.pop()), (None, None));
        assert_eq!((producer.len(), many_producer.len()), (0, 0));
    }
}

#[test]
fn what_waits_across_the_wrap_is_dropped_once() {
    let counted = Arc::new(());
    let (mut producer, consumer) = ring_starting_at::<_, Single, Single>(4, u32::MAX - 1).unwrap();
    let mut items: Vec<_> = (0..4).map(|_| counted.clone()).collect();
    assert_eq!(producer.enqueue_from(&mut items), 4);
    drop((producer, consumer));
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn absurd_capacities_are_refused() {
    for capacity in [0, MAX_CAPACITY + 1, usize::MAX] {
        assert_eq!(ring::<u8, Multi, Multi>(capacity).unwrap_err(), RingError::Capacity(capacity));
    }
}

#[test]
fn what_is_left_in_a_ring_is_dropped_once() {
    let counted = Arc::new(());
    let (mut producer, mut consumer) = ring::<Arc<()>, Single, Single>(8).unwrap();
    let mut items: Vec<_> = (0..10).map(|_| counted.clone()).collect();
    assert_eq!(producer.enqueue_from(&mut items), 8);
    assert_eq!(items.len(), 2);
    drop(consumer.pop());
    let mut out = Vec::new();
    assert_eq!(consumer.dequeue_into(&mut out, 3), 3);
    assert_eq!(Arc::strong_count(&counted), 1 + 2 + 7);
    drop((producer, consumer));
    assert_eq!(Arc::strong_count(&counted), 1 + 2 + 3);
}

#[test]
fn many_threads_lose_nothing_and_double_nothing() {
    const PER_THREAD: u64 = 30_000;
    const THREADS: u64 = 3;
    let (producer, consumer) = ring::<u64, Multi, Multi>(61).unwrap();
    let (sum, count) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let producer = producer.clone();
            scope.spawn(move || {
                let mut next = 0;
                while next < PER_THREAD {
                    let end = (next + 7).min(PER_THREAD);
                    let items: Vec<u64> = (next..end).map(|n| thread * PER_THREAD + n).collect();
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
