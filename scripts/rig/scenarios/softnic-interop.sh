# shellcheck shell=bash disable=SC2034,SC2016,SC2046
# Our driver and Linux's, on two NICs that are plugged into each other: Linux's nic7 reaches a namespace
# outside only by way of l2fwd.
#
#   Linux ixgbe, NIC 7 == NIC 6, l2fwd, NIC 5 -- tap, namespace 1
MACHINE=softnic
SIZE_MIB=8
LINUX=198.18.0.17 # NIC 7

scenario() {
    local file=$LOG/sent copy=$LOG/received server
    bind_nics 5 6
    l2fwd_start -l "$LCORES" $(allow 5 6) -- -p 0x3 -P -q 1 -T 1 --no-mac-updating
    l2fwd_ready 5 6 || return
    linux_nic7
    check_text 'interop: ping from Linux through l2fwd, 0 % loss' \
        "$(guest 'ping -q -c 20 -i 0.1 198.18.0.2' 2>&1)" '20 packets received, 0% packet loss'
    check_text 'interop: ping to Linux through l2fwd, 0 % loss' \
        "$(outside 1 ping -q -c 20 -i 0.1 -w 20 "$LINUX" 2>&1)" '20 received, 0% packet loss'
    interop_iperf3 '' out
    interop_iperf3 -R in

    head -c "${SIZE_MIB}M" /dev/urandom >"$file"
    guest "packetboat-wire tcp-receive $LINUX:5202 /tmp/interop.copy </dev/null >/tmp/interop.log 2>&1 & usleep 500000"
    check "interop: a file of $SIZE_MIB MiB is sent to Linux" outside 1 "$WIRE" tcp-send "$LINUX:5202" "$file"
    check_text 'interop: it arrives with the checksum that it left with' \
        "$(guest 'n=0; while pidof packetboat-wire >/dev/null && [ $n -lt 100 ]; do usleep 100000; n=$((n + 1)); done
            cat /tmp/interop.log; sha256sum </tmp/interop.copy; rm -f /tmp/interop.copy')" "^$(sha256sum <"$file")$"

    check_text 'interop: no bad checksum at either end' \
        "$(outside 1 cat /proc/net/snmp | awk '/^Tcp: [0-9]/ { print $NF }') $(guest cat /proc/net/snmp | awk '/^Tcp: [0-9]/ { print $NF }')" '^0 0$'
    counters_settle
    guest 'dmesg' >"$LOG/linux.txt"
    guest 'ip link set nic7 down; rmmod ixgbe'
    l2fwd_stop interop
    check_text 'interop: what entered at one port left at the other or was counted as dropped' "$(jq -r '
        .ports | [(.[0].rx_packets == .[1].tx_packets + .[1].tx_dropped), (.[1].rx_packets == .[0].tx_packets + .[0].tx_dropped)] | all' "$LOG/interop.json")" '^true$'
    rm -f "$file" "$copy"
}

# linux_nic7: the kernel's driver takes NIC 7 alone, and it comes up.
linux_nic7() {
    GUEST_TIMEOUT_S=120 guest "cd /sys/bus/pci/devices
        for n in 0 1 2 3 4 8 9; do printf 'vfio-pci' >\$(printf '0000:%02x:00.0' \$((n + 1)))/driver_override; done
        echo >$(nic_bdf 7)/driver_override
        modprobe ixgbe
        [ -e $(nic_bdf 7)/driver ] || echo $(nic_bdf 7) >/sys/bus/pci/drivers_probe
        name=\$(ls /sys/bus/pci/devices/$(nic_bdf 7)/net)
        ip link set \$name down; ip link set \$name name nic7; ip link set nic7 up
        for try in \$(seq 100); do [ \"\$(cat /sys/class/net/nic7/carrier)\" = 1 ] && break; usleep 100000; done
        ip addr replace $LINUX/24 dev nic7" >"$LOG/linux-up.txt" 2>&1
    check_text "interop: Linux's driver is on NIC 7, ours on NIC 6" "$(driver_of "$(nic_bdf 7)") $(driver_of "$(nic_bdf 6)")" '^ixgbe vfio-pci$'
    # Its own pings wait for ARP; the first frames may come before the link does.
    guest 'for try in $(seq 50); do ping -c 1 -W 1 198.18.0.2 >/dev/null 2>&1 && exit; usleep 100000; done' >/dev/null
}

# interop_iperf3 OPTION NAME: TCP over 4 connections between Linux and the namespace.
interop_iperf3() {
    local server
    outside 1 iperf3 -s -1 -J >"$LOG/iperf3-server$1.json" 2>&1 </dev/null &
    server=$!
    sleep 0.5
    GUEST_TIMEOUT_S=40 guest "iperf3 -c 198.18.0.2 -t 4 -P 4 -J $1" >"$LOG/iperf3$1.json"
    wait "$server"
    check_text "interop: iperf3 $2, 4 connections" \
        "$(jq -r 'if .error then .error else .end.sum_received.bytes > 1048576 end' "$LOG/iperf3$1.json")" '^true$'
    say "# interop: iperf3 $2: $(jq -r '.end.sum_received.bits_per_second / 1e6 | floor' "$LOG/iperf3$1.json") Mbit/s, on an emulated processor"
}
