//! Steps on a heap made from bytes, against the model that the property tests use.
//!
//! The first byte says whether the heap is guarded, whether an lcore works on it (with a cache then), and
//! whether pages come from the kernel. Each step takes 6 bytes: what to do, an
//! exponent and 16 bits of length, an exponent of the alignment, and a number for the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packetboat::memory::heap::{Block, Heap, HeapConfig, HeapError, Request, Tag};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::sys::lcore_id::LcoreClaim;
use std::sync::{Arc, LazyLock};

#[path = "../../src/memory/heap/tests/model.rs"]
mod model;
use model::{Model, Step};

/// Reserved once: each input gets a heap of its own in it.
static MEMORY: LazyLock<Arc<Memory>> = LazyLock::new(|| {
    let memory = Memory::reserve(&MemoryConfig::no_huge(4));
    memory.expect("4 MiB of normal memory")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let config = HeapConfig::new("fuzz", 512 << 10).step_bytes(64 << 10).guarded(first & 1 == 1);
    let heap = match first & 4 {
        0 => Heap::new(&MEMORY, config),
        _ => Heap::of_kernel_pages(&MEMORY, config),
    };
    let heap = heap.expect("a heap of 512 KiB");
    let _lcore = (first & 2 == 2).then(|| LcoreClaim::claim(1).expect("nobody else is lcore 1"));
    let mut model = Model::new(heap);
    for (number, bytes) in rest.as_chunks::<6>().0.iter().enumerate() {
        model.apply(step(*bytes));
        if number % 32 == 0 {
            model.check();
        }
    }
    model.finish();
});

fn step([what, exponent, low, high, align, number]: [u8; 6]) -> Step {
    let mantissa = usize::from(low) | usize::from(high) << 8;
    // Mostly lengths that fit, some that can't.
    let len_bytes = match exponent {
        0..240 => (mantissa << (exponent % 8)) >> 5,
        _ => mantissa.wrapping_shl(u32::from(exponent)).wrapping_sub(1),
    };
    let align = match align {
        0..128 => 1,
        128..224 => 1 << (align % 16),
        _ => usize::from(align).wrapping_mul(mantissa),
    };
    let index = usize::from(number);
    match what {
        0..120 => {
            let (node, zeroed) = ((number & 0xc0 == 0xc0).then_some(0), number & 0x20 != 0);
            Step::Alloc { len_bytes, align, node, zeroed, tag: number & 3 }
        }
        120..200 => Step::Free(index),
        200..245 => Step::Realloc { index, len_bytes, align },
        245..250 => Step::Trim,
        _ => Step::Check,
    }
}
