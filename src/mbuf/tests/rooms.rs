//! Buffers lent for receiving, and frames that come in several of them.

use super::*;
use crate::memory::Iova;

fn lend(pool: &MbufPool, count: usize) -> Vec<(LentRoom, Iova)> {
    let mut rooms = Vec::new();
    let lent = pool.lend_bulk(count, |room, iova| rooms.push((room, iova)));
    assert_eq!(lent, rooms.len());
    rooms
}

/// Whatever a frame did in its former life, none of it is seen after it was received again.
#[test]
fn a_room_comes_back_as_what_the_device_says() {
    let pool = pool(3);
    let mut chain = pool.alloc().unwrap();
    chain.append(50).unwrap().fill(9);
    chain.prepend(60).unwrap().fill(8);
    chain.chain(pool.alloc().unwrap()).unwrap();
    chain.set_received_mark(3);
    chain.insert_vlan(77);
    drop(chain);
    let room = DATA_ROOM_BYTES - HEADROOM_BYTES;
    assert_eq!(pool.room_len_bytes(), room);
    let info = RxInfo {
        flags: RxFlags::RSS_HASH | RxFlags::IP_CHECKSUM_GOOD,
        packet_type: PacketType::IPV4,
        rss_hash: 5,
        vlan_tci: 0,
    };
    for (prefix, skip, len, data) in [
        (0, 0, 0, Some((0, HEADROOM))),
        (0, 0, 60, Some((60, HEADROOM))),
        (0, 0, room.into(), Some((usize::from(room), HEADROOM))),
        (12, 12, 72, Some((60, HEADROOM))),
        (12, 0, 72, Some((72, HEADROOM - 12))),
        (HEADROOM_BYTES, 0, u32::from(DATA_ROOM_BYTES), Some((usize::from(DATA_ROOM_BYTES), 0))),
        (0, 0, u32::from(room) + 1, None),
        (12, 12, 11, None),
        (12, 12, u32::from(room) + 13, None),
        (HEADROOM_BYTES + 1, 0, 10, None),
        // What would be short in sixteen bits.
        (0, 0, 65_536, None),
        (0, 0, 65_537, None),
        (12, 12, 65_536 + 72, None),
        (0, 0, u32::MAX, None),
    ] {
        for (lent, iova) in lend(&pool, 3) {
            assert_eq!((lent.iova(), lent.len_bytes()), (iova, room));
            let taken = lent.take_back_written(prefix, skip, len, 4, info);
            assert_eq!(taken.is_ok(), data.is_some(), "{prefix} {skip} {len}");
            let flags = if data.is_some() { info.flags } else { RxFlags::NONE };
            let (Ok(frame) | Err(frame)) = taken;
            let (len, headroom) = data.unwrap_or((0, HEADROOM));
            assert_eq!((frame.len_bytes(), frame.data().len()), (len, len));
            assert_eq!((frame.headroom_bytes(), frame.port()), (headroom, 4));
            assert_eq!((frame.segment_count(), frame.segments().count()), (1, 1));
            assert_eq!(
                (frame.rx_flags(), frame.requests_any(), frame.mark()),
                (flags, false, None)
            );
            assert_eq!(
                frame.data().as_ptr().addr() as u64,
                iova.0 - HEADROOM as u64 + headroom as u64
            );
        }
    }
    assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
}

#[test]
fn rooms_are_all_there_or_none() {
    let pool = pool(100);
    let rooms = lend(&pool, 60);
    assert_eq!((rooms.len(), pool.objects().in_use()), (60, 60));
    assert!(lend(&pool, 41).is_empty());
    assert_eq!(pool.objects().in_use(), 60);
    let rest = lend(&pool, 40);
    assert_eq!(rest.len(), 40);
    assert!(lend(&pool, 1).is_empty());
    let quiesced = Quiesced::after_reset();
    for (room, _) in rooms.into_iter().chain(rest) {
        let frame = room.reclaim(&quiesced);
        assert_eq!((frame.len_bytes(), frame.port()), (0, u16::MAX));
    }
    assert_eq!((pool.objects().in_use(), pool.leaked()), (0, 0));
    assert_eq!(lend(&pool, 100).len(), 100);
    assert_eq!((pool.objects().in_use(), pool.leaked()), (100, 100), "dropped, so lost");
}

#[test]
fn rooms_that_a_panic_kept_from_being_lent_go_back() {
    let pool = pool(20);
    let mut kept = Vec::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.lend_bulk(10, |room, _| {
            kept.push(room);
            assert!(kept.len() < 3, "enough");
        })
    }));
    assert!(result.is_err());
    assert_eq!((kept.len(), pool.objects().in_use(), pool.leaked()), (3, 3, 0));
}

#[test]
fn a_frame_in_parts_is_built_from_its_end() {
    let pool = pool(40);
    let mut chain = ChainBuilder::new();
    assert!(chain.is_empty() && chain.finish().is_none());
    for turn in 0..3_u8 {
        let mut expected = Vec::new();
        for (nth, (room, _)) in lend(&pool, 6).into_iter().enumerate() {
            let mut part = room.take_back_filled(nth as u32 * 10, 2, RxInfo::NONE).unwrap();
            part.data_mut().unwrap().fill(turn * 7 + nth as u8);
            expected.extend_from_slice(part.data());
            if nth == 3 {
                // A chain as a part.
                let mut other = pool.alloc().unwrap();
                other.append(3).unwrap().copy_from_slice(b"abc");
                expected.extend(b"abc");
                part.chain(other).unwrap();
            }
            chain.push(part).unwrap();
        }
        assert_eq!((chain.segment_count(), chain.len_bytes()), (7, expected.len()));
        let frame = chain.finish().unwrap();
        assert_eq!((frame.segment_count(), frame.len_bytes()), (7, expected.len()));
        let bytes: Vec<u8> = frame.segments().flatten().copied().collect();
        assert_eq!(bytes, expected);
        assert!(chain.is_empty());
    }
    assert_eq!(pool.objects().in_use(), 0);
    for _ in 0..5 {
        chain.push(pool.alloc().unwrap()).unwrap();
    }
    drop(chain);
    assert_eq!(pool.objects().in_use(), 0, "a chain that isn't finished is freed");
}

#[test]
fn a_builder_stops_where_a_chain_can_be_no_longer() {
    let pool = pool(MAX_SEGMENTS + 1);
    let mut chain = ChainBuilder::new();
    for _ in 0..MAX_SEGMENTS {
        chain.push(pool.alloc().unwrap()).unwrap();
    }
    let mut last = pool.alloc().unwrap();
    last.append(2).unwrap().fill(1);
    let (error, last) = chain.push(last).unwrap_err();
    assert_eq!(error, MbufError::ChainTooLong { segments: MAX_SEGMENTS + 1, len_bytes: 2 });
    assert_eq!(last.data(), [1, 1]);
    assert_eq!(chain.finish().unwrap().segment_count(), MAX_SEGMENTS);
}

#[test]
fn only_a_frame_of_its_own_makes_room() {
    let pool = pool(3);
    let mut chain = pool.alloc().unwrap();
    chain.chain(pool.alloc().unwrap()).unwrap();
    let chain = chain.lend_room().unwrap_err();
    assert_eq!(chain.segment_count(), 2);
    let mut frame = pool.alloc().unwrap();
    frame.append(10).unwrap().fill(1);
    let frame = frame.lend_room().unwrap().take_back_filled(5, 1, RxInfo::NONE).unwrap();
    assert_eq!(frame.len_bytes(), 5);
}
