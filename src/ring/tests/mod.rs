//! The ring against a plain queue, in the hands of stalled threads, and under many real ones.

mod drops;
mod model;
mod stalls;
mod threads;
mod zero_copy;

use std::sync::Arc;

use proptest::prelude::*;

use super::ends::ring_starting_at;
use super::*;
use crate::memory::{Memory, MemoryConfig};

/// Calls a macro with every pairing of modes, and a name for each.
macro_rules! for_all_pairs {
    ($with:ident) => {
        $with!(single_to_single, Single, Single);
        $with!(single_to_multi, Single, Multi);
        $with!(single_to_rts, Single, Rts);
        $with!(single_to_hts, Single, Hts);
        $with!(multi_to_single, Multi, Single);
        $with!(multi_to_multi, Multi, Multi);
        $with!(multi_to_rts, Multi, Rts);
        $with!(multi_to_hts, Multi, Hts);
        $with!(rts_to_single, Rts, Single);
        $with!(rts_to_multi, Rts, Multi);
        $with!(rts_to_rts, Rts, Rts);
        $with!(rts_to_hts, Rts, Hts);
        $with!(hts_to_single, Hts, Single);
        $with!(hts_to_multi, Hts, Multi);
        $with!(hts_to_rts, Hts, Rts);
        $with!(hts_to_hts, Hts, Hts);
    };
}
use for_all_pairs;

/// Somewhere within the longest run of operations below the wrap of the 32-bit indexes.
fn below_the_wrap() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0u32), (1..2_000u32).prop_map(u32::wrapping_neg)]
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
fn absurd_capacities_are_refused() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    for capacity in [0, MAX_CAPACITY + 1, usize::MAX] {
        for result in [ring::<u8, Multi, Multi>(capacity), ring_in(&memory, "r", None, capacity)] {
            let error = result.unwrap_err();
            assert!(matches!(error, RingError::Capacity(found) if found == capacity), "{error}");
        }
    }
    // 2^30 slots of 128 KiB each are beyond all addresses of a process. (Not of more: under the
    // address sanitizer a compiler needs an eighth of a local variable's length for itself.)
    type Large = [u8; 1 << 17];
    let error = ring::<Large, Multi, Multi>(1 << 30).unwrap_err();
    assert!(matches!(error, RingError::NoMemory { slots: 0x4000_0000, .. }), "{error}");
    let error = ring_in::<Large, Multi, Multi>(&memory, "r", None, 1 << 30).unwrap_err();
    assert!(matches!(error, RingError::Zone { .. }), "{error}");
}

#[test]
fn a_ring_in_a_zone_takes_its_memory_from_there_and_gives_it_back() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
    let before = memory.free_len_bytes();
    let counted = Arc::new(());
    let (mut producer, consumer) =
        ring_in::<Arc<()>, Single, Rts>(&memory, "ring", None, 100).unwrap();
    let zone = memory.lookup("ring").unwrap();
    assert!(zone.len_bytes >= 128 * size_of::<Arc<()>>(), "{zone:?}");
    let taken = ring_in::<u64, Hts, Hts>(&memory, "ring", None, 8).unwrap_err();
    assert!(matches!(taken, RingError::Zone { .. }), "{taken}");
    let too_large = ring_in::<u64, Hts, Hts>(&memory, "large", None, 1 << 20).unwrap_err();
    assert!(too_large.to_string().contains("\"large\""), "{too_large}");

    let mut items: Vec<_> = (0..101).map(|_| counted.clone()).collect();
    assert_eq!(producer.enqueue_from(&mut items), 100);
    assert!(producer.is_full());
    assert!(consumer.pop().is_some());
    drop((producer, items));
    let second = consumer.clone();
    drop(consumer);
    assert!(second.pop().is_some(), "the last end keeps the zone");
    assert!(memory.lookup("ring").is_some());
    drop(second);
    assert_eq!(Arc::strong_count(&counted), 1);
    assert_eq!((memory.lookup("ring"), memory.free_len_bytes()), (None, before));
}

#[test]
fn elements_of_no_size_are_counted() {
    let (producer, consumer) = ring::<(), Hts, Rts>(3).unwrap();
    assert!(producer.enqueue_bulk(&[(); 3]));
    assert!(producer.push(()).is_err());
    assert_eq!(consumer.dequeue_burst(&mut [(); 5]), 3);
    assert_eq!(consumer.pop(), None);
}
