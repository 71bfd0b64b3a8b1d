//! Steps on frames made from bytes, against the model that the property tests use: 6 bytes a step.
//! Before that, the same bytes as the data of a chain, for what looks into headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packetboat::mbuf::{
    Burst, ExternalBuffer, HEADROOM_BYTES, Mbuf, MbufError, MbufPool, MbufPoolConfig, RxInfo,
    SegmentsMut, TxFlags, TxLengths, TxRequest,
};
use packetboat::memory::heap::{Heap, HeapConfig, HeapSlice, Request};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::net;
use std::sync::{Arc, LazyLock};

#[path = "../../src/mbuf/tests/model/mod.rs"]
mod model;
use model::{Model, Step};

/// Reserved once: each input gets pools and a heap of its own in it.
static MEMORY: LazyLock<Arc<Memory>> = LazyLock::new(|| {
    let memory = Memory::reserve(&MemoryConfig::no_huge(4));
    memory.expect("4 MiB of normal memory")
});

fuzz_target!(|bytes: &[u8]| {
    let config = HeapConfig::new("externals", 512 << 10).step_bytes(64 << 10);
    let heap = Heap::new(&MEMORY, config).expect("a heap of 512 KiB");
    // With cookies, and without, as they would be in a release build.
    let pools = [(192, 0, true), (80, 24, false)];
    let pools: Vec<_> = pools
        .into_iter()
        .enumerate()
        .map(|(nth, (room, private_bytes, cookies))| {
            let config = MbufPoolConfig {
                data_room_bytes: HEADROOM_BYTES + room,
                private_bytes,
                cookies,
                cache_size: 0,
                ..MbufPoolConfig::new(format!("fuzz {nth}"), 24)
            };
            MbufPool::new(&MEMORY, &config).expect("room for two small pools")
        })
        .collect();
    look_into(bytes, &pools);
    let mut model = Model::new(heap, pools);
    for (number, bytes) in bytes.as_chunks::<6>().0.iter().enumerate() {
        model.apply(Step::from_bytes(*bytes));
        if number % 8 == 0 {
            model.check_all();
        }
    }
    model.finish();
});

/// Parsing and preparing, of headers that say anything.
fn look_into(bytes: &[u8], pools: &[MbufPool]) {
    let mut frame = pools[0].alloc().expect("a new pool isn't empty");
    let (first, rest) = bytes.split_at(bytes.len().min(150));
    frame.append(first.len()).expect("192 bytes of room").copy_from_slice(first);
    if !rest.is_empty() {
        let mut tail = pools[1].alloc().expect("a new pool isn't empty");
        let rest = &rest[..rest.len().min(80)];
        tail.append(rest.len()).expect("80 bytes of room").copy_from_slice(rest);
        frame.chain(tail).expect("two segments");
    }
    let headers = net::parse(frame.data());
    let len = usize::from(headers.l2_len_bytes) + usize::from(headers.l3_len_bytes);
    assert!(len + usize::from(headers.l4_len_bytes) <= frame.data().len(), "{headers:?}");
    if let [a, b, c, d, ..] = *bytes
        && let Some(lengths) = TxLengths::new(a & 0x3f, u16::from(b & 0x3f), c & 0x3f)
    {
        let l4 = [TxFlags::TCP_CHECKSUM, TxFlags::UDP_CHECKSUM, TxFlags::SCTP_CHECKSUM];
        let l3 = [TxFlags::IPV4 | TxFlags::IP_CHECKSUM, TxFlags::IPV4, TxFlags::IPV6];
        let flags = l4[usize::from(d) % 3] | l3[usize::from(d) / 3 % 3];
        if frame.request(TxRequest { flags, lengths }).is_ok() {
            let _ = frame.prepare_checksums();
        }
    }
    frame.check().expect("whatever its bytes say");
    drop(frame.dump(usize::MAX).to_string());
}
