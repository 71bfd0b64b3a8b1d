# shellcheck shell=bash
# Checks for the tests of scripts, on what the last `try` printed and returned.

# shellcheck source=../../scripts/lib/tally.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/tally.sh"

OUTPUT=
STATUS=0

# try COMMAND…: run it, keep what it prints (both streams) and its exit code. Bounded in time.
try() {
    OUTPUT=$(timeout 30 "$@" 2>&1 </dev/null)
    STATUS=$?
}

# exits CODE NAME
exits() {
    if ((STATUS == $1)); then ok "$2"; else not_ok "$2" "exit code $STATUS, output:
$OUTPUT"; fi
}

# says TEXT NAME [FILE]: the output, or the file, has TEXT in it.
says() {
    local text=$OUTPUT
    [[ -z ${3-} ]] || text=$(cat "$3")
    if [[ $text == *"$1"* ]]; then ok "$2"; else not_ok "$2" "wanted '$1' in:
$text"; fi
}

# unsays TEXT NAME: the output doesn't have TEXT in it.
unsays() {
    if [[ $OUTPUT != *"$1"* ]]; then ok "$2"; else not_ok "$2" "didn't want '$1' in:
$OUTPUT"; fi
}

# is FOUND WANTED NAME
is() {
    if [[ $1 == "$2" ]]; then ok "$3"; else not_ok "$3" "$(diff <(printf '%s\n' "$2") <(printf '%s\n' "$1"))"; fi
}

# cannot NAME WHY: a check that this machine can't run. In CI, that is a failure.
cannot() {
    if [[ ${CI-} == true ]]; then not_ok "$1" "can't run: $2"; else printf 'not run - %s: %s\n' "$1" "$2"; fi
}
