#!/bin/bash
# The main job at work, without a NIC and without a VM: two 82599 in software (softnic), each with a TAP in
# a network namespace of its own; packetboat-l2fwd has both NICs and is the only way between the two.
# ping and iperf3 go through it, its table is shown. Installs what it needs, ends by itself, leaves nothing
# running. Run it as root on Debian 12 or newer:
#
#   scripts/demo.sh [SECONDS]        SECONDS: how long iperf3 runs (default 10)
#   scripts/demo.sh gen [SECONDS]    softnic's generator and checker instead of namespaces, for numbers
#   scripts/demo.sh qemu [SECONDS]   a guest with virtio NICs behind a virtual IOMMU instead
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
. "$REPO/scripts/lib/rust.sh"
. "$REPO/scripts/ixgbe/lib.sh"

NETNS=(packetboat-left packetboat-right)

main() {
    local kind=taps
    case ${1-} in
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        qemu) exec "$REPO/scripts/demo-qemu.sh" "${@:2}" ;;
        gen) kind=gen && shift ;;
    esac
    local seconds=${1-10}
    [[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] ||
        die "wanted a number of seconds from 1 to 999, found '$seconds'. Run: scripts/demo.sh 10"
    title 'Getting ready'
    if [[ -z ${IXGBE_BIN-} ]]; then
        need_rust
        run cargo build --release --package packetboat-l2fwd --package packetboat-softnic || exit 1
    fi
    ixgbe_prepare
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    "show_$kind" "$seconds"
}

title() { printf '\n== %s ==\n' "$*"; }

cleanup() {
    ixgbe_cleanup
    local name
    for name in "${NETNS[@]}"; do ip netns delete "$name" 2>/dev/null; done
}

show_taps() { # SECONDS
    ((EUID == 0)) || die "wanted root for TAPs and namespaces, found user $(id -un). Run: sudo scripts/demo.sh"
    need_command ip iproute2
    need_command iperf3
    need_command ping iputils-ping
    need_command jq
    title 'Two NICs in software, each wired to a namespace'
    say "namespace ${NETNS[0]} (198.18.0.1) -- TAP -- NIC 0 [l2fwd] NIC 1 -- TAP -- namespace ${NETNS[1]} (198.18.0.2)"
    nics tap:pb-left tap:pb-right
    into_namespace 0 pb-left 198.18.0.1
    into_namespace 1 pb-right 198.18.0.2
    title 'l2fwd takes both'
    l2fwd --no-mac-updating --table
    grep -E '^Port|^Forwarding' "$OUT/l2fwd.txt"
    title 'ping through it, both ways'
    must outside 0 ping -c 5 -i 0.3 -w 20 198.18.0.2
    must outside 1 ping -q -c 5 -i 0.3 -w 20 198.18.0.1
    show_iperf3 "$1"
    finish
}

into_namespace() { # NUMBER TAP ADDRESS
    local name=${NETNS[$1]} tries
    ip netns delete "$name" 2>/dev/null
    run ip netns add "$name" || exit 1
    for ((tries = 50; tries; tries--)); do
        ip link show "$2" >/dev/null 2>&1 && break
        sleep 0.1
    done
    run ip link set "$2" netns "$name" || exit 1
    run ip -n "$name" address add "$3/24" dev "$2" || exit 1
    run ip -n "$name" link set "$2" up || exit 1
    ip -n "$name" link set lo up
}

outside() { ip netns exec "${NETNS[$1]}" "${@:2}"; }

show_iperf3() { # SECONDS
    local server client table=''
    title "iperf3 through it for $1 s; meanwhile l2fwd's table"
    outside 1 iperf3 -s -1 >"$OUT/iperf3-server.txt" 2>&1 &
    server=$!
    sleep 0.5
    outside 0 iperf3 -c 198.18.0.2 -t "$1" -J >"$OUT/iperf3.json" 2>&1 &
    client=$!
    if [[ -t 1 ]]; then
        # As it is drawn: each second over the last one.
        tail -n 0 -f "$OUT/l2fwd.txt" &
        table=$!
    fi
    must wait "$client"
    if [[ -n $table ]]; then
        sleep 1.1
        kill "$table"
        wait "$table" 2>/dev/null
    else
        last_table
    fi
    kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    jq -r 'if .error then "iperf3: \(.error)" else
        "iperf3: \(.end.sum_received.bytes / 1048576 | floor) MiB in \(.end.sum_received.seconds | floor) s, \(.end.sum_received.bits_per_second / 1e6 | floor) Mbit/s, \(.end.sum_sent.retransmits) segments sent again"
        end' "$OUT/iperf3.json"
}

# The table that l2fwd has drawn last: what stands behind the last step back to its beginning.
last_table() { awk -v RS='\033' 'END { sub(/^\[J/, ""); printf "%s", $0 }' "$OUT/l2fwd.txt"; }

show_gen() { # SECONDS
    title 'A generator and checker behind NIC 0; NIC 1 reflects'
    nics gen:rate=max,size=60 reflect --wait-when-full
    l2fwd --no-mac-updating --lossless --table
    grep -E '^Port|^Forwarding' "$OUT/l2fwd.txt"
    sleep "$1"
    finish
    title 'What the generator has checked'
    grep gen_ "$OUT/stats.txt"
}

FAILURES=0

finish() {
    title 'Ctrl-C'
    l2fwd_stop
    last_table
    ((L2FWD_CODE == 0)) || failed "l2fwd ended with $L2FWD_CODE"
    ((FAILURES == 0)) || die "$FAILURES of the steps above failed"
    say 'All of it went through l2fwd.'
}

must() { "$@" || failed "$*"; }

failed() {
    warn "$*"
    FAILURES=$((FAILURES + 1))
}

main "$@"
