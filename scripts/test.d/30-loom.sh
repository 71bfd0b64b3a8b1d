# shellcheck shell=bash
# every interleaving of the lock-free parts (ring, mempool) under loom

part_loom() {
    need_rust
    # In release: loom walks through very many runs. In a folder of its own: `--cfg loom` changes
    # every crate, and the other builds would be thrown away. Without LTO, which only costs time here.
    step_cargo loom env RUSTFLAGS="$(with_flags --cfg loom)" CARGO_TARGET_DIR="$BUILD/loom" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo test --release --lib --no-fail-fast loom_
}
