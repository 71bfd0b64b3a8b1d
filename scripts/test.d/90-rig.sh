# shellcheck shell=bash
# the whole appliance in QEMU: VFIO-bound NICs behind a virtual IOMMU, frames from outside

part_rig() {
    if [[ ! -x scripts/rig/setup.sh || ! -x scripts/rig/run.sh ]]; then
        cannot rig 'scripts/rig/setup.sh or scripts/rig/run.sh is missing. Run: git status scripts/rig'
        return
    fi
    need_rust
    step 'rig: set up' scripts/rig/setup.sh
    step_suite rig scripts/rig/run.sh all
    step_suite 'rig: the ixgbe driver' scripts/rig/run.sh ixgbe
}
