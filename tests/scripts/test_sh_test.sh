#!/bin/bash
# Tests of scripts/test.sh: does it count what its parts report, and fail when one does? It runs on
# a copy of itself with parts made for this. Prints one line a check.

set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=checks.sh
. "$HERE/checks.sh"

COPY=$(mktemp -d "${TMPDIR:-/tmp}/packetboat-parts.XXXXXX")
trap 'rm -rf "$COPY"' EXIT
mkdir "$COPY/scripts"
cp -r "$HERE/../../scripts/lib" "$HERE/../../scripts/test.sh" "$COPY/scripts/"

# parts FILE BODY…: the parts of the copy, each a file NN-NAME.sh and the body of its function.
parts() {
    local name
    rm -rf "$COPY/scripts/test.d"
    mkdir "$COPY/scripts/test.d"
    while (($#)); do
        name=${1#*-}
        printf '# shellcheck shell=bash\n# about %s\npart_%s() {\n%s\n}\n' "${name%.sh}" "${name%.sh}" "$2" \
            >"$COPY/scripts/test.d/$1"
        shift 2
    done
}
test_sh() { try env -u CI CARGO_TARGET_DIR="$COPY/target" "${CI_IS[@]}" "$COPY/scripts/test.sh" "$@"; }
CI_IS=()
last_line() { is "$(tail -n 1 <<<"$OUTPUT")" "$1" "$2"; }

parts 10-good.sh 'step one true; step two test 1 = 1' 20-more.sh 'step_suite s echo "7 passed, 0 failed"'
test_sh
exits 0 'all pass: exit code 0'
last_line '9 passed, 0 failed' 'all pass: the sum over parts'
says '+ test 1 = 1' 'each command is printed'
says 'good           2 passed,   0 failed' 'a line for each part'
test_sh more
last_line '7 passed, 0 failed' 'one part by name'
test_sh --help
exits 0 'help: exit code 0'
says 'more       about more' 'help: the parts and what they do'
test_sh nonsense
exits 1 'an unknown part: exit code 1'
says "wanted a part (good more), found 'nonsense'" 'an unknown part: says which there are'

# shellcheck disable=SC2016 # the part expands it
parts 10-cargo.sh 'step_cargo tests printf "%s\n" "running 5 tests" \
    "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s" \
    "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"'
test_sh
exits 1 'cargo, two tests fail: exit code 1'
last_line '8 passed, 2 failed' 'cargo: the sum of its result lines'
says 'FAILED - cargo: tests: 2 failed' 'cargo: named in the summary'

parts 10-cargo.sh 'step_cargo tests bash -c "echo error: could not compile; exit 101"'
test_sh
exits 1 'cargo, a compile error: exit code 1'
last_line '0 passed, 1 failed' 'cargo, a compile error: counts as one'
says 'cargo: tests: exit code 101' 'cargo, a compile error: the exit code is said'

parts 10-cargo.sh 'step_cargo tests echo "test result: ok. 0 passed; 0 failed; 0 ignored"; step one true'
test_sh
exits 1 'cargo that ran no test: exit code 1'
says 'cargo: tests: ran no test' 'cargo that ran no test: said'

parts 10-suite.sh 'step_suite s bash -c "echo 3 passed, 0 failed; echo 5 passed, 1 failed; exit 1"' 20-after.sh 'step one true'
test_sh
exits 1 'a suite, one fails: exit code 1'
last_line '6 passed, 1 failed' 'a suite: its last line counts, and the next part runs'

parts 10-suite.sh 'step_suite s bash -c "echo 3 passed, 0 failed; exit 7"'
test_sh
last_line '3 passed, 1 failed' 'a suite that fails without a failed test: counts as one'

parts 10-suite.sh 'step_suite s bash -c "echo 3 passed, 0 failed; echo Segmentation fault"'
test_sh
exits 1 'a suite that ends without a count: exit code 1'

parts 10-step.sh 'step one false'
test_sh
last_line '0 passed, 1 failed' 'a step that fails'

parts 10-lacks.sh 'step one true; cannot two "no such thing here"; without three "no nightly"'
test_sh
exits 0 "what can't be run, by hand: exit code 0"
says 'not run: lacks: two: no such thing here' "what can't be run: says why"
CI_IS=(CI=true)
test_sh
exits 1 "what can't be run, in CI: exit code 1"
last_line '1 passed, 1 failed' "what can't be run, in CI: counts as failed, what is optional doesn't"

tally
