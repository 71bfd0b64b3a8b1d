# shellcheck shell=bash disable=SC2034,SC2046
# Proof 2: killed in mid-traffic, 20 times in a row. Each time all hugepages are free again and the
# next start forwards.
MACHINE=main
ROUNDS=20

scenario() {
    local round pump
    bind_nics 0 1
    for ((round = 1; round <= ROUNDS; round++)); do
        # Half of the rounds keep their memory in files, which a killed process can't remove.
        local memory=()
        ((round % 2)) || memory=(--huge-dir /dev/hugepages)
        ((round > 1)) || check 'kill-9: hugepages.sh mounts hugetlbfs' guest 'hugepages.sh -m'
        l2fwd_start -l "$LCORES" $(allow 0 1) "${memory[@]}" -- -p 0x3 -q 1 -T 1 >/dev/null
        l2fwd_ready 0 1 >/dev/null || { not_ok "kill-9 $round: l2fwd starts" "$(guest 'cat /tmp/l2fwd.out /tmp/l2fwd.err')"; return; }
        check "kill-9 $round: l2fwd forwards${memory[*]:+ (${memory[*]})}" closed_loop "round-$round" 2 --frames 300 --forgive-stale
        closed_loop pump 2 --frames 100000000 --pause-ms 1 --timeout-s 2 >/dev/null 2>&1 &
        pump=$!
        sleep 0.3
        l2fwd_signal KILL
        wait "$pump"
        check_text "kill-9 $round: it was killed" "$(l2fwd_wait 10)" '^137$'
        ((round % 2)) && nothing_left "kill-9 $round"
    done
    # The files of the last round are for the next start to find.
    l2fwd_start -l "$LCORES" $(allow 0 1) --huge-dir /dev/hugepages -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check 'kill-9: the start after the last one forwards' closed_loop last 2 --frames 300 --forgive-stale
    l2fwd_stop kill-9
    check_text 'kill-9: no file is left on the hugetlbfs' "$(guest 'ls -A /dev/hugepages | wc -l')" '^0$'
    guest 'hugepages.sh -u' >/dev/null
}
