# shellcheck shell=bash disable=SC2034 # used by those who source this file
# l2fwd on two NICs of softnic, for tests and the demo. Source it after lib/common.sh.

# Programs are taken from where cargo puts them; IXGBE_BIN names another place.
ixgbe_prepare() {
    BIN=${IXGBE_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release}
    local program
    for program in packetboat-l2fwd packetboat-softnic; do
        [[ -x $BIN/$program ]] || die "wanted $BIN/$program, found that it isn't there. Run: cargo build --release -p $program"
    done
    OUT=$(mktemp -d /tmp/packetboat-ixgbe.XXXXXX)
    SOFTNIC='' L2FWD='' L2FWD_CODE=''
}

ixgbe_cleanup() {
    [[ -z $L2FWD ]] || kill -INT "$L2FWD" 2>/dev/null
    nics_stop
    rm -rf "$OUT"
}

# nics WIRE0 WIRE1 [OPTION…]: two NICs, in place of those there were.
nics() {
    nics_stop
    rm -f "$OUT"/*.sock
    "$BIN/packetboat-softnic" --socket "$OUT/nic0.sock" --socket "$OUT/nic1.sock" --wire "$1" --wire "$2" \
        --share-pages --control "$OUT/control.sock" "${@:3}" >"$OUT/softnic.txt" 2>&1 &
    SOFTNIC=$!
    local tries
    for ((tries = 100; tries; tries--)); do
        [[ -S $OUT/nic1.sock && -S $OUT/control.sock ]] && return
        sleep 0.05
    done
    die "wanted the sockets of softnic, found none after 5 s: $(tail -n 1 "$OUT/softnic.txt")"
}

nics_stop() {
    [[ -n $SOFTNIC ]] || return 0
    kill "$SOFTNIC" 2>/dev/null
    wait "$SOFTNIC" 2>/dev/null
    SOFTNIC=''
}

# ctl WORD…: a command to softnic.
ctl() { timeout 10 "$BIN/packetboat-softnic" ctl "$OUT/control.sock" "$@"; }

# l2fwd [OPTION…]: starts it on both NICs, and waits until it forwards.
l2fwd() {
    L2FWD_CODE=''
    rm -f "$OUT/l2fwd.json"
    "$BIN/packetboat-l2fwd" -l 0 --no-huge -a "vfio-user:$OUT/nic0.sock" -a "vfio-user:$OUT/nic1.sock" -- \
        -P -T 1 --stats-json "$OUT/l2fwd.json" "$@" >"$OUT/l2fwd.txt" 2>&1 &
    L2FWD=$!
    local tries
    for ((tries = 300; tries; tries--)); do
        grep -q '^Forwarding between' "$OUT/l2fwd.txt" && return
        kill -0 "$L2FWD" 2>/dev/null || break
        sleep 0.05
    done
    cat "$OUT/l2fwd.txt"
    die "wanted l2fwd to forward, found that it doesn't. Its last words stand above"
}

# Ends l2fwd; sets L2FWD_CODE.
l2fwd_stop() {
    ctl stats >"$OUT/stats.txt" 2>&1
    kill -INT "$L2FWD" 2>/dev/null
    l2fwd_wait
}

l2fwd_wait() {
    local tries
    for ((tries = 200; tries; tries--)); do
        kill -0 "$L2FWD" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL "$L2FWD" 2>/dev/null
    wait "$L2FWD"
    L2FWD_CODE=$?
    L2FWD=''
}

# gen_value NAME: what the generator of NIC 0 had counted when l2fwd was stopped.
gen_value() { awk -v name="gen_$1" '{ for (i = 1; i < NF; i++) if ($i == name) { print $(i + 1); exit } }' "$OUT/stats.txt"; }

# stat_value NAME: what NIC 0 itself had counted then.
stat_value() { awk -v name="$1" '$1 == name { print $2 }' "$OUT/stats.txt"; }

# gen_now NAME: what it has counted by now.
gen_now() {
    ctl stats >"$OUT/stats.txt" 2>&1
    gen_value "$1"
}

# until_generated FRAMES SECONDS [NAME]: until so many came back (or NAME says so), or time is up.
until_generated() {
    local end=$((SECONDS + $2)) last=-1 now same=0
    while ((SECONDS < end && same < 20)); do
        now=$(gen_now "${3-received}")
        ((${now:-0} >= $1)) && return
        if [[ $now == "$last" ]]; then same=$((same + 1)); else same=0; fi
        last=$now
        sleep 0.25
    done
}

# port_value PORT NAME: a counter of l2fwd's, in its last report.
port_value() { jq -r ".ports[] | select(.port == $1) | .$2" "$OUT/l2fwd.json"; }

# device_value PORT NAME: a counter of the device's; 0 if it isn't told.
device_value() {
    local value
    value=$(sed -nE "s/^Port $1 device counters: .*\\b$2=([0-9]+).*/\\1/p" "$OUT/l2fwd.txt")
    echo "${value:-0}"
}

mbufs_returned() { # NAME
    local line
    line=$(grep -Eo '^mbufs: [0-9]+ of [0-9]+ returned' "$OUT/l2fwd.txt")
    if [[ $line =~ ^mbufs:\ ([0-9]+)\ of\ ([0-9]+) && ${BASH_REMATCH[1]} == "${BASH_REMATCH[2]}" ]]; then
        ok "$1: $line"
    else
        not_ok "$1: all mbufs are returned" "${line:-$(tail -n 4 "$OUT/l2fwd.txt")}"
    fi
}
