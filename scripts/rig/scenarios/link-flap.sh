# shellcheck shell=bash disable=SC2034,SC2046
# The link of one port goes down and comes up again while l2fwd runs: it says so, and goes on.
MACHINE=main

scenario() {
    local round
    bind_nics 0 1
    l2fwd_start -l "$LCORES" $(allow 0 1) -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check_loop before 2 --frames 1000
    for round in 1 2 3; do
        set_link 0 down
        check "link-flap $round: l2fwd reports the link down" wait_for_text "$round" 'port 0 .*link down'
        set_link 0 up
        check "link-flap $round: l2fwd reports the link up" wait_for_text "$round" 'port 0 .*link up'
        check_loop "after-$round" 2 --frames 1000
    done
    l2fwd_stop link-flap
    check_counters link-flap before after-1 after-2 after-3
}

# wait_for_text COUNT PATTERN: wait some 15 s, or 60 looks, until l2fwd has said it that often.
wait_for_text() {
    local try
    for ((try = 0; try < 60; try++)); do
        # It exits with 1 where it counts 0.
        (($(guest "cat /tmp/l2fwd.out /tmp/l2fwd.err | grep -ciE '$2'; true") < $1)) || return 0
        sleep 0.25
    done
    guest 'tail -n 5 /tmp/l2fwd.out /tmp/l2fwd.err'
    return 1
}
