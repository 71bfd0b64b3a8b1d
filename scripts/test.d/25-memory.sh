# shellcheck shell=bash
# the heap in release: a million steps against a model; a minute of fuzzing on nightly

part_memory() {
    local here fuzz=$BUILD/fuzz
    need_rust
    step_cargo 'heap: long runs' \
        env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo test --release --package packetboat --lib --no-fail-fast memory::heap

    if ! cargo +nightly --version >/dev/null 2>&1; then
        without 'heap: fuzzing' 'no nightly compiler. Run: rustup toolchain install nightly --profile minimal'
        return
    fi
    need_command c++ g++ # libFuzzer is C++
    # What cargo-fuzz would set. New inputs stay in cargo's folder.
    here=$(rustc -vV | sed -n 's/^host: //p')
    step 'heap: fuzz target builds' env CARGO_TARGET_DIR="$fuzz" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
        RUSTFLAGS="$(with_flags -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Zsanitizer=address --cfg fuzzing)" \
        cargo +nightly build --release --manifest-path fuzz/Cargo.toml --target "$here"
    mkdir -p "$fuzz/corpus/heap"
    step 'heap: fuzzing' "$fuzz/$here/release/heap" "$fuzz/corpus/heap" fuzz/corpus/heap \
        -max_total_time=60 -max_len=2000 -len_control=0 -print_final_stats=1 -artifact_prefix="$fuzz/"
}
