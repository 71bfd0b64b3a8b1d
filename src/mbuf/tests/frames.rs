//! A frame against vectors of bytes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum FrameOp {
    Alloc,
    Free(usize),
    Prepend(usize, usize),
    Append(usize, usize),
    Adj(usize, usize),
    Trim(usize, usize),
    /// Hangs one frame behind another.
    Chain(usize, usize),
    CopyTo(usize, usize, usize),
    /// Lends a frame and takes it back as it was.
    LendAndBack(usize),
}

fn frame_ops() -> impl Strategy<Value = Vec<FrameOp>> {
    use FrameOp::*;
    let (frame, len) = (0..8usize, 0..230usize);
    let op = prop_oneof![
        4 => Just(Alloc),
        1 => frame.clone().prop_map(Free),
        4 => (frame.clone(), 0..140usize).prop_map(|(f, n)| Prepend(f, n)),
        6 => (frame.clone(), len.clone()).prop_map(|(f, n)| Append(f, n)),
        2 => (frame.clone(), 0..60usize).prop_map(|(f, n)| Adj(f, n)),
        2 => (frame.clone(), 0..60usize).prop_map(|(f, n)| Trim(f, n)),
        3 => (frame.clone(), frame.clone()).prop_map(|(f, g)| Chain(f, g)),
        3 => (frame.clone(), 0..600usize, 0..600usize).prop_map(|(f, o, n)| CopyTo(f, o, n)),
        1 => frame.prop_map(LendAndBack),
    ];
    proptest::collection::vec(op, 100..300)
}

/// What a segment is: its data, and the free bytes in front.
#[derive(Debug, Clone)]
struct Segment {
    headroom: usize,
    data: Vec<u8>,
}

impl Segment {
    fn tailroom(&self) -> usize {
        usize::from(DATA_ROOM_BYTES) - self.headroom - self.data.len()
    }
}

/// A frame and its model.
struct Pair(Mbuf, Vec<Segment>);

impl Pair {
    fn check(&self) -> Result<(), TestCaseError> {
        let Self(frame, segments) = self;
        let whole: Vec<u8> = segments.iter().flat_map(|segment| &segment.data).copied().collect();
        prop_assert_eq!(frame.segment_count(), segments.len());
        prop_assert_eq!(frame.len_bytes(), whole.len());
        prop_assert_eq!(frame.headroom_bytes(), segments[0].headroom);
        prop_assert_eq!(frame.tailroom_bytes(), segments.last().unwrap().tailroom());
        prop_assert_eq!(frame.data(), &segments[0].data[..]);
        let parts: Vec<&[u8]> = frame.segments().collect();
        let expected: Vec<&[u8]> = segments.iter().map(|segment| &segment.data[..]).collect();
        prop_assert_eq!(parts, expected);
        Ok(())
    }
}

proptest! {
    #[test]
    fn frames_behave_as_vectors(ops in frame_ops()) {
        const COUNT: usize = 24;
        let pool = pool(COUNT);
        let mut frames: Vec<Pair> = Vec::new();
        let mut next = 0u8;
        let mut fill = |target: &mut [u8]| {
            for byte in target {
                next = next.wrapping_mul(5).wrapping_add(17);
                *byte = next;
            }
        };
        for op in ops {
            let count = frames.len();
            match op {
                FrameOp::Alloc => {
                    let out: usize = frames.iter().map(|pair| pair.1.len()).sum();
                    let frame = if count < 8 { pool.alloc() } else { None };
                    prop_assert_eq!(frame.is_some(), count < 8 && out < COUNT);
                    if let Some(frame) = frame {
                        prop_assert_eq!(frame.port(), u16::MAX);
                        frames.push(Pair(frame, vec![Segment { headroom: HEADROOM, data: vec![] }]));
                    }
                }
                _ if count == 0 => {}
                FrameOp::Free(at) => drop(frames.swap_remove(at % count)),
                FrameOp::Prepend(at, len) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let room = segments[0].headroom;
                    match frame.prepend(len) {
                        Ok(front) => {
                            prop_assert!(len <= room);
                            prop_assert_eq!(front.len(), len);
                            fill(front);
                            segments[0].headroom -= len;
                            segments[0].data.splice(..0, front.iter().copied());
                        }
                        Err(error) => {
                            prop_assert!(len > room);
                            prop_assert_eq!(error, MbufError::Headroom { wanted: len, room });
                        }
                    }
                }
                FrameOp::Append(at, len) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let last = segments.last_mut().unwrap();
                    let room = last.tailroom();
                    match frame.append(len) {
                        Ok(behind) => {
                            prop_assert!(len <= room);
                            prop_assert_eq!(behind.len(), len);
                            fill(behind);
                            last.data.extend_from_slice(behind);
                        }
                        Err(error) => {
                            prop_assert!(len > room);
                            prop_assert_eq!(error, MbufError::Tailroom { wanted: len, room });
                        }
                    }
                }
                FrameOp::Adj(at, wanted) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let len = segments[0].data.len();
                    if wanted <= len {
                        prop_assert_eq!(frame.adj(wanted), Ok(()));
                        segments[0].data.drain(..wanted);
                        segments[0].headroom += wanted;
                    } else {
                        let error = MbufError::TooShort { wanted, len };
                        prop_assert_eq!(frame.adj(wanted), Err(error));
                    }
                }
                FrameOp::Trim(at, wanted) => {
                    let Pair(frame, segments) = &mut frames[at % count];
                    let last = segments.last_mut().unwrap();
                    let len = last.data.len();
                    if wanted <= len {
                        prop_assert_eq!(frame.trim(wanted), Ok(()));
                        last.data.truncate(len - wanted);
                    } else {
                        let error = MbufError::TooShort { wanted, len };
                        prop_assert_eq!(frame.trim(wanted), Err(error));
                    }
                }
                FrameOp::Chain(at, tail) => {
                    if count > 1 {
                        let Pair(frame, segments) = frames.swap_remove(tail % count);
                        let head = &mut frames[at % (count - 1)];
                        prop_assert!(head.0.chain(frame).is_ok());
                        head.1.extend(segments);
                    }
                }
                FrameOp::CopyTo(at, offset, len) => {
                    let Pair(frame, segments) = &frames[at % count];
                    let whole: Vec<u8> =
                        segments.iter().flat_map(|segment| &segment.data).copied().collect();
                    let from = offset.min(whole.len());
                    let expected = &whole[from..whole.len().min(from + len)];
                    let mut out = vec![0; len];
                    let copied = frame.copy_to(offset, &mut out);
                    prop_assert_eq!(&out[..copied], expected);
                    prop_assert!(out[copied..].iter().all(|&byte| byte == 0));
                }
                FrameOp::LendAndBack(at) => {
                    let Pair(frame, segments) = frames.swap_remove(at % count);
                    let addresses: Vec<(u64, usize)> = frame
                        .segments()
                        .map(|data| (data.as_ptr().addr() as u64, data.len()))
                        .collect();
                    let lent = frame.lend();
                    prop_assert_eq!(lent.segment_count(), segments.len());
                    let told: Vec<(u64, usize)> =
                        lent.segments().map(|(iova, len)| (iova.0, usize::from(len))).collect();
                    prop_assert_eq!(told, addresses, "IOVA mode va");
                    frames.push(Pair(lent.take_back(), segments));
                }
            }
            for pair in &frames {
                pair.check()?;
            }
            let out: usize = frames.iter().map(|pair| pair.1.len()).sum();
            prop_assert_eq!(pool.objects().in_use(), out);
        }
        drop(frames);
        prop_assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
        // What came back from chains is whole again.
        let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        prop_assert_eq!(all.len(), COUNT);
        for frame in &all {
            prop_assert_eq!((frame.segment_count(), frame.len_bytes()), (1, 0));
        }
    }
}
