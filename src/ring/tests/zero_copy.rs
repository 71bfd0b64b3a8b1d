//! Guards on slots, with values that are counted: every pairing against a `VecDeque`, then one
//! property each.

#![expect(unsafe_code, reason = "counts slots as written that were written through slices")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// A number, and a handle by which the values alive are counted.
#[derive(Debug, Clone)]
struct Counted(u64, #[expect(dead_code, reason = "counts by being there")] Arc<()>);

#[derive(Debug, Clone)]
enum Op {
    Push,
    Pop,
    From(usize),
    Into(usize),
    /// Reserve (all or some), write so many, commit or not.
    Reserve(bool, usize, usize, bool),
    /// Peek (at all or some), consume so many or let go.
    Peek(bool, usize, Option<usize>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        Just(Op::Push),
        Just(Op::Pop),
        (0..20usize).prop_map(Op::From),
        (0..20usize).prop_map(Op::Into),
        (any::<bool>(), 0..20usize, 0..20usize, any::<bool>())
            .prop_map(|(bulk, most, write, commit)| Op::Reserve(bulk, most, write, commit)),
        (any::<bool>(), 0..20usize, proptest::option::of(0..20usize))
            .prop_map(|(bulk, most, consume)| Op::Peek(bulk, most, consume)),
    ];
    proptest::collection::vec(op, 1..300)
}

/// What may be done with any producer. Names differ from the inherent ones, which would be
/// shadowed.
trait Feed {
    fn put_one(&mut self, value: Counted) -> Result<(), Counted>;
    fn put_from(&mut self, values: &mut Vec<Counted>) -> usize;
    /// Slots reserved, and values published of those offered; `None` without zero copy.
    fn write_in_place(
        &mut self,
        _: bool,
        _: usize,
        _: Vec<Counted>,
        _: bool,
    ) -> Option<(usize, usize)> {
        None
    }
}

/// What may be done with any consumer.
trait Drain {
    fn take_one(&mut self) -> Option<Counted>;
    fn take_into(&mut self, out: &mut Vec<Counted>, most: usize) -> usize;
    /// Values peeked at, and how many were consumed; `None` without zero copy.
    fn read_in_place(&mut self, _: bool, _: usize, _: Option<usize>) -> Option<(Vec<u64>, usize)> {
        None
    }
}

macro_rules! feed {
    ($mode:ty $(, $zero_copy:item)?) => {
        impl<C: Mode> Feed for Producer<Counted, $mode, C> {
            fn put_one(&mut self, value: Counted) -> Result<(), Counted> {
                self.push(value)
            }
            fn put_from(&mut self, values: &mut Vec<Counted>) -> usize {
                self.enqueue_from(values)
            }
            $($zero_copy)?
        }
    };
    ($mode:ty: zero copy) => {
        feed!($mode, fn write_in_place(
            &mut self,
            bulk: bool,
            most: usize,
            values: Vec<Counted>,
            commit: bool,
        ) -> Option<(usize, usize)> {
            let guard = if bulk { self.reserve_bulk(most) } else { self.reserve_burst(most) };
            let Some(mut slots) = guard else { return Some((0, 0)) };
            let reserved = slots.capacity();
            assert_eq!(slots.fill(values.iter().cloned()), values.len().min(reserved));
            let (first, second) = slots.slots();
            assert_eq!(first.len() + second.len(), slots.free());
            Some((reserved, if commit { slots.commit() } else { 0 }))
        });
    };
}
feed!(Single: zero copy);
feed!(Hts: zero copy);
feed!(Multi);
feed!(Rts);

macro_rules! drain {
    ($mode:ty $(, $zero_copy:item)?) => {
        impl<P: Mode> Drain for Consumer<Counted, P, $mode> {
            fn take_one(&mut self) -> Option<Counted> {
                self.pop()
            }
            fn take_into(&mut self, out: &mut Vec<Counted>, most: usize) -> usize {
                self.dequeue_into(out, most)
            }
            $($zero_copy)?
        }
    };
    ($mode:ty: zero copy) => {
        drain!($mode, fn read_in_place(
            &mut self,
            bulk: bool,
            most: usize,
            consume: Option<usize>,
        ) -> Option<(Vec<u64>, usize)> {
            let guard = if bulk { self.peek_bulk(most) } else { self.peek_burst(most) };
            let Some(values) = guard else { return Some((Vec::new(), 0)) };
            let seen: Vec<_> = values.iter().map(|value| value.0).collect();
            assert_eq!(seen.len(), values.len());
            Some((seen, consume.map_or(0, |count| values.consume(count))))
        });
    };
}
drain!(Single: zero copy);
drain!(Hts: zero copy);
drain!(Multi);
drain!(Rts);

fn check(
    producer: &mut dyn Feed,
    consumer: &mut dyn Drain,
    live: &Arc<()>,
    capacity: usize,
    ops: Vec<Op>,
) {
    let mut model = VecDeque::new();
    let mut numbers = 0..;
    let mut make = |count: usize| -> Vec<Counted> {
        numbers.by_ref().take(count).map(|number| Counted(number, live.clone())).collect()
    };
    for op in ops {
        let room = capacity - model.len();
        match op {
            Op::Push => {
                let value = make(1).remove(0);
                let number = value.0;
                let taken = producer.put_one(value).is_ok();
                assert_eq!(taken, room > 0);
                model.extend(taken.then_some(number));
            }
            Op::Pop => assert_eq!(consumer.take_one().map(|value| value.0), model.pop_front()),
            Op::From(count) => {
                let mut values = make(count);
                let numbers: Vec<_> = values.iter().map(|value| value.0).collect();
                let taken = producer.put_from(&mut values);
                assert_eq!((taken, values.len()), (count.min(room), count - taken));
                assert!(values.iter().map(|value| value.0).eq(numbers[taken..].iter().copied()));
                model.extend(&numbers[..taken]);
            }
            Op::Into(most) => {
                let mut out = Vec::new();
                assert_eq!(consumer.take_into(&mut out, most), most.min(model.len()));
                assert!(out.iter().map(|value| value.0).eq(model.drain(..out.len())));
            }
            Op::Reserve(bulk, most, write, commit) => {
                let values = make(write);
                let numbers: Vec<_> = values.iter().map(|value| value.0).collect();
                if let Some(found) = producer.write_in_place(bulk, most, values, commit) {
                    let reserved = if bulk && most > room { 0 } else { most.min(room) };
                    let published = if commit { write.min(reserved) } else { 0 };
                    assert_eq!(found, (reserved, published));
                    model.extend(&numbers[..published]);
                }
            }
            Op::Peek(bulk, most, consume) => {
                if let Some((seen, consumed)) = consumer.read_in_place(bulk, most, consume) {
                    let covered =
                        if bulk && most > model.len() { 0 } else { most.min(model.len()) };
                    assert!(seen.iter().eq(model.iter().take(covered)), "{seen:?} of {model:?}");
                    assert_eq!(consumed, consume.unwrap_or(0).min(covered));
                    model.drain(..consumed);
                }
            }
        }
        assert_eq!(Arc::strong_count(live) - 1, model.len(), "values alive");
    }
}

macro_rules! counts_values {
    ($name:ident, $p:ty, $c:ty) => {
        proptest! {
            #[test]
            fn $name(capacity in 1..40usize, start in below_the_wrap(), ops in ops()) {
                let live = Arc::new(());
                let (mut producer, mut consumer) =
                    ring_starting_at::<Counted, $p, $c>(capacity, start).unwrap();
                check(&mut producer, &mut consumer, &live, capacity, ops);
                drop((producer, consumer));
                prop_assert_eq!(Arc::strong_count(&live), 1);
            }
        }
    };
}
for_all_pairs!(counts_values);

// ---- one property each ----------------------------------------------------------------------

#[test]
fn slots_are_the_two_runs_around_the_end() {
    let (mut producer, mut consumer) = ring_starting_at::<u64, Hts, Single>(6, u32::MAX).unwrap();
    let mut slots = producer.reserve_bulk(6).unwrap();
    assert!(slots.push(1).is_ok());
    let (first, second) = slots.slots();
    assert_eq!((first.len(), second.len()), (5, 0), "one slot up to the end, which is written");
    for (slot, value) in first.iter_mut().zip(2..5) {
        slot.write(value);
    }
    // SAFETY: three slots were written, of five.
    unsafe { slots.assume_written(3) };
    assert_eq!((slots.len(), slots.free()), (4, 2));
    assert_eq!(slots.commit(), 4);
    let values = consumer.peek_burst(8).unwrap();
    assert_eq!(values.slices(), (&[1][..], &[2, 3, 4][..]));
    assert_eq!(values.consume(usize::MAX), 4);
    assert!(consumer.is_empty());
}

#[test]
fn a_leaked_guard_of_a_single_end_was_never_made() {
    let (mut producer, mut consumer) = ring::<u64, Single, Single>(4).unwrap();
    let mut slots = producer.reserve_bulk(3).unwrap();
    assert_eq!(slots.copy_from(&[1, 2]), 2);
    std::mem::forget(slots);
    assert!(consumer.pop().is_none());
    assert!(producer.enqueue_bulk(&[5, 6, 7, 8]));
    std::mem::forget(consumer.peek_bulk(2).unwrap());
    let mut out = [0; 4];
    assert!(consumer.dequeue_bulk(&mut out));
    assert_eq!(out, [5, 6, 7, 8]);
}

#[test]
fn a_guard_of_a_shared_end_has_the_side_to_itself() {
    let (mut producer, consumer) = ring::<u64, Hts, Hts>(4).unwrap();
    let second = producer.clone();
    let pushed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut slots = producer.reserve_bulk(2).unwrap();
        scope.spawn(|| {
            assert!(second.push(9).is_ok());
            pushed.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!pushed.load(Ordering::Acquire), "another producer got in between");
        assert!(consumer.is_empty() && consumer.pop().is_none());
        assert_eq!(slots.fill([1]), 1);
        slots.commit();
    });
    let mut out = Vec::new();
    consumer.dequeue_into(&mut out, 4);
    assert_eq!(out, [1, 9], "the reserved slot that wasn't written is the other's");
}

/// Panics when dropped, if it holds true; counts its drops.
struct Explosive(bool, Arc<AtomicBool>);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.1.swap(true, Ordering::Relaxed), "dropped twice");
        assert!(!self.0, "as ordered");
    }
}

#[test]
fn a_panic_while_dropping_values_leaves_the_ring_usable() {
    let (mut producer, mut consumer) = ring::<Explosive, Hts, Hts>(4).unwrap();
    let value = |explodes| Explosive(explodes, Arc::default());
    let panics = |work: &mut dyn FnMut()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
    };
    assert!(producer.push(value(true)).is_ok() && producer.push(value(false)).is_ok());
    panics(&mut || {
        consumer.peek_bulk(2).unwrap().consume(1);
    });
    assert_eq!(consumer.len(), 1, "out of the ring all the same");
    let second = Arc::new(AtomicBool::new(false));
    panics(&mut || {
        let values = [value(true), Explosive(false, Arc::clone(&second))];
        producer.reserve_bulk(2).unwrap().fill(values);
    });
    assert!(second.load(Ordering::Relaxed), "the one after it is dropped all the same");
    assert_eq!(producer.len(), 1);
    assert!(producer.push(value(false)).is_ok(), "the side is free again");
    assert!(consumer.pop().is_some() && consumer.pop().is_some() && consumer.pop().is_none());
}
