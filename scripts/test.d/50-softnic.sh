# shellcheck shell=bash
# the 82599 in software: hostile clients, exact counts; judged in QEMU by Linux's ixgbe driver and by DPDK's

part_softnic() {
    need_rust
    if also_runs unit; then
        say 'its units, hostile clients and frames ran with the unit part'
    else
        step_cargo 'softnic: units, hostile clients, frames' \
            cargo test --package packetboat-softnic --no-fail-fast
    fi
    step 'rig: set up' scripts/rig/setup.sh
    step_suite 'softnic under others drivers' scripts/rig/run.sh softnic
}
