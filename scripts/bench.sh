#!/bin/bash
# Measures a part of packetboat beside its peer and prints tables. `bench.sh --help` lists the parts.
# A part is a file bench.d/NAME.sh with a function `bench_NAME`; its second line says what it does.
# Standard output has the tables, tab-separated; all else goes to standard error.

set -u -o pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/rust.sh
. "$HERE/lib/rust.sh"
# shellcheck source=lib/pages.sh
. "$HERE/lib/pages.sh"

main() {
    local part=${1-} file
    case $part in
        -h | --help)
            usage
            exit 0
            ;;
        '' | */*) file= ;;
        *) file=$HERE/bench.d/$part.sh ;;
    esac
    [[ -f $file ]] || die "wanted a part ($(parts)), found '$part'. Run: $0 --help"
    shift
    # shellcheck source=/dev/null
    . "$file"
    cd "$REPO" || die "wanted the checkout $REPO, found that it can't be entered. Run: ls -ld $REPO"
    # shellcheck disable=SC2034 # for the parts
    BUILD=${CARGO_TARGET_DIR:-$REPO/target}
    trap 'give_hugepages_back >&2' EXIT
    trap 'exit 130' INT TERM
    "bench_$part" "$@"
}

usage() {
    local part
    echo "Usage: scripts/bench.sh [-h] PART [OPTION…]"
    echo
    echo "Installs what is missing, builds both sides, and prints tables of tab-separated values."
    echo "\`scripts/bench.sh PART --help\` lists the options of a part."
    echo
    for part in $(parts); do
        printf '  %-10s %s\n' "$part" "$(sed -n '2s/^# //p' "$HERE/bench.d/$part.sh")"
    done
}

parts() {
    local file names=()
    for file in "$HERE"/bench.d/*.sh; do names+=("$(basename "$file" .sh)"); done
    echo "${names[*]}"
}

main "$@"
