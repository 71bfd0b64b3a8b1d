//! Both rings against simple models of what driver and device have.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::dma::{Area, Array};
use crate::mbuf::{Mbuf, MbufPoolConfig};
use crate::memory::{Memory, MemoryConfig};

const COUNT: usize = 16;

/// Two views of one ring: the driver's and the device's.
fn ring(memory: &std::sync::Arc<Memory>) -> (Array<[u64; 2]>, Array<[u64; 2]>) {
    let area = Area::new(memory, "ring", COUNT * 16, 64, None).unwrap();
    (area.array(0, COUNT).unwrap(), area.array(0, COUNT).unwrap())
}

fn pool(memory: &std::sync::Arc<Memory>) -> MbufPool {
    let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", 64) };
    MbufPool::new(memory, &config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lengths stand for frames: they come out as the device put them in, and no buffer is
    /// lost, given twice, or handed out before the device is done with it.
    #[test]
    fn receiving_against_a_model(
        steps in prop::collection::vec((0_u8..4, 0_usize..20), 1..200),
    ) {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = pool(&memory);
        let (mine, mut devices) = ring(&memory);
        let mut ring = ReceiveRing::new(mine);
        let room = pool.room_len_bytes();
        let mut burst = Burst::with_limit(12);
        // Lent and not written back; written back and not taken; their numbers counted through.
        let (mut lent, mut filled, mut next) = (0, VecDeque::new(), 0);
        for (number, (step, count)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    let got = ring.lend(&pool, count);
                    prop_assert!(got <= count && ring.len() <= COUNT);
                    lent += got;
                }
                1 => for _ in 0..count.min(lent) {
                    // Some are longer than the buffer, or as long as it, or too short.
                    let len = match number % 7 {
                        6 => 60_000,
                        5 => u64::from(room),
                        4 => u64::from(room) + 1,
                        3 => 60,
                        _ => 61 + number as u64 % 900,
                    };
                    devices.write(next, [0, 1 | len << 32]);
                    filled.push_back(len as u16);
                    (lent, next) = (lent - 1, next + 1);
                },
                2 => {
                    let before = burst.len();
                    let moved = ring.take_run(&mut burst, 3, 61, |upper, _| {
                        (upper & 1 != 0).then_some(((upper >> 32) as u16, RxInfo::NONE))
                    });
                    prop_assert_eq!(burst.len() - before, moved.frames);
                    let new = burst.as_slice().iter().skip(before);
                    let lens: Vec<u16> = new.map(|mbuf| mbuf.len_bytes() as u16).collect();
                    let wanted: Vec<u16> = filled.drain(..moved.frames).collect();
                    prop_assert_eq!(&lens, &wanted);
                    let bytes: u64 = lens.iter().map(|len| u64::from(*len)).sum();
                    prop_assert_eq!(moved.bytes, bytes);
                    // It stopped for a reason: nothing done, a bad length, no room, the end.
                    let at_the_end = (next - filled.len()).is_multiple_of(COUNT);
                    let odd = filled.front().is_none_or(|len| !(61..=room).contains(len));
                    prop_assert!(odd || burst.room() == 0 || at_the_end);
                }
                _ => {
                    burst.clear();
                    let Some([_, upper]) = ring.first() else { continue };
                    if let Some(len) = filled.pop_front_if(|len| !(61..=room).contains(len)) {
                        prop_assert!(upper & 1 != 0);
                        let taken = ring.pop().unwrap();
                        let mbuf = taken.take_back_filled(len.into(), 3, RxInfo::NONE);
                        prop_assert_eq!(mbuf.is_ok(), len <= room);
                    }
                }
            }
            prop_assert_eq!(ring.len(), lent + filled.len());
            prop_assert_eq!(pool.objects().in_use(), ring.len() + burst.len());
        }
        burst.clear();
        ring.rewind();
        prop_assert_eq!((ring.len(), ring.tail()), (lent + filled.len(), ring.len() % COUNT));
        let left = ring.len();
        drop(ring);
        prop_assert_eq!((pool.leaked(), pool.objects().in_use()), (left as u64, left));
    }

    /// Frames go to the device in order, one descriptor each or several, and come back when
    /// they are given back, not before.
    #[test]
    fn sending_against_a_model(
        steps in prop::collection::vec((0_u8..3, 0_usize..20), 1..200),
    ) {
        let memory = Memory::reserve(&MemoryConfig::no_huge(2)).unwrap();
        let pool = pool(&memory);
        let (mine, devices) = ring(&memory);
        let mut ring = SendRing::new(mine);
        // Frames lent: their lengths, and the number of their last descriptor.
        let (mut lent, mut done) = (VecDeque::new(), 0);
        for (number, (step, count)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    let mut burst = Burst::new();
                    for n in 0..count {
                        let Some(mut mbuf) = pool.alloc() else { break };
                        mbuf.append(60 + (number + n) % 100).unwrap();
                        burst.push(mbuf).unwrap();
                    }
                    let free = COUNT - ring.written().wrapping_sub(done);
                    // One length is refused.
                    let before = burst.as_slice().iter().take_while(|m| m.len_bytes() != 90);
                    let wanted = before.count().min(free);
                    let first = ring.written();
                    let lens: Vec<usize> =
                        burst.as_slice().iter().map(Mbuf::len_bytes).collect();
                    let moved = ring.lend_run(&mut burst, free, |frame| {
                        let (address, len) = frame.data_iova();
                        (len != 90).then_some(([address.0, u64::from(len)], u64::from(len)))
                    });
                    prop_assert_eq!(moved.frames, wanted);
                    prop_assert_eq!(burst.len(), lens.len() - wanted);
                    for (n, len) in lens.iter().take(wanted).enumerate() {
                        prop_assert_eq!(devices.read(first + n)[1], *len as u64);
                        lent.push_back(first + n + 1);
                    }
                }
                1 => {
                    let parts = 1 + count % 3;
                    if COUNT - ring.written().wrapping_sub(done) < parts {
                        continue;
                    }
                    let Some(mut mbuf) = pool.alloc() else { continue };
                    mbuf.append(60).unwrap();
                    (0..parts).for_each(|part| ring.write([part as u64, 7]));
                    prop_assert!(ring.keep(mbuf.lend()).is_ok());
                    lent.push_back(ring.written());
                }
                _ => {
                    let count = count.min(lent.len());
                    ring.give_back(ring.lent().wrapping_sub(lent.len() - count));
                    if let Some(last) = lent.drain(..count).next_back() {
                        done = last;
                    }
                }
            }
            prop_assert_eq!(pool.objects().in_use(), lent.len());
        }
        ring.give_back(ring.lent());
        prop_assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
    }
}
