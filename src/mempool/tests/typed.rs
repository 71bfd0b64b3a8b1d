//! Pools of values.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn values_go_from_hand_to_hand() {
    let memory = memory();
    let mut pool =
        ObjectPool::new(&memory, &config("values", 5, 0, 2), |number, _| (number, 0_u32)).unwrap();
    on(Some(72), || {
        for _ in 0..20 {
            let mut one = pool.get().unwrap();
            one.1 += 1;
            let mut more = pool.get_bulk::<3>().unwrap();
            more.iter_mut().for_each(|value| value.1 += 1);
            assert_eq!(pool.as_mempool().in_use(), 4);
            assert!(pool.get_bulk::<2>().is_none());
        }
    });
    let mut numbers: Vec<usize> = pool.iter_mut().unwrap().map(|value| value.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(pool.iter_mut().unwrap().map(|value| value.1).sum::<u32>(), 80);
    pool.close().unwrap();
    assert!(memory.lookup("values").is_none());
}

/// Counts how many of it there are.
struct Counted(&'static AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn values_are_dropped_with_the_pool_and_kept_with_those_that_are_out() {
    // Static: what is kept below stays, and the address sanitizer would call a count of its own leaked.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (memory, count) = (memory(), &COUNT);
    let make = || {
        ObjectPool::new(&memory, &config("values", 7, 0, 0), |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Counted(count)
        })
    };
    let pool = make().unwrap();
    assert!(make().is_err(), "the name is taken");
    assert_eq!(count.load(Ordering::Relaxed), 7, "a pool that isn't makes no values");
    let value = pool.get().unwrap();
    drop(value);
    drop(pool);
    assert_eq!(count.load(Ordering::Relaxed), 0);

    let pool = make().unwrap();
    std::mem::forget(pool.get().unwrap());
    let refused = pool.close().unwrap_err();
    assert_eq!(refused.out, 1);
    let text = refused.to_string();
    assert!(text.contains("\"values\": 1 of 7 objects are still out"), "{text}");
    drop(refused);
    assert_eq!(count.load(Ordering::Relaxed), 7);
    assert!(memory.lookup("values").is_some(), "somebody may still have it");
}

#[test]
fn an_owned_value_keeps_its_pool_on_any_thread() {
    let memory = memory();
    let pool = ObjectPool::new(&memory, &config("owned", 3, 0, 0), |_, _| 0_u64).unwrap();
    let pool = Arc::new(pool);
    let mut value = pool.get_owned().unwrap();
    let weak = Arc::downgrade(&pool);
    drop(pool);
    let value = std::thread::spawn(move || {
        *value += 1;
        value
    });
    assert_eq!(*value.join().unwrap(), 1);
    assert!(weak.upgrade().is_none());
    assert!(memory.lookup("owned").is_none());
}

#[test]
fn a_pool_stands_in_pieces_where_there_is_no_long_one() {
    let memory = memory();
    let request = |name: String| crate::memory::ZoneRequest::new(name, 256 << 10);
    let mut zones: Vec<_> =
        (0..16).map(|nth| memory.zone(&request(format!("z{nth}"))).unwrap()).collect();
    // Every other piece is free: 2 MiB, in pieces of 256 KiB.
    let mut nth = 0;
    zones.retain(|_| {
        nth += 1;
        nth % 2 == 0
    });
    let config = MempoolConfig { cookies: false, ..config("pieces", 1000, 1500, 64) };
    let pool = ObjectPool::new(&memory, &config, |number, _| [number as u64; 187]).unwrap();
    let pieces = pool.as_mempool().chunks();
    assert!(pieces.len() > 4, "{pieces:?}");
    assert_eq!(pieces.iter().map(|piece| piece.count).sum::<usize>(), 1000);
    for (number, address, iova) in pool.as_mempool().addresses() {
        assert_eq!(pool.as_mempool().number_of(address), Some(number));
        assert_eq!(iova.0, address.addr().get() as u64);
    }
    drop(pool);
    assert_eq!(memory.free_len_bytes(), 2 << 20);
    // Not even in pieces: nothing is kept.
    let config = MempoolConfig { count: 3000, ..config };
    assert!(matches!(
        Mempool::new(&memory, &config, |_, _, _| ()),
        Err(MempoolError::Memory { .. })
    ));
    assert_eq!(memory.free_len_bytes(), 2 << 20);
    // The next smaller one is served.
    let config = MempoolConfig { count: 10, cache_size: 0, ..config };
    drop(Mempool::new(&memory, &config, |_, _, _| ()).unwrap());
}

/// Batches from the pool itself and through what an lcore has looked up; threads of all kinds.
#[test]
fn batches_take_and_give_back_from_their_end() {
    let memory = memory();
    for (cache_size, cookies, lcore) in
        [(0, false, Some(73)), (8, false, Some(73)), (8, true, Some(73)), (8, false, None)]
    {
        let config = MempoolConfig { cookies, ..config("batched", 40, 0, cache_size) };
        let pool = ObjectPool::new(&memory, &config, |number, _| (number, 0_u32)).unwrap();
        let objects = pool.as_mempool();
        on(lcore, || {
            let (local, mut places, mut more) = (pool.local(), Places::<32>::new(), Places::new());
            let (mut kept, mut others) = (local.batch(&mut places), pool.batch::<20>(&mut more));
            assert!(kept.is_empty() && kept.take(0) && kept.take(5) && kept.take(25));
            assert!(!kept.take(3), "places for two are left");
            assert!(others.take(10) && !others.take(1), "the pool is empty");
            assert_eq!((kept.len(), others.len(), objects.in_use()), (30, 10, 40));
            let mut numbers: Vec<_> =
                kept.iter().chain(others.iter()).map(|value| value.0).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..40), "each value once");
            others.iter_mut().for_each(|value| value.1 = 1);
            let first = kept.iter().next().unwrap().0;
            assert_eq!((kept.give_back(29), kept.len()), (29, 1));
            assert_eq!(kept.iter().next().unwrap().0, first, "the last ones went back");
            assert_eq!((kept.give_back(5), kept.give_back(5)), (1, 0));
            assert_eq!(objects.in_use(), 10);
            others.clear();
            assert_eq!(objects.in_use(), 0);
            assert!(others.take(20));
        });
        assert_eq!((objects.in_use(), objects.stats().faults), (0, 0));
        objects.audit().unwrap();
    }
}

/// While an lcore's cache is held, nobody else becomes that lcore; nor later, in this process.
#[test]
fn a_local_pool_keeps_its_lcore() {
    let memory = memory();
    let config = MempoolConfig { cookies: false, ..config("kept", 4, 0, 2) };
    let pool = ObjectPool::new(&memory, &config, |_, _| 0_u8).unwrap();
    let claim = LcoreClaim::claim(107).unwrap();
    let local = pool.local();
    drop(claim);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(LcoreClaim::claim(107).is_err()));
    });
    let mut places = Places::<2>::new();
    assert!(local.batch(&mut places).take(2));
    assert_eq!(pool.as_mempool().in_use(), 0);
}
