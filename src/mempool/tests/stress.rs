//! More threads than cores, on every backend.

use std::time::{Duration, Instant};

use super::*;

fn stress(length: Duration) {
    for backend in [Backend::Ring, Backend::RtsRing, Backend::HtsRing, Backend::Stack] {
        let memory = memory();
        let config = MempoolConfig { backend, cookies: true, ..config("stressed", 500, 64, 32) };
        let pool = Mempool::new(&memory, &config, |_, _, _| ()).unwrap();
        let end = Instant::now() + length / 4;
        let rounds: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (73..79)
                .map(Some)
                .chain([None, None])
                .enumerate()
                .map(|(mark, id)| {
                    let pool = &pool;
                    scope.spawn(move || on(id, || until(end, pool, mark as u64)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(pool.in_use(), 0);
        pool.audit().unwrap();
        println!("stress: mempool, {backend:?}: 8 threads, {rounds} rounds; {}", pool.stats());
        assert_eq!(pool.stats().faults, 0);
    }
}

fn until(end: Instant, pool: &Mempool, mark: u64) -> u64 {
    let (mut round, mut held) = (0_u64, Vec::new());
    while Instant::now() < end {
        for object in take(pool, (round * 7 % 23) as usize).into_iter().flatten() {
            // SAFETY: the object is ours; 8 bytes of its 64.
            unsafe { object.0.cast::<u64>().write(mark) };
            held.push(object);
        }
        let keep = held.len().min((round * 5 % 31) as usize);
        let back = held.split_off(keep);
        for object in &back {
            // SAFETY: ours still, and written above.
            assert_eq!(unsafe { object.0.cast::<u64>().read() }, mark, "two threads had one");
        }
        give(pool, &back);
        round += 1;
    }
    give(pool, &held);
    round
}

#[test]
fn threads_and_lcores_share_every_backend() {
    stress(Duration::from_millis(if cfg!(debug_assertions) { 800 } else { 2000 }));
}

/// As long as `PACKETBOAT_STRESS_SECONDS` says.
#[test]
#[ignore = "takes as long as PACKETBOAT_STRESS_SECONDS says (600 unless it does)"]
fn stress_for_long() {
    let seconds =
        std::env::var("PACKETBOAT_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    stress(Duration::from_secs(seconds.unwrap_or(600)));
}
