//! Zones against a simple model: a list of what is lent out.

use super::*;
use proptest::prelude::*;
use std::ops::Range;

#[derive(Clone, Debug)]
enum Step {
    Take {
        len: usize,
        align_shift: u32,
        node: Option<u32>,
        contiguous: bool,
    },
    /// Drops one of the zones there are; the number is taken modulo their count.
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![1_usize..200, 1_usize..9000, 4000_usize..70_000];
    let node = proptest::option::weighted(0.5, 0_u32..2);
    let take =
        (len, 0_u32..15, node, any::<bool>()).prop_map(|(len, align_shift, node, contiguous)| {
            Step::Take { len, align_shift, node, contiguous }
        });
    prop_oneof![3 => take, 2 => any::<usize>().prop_map(Step::Drop)]
}

/// What the model knows: zones lent out, each with the byte that it was filled with.
struct Model {
    memory: Arc<Memory>,
    zones: Vec<(Zone, u8)>,
}

impl Model {
    fn used(&self) -> Vec<Range<u64>> {
        let range = |zone: &Zone| {
            zone.info().va..zone.info().va + zone.len_bytes().next_multiple_of(64) as u64
        };
        let mut used: Vec<_> = self.zones.iter().map(|(zone, _)| range(zone)).collect();
        used.sort_by_key(|range| range.start);
        used
    }

    /// Whether there is room, found by trying every cache line.
    fn has_room(&self, request: &ZoneRequest) -> bool {
        let used = self.used();
        let len = request.len_bytes.next_multiple_of(64) as u64;
        let align = request.align.max(64) as u64;
        let segments = self.memory.segments().iter();
        let mut matching =
            segments.filter(|segment| request.node.is_none() || request.node == segment.node());
        matching.any(|segment| {
            let end = segment.va() + segment.len_bytes() as u64;
            let mut starts = (segment.va()..end).step_by(64).filter(|va| va % align == 0);
            starts.any(|start| {
                let wanted = start..start + len;
                let crosses = |run: &IovaRun| {
                    let run_end = run.va + run.len_bytes;
                    (run.va..run_end).contains(&wanted.start) && wanted.end > run_end
                };
                let torn = request.iova_contiguous && segment.iova_runs().iter().any(crosses);
                let overlaps = used.iter().any(|u| u.start < wanted.end && wanted.start < u.end);
                wanted.end <= end && !torn && !overlaps
            })
        })
    }

    fn take(&mut self, request: &ZoneRequest, mark: u8) {
        let room = self.has_room(request);
        let used = self.used();
        let mut zone = match self.memory.zone(request) {
            Ok(zone) => zone,
            Err(error) => {
                let full = matches!(
                    error,
                    MemoryError::ZoneExhausted { .. } | MemoryError::ZoneLen { .. }
                );
                assert!(full && !room, "{error}, although there is room for {request:?}");
                return;
            }
        };
        assert!(room, "{request:?} got {zone:?}, where the model has no room");
        let (va, len) = (zone.info().va, zone.len_bytes() as u64);
        assert_eq!(len as usize, request.len_bytes);
        assert_eq!(va % request.align as u64, 0);
        assert_eq!(va % 64, 0);
        assert!(used.iter().all(|u| va + len <= u.start || va >= u.end), "{zone:?} overlaps");
        assert!(request.node.is_none() || zone.node() == request.node);
        let mut segments = self.memory.segments().iter();
        let inside = segments
            .find(|s| va >= s.va() && va + len <= s.va() + s.len_bytes() as u64)
            .expect("within one segment");
        assert_eq!(inside.node(), zone.node());

        let runs = zone.iova_runs();
        assert_eq!(runs.iter().map(|run| run.len_bytes).sum::<u64>(), len);
        assert!(!request.iova_contiguous || runs.len() == 1, "{runs:?}");
        for run in &runs {
            assert_eq!(zone.iova_at((run.va - va) as usize), Some(run.iova));
        }
        assert!(bytes_of(&zone).iter().all(|byte| *byte == 0), "{zone:?} isn't zero");
        fill(&mut zone, mark);
        self.zones.push((zone, mark));
    }

    /// Nobody else wrote into any zone, and the sums agree.
    fn check(&self) {
        for (zone, mark) in &self.zones {
            assert!(bytes_of(zone).iter().all(|byte| byte == mark), "{zone:?} was overwritten");
        }
        let used: u64 = self.used().iter().map(|range| range.end - range.start).sum();
        assert_eq!(self.memory.free_len_bytes(), self.memory.len_bytes() - used);
        assert_eq!(self.memory.zones().len(), self.zones.len());
    }
}

proptest! {
    #[test]
    fn zones_behave_like_the_model(steps in proptest::collection::vec(step(), 1..40)) {
        let segments = vec![segment(Some(0), &[3, 1, 8]), segment(Some(1), &[5, 5])];
        let mut model = Model { memory: memory(segments), zones: Vec::new() };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take { len, align_shift, node, contiguous } => {
                    let request = ZoneRequest {
                        name: format!("zone {number}"),
                        len_bytes: len,
                        align: 1 << align_shift,
                        node,
                        iova_contiguous: contiguous,
                    };
                    model.take(&request, (number + 1) as u8);
                }
                Step::Drop(index) if !model.zones.is_empty() => {
                    let index = index % model.zones.len();
                    model.zones.swap_remove(index);
                }
                Step::Drop(_) => {}
            }
            model.check();
        }
        model.zones.clear();
        let whole = model.memory.segments().iter().map(|s| vec![(0, s.len_bytes())]);
        assert_eq!(model.memory.free_blocks(), whole.collect::<Vec<_>>());
    }
}
