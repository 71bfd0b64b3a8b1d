# shellcheck shell=bash disable=SC2034,SC2016
# DPDK's own ixgbe driver on softnic, over VFIO behind the virtual IOMMU: testpmd between NICs 0 and 1.
MACHINE=softnic
FRAMES=5000

scenario() {
    local scalar=--force-max-simd-bitwidth=64
    bind_nics 0 1
    dpdk_loop vector '' '' --frames "$FRAMES" --window 64
    dpdk_loop scalar "$scalar" '' --frames "$FRAMES" --window 64
    dpdk_loop rss '' '--rxq=2 --txq=2 --nb-cores=2' --frames "$FRAMES" --window 64
    check_text 'rss: both receive queues carried frames' "$(<"$LOG/rss.txt")" \
        'RX Port= 0/Queue= 0[^0-9]' 'RX Port= 0/Queue= 1[^0-9]'
    # Buffers of 2,048 bytes with headroom: a frame of 9,000 takes five.
    dpdk_loop scatter '' '--max-pkt-len=9018 --mbuf-size=2176 --enable-scatter --tx-offloads=0x8000' \
        --frames 1000 --window 16
    check 'scatter: frames of 9,000 bytes' true
    dpdk_checksum
}

# dpdk_start NAME EAL-OPTIONS OPTIONS
dpdk_start() {
    local eal=$2 options=$3
    local command="/dpdk/ld-linux-x86-64.so.2 --inhibit-cache --library-path /dpdk /dpdk/testpmd -l 0-2 -n 1 --in-memory -d \$(ls /dpdk/drivers/librte_mempool_ring.so*) $eal -a $(nic_bdf 0) -a $(nic_bdf 1) -- --total-num-mbufs=4096 --port-topology=paired $options"
    printf '%s\n' "$command" >>"$LOG/testpmd.commands"
    guest "mkdir -p /mnt/huge; mountpoint -q /mnt/huge || mount -t hugetlbfs nodev /mnt/huge; rm -f /tmp/testpmd.*; mkfifo /tmp/testpmd.in
        setsid bash -c '$command -i </tmp/testpmd.in >/tmp/testpmd.out 2>&1; echo \$? >/tmp/testpmd.code' </dev/null >/dev/null 2>&1 &
        setsid sleep 600 >/tmp/testpmd.in 2>/dev/null </dev/null & echo \$! >/tmp/testpmd.hold"
}

# dpdk_say TEXT: a line for testpmd.
dpdk_say() { guest "echo '$1' >/tmp/testpmd.in"; }

# dpdk_wait PATTERN: up to 30 s, until it stands in the output.
dpdk_wait() {
    guest "for try in \$(seq 300); do grep -qE '$1' /tmp/testpmd.out && exit; [ ! -e /tmp/testpmd.code ] || break; usleep 100000; done; tail -n 30 /tmp/testpmd.out; exit 1"
}

# dpdk_stop NAME: end it; what it said goes to $LOG/NAME.txt.
dpdk_stop() {
    dpdk_say stop
    dpdk_wait 'Done\.' >/dev/null
    dpdk_say quit
    check "$1: testpmd ends with 0" guest 'for try in $(seq 200); do [ -e /tmp/testpmd.code ] && break; usleep 100000; done; kill $(cat /tmp/testpmd.hold); cat /tmp/testpmd.code; [ "$(cat /tmp/testpmd.code)" = 0 ]'
    guest 'cat /tmp/testpmd.out' >"$LOG/$1.txt"
}

# dpdk_loop NAME EAL-OPTIONS OPTIONS LOOP-OPTION…
dpdk_loop() {
    local name=$1
    dpdk_start "$1" "$2" "$3"
    shift 3
    if check "$name: testpmd starts both ports" dpdk_wait 'Checking link statuses|testpmd>'; then
        dpdk_say start
        check "$name: links up, forwarding" dpdk_wait 'io packet forwarding'
        sleep 1
        check_loop "$name" 2 --no-mac-updating "$@"
    fi
    dpdk_stop "$name"
}

# The device tells which checksums are bad, and makes those of what is sent.
dpdk_checksum() {
    local before after
    dpdk_start checksum '' '--enable-rx-cksum --tx-offloads=0xe --forward-mode=csum'
    dpdk_wait 'testpmd>' >/dev/null
    dpdk_say 'csum set ip hw 0'
    dpdk_say 'csum set udp hw 0'
    dpdk_say 'csum set ip hw 1'
    dpdk_say 'csum set udp hw 1'
    dpdk_say start
    check 'checksum: forwarding' dpdk_wait 'csum packet forwarding'
    sleep 1
    check_loop checksum 2 --no-mac-updating --frames "$FRAMES" --window 64
    dpdk_stop checksum
    check_text 'checksum: testpmd found none bad' "$(grep -A 12 'Forward statistics for port 0' "$LOG/checksum.txt")" 'Bad-ipcsum: 0 +Bad-l4csum: 0'
}
