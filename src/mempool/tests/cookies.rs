//! What cookies find, and what audits say.

use super::*;

fn checked(memory: &Arc<Memory>, cache_size: usize) -> Mempool {
    let config = MempoolConfig { cookies: true, ..config("checked", 10, 100, cache_size) };
    Mempool::new(memory, &config, |_, _, _| ()).unwrap()
}

#[test]
fn an_object_put_back_twice_is_put_back_once() {
    let memory = memory();
    for cache_size in [0, 4] {
        let pool = checked(&memory, cache_size);
        on(Some(70), || {
            let objects = take(&pool, 3).unwrap();
            give(&pool, &objects);
            give(&pool, &objects[1..2]);
            assert_eq!((pool.available(), pool.stats().faults), (10, 1));
            // In the middle of good ones.
            let again = take(&pool, 3).unwrap();
            give(&pool, &[again[0], again[0], again[1], again[2]]);
            assert_eq!((pool.available(), pool.stats().faults), (10, 2));
        });
        pool.audit().unwrap();
    }
}

#[test]
fn an_overrun_is_named_and_its_object_stays_of_use() {
    let memory = memory();
    let pool = checked(&memory, 0);
    let objects = take(&pool, 2).unwrap();
    let number = pool.number_of(objects[1].0).unwrap();
    let beyond = pool.layout().element_bytes + pool.layout().padding_bytes;
    // SAFETY: the trailer of an object that we have: memory of the pool.
    unsafe { objects[1].0.as_ptr().add(beyond + 3).write(1) };
    let error = pool.audit().unwrap_err();
    assert!(
        matches!(&error, AuditError::Object { number: named, fault: Fault::Overrun(_), .. } if *named == number)
    );
    let text = error.to_string();
    assert!(text.contains(&format!("\"checked\": object {number} at 0x")), "{text}");
    give(&pool, &objects);
    assert_eq!((pool.stats().faults, pool.available()), (1, 10));
    pool.audit().unwrap();
}

#[test]
fn a_write_before_an_element_keeps_it_out_of_use() {
    let memory = memory();
    let pool = checked(&memory, 0);
    let objects = take(&pool, 2).unwrap();
    // SAFETY: the header of an object that we have: memory of the pool.
    unsafe { objects[0].0.cast::<u64>().sub(1).write(7) };
    assert!(matches!(pool.audit(), Err(AuditError::Object { fault: Fault::Underrun(7), .. })));
    give(&pool, &objects);
    assert_eq!((pool.stats().faults, pool.available()), (1, 9));
}

#[test]
fn what_is_no_object_is_refused() {
    let memory = memory();
    let (pool, other) = (checked(&memory, 0), super::pool(&memory, 4, 0));
    let objects = take(&pool, 1).unwrap();
    let foreign = take(&other, 1).unwrap();
    give(&pool, &foreign);
    // SAFETY: an address within an object that we have.
    give(&pool, &[Object(unsafe { objects[0].0.add(64) })]);
    assert_eq!((pool.stats().faults, pool.available()), (2, 9));
    give(&pool, &objects);
    give(&other, &foreign);
    pool.audit().unwrap();
}

#[test]
fn an_audit_counts() {
    let memory = memory();
    let pool = checked(&memory, 4);
    let objects = on(Some(71), || take(&pool, 3).unwrap());
    let report = pool.audit().unwrap();
    assert_eq!(report, AuditReport { count: 10, available: 7, marked_free: Some(7) });
    on(Some(71), || give(&pool, &objects));
    let plain = MempoolConfig { cookies: false, ..config("plain", 10, 100, 4) };
    let plain = Mempool::new(&memory, &plain, |_, _, _| ()).unwrap();
    assert_eq!(plain.audit().unwrap().marked_free, None);
}
