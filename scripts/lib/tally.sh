# shellcheck shell=bash
# Counting checks, for the tests that are written in bash. Source it, don't run it.
#   ok NAME | not_ok NAME [DETAIL] …, then `tally` prints `N passed, N failed` and returns 1 on any failure.

PASSED=0
FAILED=0

# ok NAME…: one check that held.
ok() {
    PASSED=$((PASSED + 1))
    printf 'ok - %s\n' "$*"
}

# not_ok NAME [DETAIL]: one check that didn't hold; DETAIL (may have several lines) is indented below it.
not_ok() {
    FAILED=$((FAILED + 1))
    printf 'FAILED - %s\n' "$1"
    [[ -z ${2-} ]] || printf '%s\n' "$2" | sed 's/^/    /'
}

# tally: the last line, and the exit code.
tally() {
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && PASSED > 0))
}
