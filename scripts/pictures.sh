#!/bin/bash
# Draws docs/pictures/*.svg from the texts beside them, or says which ones are older than their text.

set -u -o pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/rust.sh
. "$HERE/lib/rust.sh"

SVGBOB=0.7.6 # draws boxes and arrows that are made of characters

usage() {
    echo "Usage: scripts/pictures.sh [-h] [--check]"
    echo
    echo "Draws docs/pictures/*.svg from the texts of the same names (installs svgbob_cli $SVGBOB with cargo)."
    echo "With --check draws nothing, and fails if a picture isn't that of its text."
}

main() {
    local text picture sum stale=0
    case ${1-} in
        '' | --check) ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "wanted --check or nothing, found '$1'. Run: $0 --help" ;;
    esac
    if [[ ${1-} != --check ]]; then need_svgbob; fi
    for text in "$REPO"/docs/pictures/*.txt; do
        picture=${text%.txt}.svg
        sum=$(sha256sum "$text")
        sum=${sum%% *}
        if [[ -f $picture && $(tail -n 1 "$picture") == "<!-- of a text with SHA-256 $sum -->" ]]; then
            continue
        fi
        if [[ ${1-} == --check ]]; then
            say "wanted $picture drawn from ${text##*/} as it is now, found an older one or none. Run: scripts/pictures.sh"
            stale=1
            continue
        fi
        { "$CACHE/svgbob/bin/svgbob_cli" --background white "$text" && printf '\n<!-- of a text with SHA-256 %s -->\n' "$sum"; } \
            >"$picture.new" || die "wanted a picture of $text, found that svgbob_cli fails (see above)"
        mv "$picture.new" "$picture"
        say "drew ${picture#"$REPO"/}"
    done
    return "$stale"
}

need_svgbob() {
    [[ -x $CACHE/svgbob/bin/svgbob_cli ]] && return
    need_rust
    run cargo install --quiet --locked --root "$CACHE/svgbob" --version "$SVGBOB" svgbob_cli ||
        die "wanted svgbob_cli $SVGBOB in $CACHE/svgbob, found that cargo can't install it (see above)"
}

main "$@"
