# shellcheck shell=bash
# heap, ring, mempool, mbuf: a million steps each against models, a short run of the benchmark, loom, fuzzing and thread sanitizer on nightly

part_memory() {
    local cases=0 models=0 interleavings=0 runs=0
    need_rust
    # --nocapture: how many steps there were stands in what the tests say.
    step_cargo 'long runs against models' \
        cargo test --release --package packetboat --lib --no-fail-fast -- \
        --nocapture memory:: ring:: mempool:: mbuf:: sys::lcore
    cases=$(_sum '^model: .*: ([0-9]+) steps')

    step 'the benchmark runs on both sides' bench_smoke

    run_loom
    interleavings=$LOOM_INTERLEAVINGS models=$LOOM_MODELS

    if has_nightly; then
        build_fuzz_targets
        fuzz heap mbuf
        runs=$(_sum '^stat::number_of_executed_units: +([0-9]+)')
        thread_sanitizer
    else
        without 'fuzzing, thread sanitizer' "$NIGHTLY_WANTED"
    fi
    say "memory: $cases steps against models, $interleavings interleavings of $models loom models, $runs fuzz executions"
}

# Each row must have figures on both sides; what they are is nobody's concern here.
bench_smoke() {
    scripts/bench.sh memory --quick >"$LOGS/bench-memory.tsv" || return
    awk -F '\t' '
        /^name\tunit\tours_median/ { table = "cycles"; next }
        /^name\tunit\tours_instructions/ { table = "instructions"; next }
        NF == 0 || /^(name|bar)\t/ { table = "" }
        table { rows[table]++ }
        table == "cycles" && !($3 > 0 && $5 > 0) || table == "instructions" && !($3 > 0 && $4 > 0) {
            print "no figures: " $0
            bad = 1
        }
        END {
            printf "%d rows of cycles, %d of instructions\n", rows["cycles"], rows["instructions"]
            exit bad || rows["cycles"] < 74 || rows["instructions"] < 54
        }' "$LOGS/bench-memory.tsv"
}

# _sum PATTERN: the sum of the numbers that the pattern's group finds in the last step's output.
_sum() {
    sed -nE "s/$1.*/\\1/p" "$STEP_LOG" | awk '{ sum += $1 } END { print sum + 0 }'
}

thread_sanitizer() {
    if ! has_source && ! { command -v rustup >/dev/null && run rustup component add rust-src --toolchain nightly; }; then
        without 'thread sanitizer' 'no source of the standard library. Run: rustup component add rust-src --toolchain nightly'
        return
    fi
    thread_sanitizer_command
    step_cargo 'thread sanitizer' "${TSAN[@]}" -- ring:: mempool:: mbuf:: memory:: sys:: eal:: telemetry::
}

# thread_sanitizer_command: sets TSAN. The standard library is built with the sanitizer, too: it would see
# races in its channels otherwise. Few cases of each property: most of them have one thread only.
thread_sanitizer_command() {
    TSAN=(env TSAN_OPTIONS=allocator_may_return_null=1 PROPTEST_CASES=16
        RUSTFLAGS="$(with_flags -Zsanitizer=thread)" CARGO_TARGET_DIR="$BUILD/tsan"
        CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
        cargo +nightly test -Zbuild-std --release --package packetboat --lib --no-fail-fast
        --target "$(rustc -vV | sed -n 's/^host: //p')")
}

has_source() { [[ -d $(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library ]]; }
