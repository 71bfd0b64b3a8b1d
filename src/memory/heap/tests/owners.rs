//! Typed owners free what they hold, whatever happens.

use super::*;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Counts how often it is dropped.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[repr(align(512))]
struct Wide([u8; 3]);

#[test]
fn a_box_drops_its_value_and_frees_its_block() {
    let (heap, drops) = (heap(true), Cell::new(0));
    let one = HeapBox::new(&heap, Tag::UNTAGGED, Counted(&drops)).unwrap();
    let two = HeapBox::new(&heap, Tag::UNTAGGED, Counted(&drops)).unwrap();
    drop(one);
    assert_eq!((drops.get(), heap.stats().live_blocks), (1, 1));
    let value = two.into_inner();
    assert_eq!((drops.get(), heap.stats().live_blocks), (1, 0));
    drop(value);
    assert_eq!(drops.get(), 2);
    heap.check().unwrap();
}

#[test]
fn a_box_is_aligned_and_has_a_device_address() {
    let heap = heap(true);
    let mut wide = HeapBox::new(&heap, Tag::UNTAGGED, Wide([1, 2, 3])).unwrap();
    wide.0[1] = 9;
    assert_eq!(wide.0, [1, 9, 3]);
    let address = &raw const *wide;
    assert_eq!(address.addr() % 512, 0);
    assert_eq!(heap.iova_of(address.cast()), Some(wide.iova()));
    let request = Request::new(0).align(1024);
    let nothing = HeapBox::with(&heap, request, ()).unwrap();
    assert_eq!(nothing.iova().0 % 1024, 0);
    assert_eq!(heap.stats().live_blocks, 2);
    drop((wide, nothing));
    assert_eq!(heap.stats().live_blocks, 0);
}

#[test]
fn an_owner_goes_to_another_thread_and_keeps_the_heap() {
    let heap = heap(true);
    let weak = Arc::downgrade(&heap);
    let mut names = HeapSlice::from_fn(&heap, Request::new(0), 3, |n| n.to_string()).unwrap();
    drop(heap);
    std::thread::spawn(move || {
        names[1].push('!');
        assert_eq!(*names, ["0", "1!", "2"]);
        assert_eq!(format!("{names:?}"), r#"["0", "1!", "2"]"#);
    })
    .join()
    .unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_slice_is_made_whole_or_not_at_all() {
    let (heap, drops) = (heap(true), Cell::new(0));
    let make = |index| if index == 3 { panic!("as planned") } else { Counted(&drops) };
    let made = || HeapSlice::from_fn(&heap, Request::new(0), 5, make);
    assert!(catch_unwind(AssertUnwindSafe(made)).is_err());
    assert_eq!((drops.get(), heap.stats().live_blocks), (3, 0));
    let slice = HeapSlice::from_fn(&heap, Request::new(0), 5, |_| Counted(&drops)).unwrap();
    assert_eq!(slice.len(), 5);
    drop(slice);
    assert_eq!((drops.get(), heap.stats().live_blocks), (8, 0));
    heap.check().unwrap();
}

#[test]
fn slices_are_copied_zeroed_and_refused() {
    let heap = heap(true);
    let tag = Tag::new("slices").unwrap();
    let request = Request::new(0).tag(tag).align(4096);
    let copy = HeapSlice::copy_of(&heap, request, &[1_u32, 2, 3]).unwrap();
    assert_eq!((&*copy, copy.iova().0 % 4096), (&[1, 2, 3][..], 0));
    drop(copy);
    let zeroed = HeapSlice::<u64>::zeroed(&heap, request, 100).unwrap();
    assert_eq!(*zeroed, [0; 100]);
    let stats = heap.tags().into_iter().find(|stats| stats.tag == tag).unwrap();
    assert_eq!((stats.counts.live_bytes, stats.counts.allocated), (800, 2));
    says(HeapSlice::<u64>::zeroed(&heap, request, 0), &["0 bytes (slices)"]);
    says(HeapSlice::<u64>::zeroed(&heap, request, usize::MAX), &["18446744073709551615 bytes"]);
    says(HeapSlice::<u64>::zeroed(&heap, request, 1 << 20), &["8388608 bytes (slices)"]);
    let units = HeapSlice::from_fn(&heap, request, 7, |_| ()).unwrap();
    assert_eq!(units.len(), 7);
}

#[test]
fn a_box_that_was_overrun_stays_in_use() {
    let heap = heap(true);
    let value = HeapBox::new(&heap, Tag::UNTAGGED, [0_u8; 10]).unwrap();
    let beyond = (&raw const *value).cast::<u8>().cast_mut().wrapping_add(10);
    let beyond = beyond.with_addr(beyond.addr());
    // SAFETY: behind the value is its block's red zone, which is no part of any reference.
    unsafe { std::ptr::write_volatile(beyond, 1) };
    drop(value);
    assert_eq!(heap.stats().live_blocks, 1);
    says(heap.check(), &["block of 10 bytes", "offset 10,"]);
}
