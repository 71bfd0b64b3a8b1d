//! What a thread that stalls between claim and finish costs: as the modes' documentation says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::mode::Claim;
use super::*;

/// Claims one slot as a producer would who is preempted right after.
fn stalled<P: SharedMode>(core: &Core<u64, P, Multi>) -> Claim {
    let claim = core.claim_free(&mut P::default(), Amount::Bulk(1));
    assert_eq!(claim.count, 1);
    claim
}

/// The stalled thread runs again.
fn resume<P: SharedMode>(core: &Core<u64, P, Multi>, claim: Claim, value: u64) {
    core.nth(claim, 0).with_mut(|slot| {
        #[expect(unsafe_code, reason = "plays a producer step by step")]
        // SAFETY: the slot is claimed by this test's stalled producer alone.
        unsafe {
            (*slot).write(value);
        }
    });
    P::default().finish(core.producers(), claim);
}

fn push<P: SharedMode>(core: &Core<u64, P, Multi>, value: u64) -> bool {
    #[expect(unsafe_code, reason = "the core's own interface")]
    // SAFETY: the source is one value.
    unsafe {
        core.enqueue(&value, Amount::Bulk(1)) == 1
    }
}

fn drain<P: SharedMode>(core: &Core<u64, P, Multi>) -> Vec<u64> {
    let mut out = vec![0; core.capacity()];
    #[expect(unsafe_code, reason = "the core's own interface")]
    // SAFETY: there is room for as many as the ring can hold.
    let got = unsafe { core.dequeue(out.as_mut_ptr(), Amount::Burst(out.len() as u32)) };
    out.truncate(got as usize);
    out
}

/// With one producer stalled, another thread pushes twice: how far it came while the stall
/// lasted, and what the consumers got then and after it.
fn two_pushes_beside_a_stall<P: SharedMode>(
    core: &Core<u64, P, Multi>,
) -> (usize, Vec<u64>, Vec<u64>) {
    assert!(push(core, 1));
    let claim = stalled(core);
    let done = AtomicUsize::new(0);
    let (meanwhile, seen) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in [3, 4] {
                assert!(push(core, value));
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        let meanwhile = done.load(Ordering::Relaxed);
        let seen = drain(core);
        resume(core, claim, 2);
        (meanwhile, seen)
    });
    (meanwhile, seen, drain(core))
}

#[test]
fn multi_others_wait_in_their_first_operation() {
    let core = Core::<u64, Multi, Multi>::starting_at(64, 0).unwrap();
    assert_eq!(two_pushes_beside_a_stall(&core), (0, vec![1], vec![2, 3, 4]));
}

#[test]
fn hts_others_wait_before_they_claim() {
    let core = Core::<u64, Hts, Multi>::starting_at(64, 0).unwrap();
    assert_eq!(two_pushes_beside_a_stall(&core), (0, vec![1], vec![2, 3, 4]));
}

#[test]
fn rts_others_go_on_up_to_the_bound_and_are_seen_after_the_stall() {
    let core = Core::<u64, Rts, Multi>::starting_at(64, 0).unwrap();
    assert!(push(&core, 1));
    let claim = stalled(&core);
    // An eighth of 64 is 8: the distance is 1 before the first, and 8 before the eighth.
    for value in 3..=10 {
        assert!(push(&core, value), "on this very thread, so it didn't wait");
    }
    assert_eq!(drain(&core), [1], "the rest lies behind the stalled claim");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(push(&core, 11));
            done.store(1, Ordering::Relaxed);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(done.load(Ordering::Relaxed), 0, "beyond the bound");
        resume(&core, claim, 2);
    });
    assert_eq!(drain(&core), (2..=11).collect::<Vec<_>>());
}

#[test]
fn rts_the_first_to_finish_may_be_the_last_to_claim() {
    let core = Core::<u64, Rts, Multi>::starting_at(64, u32::MAX).unwrap();
    let claims = [stalled(&core), stalled(&core), stalled(&core)];
    resume(&core, claims[2], 3);
    resume(&core, claims[0], 1);
    assert_eq!((core.len(), drain(&core)), (0, vec![]), "the second is missing");
    resume(&core, claims[1], 2);
    assert_eq!(drain(&core), [1, 2, 3]);
}
