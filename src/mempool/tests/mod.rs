//! The mempool against a model that counts, and under real threads.
//!
//! A thread may become one lcore after the other by claiming and dropping their ids, so most
//! tests play several lcores on one thread. An id that another test has is waited for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![expect(unsafe_code, reason = "returns the objects it took")]

mod cookies;
mod model;
mod stress;
mod typed;

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::*;
use crate::memory::{Memory, MemoryConfig};
use crate::ring::MAX_CAPACITY;
use crate::sys::lcore_id::LcoreClaim;

const OBJECT_LEN_BYTES: usize = 192;

fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(4)).unwrap()
}

fn pool(memory: &Arc<Memory>, count: usize, cache_size: usize) -> Mempool {
    Mempool::new(memory, &config("objects", count, OBJECT_LEN_BYTES, cache_size), |_, _, _| ())
        .unwrap()
}

fn config(name: &str, count: usize, element_len_bytes: usize, cache_size: usize) -> MempoolConfig {
    MempoolConfig { cache_size, ..MempoolConfig::new(name, count, element_len_bytes) }
}

/// Runs `work` as lcore `id`, or as a thread that is none.
fn on<R>(id: Option<u32>, work: impl FnOnce() -> R) -> R {
    let _claim = id.map(LcoreClaim::claim_when_free);
    work()
}

fn take(pool: &Mempool, count: usize) -> Option<Vec<Object>> {
    let mut out = vec![MaybeUninit::uninit(); count];
    pool.get_bulk(&mut out).then(|| {
        // SAFETY: filled, as the pool said so.
        out.into_iter().map(|object| unsafe { object.assume_init() }).collect()
    })
}

fn give(pool: &Mempool, objects: &[Object]) {
    // SAFETY: tests give back what they took, once.
    unsafe { pool.put_bulk(objects) };
}

// ---- one property each ----------------------------------------------------------------------

/// Objects are handed out where they stand in the cache while the same pool takes and gives others.
#[test]
fn a_cache_that_hands_out_its_objects_is_left_alone_meanwhile() {
    let memory = memory();
    let config = MempoolConfig { cookies: false, ..config("in place", 100, OBJECT_LEN_BYTES, 16) };
    let pool = Mempool::new(&memory, &config, |_, _, _| ()).unwrap();
    assert!(!pool.take_each(1, |_| panic!("this thread has no cache")));
    on(Some(60), || {
        let mut all = HashSet::new();
        let mut others = Vec::new();
        let mut hand_out = |count| {
            pool.take_each(count, |object| {
                assert!(all.insert(object.0), "handed out twice");
                assert!(!pool.take_each(1, |_| panic!("within another")));
                // One more each time, and every other time one of those goes back.
                let more = take(&pool, 1).unwrap();
                assert!(!all.contains(&more[0].0) && !others.contains(&more[0]));
                others.extend(more);
                if others.len().is_multiple_of(2) {
                    give(&pool, &others.split_off(others.len() - 1));
                }
            })
        };
        assert!(hand_out(3), "refilled from the free list");
        assert!(hand_out(5) && hand_out(8) && hand_out(0));
        assert!(!hand_out(9), "more than half a cache isn't fetched");
        let out = all.len() + others.len();
        assert_eq!((all.len(), pool.in_use()), (16, out));
        assert!(pool.stats().cache_hits >= 4);
        // Who panics keeps what it was handed; the rest is in the cache still.
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut left = 2;
            pool.take_each(4, |object| {
                assert!(all.insert(object.0));
                left -= 1;
                assert!(left > 0, "enough");
            })
        }));
        assert!(unwound.is_err());
        assert_eq!((all.len(), pool.in_use()), (18, out + 2));
        for object in all.drain() {
            give(&pool, &[Object(object)]);
        }
        give(&pool, &others);
        assert_eq!(pool.in_use(), 0);
        pool.audit().unwrap();
    });
}

#[test]
fn every_object_is_had_once_and_lies_in_the_zone() {
    let memory = memory();
    let mut initialised = Vec::new();
    let note = |_, object: Object, iova: crate::memory::Iova| initialised.push((object.0, iova));
    let plain = MempoolConfig { cookies: false, ..config("all", 100, 64, 8) };
    let pool = Mempool::new(&memory, &plain, note).unwrap();
    let zone = memory.lookup("all").unwrap();
    let objects = take(&pool, 100).unwrap();
    let mut places: Vec<_> = objects.iter().map(|object| object.0.addr().get() as u64).collect();
    places.sort_unstable();
    let expected: Vec<_> = (0..100).map(|nth| zone.va + 64 * nth).collect();
    assert_eq!(places, expected);
    let mut noted: Vec<_> =
        initialised.iter().map(|(place, _)| place.addr().get() as u64).collect();
    noted.sort_unstable();
    assert_eq!(noted, expected, "each object is initialised once");
    for (place, iova) in initialised {
        assert_eq!(iova.0, place.addr().get() as u64, "IOVA mode va");
    }
    give(&pool, &objects);
}

#[test]
fn an_exhausted_pool_gives_nothing_and_recovers() {
    let memory = memory();
    for cache_size in [0, 1, 2, 6] {
        let pool = pool(&memory, 10, cache_size);
        on(Some(63), || {
            let mut held: Vec<_> = (0..10).flat_map(|_| take(&pool, 1).unwrap()).collect();
            assert_eq!((pool.available(), pool.in_use()), (0, 10));
            assert!(take(&pool, 1).is_none());
            assert!(take(&pool, 0).is_some());
            give(&pool, &held.split_off(7));
            assert!(take(&pool, 4).is_none(), "all or nothing");
            assert_eq!(pool.available(), 3);
            let again = take(&pool, 3).unwrap();
            assert_eq!(pool.available(), 0);
            give(&pool, &again);
            give(&pool, &held);
        });
        assert_eq!(pool.available(), 10);
        drop(pool);
    }
}

/// Free objects in another lcore's cache aren't to be had, and are counted all the same.
#[test]
fn what_others_have_cached_is_available_but_out_of_reach() {
    let memory = memory();
    let pool = pool(&memory, 12, 8);
    let first = on(Some(64), || take(&pool, 1).unwrap()); // refills 4, keeps 3
    assert_eq!((pool.available(), pool.shared_len()), (11, 8));
    assert!(on(Some(65), || take(&pool, 9)).is_none());
    let rest = on(Some(65), || take(&pool, 8).unwrap());
    assert_eq!((pool.available(), pool.shared_len()), (3, 0));
    assert!(take(&pool, 1).is_none());
    // A claim that moves to another thread finds the cache as it was left.
    std::thread::scope(|scope| {
        let again = scope.spawn(|| on(Some(64), || take(&pool, 3).unwrap())).join().unwrap();
        give(&pool, &again);
    });
    give(&pool, &first);
    give(&pool, &rest);
    assert_eq!(pool.in_use(), 0);
}

/// The reason for flushing and refilling half: one core that only allocates and one that only
/// frees each meet the shared ring once per half a cache.
#[test]
fn one_sided_cores_touch_the_ring_once_per_half_cache() {
    const CACHE: usize = 32;
    const OBJECTS: usize = 512;
    let memory = memory();
    let pool = pool(&memory, OBJECTS, CACHE);
    let mut touched = (0, 0);
    for _ in 0..OBJECTS / 4 {
        let before = pool.shared_len();
        let objects = on(Some(66), || take(&pool, 2).unwrap());
        let between = pool.shared_len();
        on(Some(67), || give(&pool, &objects));
        let after = pool.shared_len();
        touched.0 += usize::from(before != between);
        touched.1 += usize::from(between != after);
        assert!(between == before || before - between == CACHE / 2);
        assert!(after == between || after - between == CACHE / 2);
    }
    let moved = OBJECTS / 2;
    assert_eq!(touched.0, moved / (CACHE / 2));
    // The freeing core's cache first fills up to its whole.
    assert_eq!(touched.1, (moved - CACHE) / (CACHE / 2));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let memory = memory();
    let free = memory.free_len_bytes();
    let make =
        |count, len, cache| Mempool::new(&memory, &config("x", count, len, cache), |_, _, _| ());
    for count in [0, MAX_CAPACITY + 1, usize::MAX] {
        assert!(matches!(make(count, 64, 0), Err(MempoolError::Count { .. })), "{count}");
    }
    for (count, cache, limit) in [(1, 1, 0), (2, 2, 1), (9, 7, 6), (5_000, 513, 512)] {
        match make(count, 64, cache) {
            Err(MempoolError::CacheSize { most, cache_size, .. }) => {
                assert_eq!((most, cache_size), (limit, cache));
            }
            other => panic!("{other:?}"),
        }
        assert!(make(count, 64, limit).is_ok());
    }
    for len in [0, usize::MAX - 63, usize::MAX] {
        assert!(matches!(make(3, len, 0), Err(MempoolError::ObjectLen { .. })), "{len}");
    }
    let short = make(1_000_000, 64, 0);
    assert!(matches!(short, Err(MempoolError::Memory { .. })));
    assert_eq!(memory.free_len_bytes(), free, "a failure leaves nothing behind");
}

#[test]
fn the_zone_goes_with_the_pool_unless_objects_are_out() {
    let memory = memory();
    let free = memory.free_len_bytes();
    let complete = pool(&memory, 10, 2);
    assert!(memory.lookup("objects").is_some());
    let objects = take(&complete, 3).unwrap();
    give(&complete, &objects);
    drop(complete);
    assert_eq!(memory.free_len_bytes(), free);
    let robbed = pool(&memory, 10, 2);
    let _out = take(&robbed, 1).unwrap();
    drop(robbed);
    assert!(memory.lookup("objects").is_some(), "somebody still has an object");
}

#[test]
fn lcores_and_other_threads_share_without_loss() {
    const ROUNDS: u32 = 20_000;
    let memory = memory();
    let pool = pool(&memory, 60, 16);
    std::thread::scope(|scope| {
        for (mark, id) in [(1_u64, Some(68)), (2, Some(69)), (3, None)] {
            let pool = &pool;
            scope.spawn(move || {
                on(id, || {
                    let mut held: Vec<Object> = Vec::new();
                    for round in 0..ROUNDS {
                        let count = (round as usize * 7 + mark as usize) % 11;
                        if let Some(objects) = take(pool, count) {
                            for object in objects {
                                // SAFETY: the object is ours; 8 bytes of its 192.
                                unsafe { object.0.cast::<u64>().write(mark) };
                                held.push(object);
                            }
                        }
                        let keep = held.len().min(round as usize % 13);
                        let back = held.split_off(keep);
                        for object in &back {
                            // SAFETY: ours still, and written above.
                            assert_eq!(unsafe { object.0.cast::<u64>().read() }, mark);
                        }
                        give(pool, &back);
                        if round % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                    give(pool, &held);
                });
            });
        }
    });
    assert_eq!((pool.available(), pool.in_use()), (60, 0));
    assert_eq!(take_all_one_by_one(&pool, [68, 69]).len(), 60);
}

/// Empties the pool, the caches of `ids` included, and gives all back.
fn take_all_one_by_one(pool: &Mempool, ids: [u32; 2]) -> HashSet<std::ptr::NonNull<u8>> {
    let mut all = Vec::new();
    for id in ids.map(Some).into_iter().chain([None]) {
        on(id, || all.extend(std::iter::from_fn(|| take(pool, 1)).flatten()));
    }
    give(pool, &all);
    all.iter().map(|object| object.0).collect()
}
