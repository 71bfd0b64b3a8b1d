//! A burst against a queue.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum BurstOp {
    Push,
    PopAndFree,
    AllocBulk(usize),
    Append,
    AppendBack,
    Clear,
    /// Up to so many from a source that ends after so many.
    Fill(usize, usize),
    /// Up to so many to somebody who takes no more than so many.
    TakeFront(usize, usize),
    PushFront,
    PushChain(usize),
    PushForeign,
    Mark,
}

fn burst_ops() -> impl Strategy<Value = Vec<BurstOp>> {
    use BurstOp::*;
    let op = prop_oneof![
        4 => Just(Push),
        4 => Just(PopAndFree),
        3 => (0..50usize).prop_map(AllocBulk),
        2 => Just(Append),
        2 => Just(AppendBack),
        1 => Just(Clear),
        3 => (0..50usize, 0..50usize).prop_map(|(most, source)| Fill(most, source)),
        3 => (0..50usize, 0..50usize).prop_map(|(most, taker)| TakeFront(most, taker)),
        2 => Just(PushFront),
        1 => (2..5usize).prop_map(PushChain),
        2 => Just(PushForeign),
        1 => Just(Mark),
    ];
    proptest::collection::vec(op, 100..400)
}

/// What a burst holds: each frame's mark and segments. Room comes back when it runs empty.
struct BurstModel {
    frames: VecDeque<(u16, usize)>,
    end: usize,
    limit: usize,
}

impl BurstModel {
    fn new(limit: usize) -> Self {
        Self { frames: VecDeque::new(), end: 0, limit: limit.clamp(1, MAX_BURST) }
    }

    fn room(&self) -> usize {
        self.limit - self.end
    }

    fn push(&mut self, frame: (u16, usize)) {
        self.frames.push_back(frame);
        self.end += 1;
    }

    fn pop(&mut self) -> Option<(u16, usize)> {
        let frame = self.frames.pop_front();
        if self.frames.is_empty() {
            self.end = 0;
        }
        frame
    }

    fn append(&mut self, other: &mut Self) {
        while self.room() > 0 {
            let Some(frame) = other.pop() else { return };
            self.push(frame);
        }
    }

    fn check(&self, burst: &Burst) -> Result<(), TestCaseError> {
        prop_assert_eq!(burst.len(), self.frames.len());
        prop_assert_eq!(burst.is_empty(), self.frames.is_empty());
        prop_assert_eq!(burst.room(), self.room());
        let marks: Vec<_> =
            burst.as_slice().iter().map(|frame| (frame.port(), frame.segment_count())).collect();
        prop_assert_eq!(marks, self.frames.iter().copied().collect::<Vec<_>>());
        Ok(())
    }

    fn segments(&self) -> usize {
        self.frames.iter().map(|(_, segments)| segments).sum()
    }
}

proptest! {
    #[test]
    fn bursts_behave_as_queues(limit in 0..140usize, other_limit in 1..40usize, ops in burst_ops()) {
        let memory = memory();
        let pool = pool_in(&memory, "own", 200);
        let foreign = pool_in(&memory, "foreign", 200);
        let (mut burst, mut model) = (Burst::with_limit(limit), BurstModel::new(limit));
        let (mut other, mut other_model) =
            (Burst::with_limit(other_limit), BurstModel::new(other_limit));
        let mut mark = 0;
        for op in ops {
            let free = pool.objects().available();
            match op {
                BurstOp::Push | BurstOp::PushForeign | BurstOp::PushChain(_) => {
                    let from = if matches!(op, BurstOp::PushForeign) { &foreign } else { &pool };
                    let segments = if let BurstOp::PushChain(count) = op { count } else { 1 };
                    let Some(mut frame) = from.alloc() else { continue };
                    let mut complete = true;
                    for _ in 1..segments {
                        match from.alloc() {
                            Some(tail) => prop_assert!(frame.chain(tail).is_ok()),
                            None => complete = false,
                        }
                    }
                    if !complete {
                        continue;
                    }
                    mark += 1;
                    frame.set_port(mark);
                    let room = model.room();
                    match burst.push(frame) {
                        Ok(()) => {
                            prop_assert!(room > 0);
                            model.push((mark, segments));
                        }
                        Err(frame) => {
                            prop_assert_eq!(room, 0);
                            prop_assert_eq!(frame.port(), mark);
                        }
                    }
                }
                BurstOp::PopAndFree => {
                    let popped = burst.pop_front().map(|frame| (frame.port(), frame.segment_count()));
                    prop_assert_eq!(popped, model.pop());
                }
                BurstOp::AllocBulk(count) => {
                    let fits = count <= model.room() && count <= free;
                    prop_assert_eq!(pool.alloc_bulk(&mut burst, count), fits);
                    for _ in 0..if fits { count } else { 0 } {
                        model.push((u16::MAX, 1));
                    }
                }
                BurstOp::Fill(most, source) => {
                    let mut given = Vec::new();
                    let filled = burst.fill(most, || {
                        if given.len() == source {
                            return None;
                        }
                        let mut frame = pool.alloc()?;
                        mark += 1;
                        frame.set_port(mark);
                        given.push(mark);
                        Some(frame)
                    });
                    // What the source gave is in, none of it is lost, and it wasn't asked in vain.
                    prop_assert_eq!(filled, most.min(source).min(model.room()).min(free));
                    prop_assert_eq!(given.len(), filled);
                    given.into_iter().for_each(|mark| model.push((mark, 1)));
                }
                BurstOp::TakeFront(most, taker) => {
                    let mut taken = Vec::new();
                    let count = burst.take_front(most, |frame| {
                        if taken.len() == taker {
                            return Err(frame);
                        }
                        taken.push((frame.port(), frame.segment_count()));
                        Ok(())
                    });
                    prop_assert_eq!(count, taken.len());
                    prop_assert_eq!(count, most.min(taker).min(model.frames.len()));
                    for frame in taken {
                        prop_assert_eq!(Some(frame), model.pop());
                    }
                }
                BurstOp::PushFront => {
                    let (popped, expected) = (burst.pop_front(), model.frames.front().copied());
                    let popped_all = burst.is_empty();
                    if let Some(frame) = popped {
                        prop_assert_eq!(Some((frame.port(), frame.segment_count())), expected);
                        prop_assert!(burst.push_front(frame).is_ok());
                        // An empty one begins anew.
                        if popped_all {
                            model.end = 1;
                        }
                    }
                }
                BurstOp::Append => {
                    other.append(&mut burst);
                    other_model.append(&mut model);
                }
                BurstOp::AppendBack => {
                    burst.append(&mut other);
                    model.append(&mut other_model);
                }
                BurstOp::Clear => {
                    burst.clear();
                    (model.frames, model.end) = (VecDeque::new(), 0);
                }
                BurstOp::Mark => {
                    for frame in burst.iter_mut() {
                        frame.set_port(7);
                    }
                    model.frames.iter_mut().for_each(|frame| frame.0 = 7);
                }
            }
            model.check(&burst)?;
            other_model.check(&other)?;
            let out = pool.objects().in_use() + foreign.objects().in_use();
            prop_assert_eq!(out, model.segments() + other_model.segments());
        }
        drop((burst, other));
        prop_assert_eq!((pool.objects().in_use(), foreign.objects().in_use()), (0, 0));
    }
}
