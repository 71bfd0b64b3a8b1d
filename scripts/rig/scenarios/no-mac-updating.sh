# shellcheck shell=bash disable=SC2034,SC2046
# Proof 1, with addresses left as they are.
MACHINE=main

scenario() {
    bind_nics 0 1
    l2fwd_start -l "$LCORES" $(allow 0 1) -- -p 0x3 -q 1 -T 1 --no-mac-updating
    l2fwd_ready 0 1 || return
    check_loop no-mac-updating 2 --frames 20000 --window 64 --no-mac-updating
    l2fwd_stop no-mac-updating
    check_counters no-mac-updating no-mac-updating
}
