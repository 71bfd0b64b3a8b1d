//! Every pairing of modes against a `VecDeque`, with elements of 4, 8 and 16 bytes.

use std::collections::VecDeque;

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
    ($producer:ident, $consumer:ident, $element:ty, $capacity:expr, $ops:expr) => {{
        let mut model = VecDeque::new();
        let mut next = 0u64;
        let nth = <$element as Element>::nth;
        for op in $ops {
            match op {
                Op::EnqueueBulk(n) => {
                    let items: Vec<_> = (next..next + n as u64).map(nth).collect();
                    next += n as u64;
                    let fits = model.len() + n <= $capacity;
                    prop_assert_eq!($producer.enqueue_bulk(&items), fits);
                    if fits {
                        model.extend(items);
                    }
                }
                Op::EnqueueBurst(n) => {
                    let items: Vec<_> = (next..next + n as u64).map(nth).collect();
                    next += n as u64;
                    let room = n.min($capacity - model.len());
                    prop_assert_eq!($producer.enqueue_burst(&items), room);
                    model.extend(&items[..room]);
                }
                Op::DequeueBulk(n) => {
                    let mut out = vec![nth(u64::MAX); n];
                    let enough = model.len() >= n;
                    prop_assert_eq!($consumer.dequeue_bulk(&mut out), enough);
                    if enough {
                        prop_assert_eq!(out, model.drain(..n).collect::<Vec<_>>());
                    }
                }
                Op::DequeueBurst(n) => {
                    let mut out = vec![nth(u64::MAX); n];
                    let got = $consumer.dequeue_burst(&mut out);
                    prop_assert_eq!(got, n.min(model.len()));
                    prop_assert_eq!(&out[..got], &model.drain(..got).collect::<Vec<_>>()[..]);
                }
                Op::Push => {
                    next += 1;
                    let expected = if model.len() < $capacity { Ok(()) } else { Err(nth(next)) };
                    prop_assert_eq!($producer.push(nth(next)), expected);
                    if expected.is_ok() {
                        model.push_back(nth(next));
                    }
                }
                Op::Pop => prop_assert_eq!($consumer.pop(), model.pop_front()),
            }
            prop_assert_eq!($producer.len(), model.len());
            prop_assert_eq!($consumer.free(), $capacity - model.len());
        }
    }};
}

/// Plain values of several sizes.
trait Element: Copy {
    fn nth(number: u64) -> Self;
}
impl Element for u32 {
    fn nth(number: u64) -> Self {
        number as u32
    }
}
impl Element for u64 {
    fn nth(number: u64) -> Self {
        number
    }
}
impl Element for [u64; 2] {
    fn nth(number: u64) -> Self {
        [number, !number]
    }
}

macro_rules! behaves_as_a_queue {
    ($name:ident, $p:ty, $c:ty) => {
        mod $name {
            use super::*;
            behaves_as_a_queue!(of_4_bytes, u32, $p, $c);
            behaves_as_a_queue!(of_8_bytes, u64, $p, $c);
            behaves_as_a_queue!(of_16_bytes, [u64; 2], $p, $c);
        }
    };
    ($name:ident, $element:ty, $p:ty, $c:ty) => {
        proptest! {
            #[test]
            fn $name(capacity in 1..40usize, start in below_the_wrap(), ops in ops()) {
                #[allow(unused_mut)] // single ends need it
                let (mut producer, mut consumer) =
                    ring_starting_at::<$element, $p, $c>(capacity, start).unwrap();
                against_model!(producer, consumer, $element, capacity, ops);
            }
        }
    };
}
for_all_pairs!(behaves_as_a_queue);

/// A mode on both sides of one ring, for a million steps.
macro_rules! a_million_steps {
    ($($name:ident: $mode:ty,)*) => {$(
        #[test]
        fn $name() -> Result<(), TestCaseError> {
            const STEPS: usize = 1_000_000;
            let mut random = 0x2545_f491_4f6c_dd1d_u64; // xorshift64
            let mut number = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 32) % below
            };
            #[allow(unused_mut)] // single ends need it
            let (mut producer, mut consumer) =
                ring_starting_at::<u64, $mode, $mode>(37, u32::MAX - 1000).unwrap();
            let ops = (0..STEPS).map(|_| match (number(6), number(20) as usize) {
                (0, count) => Op::EnqueueBulk(count),
                (1, count) => Op::EnqueueBurst(count),
                (2, count) => Op::DequeueBulk(count),
                (3, count) => Op::DequeueBurst(count),
                (4, _) => Op::Push,
                _ => Op::Pop,
            });
            against_model!(producer, consumer, u64, 37, ops);
            println!("\nmodel: ring, {}: {STEPS} steps", stringify!($name));
            Ok(())
        }
    )*};
}
a_million_steps! {
    single_for_a_million_steps: Single,
    multi_for_a_million_steps: Multi,
    rts_for_a_million_steps: Rts,
    hts_for_a_million_steps: Hts,
}
