//! Random steps on pools, against a model that counts.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Take(usize),
    /// Objects to give back, and whether those taken first.
    Give(usize, bool),
}

#[derive(Debug, Clone)]
struct Step {
    /// 0 to 2: that lcore; 3: a thread that is none.
    actor: usize,
    op: Op,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![
        (0..40usize).prop_map(Op::Take),
        (0..4usize).prop_map(Op::Take),
        (0..40usize, any::<bool>()).prop_map(|(count, oldest)| Op::Give(count, oldest)),
        (0..4usize, any::<bool>()).prop_map(|(count, oldest)| Op::Give(count, oldest)),
    ];
    proptest::collection::vec((0..4usize, op).prop_map(|(actor, op)| Step { actor, op }), 100..500)
}

/// Where the free objects are, in numbers.
struct Model {
    cache_size: usize,
    cached: [usize; 3],
    shared: usize,
}

impl Model {
    /// Whether `count` objects can be had; moves the numbers if so.
    fn take(&mut self, actor: usize, count: usize) -> bool {
        let mut none = 0;
        let (cached, half) = match self.cached.get_mut(actor) {
            Some(cached) if self.cache_size > 0 => (cached, self.cache_size / 2),
            _ => (&mut none, 0),
        };
        if count <= *cached {
            *cached -= count;
        } else if count <= half && self.shared >= half {
            self.shared -= half;
            *cached += half - count;
        } else if count > half && self.shared >= count {
            self.shared -= count;
        } else if self.shared + *cached >= count {
            self.shared -= count - *cached;
            *cached = 0;
        } else {
            return false;
        }
        true
    }

    fn give(&mut self, actor: usize, count: usize) {
        let half = self.cache_size / 2;
        match self.cached.get_mut(actor) {
            Some(cached) if *cached + count <= self.cache_size => *cached += count,
            Some(cached) if count <= half => {
                *cached = *cached - half + count;
                self.shared += half;
            }
            _ => self.shared += count,
        }
    }

    fn available(&self) -> usize {
        self.shared + self.cached.iter().sum::<usize>()
    }
}

/// A pool beside its model.
struct Pair {
    pool: Mempool,
    model: Model,
    held: Vec<Object>,
    out: HashSet<std::ptr::NonNull<u8>>,
    /// Of the actors: tests run side by side.
    ids: [Option<u32>; 4],
}

impl Pair {
    fn new(config: &MempoolConfig, first_id: u32) -> Self {
        let ids = [Some(first_id), Some(first_id + 1), Some(first_id + 2), None];
        let memory = memory();
        let pool = Mempool::new(&memory, config, |_, _, _| ()).unwrap();
        let MempoolConfig { count, cache_size, .. } = *config;
        let model = Model { cache_size, cached: [0; 3], shared: count };
        Self { pool, model, held: Vec::new(), out: HashSet::new(), ids }
    }

    fn apply(&mut self, Step { actor, op }: Step) {
        match op {
            Op::Take(wanted) => {
                let got = on(self.ids[actor], || take(&self.pool, wanted));
                assert_eq!(got.is_some(), self.model.take(actor, wanted));
                for object in got.into_iter().flatten() {
                    assert!(self.out.insert(object.0), "handed out twice");
                    self.held.push(object);
                }
            }
            Op::Give(wanted, oldest) => {
                let wanted = wanted.min(self.held.len());
                let back: Vec<_> = if oldest {
                    self.held.drain(..wanted).collect()
                } else {
                    self.held.split_off(self.held.len() - wanted)
                };
                for object in &back {
                    self.out.remove(&object.0);
                }
                on(self.ids[actor], || give(&self.pool, &back));
                self.model.give(actor, wanted);
            }
        }
        assert_eq!(self.pool.available(), self.model.available());
        assert_eq!(self.pool.in_use(), self.held.len());
        assert_eq!(self.pool.shared_len(), self.model.shared);
    }

    fn finish(self) {
        self.pool.audit().unwrap();
        give(&self.pool, &self.held);
        assert_eq!(self.pool.in_use(), 0);
        let stats = self.pool.stats();
        assert_eq!((stats.available, stats.faults), (stats.count, 0));
    }
}

fn backends() -> impl Strategy<Value = Backend> {
    use Backend::*;
    prop_oneof![Just(Ring), Just(RtsRing), Just(HtsRing), Just(Stack)]
}

proptest! {
    #[test]
    fn behaves_as_the_counting_model(
        count in 1..120usize,
        cache_share in 0..=100usize,
        backend in backends(),
        cookies in any::<bool>(),
        steps in steps(),
    ) {
        let most = (count * 2 / 3).min(MAX_CACHE_SIZE);
        let config = config("objects", count, OBJECT_LEN_BYTES, most * cache_share / 100);
        let mut pair = Pair::new(&MempoolConfig { backend, cookies, ..config }, 60);
        for step in steps {
            pair.apply(step);
        }
        pair.finish();
    }
}

/// Numbers from a seed: xorshift, as good as any here.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// A million steps in release builds.
#[test]
fn a_long_run_behaves_as_the_counting_model() {
    let each = if cfg!(debug_assertions) { 5_000 } else { 125_000 };
    let mut steps = 0;
    for (seed, backend) in
        [Backend::Ring, Backend::RtsRing, Backend::HtsRing, Backend::Stack].into_iter().enumerate()
    {
        for cookies in [false, true] {
            let config = config("objects", 100, OBJECT_LEN_BYTES, 24);
            let mut pair = Pair::new(&MempoolConfig { backend, cookies, ..config }, 56);
            let mut numbers = Numbers(seed as u64 + 1);
            for _ in 0..each {
                let (actor, count) = (numbers.below(4), numbers.below(40));
                let op = match numbers.below(2) {
                    0 => Op::Take(count),
                    _ => Op::Give(count, numbers.below(2) == 0),
                };
                pair.apply(Step { actor, op });
                steps += 1;
            }
            pair.finish();
        }
    }
    println!("\nmodel: mempool: {steps} steps");
}
