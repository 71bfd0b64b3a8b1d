# shellcheck shell=bash disable=SC2034,SC2016
# The stock Linux driver on softnic: NICs 4 and 5 to namespaces outside, NICs 6 and 7 to each other.
MACHINE=softnic

scenario() {
    # NIC 4 without translation, as most machines run it; the others behind the virtual IOMMU.
    guest 'cd /sys/bus/pci/devices
        for n in 01 02 03 04 09 0a; do echo vfio-pci >0000:$n:00.0/driver_override; done
        echo identity >0000:05:00.0/iommu_group/type
        modprobe 8021q'
    linux_probe first
    linux_ping 4 0 first
    linux_ping 5 1 first
    linux_tcp
    linux_pair
    linux_self_test
    linux_counters
    linux_link
    linux_rmmod
    linux_reboot
}

# linux_probe ROUND: load the driver; all four NICs must come up with a link.
linux_probe() {
    local n found
    GUEST_TIMEOUT_S=120 guest 'dmesg -c >/dev/null; modprobe ixgbe'
    for n in 4 5 6 7; do
        found=$(guest "
            name=\$(ls /sys/bus/pci/devices/$(nic_bdf "$n")/net)
            ip link set \$name down; ip link set \$name name nic$n; ip link set nic$n up
            for try in \$(seq 100); do [ \"\$(cat /sys/class/net/nic$n/carrier)\" = 1 ] && break; usleep 100000; done
            cat /sys/class/net/nic$n/address /sys/class/net/nic$n/carrier" | paste -sd' ')
        check_text "$1: NIC $n probes, link up" "$found" "^$(nic_mac "$n") 1$"
    done
    guest 'dmesg' >"$LOG/probe-$1.txt"
    check_text "$1: SFP+ and part number are read" "$(<"$LOG/probe-$1.txt")" 'SFP\+: 5, PBA No: SOFTNIC-82'
}

# linux_ping NIC NAMESPACE ROUND
linux_ping() {
    guest "ip addr replace 198.18.0.1$1/24 dev nic$1; ip route replace 198.18.0.$(($2 + 1)) dev nic$1"
    check_text "$3: NIC $1: ping, 0 % loss" \
        "$(guest "ping -q -c 20 -i 0.1 198.18.0.$(($2 + 1))" 2>&1)" '20 packets received, 0% packet loss'
}

# Segmentation and checksums are the device's work here.
linux_tcp() {
    local before=() after=() n server way
    check_text 'TCP segmentation and checksums are offloaded' "$(guest 'ethtool -k nic4')" \
        'tcp-segmentation-offload: on' 'tx-checksumming: on' 'rx-checksumming: on'
    for n in 0 1; do before+=("$(softnic_stat 4 "rx_queue_${n}_frames")"); done
    for way in '' -R; do
        outside 0 iperf3 -s -1 -J >"$LOG/iperf3-server$way.json" 2>&1 </dev/null &
        server=$!
        sleep 0.5
        GUEST_TIMEOUT_S=40 guest "iperf3 -c 198.18.0.1 -t 5 -P 8 -J $way" >"$LOG/iperf3$way.json"
        wait "$server"
        check_text "iperf3${way:+ $way}: TCP over 8 connections" \
            "$(jq -r 'if .error then .error else .end.sum_received.bytes > 4194304 end' "$LOG/iperf3$way.json")" '^true$'
    done
    say "# iperf3: $(jq -r '.end.sum_received.bits_per_second / 1e6 | floor' "$LOG/iperf3.json") Mbit/s out, $(
        jq -r '.end.sum_received.bits_per_second / 1e6 | floor' "$LOG/iperf3-R.json") in, on an emulated processor"
    for n in 0 1; do
        after+=("$(softnic_stat 4 "rx_queue_${n}_frames")")
        check_text "RSS: receive queue $n carried frames" "$((after[n] - before[n] > 100))" '^1$'
    done
    check_text 'no frame with a bad checksum came out of segmentation' "$(outside 0 cat /proc/net/snmp | awk '/^Tcp: [0-9]/ { print $NF }')" '^0$'
}

# VLANs and jumbo frames, between two NICs that are plugged into each other: one in a namespace.
linux_pair() {
    guest 'unshare -n sleep 3600 </dev/null >/dev/null 2>&1 & echo $! >/tmp/peer; usleep 300000
        ip link set nic7 netns $(cat /tmp/peer)
        peer() { nsenter -t $(cat /tmp/peer) -n "$@"; }
        ip addr add 198.19.0.1/24 dev nic6; ip link set nic6 mtu 9000 up
        ip link add link nic6 name tagged type vlan id 5; ip addr add 198.19.5.1/24 dev tagged; ip link set tagged up
        peer ip addr add 198.19.0.2/24 dev nic7; peer ip link set nic7 mtu 9000 up
        peer ip link add link nic7 name tagged type vlan id 5; peer ip addr add 198.19.5.2/24 dev tagged; peer ip link set tagged up
        for try in $(seq 100); do [ "$(cat /sys/class/net/nic6/carrier)" = 1 ] && ping -c 1 -W 1 198.19.0.2 >/dev/null && break; usleep 100000; done' >/dev/null
    check_text 'joined NICs: ping, 0 % loss' "$(guest 'ping -q -c 10 -i 0.1 198.19.0.2' 2>&1)" '10 packets received, 0% packet loss'
    check_text 'joined NICs: ping in a VLAN' "$(guest 'ping -q -c 10 -i 0.1 198.19.5.2' 2>&1)" '10 packets received, 0% packet loss'
    check_text 'joined NICs: ping of 9,000 bytes' "$(guest 'ping -q -s 8972 -c 10 -i 0.1 198.19.0.2' 2>&1)" '10 packets received, 0% packet loss'
    check_text 'joined NICs: ping of 9,000 bytes in a VLAN' "$(guest 'ping -q -s 8972 -c 10 -i 0.1 198.19.5.2' 2>&1)" '10 packets received, 0% packet loss'
    check_text 'another VLAN is filtered' "$(guest 'nsenter -t $(cat /tmp/peer) -n ip link add link nic7 name other type vlan id 6
        nsenter -t $(cat /tmp/peer) -n ip addr add 198.19.6.2/24 dev other; nsenter -t $(cat /tmp/peer) -n ip link set other up
        nsenter -t $(cat /tmp/peer) -n ping -q -c 2 -W 1 198.19.6.1; true' 2>&1; softnic_stat 6 rx_filtered)" '100% packet loss' '^[1-9][0-9]*$'
}

linux_self_test() {
    GUEST_TIMEOUT_S=120 guest 'ethtool -t nic5 offline' >"$LOG/self-test.txt" 2>&1
    check_text 'ethtool -t: all passed' "$(<"$LOG/self-test.txt")" 'result is PASS' 'Register test  \(offline\)[[:space:]]+0' \
        'Eeprom test    \(offline\)[[:space:]]+0' 'Interrupt test \(offline\)[[:space:]]+0' \
        'Loopback test  \(offline\)[[:space:]]+0' 'Link test   \(on/offline\)[[:space:]]+0'
}

# What the driver read out of registers equals what softnic counted. The driver reads them every two
# seconds; NIC 4 has been quiet since.
linux_counters() {
    local name pair differences='' ours theirs
    sleep 3
    guest 'ethtool -S nic4' >"$LOG/ethtool-S.txt"
    softnic_ctl nic 4 stats >"$LOG/softnic-stats.txt"
    for pair in rx_pkts_nic:rx_frames rx_queue_0_packets:rx_queue_0_frames \
        rx_queue_1_packets:rx_queue_1_frames tx_queue_0_packets:tx_queue_0_frames rx_bytes:rx_bytes \
        multicast:rx_multicast broadcast:rx_broadcast; do
        theirs=$(awk -v name="${pair%:*}:" '$1 == name { print $2 }' "$LOG/ethtool-S.txt")
        ours=$(awk -v name="${pair#*:}" '$1 == name { print $2 }' "$LOG/softnic-stats.txt")
        [[ -n $theirs && $theirs == "${ours:-0}" ]] || differences+="$pair: $theirs, $ours"$'\n'
    done
    # The device counts pause frames with the others; the driver takes them off.
    theirs=$(awk '$1 == "tx_pkts_nic:" { print $2 }' "$LOG/ethtool-S.txt")
    ours=$(awk '$1 == "tx_frames" { n += $2 } $1 == "tx_xoff" || $1 == "tx_xon" { n -= $2 } END { print n }' "$LOG/softnic-stats.txt")
    [[ $theirs == "$ours" ]] || differences+="tx_pkts_nic: $theirs, $ours"$'\n'
    # Its bytes have the CRC, and those of frames that found no room.
    theirs=$(awk '$1 == "rx_bytes_nic:" { print $2 }' "$LOG/ethtool-S.txt")
    ours=$(awk '/^rx_(frames|missed) / { frames += $2 } /^rx_(missed_)?bytes / { bytes += $2 } END { print bytes + 4 * frames }' "$LOG/softnic-stats.txt")
    [[ $theirs == "$ours" ]] || differences+="rx_bytes_nic: $theirs, $ours"$'\n'
    local what="ethtool -S equals what softnic counted"
    if [[ -z $differences ]]; then ok "$what"; else not_ok "$what" "$differences"; fi
}

linux_link() {
    softnic_ctl nic 4 link down
    check 'link down is seen' carrier_is 4 0
    softnic_ctl nic 4 link up
    check 'link up is seen' carrier_is 4 1
    linux_ping 4 0 'after the link was down'
}

carrier_is() { # NIC STATE
    guest "for try in \$(seq 100); do [ \"\$(cat /sys/class/net/nic$1/carrier)\" = $2 ] && exit; usleep 100000; done; dmesg | tail; exit 1"
}

linux_rmmod() {
    local round
    for round in 1 2; do
        check "rmmod $round" guest 'kill $(cat /tmp/peer) 2>/dev/null; usleep 300000; rmmod ixgbe && [ ! -e /sys/class/net/nic4 ]'
        linux_probe "modprobe $round"
        linux_ping 4 0 "modprobe $round"
    done
}

linux_reboot() {
    local try
    guest 'dmesg -c' >"$LOG/dmesg-before-reboot.txt"
    if grep -qE "$ALARMS" "$LOG/dmesg-before-reboot.txt"; then
        not_ok 'no alarm before the reboot' "$(grep -E "$ALARMS" "$LOG/dmesg-before-reboot.txt")"
    fi
    qmp system_reset >/dev/null
    sleep 3
    for ((try = 0; try < 30; try++)); do
        "$WIRE" guest --socket "$RUN/agent" --timeout-s 5 -- true 2>/dev/null && break
        sleep 1
    done
    guest "cd /sys/bus/pci/devices
        for n in 01 02 03 04 09 0a; do echo vfio-pci >0000:\$n:00.0/driver_override; done
        echo identity >0000:05:00.0/iommu_group/type; dmesg -c >/dev/null
        hugepages.sh -r $PAGES -n 0 >/dev/null"
    linux_probe 'after a reboot'
    linux_ping 4 0 'after a reboot'
}
