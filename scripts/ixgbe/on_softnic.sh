#!/bin/bash
# Runs l2fwd on two NICs of softnic, in this machine's own processes: no VM, no VFIO, no root needed
# where hugepages aren't (it takes normal pages). Last line: 'N passed, N failed'.
#
#   scripts/ixgbe/on_softnic.sh [FRAMES]   FRAMES: of the long run (default 10000000)
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
. "$REPO/scripts/lib/tally.sh"
. "$REPO/scripts/ixgbe/lib.sh"

main() {
    local frames=${1:-10000000}
    [[ $frames =~ ^[1-9][0-9]*$ ]] || die "wanted a number of frames, found '$frames'. Run: $0 10000000"
    ixgbe_prepare
    trap ixgbe_cleanup EXIT
    trap 'exit 130' INT TERM
    many_frames "$frames"
    lean_frames $((frames / 10 + 1))
    sending_offloads $((frames / 20 + 1))
    exact_drops
    lie withhold rx 3 'uses buffers and doesn.t say'
    lie length rx 3 ''
    lie place rx 3 'uses buffers and doesn.t say'
    lie checksum rx 3 ''
    lie address rx 3 'uses buffers and doesn.t say'
    lie withhold tx 64 'has stopped sending'
    lie place tx 64 'has stopped sending'
    lie address tx 64 ''
    stuck rx
    stuck tx
    device_reset
    link_flap
    unplugged hangup
    unplugged unplug
    sleeping
    registers
    tally
}

# Frames of 60 to 9,014 bytes over four queues, each checked, none lost: the wire waits.
many_frames() { # FRAMES
    local name="$1 frames of 60 to 9,014 bytes, 4 queues, scattered, checksums"
    nics "gen:rate=max,size=60-9014,flows=64,frames=$1" reflect --wait-when-full
    l2fwd --rxq 4 --mtu 9000 --rx-checksum --lossless --no-mac-updating
    until_generated "$1" 3600
    l2fwd_stop
    all_came_back "$name" "$1"
}

# The lean path: frames of one buffer.
lean_frames() { # FRAMES
    local name="$1 frames of 60 to 1,514 bytes on the lean path"
    nics "gen:rate=max,size=60-1514,flows=16,frames=$1" reflect --wait-when-full
    l2fwd --lossless --no-mac-updating
    until_generated "$1" 900
    l2fwd_stop
    if grep -q 'paths: rx lean, tx lean' "$OUT/l2fwd.txt"; then ok 'the lean path is chosen and said'; else not_ok 'the lean path is chosen and said' "$(head -n 5 "$OUT/l2fwd.txt")"; fi
    all_came_back "$name" "$1"
}

# The path that can do more when it sends: frames that ask for nothing pass it as they are.
sending_offloads() { # FRAMES
    local name="$1 frames with the transmit offloads on"
    nics "gen:rate=max,size=60-1514,flows=16,checksums=on,frames=$1" reflect --wait-when-full
    l2fwd --lossless --tx-checksum --rx-checksum
    until_generated "$1" 900
    l2fwd_stop
    if grep -q 'paths: rx full, tx full' "$OUT/l2fwd.txt"; then ok 'transmit offloads are chosen and said'; else not_ok 'transmit offloads are chosen and said' "$(head -n 5 "$OUT/l2fwd.txt")"; fi
    if [[ $(stat_value rx_bad_checksums) == 0 ]]; then ok "$name: no checksum is wrong"; else not_ok "$name: no checksum is wrong" "$(cat "$OUT/stats.txt")"; fi
    all_came_back "$name" "$1"
}

all_came_back() { # NAME FRAMES
    local bad
    bad=$(gen_value lost)/$(gen_value corrupt)/$(gen_value reordered)
    if [[ $(gen_value received) == "$2" && $bad == 0/0/* ]]; then
        ok "$1: all came back, whole"
    else
        not_ok "$1" "$(cat "$OUT/stats.txt"; tail -n 5 "$OUT/l2fwd.txt")"
    fi
    mbufs_returned "$1"
}

# The wire drops what finds no descriptor: sent = received + each counted drop.
exact_drops() {
    local sent received missed
    nics gen:rate=200000,size=60,frames=300000 reflect
    l2fwd --no-mac-updating --rxd 64
    until_generated 300000 120 sent
    sleep 1
    l2fwd_stop
    sent=$(gen_value sent)
    received=$(port_value 0 rx_packets)
    missed=$(device_value 0 rx_missed_packets)
    if ((received > 1000 && sent == received + missed)); then
        ok "drops are exact: $sent sent = $received received + $missed missed"
    else
        not_ok 'drops are exact' "$sent sent, $received received, $missed missed"$'\n'"$(tail -n 5 "$OUT/l2fwd.txt")"
    fi
    mbufs_returned 'dropping wire'
}

# A lie about some frames: forwarding goes on, after a restart with that reason, or without one.
lie() { # FAULT rx|tx COUNT REASON
    local nic=0 name="a device that lies ($1, $2)"
    [[ $2 == rx ]] || nic=1
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating --rx-checksum
    until_generated 2000 20
    ctl nic "$nic" fault "$1" "$2" count "$3" >/dev/null
    # The driver's watch is sure after 2 s.
    [[ -z $4 ]] || until_told 'started anew'
    until_moving
    ctl nic "$nic" stats >"$OUT/lies.txt"
    l2fwd_stop
    goes_on "$name"
    if [[ $(awk '$1 == "lies" { print $2 }' "$OUT/lies.txt") != "$3" ]]; then
        not_ok "$name: $3 lies are told" "$(cat "$OUT/lies.txt")"
    elif [[ -z $4 ]] && ! grep -q 'started anew' "$OUT/l2fwd.txt"; then
        ok "$name: no need to start anew"
    elif [[ -n $4 ]] && grep -Eq "queue 0 $4.*started anew" "$OUT/l2fwd.txt"; then
        ok "$name: noticed, and the port is started anew"
    else
        not_ok "$name: ${4:-no restart}" "$(tail -n 9 "$OUT/l2fwd.txt")"
    fi
    case $1 in
        length)
            if [[ $(port_value 0 rx_drops.bad_length) == "$3" ]]; then ok "$name: each is counted"; else not_ok "$name: each is counted" "$(jq .ports[0].rx_drops "$OUT/l2fwd.json")"; fi
            ;;
    esac
}

stuck() { # rx|tx
    local nic=0
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating
    until_generated 2000 20
    [[ $1 == rx ]] || nic=1
    ctl nic "$nic" stick "$1" 0 >/dev/null
    if [[ $1 == tx ]]; then
        until_told 'transmit queue 0 has stopped sending; it is started anew'
    else
        sleep 3
        ctl free >/dev/null # a ring that takes nothing looks like silence: nobody can tell
    fi
    until_moving
    l2fwd_stop
    goes_on "a $1 queue that was stuck"
    [[ $1 == rx ]] || {
        local lost
        lost=$(port_value 1 'tx_queues[0].in_flight')
        if ((lost > 0)); then ok "frames that it never sent are counted: $lost"; else not_ok 'frames that it never sent are counted' "$(jq '.ports[1]' "$OUT/l2fwd.json")"; fi
    }
}

device_reset() {
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating
    until_generated 2000 20
    ctl reset >/dev/null
    until_told 'was reset behind this program.s back; it is started anew'
    until_moving
    l2fwd_stop
    goes_on 'a device that was reset behind the driver'
    if grep -q 'started anew' "$OUT/l2fwd.txt"; then ok 'the restart is told'; else not_ok 'the restart is told' "$(tail -n 9 "$OUT/l2fwd.txt")"; fi
}

# The cable is taken out of each NIC in turn, and put in again.
link_flap() {
    local nic
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating
    for nic in 0 1; do
        until_generated 2000 20
        ctl nic "$nic" link down >/dev/null
        until_told "port $nic .*link Down"
        ctl nic "$nic" link up >/dev/null
        until_told "port $nic .*link Up"
        until_moving
    done
    l2fwd_stop
    goes_on 'links that went down and up'
    if (($(grep -Ec 'port [01] .*link (Down|Up)' "$OUT/l2fwd.txt") >= 4)); then ok 'each change of a link is told'; else not_ok 'each change of a link is told' "$(tail -n 9 "$OUT/l2fwd.txt")"; fi
    if grep -q 'started anew' "$OUT/l2fwd.txt"; then not_ok 'a link that is down is no fault' "$(tail -n 9 "$OUT/l2fwd.txt")"; else ok 'a link that is down is no fault'; fi
}

# until_told PATTERN: until l2fwd has said so, or 15 s.
until_told() {
    local tries
    for ((tries = 150; tries; tries--)); do
        grep -q "$1" "$OUT/l2fwd.txt" && return
        sleep 0.1
    done
}

# until_moving: until more frames come back than had; sets MOVING. More than were on their way, too.
until_moving() {
    local start tries
    MOVING=''
    start=$(gen_now received)
    for ((tries = 50; tries; tries--)); do
        sleep 0.2
        if (($(gen_now received) > start + 5000)); then
            MOVING=yes
            return
        fi
    done
}

goes_on() { # NAME
    if [[ $MOVING == yes ]]; then ok "$1: forwarding goes on"; else not_ok "$1: forwarding goes on" "$(tail -n 9 "$OUT/l2fwd.txt"; cat "$OUT/stats.txt")"; fi
    mbufs_returned "$1"
}

# The device goes: its process is gone, or asks to have it back (VFIO's request interrupt).
unplugged() { # hangup|unplug
    local name="a device that is pulled out ($1)"
    nics gen:rate=20000,size=60 reflect
    l2fwd --no-mac-updating
    until_generated 2000 20
    ctl "$1" >"$OUT/ctl.txt" 2>&1 || not_ok "$name: the command" "$(cat "$OUT/ctl.txt")"
    l2fwd_wait
    if ((L2FWD_CODE == 1)) && grep -q 'being taken away' "$OUT/l2fwd.txt"; then
        ok "$name ends the run with a reason"
    else
        not_ok "$name ends the run with a reason" "code $L2FWD_CODE: $(tail -n 5 "$OUT/l2fwd.txt")"
    fi
    mbufs_returned "$name"
}

# An idle lcore sleeps, and wakes with the first frame.
sleeping() {
    nics gen:rate=200,size=60,frames=600 reflect --wait-when-full
    l2fwd --no-mac-updating --interrupt-mode
    until_generated 600 60
    l2fwd_stop
    all_came_back '600 frames, one at a time, to an lcore that sleeps' 600
    # How long it sleeps depends on what else this machine does; that it does, and wakes, doesn't.
    local slept
    slept=$(sed -nE 's/^lcore [0-9]+: (slept ([0-9]+) times.*)/\2 \1/p' "$OUT/l2fwd.txt")
    slept=${slept:-0 never}
    if ((${slept%% *} >= 20)); then ok "the lcore ${slept#* }"; else not_ok 'the lcore sleeps' "$(tail -n 6 "$OUT/l2fwd.txt")"; fi
    say "latency with interrupts: median $(gen_value latency_p50_ns) ns, 99 % $(gen_value latency_p99_ns) ns"
}

registers() {
    nics reflect reflect
    l2fwd --dump-regs
    l2fwd_stop
    if grep -Eq '^Port 1 RDLEN\[0\] +0x01008 0x00002000' "$OUT/l2fwd.txt"; then ok 'registers are dumped'; else not_ok 'registers are dumped' "$(head -n 20 "$OUT/l2fwd.txt")"; fi
}

main "$@"
