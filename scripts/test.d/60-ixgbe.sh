# shellcheck shell=bash
# the ixgbe driver on softnic, no VM: ten million frames, exact counts, faults, interrupts, both paths

IXGBE_FRAMES=${IXGBE_FRAMES:-10000000}

part_ixgbe() {
    need_rust
    need_command jq
    step_cargo 'driver against a device of registers' cargo test --package packetboat-ixgbe --no-fail-fast
    step_cargo 'driver on softnic in one process, frame by frame' cargo test --package packetboat-softnic --test driver --no-fail-fast
    step 'l2fwd and softnic are built' cargo build --release --package packetboat-l2fwd --package packetboat-softnic
    step_suite 'driver on softnic' scripts/ixgbe/on_softnic.sh "$IXGBE_FRAMES"
    if has_nightly; then
        build_fuzz_targets
        fuzz ixgbe
    else
        without fuzzing "$NIGHTLY_WANTED"
    fi
}
