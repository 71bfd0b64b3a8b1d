//! Clones, external buffers, private areas, fields by name: one property each.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::net::EthernetHeader;

fn filled(pool: &MbufPool, bytes: &[u8]) -> Mbuf {
    let mut frame = pool.alloc().unwrap();
    frame.append(bytes.len()).unwrap().copy_from_slice(bytes);
    frame
}

#[test]
fn a_pool_that_is_too_small_for_all_shared_segments_is_told_for_how_many() {
    let memory = memory();
    let (pool, copies) = (pool_in(&memory, "data", 12), pool_in(&memory, "copies", 3));
    let mut frame = filled(&pool, &[1; 10]);
    for _ in 0..4 {
        frame.chain(filled(&pool, &[2; 20])).unwrap();
    }
    let mut clone = frame.share(&pool).unwrap();
    assert_eq!(clone.make_writable(&copies), Err(MbufError::PoolEmpty { wanted: 5, available: 3 }));
    assert_eq!((copies.objects().available(), clone.segment_count()), (3, 5));
    assert!(clone.segments().eq(frame.segments()), "as it was");
}

#[test]
fn shared_data_can_be_read_and_not_written() {
    let memory = memory();
    let (pool, headers) = (pool_in(&memory, "data", 8), pool_in(&memory, "headers", 8));
    let mut frame = filled(&pool, &[7; 64]);
    frame.set_port(3);
    frame.set_received(RxInfo { flags: RxFlags::RSS_HASH, rss_hash: 5, ..RxInfo::NONE });
    let mut clone = frame.share(&headers).unwrap();
    assert_eq!((clone.port(), clone.rss_hash(), clone.data()), (3, Some(5), &[7; 64][..]));
    assert_eq!(clone.data().as_ptr(), frame.data().as_ptr());
    for either in [&mut frame, &mut clone] {
        assert!(!either.is_writable());
        assert!(either.data_mut().is_none());
        assert!(either.segments_mut().is_none());
        assert!(either.view_mut::<EthernetHeader>().is_none());
        assert!(either.view::<EthernetHeader>().is_some());
        assert_eq!(either.prepend(4).unwrap_err(), MbufError::Shared);
        assert_eq!(either.append(4).unwrap_err(), MbufError::Shared);
        assert_eq!(either.prepare_checksums(), Ok(()), "asks for nothing");
    }
    let lengths = TxLengths::new(14, 20, 8).unwrap();
    let flags = TxFlags::IPV4 | TxFlags::UDP_CHECKSUM;
    clone.request(TxRequest { flags, lengths }).unwrap();
    assert_eq!(clone.prepare_checksums(), Err(OffloadError::Shared));
    let clone = clone.lend_room().unwrap_err();

    // The first owner goes: the data is the clone's alone then, and its mbuf still out.
    drop(frame);
    assert_eq!((pool.objects().in_use(), headers.objects().in_use()), (1, 1));
    let mut clone = clone;
    assert!(clone.is_writable());
    clone.data_mut().unwrap()[0] = 8;
    clone.prepend(2).unwrap().fill(1);
    assert_eq!(clone.data()[..4], [1, 1, 8, 7]);
    let again = clone.share(&headers).unwrap();
    assert!(!clone.is_writable());
    drop(clone);
    assert_eq!((pool.objects().in_use(), headers.objects().in_use()), (1, 1));
    drop(again);
    assert_eq!((pool.objects().in_use(), headers.objects().in_use()), (0, 0));
    // Both are as they were.
    for pool in [&pool, &headers] {
        let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(all.len(), 8);
        for frame in &all {
            frame.check().unwrap();
            assert!(frame.is_writable() && frame.headroom_bytes() == HEADROOM);
            assert_eq!(frame.tailroom_bytes(), usize::from(pool.room_len_bytes()));
        }
    }
}

#[test]
fn made_writable_a_frame_keeps_what_is_noted_of_it() {
    let memory = memory();
    let config = MbufPoolConfig {
        private_bytes: 8,
        data_room_bytes: DATA_ROOM_BYTES,
        ..MbufPoolConfig::new("private", 8)
    };
    let pool = MbufPool::new(&memory, &config).unwrap();
    let mut frame = filled(&pool, &[7; 100]);
    frame.chain(filled(&pool, &[8; 50])).unwrap();
    frame.set_port(3);
    frame.insert_vlan(9);
    frame.private_bytes_mut().copy_from_slice(b"private!");
    let clone = frame.share(&pool).unwrap();
    assert_eq!(frame.make_writable(&pool), Ok(()));
    assert!(frame.is_writable() && clone.is_writable(), "each has its own now");
    assert_eq!((frame.port(), frame.vlan_tci(), frame.requests_any()), (3, 9, true));
    assert_eq!(frame.private_bytes(), b"private!");
    frame.data_mut().unwrap().fill(0);
    assert_eq!(clone.data(), [7; 100]);
    assert_eq!(frame.segments().nth(1).unwrap(), [8; 50]);

    // All are out then: refused, and nothing has changed.
    let second = frame.share(&pool).unwrap();
    let error = frame.make_writable(&pool).unwrap_err();
    assert_eq!(error, MbufError::PoolEmpty { wanted: 2, available: 0 });
    assert_eq!((frame.segment_count(), frame.len_bytes()), (2, 150));
    frame.check().unwrap();
    drop((second, clone, frame));
    assert_eq!(pool.objects().in_use(), 0);
}

/// Owners on other threads than the one whose mbuf it is; run under address and thread sanitizer.
#[test]
fn the_last_of_many_threads_gives_the_buffer_back() {
    let memory = memory();
    let (pool, headers) = (pool_in(&memory, "data", 16), pool_in(&memory, "headers", 64));
    let rounds = if cfg!(debug_assertions) { 300 } else { 3_000 };
    std::thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..3).map(|_| std::sync::mpsc::sync_channel::<Mbuf>(4)).unzip();
        for (nth, receiver) in receivers.into_iter().enumerate() {
            let headers = &headers;
            scope.spawn(move || {
                let _lcore = (nth != 2).then(|| LcoreClaim::claim_when_free(43 + nth as u32));
                for mut frame in receiver {
                    let byte = frame.data()[0];
                    if let Ok(clone) = frame.share(headers) {
                        assert!(clone.data().iter().all(|other| *other == byte));
                    }
                    // Whoever is alone with it may write.
                    if let Some(data) = frame.data_mut() {
                        data.fill(byte.wrapping_add(1));
                    }
                    assert!(frame.data().iter().all(|other| *other == frame.data()[0]));
                }
            });
        }
        for round in 0..rounds {
            let Some(mut frame) = pool.alloc() else {
                std::thread::yield_now();
                continue;
            };
            frame.append(150).unwrap().fill(round as u8);
            for sender in &senders {
                if let Ok(clone) = frame.share(&headers) {
                    sender.send(clone).unwrap();
                }
            }
        }
        drop(senders);
    });
    assert_eq!((pool.objects().in_use(), headers.objects().in_use()), (0, 0));
    pool.objects().audit().unwrap();
}

#[test]
fn external_memory_goes_back_with_its_last_owner() {
    let memory = memory();
    let pool = pool_in(&memory, "headers", 8);
    static FREED: AtomicUsize = AtomicUsize::new(0);
    let zone = memory.zone(&ZoneRequest::new("outside", 5000).iova_contiguous()).unwrap();
    let address = zone.as_ptr().addr().get();
    let buffer = ExternalBuffer::with_callback(zone, |zone| {
        assert_eq!(zone.name(), "outside");
        FREED.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(buffer.len_bytes(), 5000);
    for (start, end) in [(0, 5001), (5000, 5001), (4000, 3000), (usize::MAX, 0), (0, usize::MAX)] {
        let error = buffer.attach(&pool, start..end).unwrap_err();
        assert!(matches!(error, MbufError::Range { .. }), "{start}..{end}: {error}");
    }
    assert_eq!(buffer.attach(&pool, 5000..5000).unwrap().len_bytes(), 0);
    let mut frame = buffer.attach(&pool, 1000..3000).unwrap();
    assert_eq!(frame.data().as_ptr().addr(), address + 1000);
    assert_eq!(frame.data(), [0; 2000]);
    assert!(!frame.is_writable(), "the handle may make others over the same bytes");
    let clone = frame.share(&pool).unwrap();
    drop(buffer);
    assert!(!frame.is_writable() && !clone.is_writable());
    drop(clone);
    frame.data_mut().unwrap().fill(3);
    frame.adj(14).unwrap();
    frame.prepend(14).unwrap().fill(4);
    assert_eq!(frame.prepend(1).unwrap_err(), MbufError::Headroom { wanted: 1, room: 0 });
    let lent = frame.lend();
    assert_eq!(lent.data_iova().0.0, address as u64 + 1000);
    let mut frame = lent.take_back();
    assert_eq!(FREED.load(Ordering::Relaxed), 0);
    assert!(memory.lookup("outside").is_some());
    assert!(frame.detach());
    assert_eq!(FREED.load(Ordering::Relaxed), 1);
    assert!(memory.lookup("outside").is_none());
    assert_eq!((frame.len_bytes(), frame.headroom_bytes()), (0, HEADROOM));
    assert!(!frame.detach());
    frame.append(10).unwrap().fill(1);
    frame.check().unwrap();
}

#[test]
fn a_segment_of_external_memory_is_at_most_what_its_length_can_say() {
    let memory = memory();
    let pool = pool_in(&memory, "headers", 4);
    let zone = memory.zone(&ZoneRequest::new("long", 70_000).iova_contiguous()).unwrap();
    let buffer = ExternalBuffer::new(zone).unwrap();
    assert_eq!(
        buffer.attach(&pool, 0..65_536).unwrap_err(),
        MbufError::Range { offset: 0, len: 65_536, len_bytes: 65_535 }
    );
    let frame = buffer.attach(&pool, 4_000..69_535).unwrap();
    assert_eq!(frame.len_bytes(), 65_535);
    // A copy takes as many mbufs as there are bytes for: the pool hasn't.
    let error = frame.copy(0, 65_535, &pool).unwrap_err();
    assert_eq!(error, MbufError::PoolEmpty { wanted: 65_535_usize.div_ceil(192), available: 3 });
    assert_eq!(pool.objects().in_use(), 1);
}

#[test]
fn private_areas_are_each_mbufs_own() {
    let memory = memory();
    for private_bytes in [1, 8, 64, 65, 1000] {
        let config = MbufPoolConfig {
            private_bytes,
            data_room_bytes: DATA_ROOM_BYTES,
            ..MbufPoolConfig::new("private", 8)
        };
        let pool = MbufPool::new(&memory, &config).unwrap();
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        for (nth, frame) in frames.iter_mut().enumerate() {
            assert_eq!(frame.private_bytes(), vec![0; private_bytes.into()]);
            frame.private_bytes_mut().fill(nth as u8 + 1);
            frame.prepend(HEADROOM).unwrap().fill(0xff);
            frame.append(pool.room_len_bytes().into()).unwrap().fill(0xff);
            assert_eq!(frame.data().as_ptr().addr() % 64, 0, "buffers start on cache lines");
        }
        for (nth, frame) in frames.iter().enumerate() {
            assert!(frame.private_bytes().iter().all(|byte| *byte == nth as u8 + 1));
            assert_eq!(frame.private::<u64>().is_some(), private_bytes >= 8);
            frame.check().unwrap();
        }
        drop(frames);
        pool.objects().audit().unwrap();
        let clone = filled(&pool, b"data").share(&pool).unwrap();
        assert_ne!(clone.private_bytes()[0], 0, "its header's, with what was there");
    }
}

#[test]
fn fields_by_name_go_with_the_frame() {
    let pool = pool(4);
    let number = DynField::<u64>::register("test_number").unwrap();
    let pair = DynField::<[u8; 3]>::register("test_pair").unwrap();
    let flag = DynFlag::register("test_flag").unwrap();
    let timestamp = Timestamp::register().unwrap();
    let mut frame = filled(&pool, b"data");
    assert!(!frame.flag(flag) && timestamp.get(&frame).is_none());
    frame.set_field(number, u64::MAX - 1);
    frame.set_field(pair, *b"abc");
    frame.set_flag(flag, true);
    timestamp.set(&mut frame, 12);
    frame.set_received_mark(1);
    frame.clear_requests();
    frame.request(TxRequest::default()).unwrap();
    for other in [frame.share(&pool).unwrap(), frame.copy(1, 2, &pool).unwrap()] {
        assert_eq!((other.field(number), other.field(pair)), (u64::MAX - 1, *b"abc"));
        assert_eq!((other.flag(flag), timestamp.get(&other)), (true, Some(12)));
    }
    frame.set_flag(flag, false);
    assert!(!frame.flag(flag) && timestamp.get(&frame).is_some());
    drop(frame);
    assert!(pool.alloc().is_some_and(|frame| timestamp.get(&frame).is_none()));
}

#[test]
fn a_buffer_has_as_many_owners_as_can_be_counted() {
    let memory = Memory::reserve(&MemoryConfig::no_huge(40)).unwrap();
    let config = MbufPoolConfig {
        data_room_bytes: HEADROOM_BYTES + 64,
        cookies: false,
        ..MbufPoolConfig::new("many", 66_000)
    };
    let pool = MbufPool::new(&memory, &config).unwrap();
    let frame = filled(&pool, b"popular");
    let mut clones: Vec<Mbuf> = (1..u16::MAX).map(|_| frame.share(&pool).unwrap()).collect();
    assert_eq!(frame.share(&pool).unwrap_err(), MbufError::TooManyOwners);
    assert_eq!(pool.objects().in_use(), clones.len() + 1, "the header isn't lost");
    clones.pop();
    assert!(frame.share(&pool).is_ok());
    drop(frame);
    assert!(clones.iter().all(|clone| clone.data() == b"popular"));
    drop(clones);
    assert_eq!(pool.objects().in_use(), 0);
}

/// What a pool gets back that isn't its own is found, counted and left out, with cookies.
#[test]
fn an_mbuf_in_the_wrong_pool_is_found() {
    let memory = memory();
    let checked = |name| {
        // In release builds, too: without cookies the second pool would wait for room for ever.
        let config = MbufPoolConfig { cookies: true, ..MbufPoolConfig::new(name, 4) };
        MbufPool::new(&memory, &config).unwrap()
    };
    let (first, second) = (checked("first"), checked("second"));
    let frame = first.alloc().unwrap();
    #[expect(unsafe_code, reason = "puts an mbuf where safe code can't")]
    // SAFETY: cookies find it, and leave it out.
    unsafe {
        second.objects().put_bulk(&[crate::mempool::Object(frame.as_header().cast())]);
    }
    assert_eq!(second.objects().stats().faults, 1);
    assert_eq!((first.objects().in_use(), second.objects().available()), (1, 4));
    drop(frame);
    assert_eq!(first.objects().in_use(), 0);
}

#[test]
fn damage_is_found_by_the_check() {
    let pool = pool(4);
    let mut frame = filled(&pool, &[1; 20]);
    frame.chain(filled(&pool, &[2; 30])).unwrap();
    frame.check().unwrap();
    frame.meta_mut().packet_len = 51;
    assert_eq!(frame.check(), Err(CheckError::Length { said: 51, found: 50 }));
    frame.meta_mut().packet_len = 50;
    frame.header().owners.set_segments(3);
    assert_eq!(frame.check(), Err(CheckError::Segments { said: 3, found: 2 }));
    frame.header().owners.set_segments(1);
    assert_eq!(frame.check(), Err(CheckError::Segments { said: 1, found: 2 }));
    frame.header().owners.set_segments(2);
    frame.meta_mut().data_len = 400;
    let (offset, buf_len) = (HEADROOM_BYTES, DATA_ROOM_BYTES);
    let error = CheckError::Data { segment: 0, offset, len: 400, buf_len };
    assert_eq!(frame.check(), Err(error));
    frame.meta_mut().data_len = 20;
    frame.check().unwrap();
    let dump = frame.dump(18).to_string();
    assert!(dump.starts_with("frame of 50 bytes in 2 segments, port none, type unknown\n"));
    assert!(dump.contains("\n0010  01 01 "), "{dump}");
    assert!(!dump.contains("02 02"), "{dump}");
}

#[test]
fn views_show_pieces_and_copies() {
    let pool = pool(4);
    let mut frame = filled(&pool, b"0123456789");
    frame.chain(filled(&pool, b"abcdef")).unwrap();
    frame.chain(filled(&pool, b"UVW")).unwrap();
    let mut spare = [0; 6];
    let inside = |offset, len| frame.view_at(offset, len, &mut []).map(<[u8]>::to_vec);
    assert_eq!(inside(2, 8).as_deref(), Some(&b"23456789"[..]));
    assert_eq!(inside(11, 5).as_deref(), Some(&b"bcdef"[..]));
    assert_eq!(inside(10, 6).as_deref(), Some(&b"abcdef"[..]));
    assert_eq!(inside(19, 0).as_deref(), Some(&b""[..]));
    assert_eq!((inside(9, 2), inside(17, 3), inside(20, 0)), (None, None, None));
    assert_eq!(inside(1, usize::MAX), None);
    assert_eq!(frame.view_at(9, 4, &mut spare), Some(&b"9abc"[..]));
    assert_eq!(frame.view_at(15, 4, &mut spare), Some(&b"fUVW"[..]));
    assert_eq!(frame.view_at(8, 7, &mut spare), None, "longer than what it may be copied to");
}
