# shellcheck shell=bash disable=SC2034,SC2046,SC2016
# Proof 2: killed in mid-traffic, 20 times in a row. Each time all hugepages are free again and the
# next start forwards. Then once with memory in files, which only a later start can remove.
MACHINE=main
ROUNDS=20

scenario() {
    local round rounds=$ROUNDS
    # What the kernel gives back is the same for each driver; that the device is at rest is softnic's to show.
    [[ $MACHINE != softnic ]] || rounds=4
    bind_nics 0 1
    for ((round = 1; round <= rounds; round++)); do
        kill_in_traffic "kill-9 $round" || return
        nothing_left "kill-9 $round"
    done

    check 'kill-9: hugepages.sh mounts hugetlbfs' guest 'hugepages.sh -m'
    kill_in_traffic 'kill-9 with --huge-dir' --huge-dir /dev/hugepages || return
    check 'kill-9 with --huge-dir: its files are left' guest '[ $(ls -A /dev/hugepages | wc -l) -gt 0 ]'
    l2fwd_start -l "$LCORES" $(allow 0 1) --huge-dir /dev/hugepages -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check 'kill-9: the start after the last one forwards' closed_loop last 2 --frames 300 --forgive-stale
    l2fwd_stop kill-9
    check_text 'kill-9: no file is left on the hugetlbfs' "$(guest 'ls -A /dev/hugepages | wc -l')" '^0$'
    guest 'hugepages.sh -u' >/dev/null
}

# kill_in_traffic NAME OPTION…: start, forward, kill while frames are on their way.
kill_in_traffic() {
    local name=$1 pump
    shift
    l2fwd_start -l "$LCORES" $(allow 0 1) "$@" -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 >"$LOG/ready.txt" || { not_ok "$name: l2fwd starts" "$(<"$LOG/ready.txt")"; return 1; }
    check "$name: l2fwd forwards" closed_loop before-kill 2 --frames 300 --forgive-stale
    "$WIRE" closed-loop --port "$RUN/n0,$(nic_mac 0)" --port "$RUN/n1,$(nic_mac 1)" --frames 10000000 \
        --timeout-s 10 --forgive-stale >/dev/null 2>&1 &
    pump=$!
    sleep 0.2
    l2fwd_signal KILL
    check_text "$name: it was killed" "$(l2fwd_wait 10)" '^137$'
    kill "$pump" 2>/dev/null
    wait "$pump" 2>/dev/null
    return 0
}
