#!/bin/bash
# Installs what the tests need and runs them, all or by part. `test.sh --help` lists the parts.
# A part is a file test.d/NN-NAME.sh with a function `part_NAME`; its second line says what it does.

set -u -o pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/steps.sh
. "$HERE/lib/steps.sh"
# shellcheck source=lib/nightly.sh
. "$HERE/lib/nightly.sh"
# shellcheck source=lib/rust.sh
. "$HERE/lib/rust.sh"
# shellcheck source=lib/pages.sh
. "$HERE/lib/pages.sh"

main() {
    local file name
    PARTS=() # in the order of their numbers
    for file in "$HERE"/test.d/[0-9]*-*.sh; do
        # shellcheck source=/dev/null
        . "$file"
        name=${file##*/[0-9]*-}
        PARTS+=("${name%.sh}")
    done
    choose "$@"
    [[ -c /dev/null ]] ||
        die "wanted the device /dev/null, found $(stat -c %F /dev/null). Run: rm -f /dev/null && mknod -m 666 /dev/null c 1 3"
    cd "$REPO" || die "wanted the checkout $REPO, found that it can't be entered. Run: ls -ld $REPO"
    # What is tested is built without link-time optimisation, which only costs time here.
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    LOGS=$BUILD/test-logs
    mkdir -p "$LOGS" || die "wanted the folder $LOGS for logs, found that it can't be made. Run: CARGO_TARGET_DIR=… $0"
    trap leave EXIT
    trap 'say "interrupted"; exit 130' INT TERM
    if also_runs unit && also_runs memory; then build_ahead; fi
    for name in "${CHOSEN[@]}"; do run_part "$name"; done
    summary
}

leave() {
    if [[ -n $AHEAD ]]; then
        pkill -P "$AHEAD" # its cargo
        kill "$AHEAD" 2>/dev/null
    fi
    give_hugepages_back
}

usage() {
    local file
    echo "Usage: scripts/test.sh [-h] [PART…]"
    echo
    echo "Installs what is missing, runs the named parts (default: all) and prints 'N passed, N failed'."
    echo "With CI=true, what can't be run on this machine counts as failed."
    echo
    for file in "$HERE"/test.d/[0-9]*-*.sh; do
        printf '  %-10s %s\n' "$(basename "${file##*/[0-9]*-}" .sh)" "$(sed -n '2s/^# //p' "$file")"
    done
}

choose() { # NAME…: sets CHOSEN
    local name
    CHOSEN=()
    for name; do
        case $name in
            -h | --help)
                usage
                exit 0
                ;;
            all) CHOSEN+=("${PARTS[@]}") ;;
            *)
                [[ " ${PARTS[*]} " == *" $name "* ]] ||
                    die "wanted a part (${PARTS[*]}), found '$name'. Run: $0 --help"
                CHOSEN+=("$name")
                ;;
        esac
    done
    if (($# == 0)); then CHOSEN=("${PARTS[@]}"); fi
}

# also_runs PART: whether PART is among those that run.
also_runs() { [[ " ${CHOSEN[*]} " == *" $1 "* ]]; }

SUMMARY=()
run_part() { # NAME
    local passed=$PASSED failed=$FAILED start_s=$SECONDS
    PART=$1
    printf '\n== %s\n' "$1"
    : >"$LOGS/$1.log"
    "part_$1"
    SUMMARY+=("$(printf '%-10s %5d passed, %3d failed, %4d s' "$1" $((PASSED - passed)) $((FAILED - failed)) $((SECONDS - start_s)))")
}

summary() {
    printf '\n== Summary\n'
    if ((${#NOT_RUN[@]})); then printf 'not run: %s\n' "${NOT_RUN[@]}"; fi
    if ((${#PROBLEMS[@]})); then
        printf 'FAILED - %s\n' "${PROBLEMS[@]}"
        say "logs: $LOGS"
    fi
    printf '%s\n' "${SUMMARY[@]}"
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && PASSED > 0))
}

main "$@"
