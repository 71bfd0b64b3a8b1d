# shellcheck shell=bash
# every interleaving of the lock-free parts under loom (the memory part runs it, too)

LOOM_MODELS='' # once it has run
LOOM_INTERLEAVINGS=0

part_loom() {
    need_rust
    if [[ -n $LOOM_MODELS ]]; then
        say "ran with the memory part: $LOOM_MODELS models"
    else
        run_loom
    fi
}

run_loom() {
    loom
    step_cargo loom "${LOOM[@]}" -- --nocapture
    LOOM_MODELS=$(grep -c '^loom: .* interleavings' "$STEP_LOG")
    LOOM_INTERLEAVINGS=$(sed -nE 's/^loom: .*: ([0-9]+) interleavings.*/\1/p' "$STEP_LOG" |
        awk '{ sum += $1 } END { print sum + 0 }')
    say "loom: $LOOM_INTERLEAVINGS interleavings of $LOOM_MODELS models"
}

# loom: sets LOOM. In release: loom walks through very many runs. In a folder of its own: `--cfg loom` changes
# every crate, and the other builds would be thrown away.
loom() {
    LOOM=(env RUSTFLAGS="$(with_flags --cfg loom)" CARGO_TARGET_DIR="$BUILD/loom"
        cargo test --release --lib --no-fail-fast loom_)
}
