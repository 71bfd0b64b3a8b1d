# shellcheck shell=bash
# every interleaving of the lock-free parts (ring, mempool) under loom

part_loom() {
    need_rust
    # In release: loom walks through very many runs. In a folder of its own: `--cfg loom` changes
    # every crate, and the other builds would be thrown away.
    step_cargo loom env RUSTFLAGS="$(with_flags --cfg loom)" CARGO_TARGET_DIR="$BUILD/loom" \
        cargo test --release --lib --no-fail-fast loom_
}
