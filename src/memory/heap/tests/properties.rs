//! Random steps on heaps, against the model.

use super::model::{Model, Step};
use super::plain::Plain;
use super::*;
use crate::sys::lcore_id::LcoreClaim;
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![6 => 1_usize..300, 3 => 1_usize..9000, 1 => 0_usize..200_000];
    let align = || prop_oneof![4 => Just(1_usize), 2 => (0_u32..15).prop_map(|shift| 1 << shift)];
    let node = || proptest::option::weighted(0.4, 0_u32..3);
    let alloc = (len(), align(), node(), any::<bool>(), any::<u8>()).prop_map(
        |(len_bytes, align, node, zeroed, tag)| Step::Alloc { len_bytes, align, node, zeroed, tag },
    );
    let realloc = (any::<usize>(), len(), align())
        .prop_map(|(index, len_bytes, align)| Step::Realloc { index, len_bytes, align });
    prop_oneof![
        12 => alloc,
        8 => any::<usize>().prop_map(Step::Free),
        4 => realloc,
        1 => Just(Step::Trim),
        2 => Just(Step::Check),
    ]
}

fn heap(guarded: bool) -> Arc<Heap> {
    let source = Plain::new(&[Some(0), Some(1)], 192 << 10);
    let config = HeapConfig::new("properties", 320 << 10).step_bytes(32 << 10).guarded(guarded);
    Heap::with_source(Box::new(source), config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_heap_behaves_like_the_model(
        guarded in any::<bool>(),
        as_lcore in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        // With a cache, if it isn't guarded.
        let _lcore = as_lcore.then(|| LcoreClaim::claim_when_free(80));
        let mut model = Model::new(heap(guarded));
        for step in steps {
            model.apply(step);
            model.check();
        }
        model.finish();
    }
}

/// A generator of numbers that need only be spread (Steele, Lea, Flood: "Fast Splittable
/// Pseudorandom Number Generators", OOPSLA 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Mostly short, with a few that are long.
    fn len(&mut self) -> usize {
        let most = [200, 200, 600, 5000, 70_000][self.below(5)];
        1 + self.below(most)
    }

    fn align(&mut self) -> usize {
        1 << if self.below(4) == 0 { self.below(14) } else { 0 }
    }
}

/// One million steps in release builds, on zones of real memory that fills up and empties again
/// many times. Every count is compared every 64 steps, every block walked every 4096. Two lcores,
/// with caches unless the heap is guarded, and a thread that is none take turns every 512.
fn long_run(guarded: bool, steps: u64, lcores: [u32; 2]) {
    let memory = Memory::reserve(&MemoryConfig::no_huge(8)).unwrap();
    let config = HeapConfig::new("long", 4 << 20).step_bytes(512 << 10).guarded(guarded);
    let mut model = Model::new(Heap::new(&memory, config).unwrap());
    let seed = 0x7061_636b_6574 + u64::from(guarded);
    let mut random = SplitMix(seed);
    // A line of its own: the harness doesn't end its own line before a test's output.
    println!("\nmodel: heap, guarded {guarded}: {steps} steps, seed {seed:#x}");
    let mut run = |number: u64, model: &mut Model| {
        // Long phases of more allocating than freeing, and the other way round.
        let growing = (number / 6000).is_multiple_of(2);
        let step = match random.below(100) {
            0..8 => Step::Realloc {
                index: random.below(usize::MAX),
                len_bytes: random.len(),
                align: random.align(),
            },
            8 if random.below(20) == 0 => Step::Trim,
            pick if (pick < 58) == growing => Step::Alloc {
                len_bytes: random.len(),
                align: random.align(),
                node: None,
                zeroed: random.below(16) == 0,
                tag: random.below(4) as u8,
            },
            _ => Step::Free(random.below(usize::MAX)),
        };
        model.apply(step);
        if number.is_multiple_of(64) {
            model.check_counts();
        }
        if number.is_multiple_of(4096) {
            model.check();
        }
    };
    let mut cached_bytes = 0;
    for first in (0..steps).step_by(512) {
        let lcore = lcores.get((first / 512 % 3) as usize).copied();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _lcore = lcore.map(LcoreClaim::claim_when_free);
                (first..steps.min(first + 512)).for_each(|number| run(number, &mut model));
            });
        });
        cached_bytes = cached_bytes.max(model.heap.stats().cached_bytes);
    }
    assert_eq!(cached_bytes > 0, !guarded, "what caches had at most: {cached_bytes}");
    let stats = model.heap.stats();
    let (live, refused) = (stats.live_blocks, model.refused);
    println!("{live} blocks at the end, {refused} requests refused, {stats:?}");
    assert!(refused > 0, "the heap was never full");
    assert!(stats.given_back > 0, "the heap never shrank");
    model.finish();
    assert_eq!(memory.free_len_bytes(), memory.len_bytes());
}

#[test]
#[cfg_attr(miri, ignore = "memory without a name, and far too many steps")]
fn a_long_run_behaves_like_the_model() {
    long_run(false, if cfg!(debug_assertions) { 40_000 } else { 1_000_000 }, [81, 82]);
}

#[test]
#[cfg_attr(miri, ignore = "memory without a name, and far too many steps")]
fn a_long_run_of_a_guarded_heap_behaves_like_the_model() {
    long_run(true, if cfg!(debug_assertions) { 20_000 } else { 200_000 }, [83, 84]);
}
