# shellcheck shell=bash disable=SC2034,SC2046
# Four NICs, crossed: 0 with 3 and 1 with 2, each lcore with two of them.
MACHINE=main

scenario() {
    bind_nics 0 1 2 3
    l2fwd_start -l "$LCORES" $(allow 0 1 2 3) -- -p 0xf -q 2 -T 1 '--portmap=(0,3),(1,2)'
    l2fwd_ready 0 1 2 3 || return
    check_loop four-ports 4 --frames 20000 --window 32 --portmap '(0,3),(1,2)'
    l2fwd_stop four-ports
    check_counters four-ports four-ports
}
