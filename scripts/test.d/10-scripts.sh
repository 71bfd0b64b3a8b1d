# shellcheck shell=bash
# every script under shellcheck; the tests of devbind.sh, hugepages.sh and test.sh

part_scripts() {
    local scripts=() suite
    need_command shellcheck
    need_command busybox busybox-static
    need_command ip iproute2
    # By their first line: not all of them end in .sh, and not all files there are scripts.
    mapfile -t scripts < <(find scripts tests .ci -type f -exec awk '
        FNR == 1 && (/^#!.*sh$/ || /^# shellcheck shell=/) { print FILENAME } FNR > 1 { nextfile }' {} + | sort)
    step 'pictures are drawn from their texts' scripts/pictures.sh --check
    step shellcheck shellcheck "${scripts[@]}"
    for suite in tests/scripts/*_test.sh; do
        step_suite "$suite" "$suite"
    done
}
