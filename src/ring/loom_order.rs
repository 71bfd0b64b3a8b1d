//! Models that are arranged so that loom sees a weakened order. `loom_tests.rs` has every pairing of
//! modes; this file has fewer, and looks where those can't.
//!
//! A blind spot of loom 0.7 (it remembers one access to an atomic, the last): where a thread loads
//! an atomic and then stores to it, as a multi end does with its side's tail, loom doesn't go back
//! to let that store come before another thread's earlier load. So who only looks at such an atomic
//! stands in the thread that runs last in the first schedule (the main thread runs until it joins,
//! then the others in order): from there loom does go through all values that each load may see.

use loom::thread;

use super::ends::ring_starting_at;
use super::*;

/// The second element that passes has index 0.
const BELOW_THE_WRAP: u32 = u32::MAX;

fn ring<T: Send, P: Mode, C: Mode>(capacity: usize) -> Result<Ends<T, P, C>, RingError> {
    ring_starting_at(capacity, BELOW_THE_WRAP)
}

/// Explores with a bound on forced switches: three threads with spinning inside are beyond an
/// unbounded search.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

#[test]
fn loom_single_to_single() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<u32, Single, Single>(2).unwrap();
        let feeding = thread::spawn(move || {
            let mut sent = 0;
            for value in 1..=3 {
                if producer.push(value).is_ok() {
                    sent += 1;
                }
            }
            sent
        });
        let mut got = Vec::new();
        for _ in 0..3 {
            if let Some(value) = consumer.pop() {
                got.push(value);
            }
        }
        let sent = feeding.join().unwrap();
        while let Some(value) = consumer.pop() {
            got.push(value);
        }
        assert_eq!(got.len(), sent);
        assert!(got.is_sorted());
    });
}

#[test]
fn loom_two_producers() {
    model(2, || {
        let (producer, mut consumer) = ring::<u32, Multi, Single>(4).unwrap();
        let feed = |producer: &Producer<u32, Multi, Single>, base: u32| {
            (0..3u32).map(|step| u32::from(producer.push(base + step).is_ok())).sum::<u32>()
        };
        let second = producer.clone();
        let feeding = thread::spawn(move || feed(&second, 20));
        let taking = thread::spawn(move || {
            let mut got = Vec::new();
            consumer.dequeue_into(&mut got, 4);
            (consumer, got)
        });
        let sent = feed(&producer, 10) + feeding.join().unwrap();
        let (mut consumer, mut got) = taking.join().unwrap();
        consumer.dequeue_into(&mut got, 4);
        assert_eq!(got.len() as u32, sent);
        for base in [10, 20] {
            let mine: Vec<_> = got.iter().filter(|&&v| v / 10 == base / 10).collect();
            assert!(mine.is_sorted(), "one producer's order was lost: {got:?}");
        }
    });
}

/// A slot is filled again only once its consumer is done with it.
#[test]
fn loom_two_consumers_make_room() {
    model(3, || {
        let (mut producer, consumer) = ring::<u32, Single, Multi>(2).unwrap();
        assert!(producer.enqueue_bulk(&[1, 2]));
        let second = consumer.clone();
        let taking = thread::spawn(move || second.pop());
        let feeding = thread::spawn(move || {
            [3, 4].into_iter().filter(|&value| producer.push(value).is_ok()).collect::<Vec<_>>()
        });
        let mut got: Vec<_> = consumer.pop().into_iter().collect();
        got.extend(taking.join().unwrap());
        let mut sent = feeding.join().unwrap();
        got.extend(std::iter::from_fn(|| consumer.pop()));
        got.sort_unstable();
        sent.splice(..0, [1, 2]);
        assert_eq!(got, sent);
    });
}

#[test]
fn loom_two_consumers() {
    model(3, || {
        let (mut producer, consumer) = ring::<u32, Single, Multi>(4).unwrap();
        assert!(producer.enqueue_bulk(&[1, 2, 3]));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let consumer = consumer.clone();
                thread::spawn(move || (0..3).filter_map(|_| consumer.pop()).collect::<Vec<_>>())
            })
            .collect();
        let mut sent = 3;
        for value in 4..=5 {
            sent += usize::from(producer.push(value).is_ok());
        }
        let mut got: Vec<u32> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        while let Some(value) = consumer.pop() {
            got.push(value);
        }
        got.sort_unstable();
        assert_eq!(got, (1..=sent as u32).collect::<Vec<_>>());
    });
}

#[test]
fn loom_many_to_many() {
    model(2, || {
        let (producer, consumer) = ring::<u32, Multi, Multi>(2).unwrap();
        let worker = {
            let (producer, consumer) = (producer.clone(), consumer.clone());
            thread::spawn(move || {
                let sent =
                    u32::from(producer.push(1).is_ok()) + u32::from(producer.push(2).is_ok());
                (sent, consumer.pop().is_some())
            })
        };
        let mut sent = u32::from(producer.push(3).is_ok());
        let mut got = u32::from(consumer.pop().is_some());
        sent += u32::from(producer.push(4).is_ok());
        let (their_sent, their_got) = worker.join().unwrap();
        sent += their_sent;
        got += u32::from(their_got);
        while consumer.pop().is_some() {
            got += 1;
        }
        assert_eq!(got, sent);
    });
}
