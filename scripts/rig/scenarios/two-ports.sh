# shellcheck shell=bash disable=SC2034,SC2046
# Proof 1: 20,000 frames of mixed sizes each way between two NICs.
MACHINE=main

scenario() {
    bind_nics 0 1
    l2fwd_start -l "$LCORES" $(allow 0 1) -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check_loop two-ports 2 --frames 20000 --window 64
    l2fwd_stop two-ports
    check_counters two-ports two-ports
}
