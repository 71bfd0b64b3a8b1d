//! Every interleaving, under loom. Run with `scripts/test.sh loom`.
//!
//! What loom does not check: more threads and more operations than here; more forced switches
//! than each model's bound; operations larger than the ring, and slices of slots (property tests
//! do both, on one thread); orderings weaker than loom's memory model knows (it has no reordering
//! of Relaxed loads with what follows them, beyond stale values); and that a wait ends soon: a
//! waiting thread is set aside until another has moved. The rings start just below the wrap of
//! their 32-bit indexes, so that every model crosses it.
//!
//! A blind spot of loom 0.7 (it remembers one access to an atomic, the last): where a thread loads
//! an atomic and then stores to it, as a multi end does with its side's tail, loom doesn't go back
//! to let that store come before another thread's earlier load. So who only looks at such an atomic
//! stands in the thread that runs last in the first schedule (the main thread runs until it joins,
//! then the others in order): from there loom does go through all values that each load may see.

use loom::thread;

use super::ends::ring_starting_at;
use super::*;
use crate::sys::loom_model;

/// The second element that passes has index 0.
const BELOW_THE_WRAP: u32 = u32::MAX;

fn ring<T: Send, P: Mode, C: Mode>(capacity: usize) -> Result<Ends<T, P, C>, RingError> {
    ring_starting_at(capacity, BELOW_THE_WRAP)
}

/// Explores with a bound on forced switches: threads with spinning inside are beyond an unbounded
/// search.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    loom_model::model(Some(preemptions), check);
}

/// What the threads of a model have put in and taken out.
#[derive(Default)]
struct Ledger {
    sent: Vec<u32>,
    got: Vec<u32>,
}

impl Ledger {
    fn push(&mut self, push: impl FnOnce(u32) -> Result<(), u32>, value: u32) {
        self.sent.extend(push(value).is_ok().then_some(value));
    }

    fn pop(&mut self, pop: impl FnOnce() -> Option<u32>) {
        self.got.extend(pop());
    }

    /// With all threads joined and `rest` drained from the ring: nothing lost, nothing doubled,
    /// and each thread's values (tens are the thread's number) came out in order.
    fn settle(mut self, worker: Self, rest: impl Fn() -> Option<u32>) {
        let mut drained = Vec::new();
        while let Some(value) = rest() {
            drained.push(value);
        }
        for thread in 0..3 {
            for got in [&self.got, &worker.got, &drained] {
                assert!(got.iter().filter(|&&value| value / 10 == thread).is_sorted(), "{got:?}");
            }
        }
        self.got.extend(worker.got);
        self.got.extend(drained);
        self.sent.extend(worker.sent);
        self.got.sort_unstable();
        self.sent.sort_unstable();
        assert_eq!(self.got, self.sent);
    }
}

/// A ring's one-threaded end, for the last drain.
fn drain<P: Mode>(consumer: Consumer<u32, P, Single>) -> impl Fn() -> Option<u32> {
    let consumer = std::cell::RefCell::new(consumer);
    move || consumer.borrow_mut().pop()
}

/// Two threads on both sides.
macro_rules! both_shared {
    ($name:ident, $p:ty, $c:ty) => {
        #[test]
        fn $name() {
            model(3, || {
                let (producer, consumer) = ring::<u32, $p, $c>(2).unwrap();
                let worker = {
                    let (producer, consumer) = (producer.clone(), consumer.clone());
                    thread::spawn(move || {
                        let mut ledger = Ledger::default();
                        ledger.push(|value| producer.push(value), 10);
                        ledger.pop(|| consumer.pop());
                        ledger.push(|value| producer.push(value), 11);
                        ledger
                    })
                };
                let mut ledger = Ledger::default();
                ledger.push(|value| producer.push(value), 20);
                ledger.push(|value| producer.push(value), 21);
                ledger.pop(|| consumer.pop());
                ledger.settle(worker.join().unwrap(), || consumer.pop());
            });
        }
    };
}
both_shared!(loom_multi_to_multi, Multi, Multi);
both_shared!(loom_multi_to_rts, Multi, Rts);
both_shared!(loom_multi_to_hts, Multi, Hts);
both_shared!(loom_rts_to_multi, Rts, Multi);
both_shared!(loom_rts_to_rts, Rts, Rts);
both_shared!(loom_rts_to_hts, Rts, Hts);
both_shared!(loom_hts_to_multi, Hts, Multi);
both_shared!(loom_hts_to_rts, Hts, Rts);
both_shared!(loom_hts_to_hts, Hts, Hts);

/// Two threads that consume; one of them, the last to run, is the only producer.
macro_rules! from_single {
    ($name:ident, $c:ty) => {
        #[test]
        fn $name() {
            model(3, || {
                let (mut producer, consumer) = ring::<u32, Single, $c>(2).unwrap();
                let mut worker = Ledger::default();
                worker.push(|value| producer.push(value), 10);
                worker.push(|value| producer.push(value), 11);
                let second = consumer.clone();
                let feeding = thread::spawn(move || {
                    worker.push(|value| producer.push(value), 12);
                    worker.pop(|| second.pop());
                    worker.push(|value| producer.push(value), 13);
                    worker
                });
                let mut ledger = Ledger::default();
                ledger.pop(|| consumer.pop());
                ledger.pop(|| consumer.pop());
                ledger.pop(|| consumer.pop());
                ledger.settle(feeding.join().unwrap(), || consumer.pop());
            });
        }
    };
}
from_single!(loom_single_to_multi, Multi);
from_single!(loom_single_to_rts, Rts);
from_single!(loom_single_to_hts, Hts);

/// Two threads that produce; one of them, the last to run, is the only consumer.
macro_rules! to_single {
    ($name:ident, $p:ty) => {
        #[test]
        fn $name() {
            model(3, || {
                let (producer, mut consumer) = ring::<u32, $p, Single>(3).unwrap();
                let second = producer.clone();
                let taking = thread::spawn(move || {
                    let mut ledger = Ledger::default();
                    ledger.push(|value| second.push(value), 20);
                    ledger.pop(|| consumer.pop());
                    ledger.pop(|| consumer.pop());
                    (ledger, consumer)
                });
                let mut ledger = Ledger::default();
                ledger.push(|value| producer.push(value), 10);
                ledger.push(|value| producer.push(value), 11);
                ledger.push(|value| producer.push(value), 12);
                let (worker, consumer) = taking.join().unwrap();
                ledger.settle(worker, drain(consumer));
            });
        }
    };
}
to_single!(loom_multi_to_single, Multi);
to_single!(loom_rts_to_single, Rts);
to_single!(loom_hts_to_single, Hts);

/// Two producers and a consumer, each a thread; claims of two slots as well as of one.
macro_rules! two_producers_and_a_consumer {
    ($name:ident, $p:ty) => {
        #[test]
        fn $name() {
            model(3, || {
                let (producer, mut consumer) = ring::<u32, $p, Single>(4).unwrap();
                let second = producer.clone();
                let feeding = thread::spawn(move || {
                    let mut ledger = Ledger::default();
                    if second.enqueue_bulk(&[10, 11]) {
                        ledger.sent.extend([10, 11]);
                    }
                    ledger
                });
                let taking = thread::spawn(move || {
                    let mut got = Vec::new();
                    consumer.dequeue_into(&mut got, 4);
                    (got, consumer)
                });
                let mut ledger = Ledger::default();
                ledger.push(|value| producer.push(value), 20);
                ledger.push(|value| producer.push(value), 21);
                let worker = feeding.join().unwrap();
                let (got, consumer) = taking.join().unwrap();
                ledger.got = got;
                ledger.settle(worker, drain(consumer));
            });
        }
    };
}
two_producers_and_a_consumer!(loom_two_multi_producers, Multi);
two_producers_and_a_consumer!(loom_two_rts_producers, Rts);
two_producers_and_a_consumer!(loom_two_hts_producers, Hts);

/// A slot is filled again only once its consumer is done with it.
macro_rules! two_consumers_make_room {
    ($name:ident, $c:ty) => {
        #[test]
        fn $name() {
            model(3, || {
                let (mut producer, consumer) = ring::<u32, Single, $c>(2).unwrap();
                assert!(producer.enqueue_bulk(&[10, 11]));
                let second = consumer.clone();
                let taking = thread::spawn(move || second.pop());
                let feeding = thread::spawn(move || {
                    let mut ledger = Ledger { sent: vec![10, 11], got: Vec::new() };
                    ledger.push(|value| producer.push(value), 12);
                    ledger.push(|value| producer.push(value), 13);
                    ledger
                });
                let mut ledger = Ledger::default();
                ledger.pop(|| consumer.pop());
                ledger.got.extend(taking.join().unwrap());
                ledger.got.sort_unstable(); // of two threads, in any order
                ledger.settle(feeding.join().unwrap(), || consumer.pop());
            });
        }
    };
}
two_consumers_make_room!(loom_two_multi_consumers, Multi);
two_consumers_make_room!(loom_two_rts_consumers, Rts);
two_consumers_make_room!(loom_two_hts_consumers, Hts);

#[test]
fn loom_single_to_single() {
    loom_model::model(None, || {
        let (mut producer, mut consumer) = ring::<u32, Single, Single>(2).unwrap();
        let worker = thread::spawn(move || {
            let mut ledger = Ledger::default();
            for value in 10..13 {
                ledger.push(|value| producer.push(value), value);
            }
            ledger
        });
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            ledger.pop(|| consumer.pop());
        }
        ledger.settle(worker.join().unwrap(), drain(consumer));
    });
}

// ---- zero copy ------------------------------------------------------------------------------

/// Reserves two slots, writes one, and commits or lets go.
fn reserve<P: ZeroCopy, C: Mode>(
    producer: &mut Producer<u32, P, C>,
    value: u32,
    commit: bool,
    ledger: &mut Ledger,
) {
    let Some(mut slots) = producer.reserve_burst(2) else { return };
    assert!(slots.push(value).is_ok());
    if commit {
        slots.commit();
        ledger.sent.push(value);
    }
}

/// Looks at two values, and consumes one or lets go.
fn peek<P: Mode, C: ZeroCopy>(
    consumer: &mut Consumer<u32, P, C>,
    consume: bool,
    ledger: &mut Ledger,
) {
    let Some(values) = consumer.peek_burst(2) else { return };
    let mut seen = Vec::new();
    values.for_each(|&value| seen.push(value));
    assert_eq!(seen.len(), values.len());
    if consume {
        assert_eq!(values.consume(1), 1);
        ledger.got.push(seen[0]);
    }
}

#[test]
fn loom_zero_copy_single_to_single() {
    model(3, || {
        let (mut producer, mut consumer) = ring::<u32, Single, Single>(2).unwrap();
        let worker = thread::spawn(move || {
            let mut ledger = Ledger::default();
            reserve(&mut producer, 10, true, &mut ledger);
            reserve(&mut producer, 11, false, &mut ledger);
            reserve(&mut producer, 12, true, &mut ledger);
            ledger
        });
        let mut ledger = Ledger::default();
        peek(&mut consumer, true, &mut ledger);
        peek(&mut consumer, false, &mut ledger);
        peek(&mut consumer, true, &mut ledger);
        ledger.settle(worker.join().unwrap(), drain(consumer));
    });
}

#[test]
fn loom_zero_copy_hts_to_hts() {
    model(3, || {
        let (mut producer, mut consumer) = ring::<u32, Hts, Hts>(2).unwrap();
        let worker = {
            let (mut producer, mut consumer) = (producer.clone(), consumer.clone());
            thread::spawn(move || {
                let mut ledger = Ledger::default();
                reserve(&mut producer, 10, true, &mut ledger);
                peek(&mut consumer, true, &mut ledger);
                reserve(&mut producer, 11, false, &mut ledger);
                ledger
            })
        };
        let mut ledger = Ledger::default();
        reserve(&mut producer, 20, true, &mut ledger);
        peek(&mut consumer, false, &mut ledger);
        peek(&mut consumer, true, &mut ledger);
        ledger.settle(worker.join().unwrap(), || consumer.pop());
    });
}
