# shellcheck shell=bash disable=SC2034,SC2046,SC2016
# Two queues on each of two ports, on two lcores: eight TCP connections between two namespaces, a
# file cut over them, and ping in both directions. Both queues of a port must have carried frames.
MACHINE=main
SIZE_MIB=16

scenario() {
    local file=$LOG/sent copy=$LOG/received port
    [[ $MACHINE != softnic ]] || SIZE_MIB=8
    bind_nics 4 5
    l2fwd_start -l "$LCORES" $(allow 4 5) -- -p 0x3 -P -q 2 --rxq 2 -T 1
    l2fwd_ready 4 5 || return
    check 'two-queues: ping from port 0 to port 1' outside 0 ping -q -c 5 -i 0.2 -w 20 198.18.0.2
    check 'two-queues: ping from port 1 to port 0' outside 1 ping -q -c 5 -i 0.2 -w 20 198.18.0.1
    transfer "$file" "$copy" "$SIZE_MIB" 8
    counters_settle
    l2fwd_stop two-queues
    check_outside_counters two-queues
    for port in 0 1; do
        check_text "two-queues: both receive queues of port $port carried frames" \
            "$(jq ".ports[$port].rx_queues | map(.packets > 0) | length == 2 and all" "$LOG/two-queues.json")" '^true$'
    done
    check_text 'two-queues: both lcores carried frames' \
        "$(jq '.lcores | map(.packets > 0) | length == 2 and all' "$LOG/two-queues.json")" '^true$'
    rm -f "$file" "$copy"
}
