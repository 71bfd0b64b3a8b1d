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
    exact_drops
    for fault in withhold length place checksum address; do lie "$fault"; done
    stuck rx
    stuck tx
    device_reset
    unplugged
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

# A lie about some frames: forwarding goes on.
lie() { # FAULT
    local before after
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating --rx-checksum
    sleep 1
    ctl fault "$1" rx count 3 >/dev/null
    # Two looks of the driver's watch and the restart: 2 s and a bit.
    sleep 4
    before=$(gen_now received)
    sleep 2
    after=$(gen_now received)
    l2fwd_stop
    goes_on "a device that lies ($1)" "$before" "$after"
}

stuck() { # rx|tx
    local before after nic=0
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating
    sleep 1
    [[ $1 == rx ]] || nic=1
    ctl nic "$nic" stick "$1" 0 >/dev/null
    sleep 3
    [[ $1 == tx ]] || ctl free >/dev/null # a ring that takes nothing looks like silence: nobody can tell
    sleep 2
    before=$(gen_now received)
    sleep 2
    after=$(gen_now received)
    l2fwd_stop
    goes_on "a $1 queue that was stuck" "$before" "$after"
}

device_reset() {
    local before after
    nics gen:rate=20000,size=60-1514 reflect
    l2fwd --no-mac-updating
    sleep 1
    ctl reset >/dev/null
    sleep 3
    before=$(gen_now received)
    sleep 2
    after=$(gen_now received)
    l2fwd_stop
    goes_on 'a device that was reset behind the driver' "$before" "$after"
    if grep -q 'started anew' "$OUT/l2fwd.txt"; then ok 'the restart is told'; else not_ok 'the restart is told' "$(tail -n 9 "$OUT/l2fwd.txt")"; fi
}

goes_on() { # NAME BEFORE AFTER
    if (($3 > $2)); then ok "$1: forwarding goes on"; else not_ok "$1: forwarding goes on" "$2 then $3"$'\n'"$(tail -n 9 "$OUT/l2fwd.txt")"; fi
    mbufs_returned "$1"
}

unplugged() {
    nics gen:rate=20000,size=60 reflect
    l2fwd --no-mac-updating
    sleep 1
    ctl hangup >/dev/null
    l2fwd_wait
    if ((L2FWD_CODE == 1)) && grep -q 'being taken away' "$OUT/l2fwd.txt"; then
        ok 'a device that is pulled out ends the run with a reason'
    else
        not_ok 'a device that is pulled out ends the run with a reason' "code $L2FWD_CODE: $(tail -n 5 "$OUT/l2fwd.txt")"
    fi
    mbufs_returned 'pulled out'
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
