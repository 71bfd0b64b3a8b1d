# shellcheck shell=bash disable=SC2034 # NIGHTLY_WANTED is for the parts
# What takes a nightly compiler: fuzzing. Source it after steps.sh.

FUZZ_S=60 # each target

NIGHTLY_WANTED='no nightly compiler. Run: rustup toolchain install nightly --profile minimal'
has_nightly() { cargo +nightly --version >/dev/null 2>&1; }

build_fuzz_targets() {
    need_command c++ g++ # libFuzzer is C++
    fuzz_targets
    step 'fuzz targets build' "${FUZZ[@]}"
}

# fuzz_targets: sets FUZZ, the command that builds them; what cargo-fuzz would set.
fuzz_targets() {
    FUZZ_HERE=$(rustc -vV | sed -n 's/^host: //p')
    FUZZ=(env CARGO_TARGET_DIR="$BUILD/fuzz" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
        RUSTFLAGS="$(with_flags -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Zsanitizer=address --cfg fuzzing)"
        cargo +nightly build --release --manifest-path fuzz/Cargo.toml --target "$FUZZ_HERE")
}

# build_ahead: in the background, what later steps build in folders of their own. A build seldom keeps two
# cores busy. Those steps wait for the folder if they come before it is done.
build_ahead() {
    command -v cargo >/dev/null && has_nightly && has_source && command -v c++ >/dev/null || return 0
    address_sanitizer
    fuzz_targets
    loom
    thread_sanitizer_command
    {
        nice -n 10 "${ASAN[@]}" --no-run
        nice -n 10 "${FUZZ[@]}"
        nice -n 10 "${LOOM[@]}" --no-run
        nice -n 10 "${TSAN[@]}" --no-run
    } >"$LOGS/ahead.log" 2>&1 </dev/null &
    AHEAD=$!
}
AHEAD=''

# fuzz TARGET…: all at once, for FUZZ_S seconds, from their corpora. New inputs stay in cargo's folder.
fuzz() {
    step "fuzzing: $*" _fuzz_all "$@"
}

_fuzz_all() {
    local target found pids=() code=0
    for target; do
        found=$BUILD/fuzz/corpus/$target
        mkdir -p "$found"
        run "$BUILD/fuzz/$FUZZ_HERE/release/$target" "$found" "fuzz/corpus/$target" -max_total_time="$FUZZ_S" \
            -max_len=2000 -len_control=0 -print_final_stats=1 -artifact_prefix="$BUILD/fuzz/" \
            >"$BUILD/fuzz/$target.log" 2>&1 &
        pids+=($!)
    done
    for target; do
        wait "${pids[0]}" || code=1
        pids=("${pids[@]:1}")
        # Its last inputs and what it died of, not every input that reached something new.
        say "== $target"
        grep -v -E '^#[0-9]+[[:space:]]+(NEW|REDUCE|RELOAD|pulse)' "$BUILD/fuzz/$target.log" | tail -n 60
    done
    return "$code"
}
