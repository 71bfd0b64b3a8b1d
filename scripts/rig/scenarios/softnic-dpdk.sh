# shellcheck shell=bash disable=SC2034,SC2016
# DPDK's own ixgbe driver on softnic, over VFIO behind the virtual IOMMU: testpmd forwards between two
# NICs, both ways. Frames come from outside (NICs 0 and 1) or from softnic's generator (8 and 9).
MACHINE=softnic
FRAMES=5000
# testpmd drops what a full transmit ring has no room for, and softnic may be slow on a busy machine.
PATIENT='set burst tx delay 100 retry 10000'

scenario() {
    bind_nics 0 1 8 9
    dpdk_loop vector '' ''
    dpdk_loop scalar --force-max-simd-bitwidth=64 ''
    # Buffers of 1,024 bytes: a frame of 1,514 takes two.
    dpdk_loop scatter '' '--mbuf-size=1152 --enable-scatter --tx-offloads=0x8000'
    dpdk_generated rss '' '--rxq=2 --txq=2 --nb-cores=2 --rss-udp' 'set fwd io retry' "$PATIENT" start
    check_text 'rss: both receive queues carried frames' "$(<"$LOG/rss.nic8.txt")" \
        '^rx_queue_0_frames [1-9]' '^rx_queue_1_frames [1-9]'
    # The device checks what comes, and makes the checksums of what goes.
    dpdk_generated checksum '' '--enable-rx-cksum --forward-mode=csum' 'port stop all' 'csum set ip hw 0' 'csum set udp hw 0' \
        'csum set ip hw 1' 'csum set udp hw 1' 'port start all' 'set fwd csum retry' "$PATIENT" start
    check_text 'checksum: testpmd found none bad' "$(<"$LOG/checksum.txt")" 'Bad-ipcsum: 0 +Bad-l4csum: 0'
}

# dpdk_start NAME NIC NIC EAL-OPTIONS OPTIONS COMMAND…: the commands are testpmd's own.
dpdk_start() {
    local command n try
    command="/dpdk/ld-linux-x86-64.so.2 --inhibit-cache --library-path /dpdk /dpdk/testpmd -l 0-2 -n 1 --in-memory -d \$(ls /dpdk/drivers/librte_mempool_ring.so*) $4 -a $(nic_bdf "$2") -a $(nic_bdf "$3") -- -i --cmdline-file=/tmp/testpmd.commands --total-num-mbufs=6144 $5"
    printf '%s\n' "$command" "${@:6}" >>"$LOG/testpmd.commands"
    guest "rm -f /tmp/testpmd.*; mkfifo /tmp/testpmd.in; cat >/tmp/testpmd.commands <<'END'
$(printf '%s\n' "${@:6}")
END
        setsid bash -c '$command </tmp/testpmd.in >/tmp/testpmd.out 2>&1; echo \$? >/tmp/testpmd.code' </dev/null >/dev/null 2>&1 &
        setsid sleep 600 >/tmp/testpmd.in 2>/dev/null </dev/null & echo \$! >/tmp/testpmd.hold"
    # What it says stays in its buffer until the end: softnic knows when both receivers are on. Before
    # it forwards, testpmd empties the rings for a second.
    for ((try = 0; try < 60; try++)); do
        for n in "$2" "$3"; do
            softnic_ctl nic "$n" registers | grep -q '^RXCTRL .*1$' || { sleep 0.5 && continue 2; }
        done
        sleep 4
        ok "$1: testpmd starts both ports"
        return 0
    done
    not_ok "$1: testpmd starts both ports" "$(guest 'cat /tmp/testpmd.code; tail -n 30 /tmp/testpmd.out')"
    return 1
}

# dpdk_stop NAME: end it; what it said goes to $LOG/NAME.txt.
dpdk_stop() {
    check "$1: testpmd ends with 0" guest 'printf "stop\nquit\n" >/tmp/testpmd.in
        for try in $(seq 100); do [ -e /tmp/testpmd.code ] && break; usleep 100000; done
        kill $(cat /tmp/testpmd.hold); cat /tmp/testpmd.code; [ "$(cat /tmp/testpmd.code)" = 0 ]'
    guest 'cat /tmp/testpmd.out' >"$LOG/$1.txt"
}

# dpdk_loop NAME EAL-OPTIONS OPTIONS: frames through NICs 0 and 1, each compared byte by byte outside.
dpdk_loop() {
    if dpdk_start "$1" 0 1 "$2" "$3" start; then
        check_loop "$1" 2 --no-mac-updating --frames "$FRAMES" --window 64
    fi
    dpdk_stop "$1"
}

# dpdk_generated NAME EAL-OPTIONS OPTIONS COMMAND…: frames of softnic through NICs 8 and 9.
dpdk_generated() {
    local n try report=
    if dpdk_start "$1" 8 9 "$2" "$3" "${@:4}"; then
        for n in 8 9; do softnic_ctl nic "$n" wire reset; done
        for n in 8 9; do softnic_ctl nic "$n" wire frames "$FRAMES"; done
        for ((try = 0; try < 40; try++)); do
            sleep 0.5
            [[ $(softnic_stat 8 gen_received) != "$FRAMES" || $(softnic_stat 9 gen_received) != "$FRAMES" ]] || break
        done
        for n in 8 9; do
            softnic_ctl nic "$n" stats >"$LOG/$1.nic$n.txt"
            check_text "$1: NIC $n: 0 lost, 0 reordered, bytes exact" "$(<"$LOG/$1.nic$n.txt")" \
                "^gen_received $FRAMES$" '^gen_lost 0$' '^gen_reordered 0$' '^gen_duplicates 0$' '^gen_corrupt 0$'
        done
    fi
    dpdk_stop "$1"
}
