# shellcheck shell=bash
# the ixgbe driver on softnic, no VM: ten million frames, exact counts, faults, interrupts, both paths

IXGBE_FRAMES=${IXGBE_FRAMES:-10000000}

part_ixgbe() {
    need_rust
    need_command jq
    if also_runs unit; then
        say 'against a device of registers, and on softnic in one process: ran with the unit part'
    else
        step_cargo 'driver against a device of registers' cargo test --package packetboat-ixgbe --no-fail-fast
        step_cargo 'driver on softnic in one process, frame by frame' cargo test --package packetboat-softnic --test driver --no-fail-fast
    fi
    step 'l2fwd and softnic are built' cargo build --release --package packetboat-l2fwd --package packetboat-softnic
    step_suite 'driver on softnic' scripts/ixgbe/on_softnic.sh "$IXGBE_FRAMES"
    if also_runs virtio; then
        say 'fuzzing: ran with the virtio part'
    elif has_nightly; then
        build_fuzz_targets
        fuzz ixgbe
    else
        without fuzzing "$NIGHTLY_WANTED"
    fi
}
