#!/bin/bash
# The main job at work: two network namespaces whose only connection is a guest that runs l2fwd on
# two VFIO-bound virtio NICs behind an IOMMU. ping and iperf3 go through it, its table is shown.
# Installs what it needs, ends by itself, leaves nothing running. Run it as root on Debian 12 or
# newer:
#
#   scripts/demo.sh qemu [SECONDS]   SECONDS: how long iperf3 runs (default 15)
#
# The guest's processor is emulated: what is shown is that it works, not how fast it is.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
. "$REPO/scripts/rig/prepare.sh"
. "$REPO/scripts/rig/lib.sh"

LOG=$LOGS/demo
FAILURES=0

main() {
    case ${1-} in -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;; esac
    local seconds=${1-15}
    [[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] ||
        die "wanted a number of seconds from 1 to 999, found '$seconds'. Run: scripts/demo.sh qemu 15"
    ((EUID == 0)) || die "wanted root for taps and namespaces, found user $(id -un). Run: sudo scripts/demo.sh qemu"
    title 'Getting ready'
    mkdir -p "$LOG"
    need_command iperf3
    prepare
    trap machine_stop EXIT
    trap 'exit 130' INT TERM
    boot_guest
    start_l2fwd
    show_ping
    show_iperf3 "$seconds"
    finish
}

title() { printf '\n== %s ==\n' "$*"; }

boot_guest() {
    title 'A guest with an IOMMU; each NIC is wired to a namespace'
    say "namespace ${NETNS[0]} (198.18.0.1) -- NIC 05:00.0 [guest: l2fwd] NIC 06:00.0 -- namespace ${NETNS[1]} (198.18.0.2)"
    machine_start main "$LOG" || exit 1
    in_guest hugepages.sh -r 128M -n 0
    in_guest devbind.sh -b vfio-pci 05:00.0 06:00.0
    in_guest 'devbind.sh -s | grep -B 3 -A 4 05:00'
}

start_l2fwd() {
    title 'l2fwd takes both NICs'
    local line='packetboat-l2fwd -l 1,2 -a 05:00.0 -a 06:00.0 -- -p 0x3 -P -q 1 -T 1'
    say "guest# $line"
    # The screen is a console of the guest; here it's a file that grows.
    guest "stty -F /dev/hvc0 rows 40 cols 132
        setsid bash -c '$line --stats-json /tmp/l2fwd.json </dev/hvc0 >/dev/hvc0 2>&1 &
            echo \$! >/tmp/l2fwd.pid; wait \$!; echo \$? >/tmp/l2fwd.code' >/dev/null 2>&1 </dev/null &
        while [ ! -s /tmp/l2fwd.pid ]; do usleep 10000; done"
    l2fwd_ready 4 5 >"$LOG/ready.txt" || {
        cat "$LOG/ready.txt" "$RUN/screen"
        exit 1
    }
    sleep 2
    screen
}

show_ping() {
    title 'ping through it, both ways'
    must outside 0 ping -c 5 -i 0.3 -w 20 198.18.0.2
    must outside 1 ping -q -c 5 -i 0.3 -w 20 198.18.0.1
}

show_iperf3() {
    local server client from
    title "iperf3 through it for $1 s; meanwhile l2fwd's table"
    outside 1 iperf3 -s -1 >"$LOG/iperf3-server.txt" 2>&1 &
    server=$!
    sleep 1
    outside 0 iperf3 -c 198.18.0.2 -t "$1" -J >"$LOG/iperf3.json" 2>&1 &
    client=$!
    if [[ -t 1 ]]; then
        # The table is redrawn in place: show what stands now, then all that is drawn from here on.
        from=$(stat -c %s "$RUN/screen")
        head -c "$from" "$RUN/screen" | last_table
        tail -c +$((from + 1)) --pid="$client" -s 0.2 -f "$RUN/screen"
    else
        while kill -0 "$client" 2>/dev/null; do
            sleep 4
            say
            screen
        done
    fi
    must wait "$client"
    kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    jq -r 'if .error then "iperf3: \(.error)" else
        "iperf3: \(.end.sum_received.bytes / 1048576 | floor) MiB in \(.end.sum_received.seconds | floor) s, \(.end.sum_received.bits_per_second / 1e6 | floor) Mbit/s, \(.end.sum_sent.retransmits) segments sent again"
        end' "$LOG/iperf3.json"
}

finish() {
    local code
    title 'Ctrl-C in the guest'
    l2fwd_signal INT
    code=$(l2fwd_wait 20)
    sleep 0.5
    screen
    [[ $code == 0 ]] || failed "l2fwd ended with $code"
    in_guest hugepages.sh -s
    guest 'cat /tmp/l2fwd.json' >"$LOG/l2fwd.json"
    guest dmesg >"$LOG/dmesg.txt"
    title 'Summary'
    jq -r '.ports[] | "port \(.port): \(.rx_packets) frames in, \(.tx_packets) out, \(.rx_dropped + .tx_dropped) dropped"' "$LOG/l2fwd.json"
    if grep -E "$ALARMS" "$LOG/dmesg.txt"; then failed 'the IOMMU or the kernel of the guest complained'; else say 'IOMMU: no fault'; fi
    grep -ao 'mbufs: [0-9]* of [0-9]* returned' "$RUN/screen"
    ((FAILURES == 0)) || die "$FAILURES of the steps above failed. Logs: $LOG"
    say "All of it went through l2fwd. Logs: $LOG"
}

# screen: the table that stands last on l2fwd's screen, with what was written around it.
screen() { last_table <"$RUN/screen"; }

last_table() {
    local text
    text=$(tr -d '\r\0')
    printf '%s\n' "${text##*$'\e[J'}"
}

in_guest() {
    say "guest# $*"
    must guest "$@"
}

must() { "$@" || failed "$*"; }

failed() {
    warn "$*"
    FAILURES=$((FAILURES + 1))
}

main "$@"
