# shellcheck shell=bash
# every script under shellcheck; devbind.sh, hugepages.sh and test.sh on machines made of files

part_scripts() {
    local scripts=() suite
    need_command shellcheck
    need_command busybox busybox-static
    need_command ip iproute2
    mapfile -t scripts < <(git -C "$REPO" ls-files --cached --others --exclude-standard '*.sh' .ci/run scripts/rig/guest)
    step shellcheck shellcheck "${scripts[@]}"
    for suite in tests/scripts/*_test.sh; do
        step_suite "$suite" "$suite"
    done
}
