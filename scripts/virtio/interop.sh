#!/bin/bash
# l2fwd between two vhost-user ports whose back end is DPDK's testpmd (net_vhost): every frame is
# accounted for, over all kinds of rings, and with either side killed and started again.
#
#   scripts/virtio/interop.sh [matrix] [restart] [mix] [guests] [ovs]   (default: the first two)
#
# mix: an 82599 at the other port (mix.sh); guests: Linux guests on QEMU's vhost-user (guests.sh); ovs: Open vSwitch with DPDK (ovs.sh).
#
# Environment: L2FWD=FILE       the program (default: the release build)
#              FRAMES=N         frames through each configuration of the matrix (1000000)
#              LIMIT_S=N        seconds that it may take at most (20); what got through is reported
# One line per check, `ok - …` or `FAILED - …`; the last one counts them. Logs: target/virtio/.
set -u -o pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
. "$REPO/scripts/lib/tally.sh"
. "$REPO/scripts/lib/pages.sh"

L2FWD=${L2FWD:-${CARGO_TARGET_DIR:-$REPO/target}/release/packetboat-l2fwd}
FRAMES=${FRAMES:-1000000}
LIMIT_S=${LIMIT_S:-20}
LOGS=${CARGO_TARGET_DIR:-$REPO/target}/virtio
. "$REPO/scripts/virtio/guests.sh"
. "$REPO/scripts/virtio/mix.sh"
. "$REPO/scripts/virtio/ovs.sh"
PAGES=480 # of 2 MiB: testpmd's and l2fwd's, with room for a start while the last one ends

main() {
    local part
    (($#)) || set -- matrix restart
    ((EUID == 0)) || die "wanted root for hugepages, found user $(id -un). Run: sudo $0 $*"
    need_command dpdk-testpmd dpdk-dev
    need_command python3
    [[ -x $L2FWD ]] || die "wanted l2fwd at $L2FWD, found none. Run: cargo build --release -p packetboat-l2fwd"
    rm -rf "$LOGS"
    mkdir -p "$LOGS" || die "wanted the folder $LOGS for logs, found that it can't be made"
    trap 'leave' EXIT
    trap 'exit 130' INT TERM
    keep_hugepages "$PAGES"
    for part; do
        case $part in
            matrix | restart | mix | guests | ovs) "$part" ;;
            *) die "wanted matrix, restart, mix, guests or ovs, found '$part'. Run: $0" ;;
        esac
    done
    tally
}

leave() {
    l2fwd_kill
    guests_stop
    ovs_stop
    testpmd_kill
    rm -f "$LOGS"/*.sock
    give_hugepages_back
}

# ---- testpmd: commands go in by a pipe, answers come out in a file. It would wait nine seconds for ports
# that nobody has connected to yet: --disable-link-check.

TESTPMD=''
testpmd_start() { # NAME QUEUES [server]: ports 0 and 1 at $LOGS/0.sock and 1.sock
    local queues=$2 client=''
    [[ ${3-} != server ]] || client=,client=1 # l2fwd listens
    # What one that was killed has left behind, it can't listen on.
    if [[ -z $client ]]; then rm -f "$LOGS/0.sock" "$LOGS/1.sock"; fi
    testpmd_run "$1" --vdev "net_vhost0,iface=$LOGS/0.sock,queues=$queues$client" \
        --vdev "net_vhost1,iface=$LOGS/1.sock,queues=$queues$client" \
        -- -i --disable-link-check --no-lsc-interrupt --forward-mode=io --rxq="$queues" --txq="$queues" \
        --mbuf-size=10240 --total-num-mbufs=8192 --max-pkt-len=9600 --nb-cores=1
}

testpmd_run() { # NAME ARGUMENT…
    TESTPMD_LOG=$LOGS/$1.testpmd
    rm -f "$LOGS/pipe"
    mkfifo "$LOGS/pipe"
    : >"$TESTPMD_LOG" # there is something to look at from the start
    # In memory of its own, no PCI device, one core to poll with. Line by line, so that answers come
    # before the prompt that follows them.
    stdbuf -oL dpdk-testpmd --no-pci --in-memory -m 192 -l 0,1 --main-lcore 0 --log-level=warning "${@:2}" \
        <"$LOGS/pipe" >"$TESTPMD_LOG" 2>&1 &
    TESTPMD=$!
    exec 9>"$LOGS/pipe"
    testpmd_wait 'testpmd> ' 1 || die "wanted testpmd, found that it doesn't start. Run: tail $TESTPMD_LOG"
}

# testpmd COMMAND…: gives a command and waits until it is done.
testpmd() {
    local before
    before=$(grep -ao 'testpmd> ' "$TESTPMD_LOG" | wc -l)
    printf '%s\n' "$*" >&9
    testpmd_wait 'testpmd> ' $((before + 1))
}

testpmd_wait() { # TEXT COUNT
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        (($(grep -ao "$1" "$TESTPMD_LOG" | wc -l) >= $2)) && return 0
        kill -0 "$TESTPMD" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

testpmd_quit() {
    printf 'quit\n' >&9
    exec 9>&-
    wait "$TESTPMD" 2>/dev/null
    TESTPMD=
}

testpmd_kill() {
    [[ -n $TESTPMD ]] || return 0
    kill -KILL "$TESTPMD" 2>/dev/null
    exec 9>&-
    wait "$TESTPMD" 2>/dev/null
    TESTPMD=
}

# testpmd_counts: prints RX and TX packets of port 0, then of port 1, since it began.
testpmd_counts() {
    local before text='NIC statistics for port 1'
    before=$(grep -ac "$text" "$TESTPMD_LOG")
    printf 'show port stats all\n' >&9
    testpmd_wait "$text" $((before + 1)) || return 1
    sleep 0.3 # its lines follow
    awk '
        /NIC statistics for port/ { port = $6; on = 1 }
        on && /RX-packets:/ { rx[port] = $2 }
        on && /TX-packets:/ { tx[port] = $2; on = 0 }
        END { print rx[0], tx[0], rx[1], tx[1] }' "$TESTPMD_LOG"
}

# testpmd_sent: frames, by both ports, since it began.
testpmd_sent() {
    local rx0 tx0 rx1 tx1
    read -r rx0 tx0 rx1 tx1 < <(testpmd_counts)
    echo $((${tx0:-0} + ${tx1:-0}))
}

# ---- l2fwd

L2FWD_PID=''
# ARGUMENTS are those of both ports, or of each with a / between them.
l2fwd_start() { # NAME ARGUMENTS [OPTION…]
    L2FWD_LOG=$LOGS/$1.l2fwd
    STATS=$LOGS/$1.json
    rm -f "$STATS"
    "$L2FWD" -l 0 -m 64 --vdev "vhost-user,path=$LOGS/0.sock,${2%/*}" --vdev "vhost-user,path=$LOGS/1.sock,${2#*/}" \
        -P -T 1 --stats-json "$STATS" "${@:3}" >"$L2FWD_LOG" 2>&1 &
    L2FWD_PID=$!
    l2fwd_wait 'Ctrl-C stops'
}

l2fwd_wait() { # TEXT
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        grep -q "$1" "$L2FWD_LOG" 2>/dev/null && return 0
        kill -0 "$L2FWD_PID" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

l2fwd_stop() { # its exit code is returned
    kill -INT "$L2FWD_PID" 2>/dev/null
    wait "$L2FWD_PID"
    local code=$?
    L2FWD_PID=
    return "$code"
}

l2fwd_kill() {
    [[ -n $L2FWD_PID ]] || return 0
    kill -KILL "$L2FWD_PID" 2>/dev/null
    wait "$L2FWD_PID" 2>/dev/null
    L2FWD_PID=
}

# l2fwd_sum FIELD PORT DIRECTION: a counter of the last report, over the queues of a port.
l2fwd_sum() {
    python3 - "$STATS" "$@" <<'PYTHON'
import json, sys
path, field, port, direction = sys.argv[1:5]
try:
    report = json.load(open(path))
except (OSError, ValueError):
    print(0)
    sys.exit()
ports = (p for p in report["ports"] if str(p["port"]) == port)
print(sum(q.get(field, 0) for p in ports for q in p[direction + "_queues"]))
PYTHON
}

# l2fwd_line PORT FIELD: of the last line about the port.
l2fwd_line() {
    grep -a " port=$1 " "$L2FWD_LOG" | tail -n 1 | grep -o " $2=[0-9]*" | cut -d= -f2
}

# l2fwd_received: frames, by both ports, at the last report.
l2fwd_received() {
    local first second
    first=$(l2fwd_line 0 rx_packets) second=$(l2fwd_line 1 rx_packets)
    echo $((${first:-0} + ${second:-0}))
}

# ---- every frame over every kind of ring

matrix() {
    local packed mergeable in_order queues
    for queues in 1 2; do
        for packed in off on; do
            for mergeable in off on; do
                for in_order in off on; do
                    one "$queues" "$packed" "$mergeable" "$in_order"
                done
            done
        done
    done
}

one() { # QUEUES PACKED MERGEABLE IN_ORDER
    local name="$1-queue-packed-$2-mrg-$3-in-order-$4" sizes=(60 1500) size bursts path
    local began=$SECONDS counts rx0 tx0 rx1 tx1
    if [[ $3 == on ]]; then sizes+=(9000); fi
    testpmd_start "$name" "$1"
    if ! l2fwd_start "$name" "queues=$1,queue-size=1024,packed=$2,mrg-rxbuf=$3,in-order=$4" --rxq "$1"; then
        not_ok "$name: l2fwd starts" "$(tail -n 3 "$L2FWD_LOG")"
        l2fwd_kill
        testpmd_kill
        return
    fi
    # Frames of each size go round and round, both ways, until there were enough of them. Many at once,
    # since each round waits for the processor where other things run; as many as a ring has room for.
    local step=0 enough until_s
    for size in "${sizes[@]}"; do
        step=$((step + 1))
        enough=$((FRAMES * step / ${#sizes[@]})) until_s=$((began + 2 + LIMIT_S * step / ${#sizes[@]}))
        testpmd "set txpkts $size"
        bursts=16 # of 32
        if ((size > 2000)); then bursts=4; fi # five buffers a frame
        testpmd "start tx_first $bursts"
        while (($(testpmd_sent) < enough && SECONDS < until_s)); do sleep 0.2; done
        testpmd 'stop'
    done
    # What is still in the rings comes out, and is counted.
    testpmd 'set fwd rxonly'
    testpmd 'start'
    sleep 0.5
    testpmd 'stop'
    counts=$(testpmd_counts)
    read -r rx0 tx0 rx1 tx1 <<<"$counts"
    if ! l2fwd_stop; then not_ok "$name: l2fwd ends well" "$(tail -n 5 "$L2FWD_LOG")"; fi
    testpmd_kill
    path=$(grep -ao 'vhost-user:.*0.sock: .*' "$L2FWD_LOG" | head -n 1 | sed 's/.*: //')
    local in0 in1 out0 out1 dropped
    in0=$(l2fwd_line 0 rx_packets) in1=$(l2fwd_line 1 rx_packets)
    out0=$(l2fwd_line 0 tx_packets) out1=$(l2fwd_line 1 tx_packets)
    dropped=$(($(l2fwd_line 0 rx_dropped) + $(l2fwd_line 1 rx_dropped) + $(l2fwd_line 0 tx_dropped) + $(l2fwd_line 1 tx_dropped)))
    local account="testpmd sent $tx0 and $tx1, l2fwd received $in0 and $in1, sent $out1 and $out0, dropped $dropped, testpmd received $rx1 and $rx0"
    if [[ -n $in0 ]] && ((tx0 == in0 && tx1 == in1 && in0 + in1 == out0 + out1 + dropped && out0 == rx0 && out1 == rx1 && dropped == 0 && in0 + in1 > 1000)) &&
        grep -q 'mbufs: \([0-9]*\) of \1 returned' "$L2FWD_LOG"; then
        local less=''
        if ((in0 + in1 < FRAMES)); then less=" (no time for $FRAMES)"; fi
        ok "$name: $((in0 + in1)) frames$less of ${sizes[*]} bytes, all accounted for ($path)"
    else
        not_ok "$name: all accounted for" "$account"
    fi
}

# ---- either side killed, under load

restart() {
    restart_back_end '' packed=off
    restart_back_end server packed=on
    restart_front_end
}

# frames_pass [SECONDS]: whether l2fwd receives more within that time (6).
frames_pass() {
    local before now tries
    before=$(l2fwd_received)
    for ((tries = 0; tries < ${1-6} * 10; tries++)); do
        now=$(l2fwd_received)
        ((now > before)) && return 0
        sleep 0.1
    done
    return 1
}

# first_frames_pass: testpmd starts a circulation, and l2fwd receives it. Another time if need be:
# testpmd drops what it shall start with if it hasn't noticed yet that somebody has connected.
first_frames_pass() {
    local tries
    for ((tries = 0; tries < 3; tries++)); do
        testpmd 'start tx_first'
        frames_pass 2 && return 0
        testpmd 'stop'
    done
    return 1
}

restart_back_end() { # ROLE ARGUMENTS
    local name="back-end-killed${1:+-$1}-${2/=/-}" round passed=0
    if [[ $1 == server ]]; then
        # Who listens comes first.
        l2fwd_start_late "$name" "$2,server"
        testpmd_start "$name" 1 server
        l2fwd_wait 'Ctrl-C stops' || true
    else
        testpmd_start "$name" 1
        l2fwd_start "$name" "$2" || true
    fi
    for ((round = 0; round < 10; round++)); do
        first_frames_pass && passed=$((passed + 1))
        testpmd_kill
        testpmd_start "$name" 1 "$1"
        sleep 0.7 # until l2fwd has found it
    done
    first_frames_pass && passed=$((passed + 1))
    local code=0 came
    l2fwd_stop || code=$?
    testpmd_kill
    came=$(grep -c '0.sock: the back end is there again' "$L2FWD_LOG")
    if ((passed == 11 && code == 0 && came == 10)) && grep -q 'mbufs: \([0-9]*\) of \1 returned' "$L2FWD_LOG"; then
        ok "$name: ten times under load, forwarding goes on; $(l2fwd_sum in_flight 0 tx) and $(l2fwd_sum in_flight 1 tx) frames were in flight"
    else
        not_ok "$name" "frames passed $passed of 11 times, came back $came times, exit code $code: $(tail -n 2 "$L2FWD_LOG")"
    fi
}

# As l2fwd_start, without waiting for it to forward.
l2fwd_start_late() { # NAME ARGUMENTS
    L2FWD_LOG=$LOGS/$1.l2fwd
    STATS=$LOGS/$1.json
    "$L2FWD" -l 0 -m 64 --vdev "vhost-user,path=$LOGS/0.sock,$2" --vdev "vhost-user,path=$LOGS/1.sock,$2" \
        -P -T 1 --stats-json "$STATS" >"$L2FWD_LOG" 2>&1 &
    L2FWD_PID=$!
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        [[ -S $LOGS/0.sock ]] && return 0
        sleep 0.05
    done
}

restart_front_end() {
    local name=front-end-killed round passed=0
    testpmd_start "$name" 1
    for ((round = 0; round < 10; round++)); do
        l2fwd_start "$name" packed=off || break
        first_frames_pass && passed=$((passed + 1))
        l2fwd_kill
        sleep 0.2
        testpmd 'stop'
    done
    testpmd_kill
    if ((passed == 10)); then
        ok "$name: ten times under load, each of the next goes on"
    else
        not_ok "$name" "frames passed $passed of 10 times: $(tail -n 2 "$L2FWD_LOG")"
    fi
}

main "$@"
