# shellcheck shell=bash
# more threads than cores on the memory stack, contents and counts checked, for PACKETBOAT_STRESS_SECONDS (10)

part_stress() {
    local seconds=${PACKETBOAT_STRESS_SECONDS:-10}
    if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
        die "wanted a number of seconds, found PACKETBOAT_STRESS_SECONDS=$seconds. Run: PACKETBOAT_STRESS_SECONDS=600 $0 stress"
    fi
    need_rust
    # Heap, rings, mempool and mbufs together, and then the mempool's backends one after the other.
    _stress 'stress: the memory stack' --test stress -- stress_for_long
    _stress 'stress: mempool backends' --lib -- mempool::tests::stress::stress_for_long
    say 'figures:'
    grep -h '^stress: ' "$LOGS/stress.log" || true
}

# _stress TITLE CARGO_ARG…: a test that runs for $seconds.
_stress() {
    local title=$1
    shift
    step_cargo "$title" env PACKETBOAT_STRESS_SECONDS="$seconds" \
        cargo test --release --package packetboat "$@" --ignored --nocapture
}
