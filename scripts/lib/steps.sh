# shellcheck shell=bash
# The steps that the parts of test.sh are made of. Source it after common.sh.
# Each step prints its command, runs it, counts its tests, and goes on after a failure.

PASSED=0     # individual tests, over all parts
FAILED=0     # the same
PROBLEMS=()  # one line for each step that failed
NOT_RUN=()   # one line for each step that couldn't be run here
PART=        # name of the part that runs now
# shellcheck disable=SC2034 # for the parts
BUILD=${CARGO_TARGET_DIR:-$REPO/target} # cargo's folder; other kinds of build get one below it
STEP_LOG=

# step NAME COMMAND…: one test: it passes if COMMAND does.
step() {
    if _watch "${@:2}"; then _count "$1" 1 0 0; else _count "$1" 0 0 $?; fi
}

# step_cargo NAME COMMAND…: `cargo test`, counted by its `test result:` lines.
step_cargo() {
    local code=0 counts
    _watch "${@:2}" || code=$?
    counts=$(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$STEP_LOG")
    _count "$1" "${counts% *}" "${counts#* }" "$code"
}

# step_suite NAME COMMAND…: a suite whose last line is `N passed, N failed`.
step_suite() {
    local code=0 counts
    _watch "${@:2}" || code=$?
    counts=$(tail -n 1 "$STEP_LOG" | awk '/^[0-9]+ passed, [0-9]+ failed$/ { print $1, $3 }')
    _count "$1" "${counts% *}" "${counts#* }" "$code"
}

# cannot NAME WHY: this can't be run here. Where everything should be (CI=true), that is a failure.
cannot() {
    NOT_RUN+=("$PART: $1: $2")
    if [[ ${CI-} == true ]]; then
        _count "$1" 0 1 0
    else
        say "not run - $1: $2"
    fi
}

# without NAME WHY: this is run only where what it needs is there by chance; never a failure.
without() {
    NOT_RUN+=("$PART: $1: $2")
    say "not run - $1: $2"
}

# with_flags FLAGS…: prints RUSTFLAGS for FLAGS, and the processor that .cargo/config.toml asks for:
# cargo takes RUSTFLAGS instead of that file's flags, not beside them.
with_flags() {
    if [[ $(uname -m) == x86_64 ]]; then set -- -Ctarget-cpu=x86-64-v2 "$@"; fi
    say "$*"
}

_watch() {
    local code start_s=$SECONDS
    STEP_LOG=$LOGS/$PART.step
    run "$@" 2>&1 </dev/null | tee "$STEP_LOG"
    code=${PIPESTATUS[0]}
    cat "$STEP_LOG" >>"$LOGS/$PART.log"
    say "# $((SECONDS - start_s)) s"
    # As root, a program that replaces the file it writes to takes this one from all that follow.
    if [[ ! -c /dev/null ]]; then
        say "wanted the device /dev/null, found that the command above has replaced it. Run: rm -f /dev/null && mknod -m 666 /dev/null c 1 3"
        return 1
    fi
    return "$code"
}

# _count NAME PASSED FAILED CODE: a command that fails without naming a test, and one that ran none,
# are failures, too.
_count() {
    local passed=${2:-0} failed=${3:-0}
    if (($4 != 0 && failed == 0)); then
        failed=1
        PROBLEMS+=("$PART: $1: exit code $4")
    elif ((passed + failed == 0)); then
        failed=1
        PROBLEMS+=("$PART: $1: ran no test")
    elif ((failed)); then
        PROBLEMS+=("$PART: $1: $failed failed")
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
}
