//! The lists and tables themselves: what fits, and which damage the check finds.

use super::*;
use crate::memory::heap::Tag;

fn used(granules: u32) -> Used {
    Used { granules, tag: Tag::UNTAGGED, slack_bytes: 0 }
}

fn at(granule: u32) -> Place {
    Place { slot: 0, granule }
}

/// One extent: 10 granules free, 5 in use, 10 free, 1 in use, and the rest of 100 free.
fn tlsf() -> Tlsf {
    let mut tlsf = Tlsf::new(false);
    assert_eq!(tlsf.add(0x1000, 100), Some(0));
    let places = [10, 5, 10, 1].map(|size| tlsf.take(1, used(size)).unwrap().place);
    assert_eq!(places, [0, 10, 15, 25].map(at));
    for index in [0, 2] {
        assert!(!tlsf.give(places[index], used(10)));
    }
    assert_eq!(tlsf.check(), Ok(()));
    tlsf
}

/// What the check says, and what does the damage.
type SpoiledTable = (&'static str, fn(&mut Table));
type SpoiledLists = (&'static str, fn(&mut Tlsf, Class));

#[test]
fn the_check_finds_whatever_is_wrong() {
    let tables: [SpoiledTable; 6] = [
        ("a granule that is part of no block", |table| table.set_interior(0)),
        ("a granule within a block that says it isn't", |table| table.set_interior(9)),
        ("a granule within a block that says it isn't", |table| table.set_used(12, used(1))),
        ("two free blocks side by side", |table| {
            table.set_free(26, 30, Place::NOWHERE);
            table.set_free(56, 44, Place::NOWHERE);
        }),
        ("a free block in the list of another size", |table| table.set_next(0, at(26))),
        ("a free block whose link back is wrong", |table| table.set_prev(0, at(26))),
    ];
    for (what, spoil) in tables {
        let mut tlsf = tlsf();
        spoil(&mut tlsf.tables[0]);
        assert_eq!(tlsf.check().unwrap_err().what, what);
    }
    let class = Class::of(10);
    let lists: [SpoiledLists; 4] = [
        ("the count of free granules is wrong", |tlsf, _| tlsf.free_granules += 1),
        ("a bit map that disagrees with its list", |tlsf, class| tlsf.occupied.clear(class)),
        ("free blocks that are in no list", |tlsf, class| tlsf.pop(class, Place::NOWHERE)),
        ("a block in a list that isn't free", |tlsf, class| tlsf.pop(class, at(10))),
    ];
    for (what, spoil) in lists {
        let mut tlsf = tlsf();
        spoil(&mut tlsf, class);
        assert_eq!(tlsf.check().unwrap_err().what, what);
    }
}

#[test]
fn a_block_of_just_the_right_length_is_found_although_its_list_isnt_sure() {
    let mut tlsf = Tlsf::new(false);
    tlsf.add(0x1000, 1001).unwrap();
    assert_ne!(Class::at_least(1001), Some(Class::of(1001)));
    let taken = tlsf.take(1, used(1001)).unwrap();
    assert_eq!(taken, Taken { place: at(0), first_in_extent: true });
    assert_eq!(tlsf.take(1, used(1)), None);
    assert!(tlsf.give(at(0), used(1001)));
    assert_eq!((tlsf.largest(), tlsf.check()), (1001, Ok(())));
}

#[test]
fn alignment_is_of_addresses_and_leaves_the_gap_free() {
    let mut tlsf = Tlsf::new(false);
    // 3 granules before a multiple of 64 granules.
    tlsf.add(0x2000 - 3 * GRANULE_BYTES, 67).unwrap();
    assert_eq!(tlsf.take(64, used(65)), None);
    assert_eq!(tlsf.take(1 << 29, used(1)), None, "no address below 32 GiB fits but 0");
    assert_eq!(tlsf.take(64, used(64)).unwrap().place, at(3));
    assert_eq!(tlsf.take(1, used(3)).unwrap().place, at(0));
    assert_eq!((tlsf.free_granules(), tlsf.check()), (0, Ok(())));
}

#[test]
fn absurd_sizes_do_not_fit() {
    let mut tlsf = tlsf();
    for size in [75, SIZE_END - 1, SIZE_END, u32::MAX - 63, u32::MAX] {
        assert_eq!(tlsf.take(1, used(size)), None);
        assert_eq!(tlsf.take(64, used(size)), None);
        assert!(!tlsf.resize(at(10), used(5), size.max(16), 0));
    }
    assert_eq!(tlsf.add(0x1000, 0), None);
    assert_eq!(tlsf.add(0x1000, SIZE_END), None);
    assert_eq!(tlsf.check(), Ok(()));
}

#[test]
fn a_slot_is_used_again() {
    let mut tlsf = tlsf();
    assert_eq!(tlsf.add(0x10_0000, 50), Some(1));
    assert!(!tlsf.remove(0), "blocks of it are in use");
    assert!(tlsf.remove(1) && !tlsf.remove(1) && !tlsf.remove(7));
    assert_eq!((tlsf.add(0x20_0000, 60), tlsf.add(0x30_0000, 70)), (Some(1), Some(2)));
    assert_eq!((tlsf.free_granules(), tlsf.check()), (94 + 130, Ok(())));
}
