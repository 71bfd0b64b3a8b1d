//! Values that own something: none lost, none dropped twice.

use super::*;

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
