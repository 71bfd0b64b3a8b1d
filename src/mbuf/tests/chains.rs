//! Chains, clones and external buffers against the model: random steps, and a million of them.

use proptest::prelude::*;

use super::model::{Model, Step};
use super::*;

/// A room of 192 bytes and one of 80, so that ends are met and copies take several.
pub(super) fn model() -> Model {
    let memory = memory();
    let heap = Heap::new(&memory, HeapConfig::new("externals", 512 << 10)).unwrap();
    let pools = [(DATA_ROOM_BYTES, 0, true), (HEADROOM_BYTES + 80, 24, false)];
    let pools =
        pools.into_iter().enumerate().map(|(nth, (data_room_bytes, private_bytes, cookies))| {
            let config = MbufPoolConfig {
                data_room_bytes,
                private_bytes,
                cookies,
                cache_size: 0,
                ..MbufPoolConfig::new(format!("model {nth}"), 24)
            };
            MbufPool::new(&memory, &config).unwrap()
        });
    Model::new(heap, pools.collect())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<[u8; 6]>().prop_map(Step::from_bytes), 100..400)
}

proptest! {
    #[test]
    fn chains_behave_as_the_model(steps in steps()) {
        let mut model = model();
        for (number, step) in steps.into_iter().enumerate() {
            model.apply(step);
            if number % 8 == 0 {
                model.check_all();
            }
        }
        model.finish();
    }
}

/// A million steps in release builds.
#[test]
fn a_long_run_of_chains_behaves_as_the_model() {
    let steps = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let mut model = model();
    let mut state = 88_172_645_463_325_252_u64;
    for number in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [a, b, c, d, e, f, ..] = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
        model.apply(Step::from_bytes([a, b, c, d, e, f]));
        if number % 16 == 0 {
            model.check_all();
        }
    }
    model.finish();
    println!("\nmodel: mbuf: {steps} steps");
}
