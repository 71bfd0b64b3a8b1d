# shellcheck shell=bash disable=SC2034,SC2016
# What a PCI device of QEMU's own does with commands and with a queue that is reset alone: a port that sends
# each frame back (drivers/virtio/examples/port-commands.rs), frames from outside, and QEMU's own account.
MACHINE=rings

scenario() {
    local n
    bind_nics 0 1 2 3 4 5
    addresses
    vlans
    for n in 0 1 2 3; do queue_reset "$n"; done
    announcement
    queue_pairs 4 --rss
    queue_pairs 5
}

# ---- the program in the guest: commands in by a pipe, answers out by a file

# port_start N OPTION…
port_start() {
    local n=$1
    shift
    guest "rm -f /tmp/port.*; mkfifo /tmp/port.in
        setsid sh -c 'port-commands $* $(nic_bdf "$n") <>/tmp/port.in >/tmp/port.out 2>/tmp/port.err; echo \$? >/tmp/port.code' >/dev/null 2>&1 &
        n=0; while ! grep -q started /tmp/port.out 2>/dev/null && [ ! -e /tmp/port.code ] && [ \$n -lt 200 ]; do usleep 100000; n=\$((n + 1)); done
        cat /tmp/port.out; grep -q started /tmp/port.out || { cat /tmp/port.err; false; }"
}

# port COMMAND…: prints the answer; fails if it is an error, or none.
port() {
    guest "before=\$(wc -l </tmp/port.out); echo $* >/tmp/port.in
        n=0; while [ \$(wc -l </tmp/port.out) = \$before ] && [ \$n -lt 50 ]; do usleep 100000; n=\$((n + 1)); done
        tail -n +\$((before + 1)) /tmp/port.out | tee /tmp/port.answer
        [ -s /tmp/port.answer ] && ! grep -q ^error /tmp/port.answer"
}

# port_stop NAME
port_stop() {
    guest 'echo quit >/tmp/port.in; n=0; while [ ! -e /tmp/port.code ] && [ $n -lt 100 ]; do usleep 100000; n=$((n + 1)); done'
    local name=$1 part
    for part in out err code; do guest "cat /tmp/port.$part" >"$LOG/$name.$part" 2>&1; done
    check_text "$name: it ends with 0 and all mbufs back" "$(<"$LOG/$name.code") $(<"$LOG/$name.out")" '^0 ' 'stopped: 0 mbufs out, 0 leaked'
}

# echoes NAME N MAC COUNT OPTION…: of 100 frames to MAC, COUNT come back, unless OPTION says otherwise.
echoes() {
    local name=$1 n=$2 mac=$3 count=$4
    shift 4
    check_output "$name" "sent, $count came back, 0 wrong" -- "$WIRE" echo --port "$RUN/n$n" --to "$mac" --patience-ms 1500 "$@"
}

# rx_filter N JQ: of what QEMU says that NIC N lets in.
rx_filter() { qmp query-rx-filter "name=nic$1" | jq -c ".[0] | $2"; }

# queue_status N QUEUE JQ: of what QEMU says of a queue.
queue_status() {
    qmp x-query-virtio-queue-status "path=/machine/peripheral/nic$1/virtio-backend" "queue=$2" | jq -c "$3"
}

# ---- what is tried

addresses() {
    local own other=02:00:00:00:aa:01 third=02:00:00:00:aa:02 group=01:00:5e:00:00:fb
    own=$(nic_mac 0)
    check 'addresses: the port starts' port_start 0
    echoes 'addresses: frames to its own address come in' 0 "$own" 100
    check 'addresses: promiscuous is taken' port promiscuous off
    echoes 'addresses: frames to another one do not' 0 "$other" 0
    check 'addresses: another address of its own is taken' port mac "$other"
    check_text 'addresses: QEMU has it' "$(rx_filter 0 '."main-mac"')" "^\"$other\"$"
    echoes 'addresses: frames to it come in' 0 "$other" 100
    echoes 'addresses: frames to the one before do not' 0 "$own" 0
    check 'addresses: one besides is taken' port also "$third" on
    check 'addresses: a group is taken' port also "$group" on
    check_text 'addresses: QEMU has both' "$(rx_filter 0 '[."unicast-table", ."multicast-table"]')" "^\[\[\"$third\"\],\[\"$group\"\]\]$"
    echoes 'addresses: frames to the one besides come in' 0 "$third" 100
    echoes 'addresses: frames to the group come in' 0 "$group" 100
    check 'addresses: the one besides is taken back' port also "$third" off
    echoes 'addresses: frames to it do not come in any more' 0 "$third" 0
    echoes 'addresses: frames to another group do not' 0 01:00:5e:00:00:fc 0
    check 'addresses: all multicast is taken' port multicast on
    echoes 'addresses: frames to another group come in' 0 01:00:5e:00:00:fc 100
    check 'addresses: promiscuous is taken' port promiscuous on
    echoes 'addresses: frames to anybody come in' 0 02:00:00:00:aa:77 100
    check_text 'addresses: QEMU says so' "$(rx_filter 0 '[.promiscuous, .multicast]')" '^\[true,"all"\]$'
    port_stop addresses
}

vlans() {
    local own
    own=$(nic_mac 2)
    check 'vlans: the port starts' port_start 2 --vlan-filter
    # A QEMU device that is promiscuous, as all are after a reset, filters nothing.
    check 'vlans: promiscuous is taken' port promiscuous off
    echoes 'vlans: frames without a tag come in' 2 "$own" 100
    echoes 'vlans: tagged ones do not' 2 "$own" 0 --vlan 5
    check 'vlans: VLAN 5 is taken' port vlan 5 on
    check 'vlans: VLAN 4094 is taken' port vlan 4094 on
    check_text 'vlans: QEMU has both' "$(rx_filter 2 '[.vlan, (."vlan-table" | sort)]')" '^\["normal",\[5,4094\]\]$'
    echoes 'vlans: frames of VLAN 5 come in' 2 "$own" 100 --vlan 5
    echoes 'vlans: frames of VLAN 6 do not' 2 "$own" 0 --vlan 6
    check 'vlans: VLAN 5 is taken back' port vlan 5 off
    echoes 'vlans: its frames do not come in any more' 2 "$own" 0 --vlan 5
    echoes 'vlans: those of VLAN 4094 still do' 2 "$own" 100 --vlan 4094
    port_stop vlans
}

# queue_reset N: a queue that finds a lie in its ring while frames pass is reset by QEMU, alone.
queue_reset() {
    local n=$1 own way ways=(rx tx) name queue echo before after
    own=$(nic_mac "$n")
    ((n < 2)) || ways=(rx) # the lie that a packed ring is told is for buffers that the device has
    check "reset $n: the port starts" port_start "$n"
    guest 'cat /tmp/port.out' | sed 's/^/# /'
    echoes "reset $n: frames pass" "$n" "$own" 2000 --frames 2000
    for way in "${ways[@]}"; do
        name="reset $n $way" queue=0
        [[ $way == rx ]] || queue=1
        before=$(queue_status "$n" "$queue" '."used-idx"')
        "$WIRE" echo --port "$RUN/n$n" --to "$own" --frames 4000 --window 8 --patience-ms 300 >"$LOG/$name.txt" 2>&1 &
        echo=$!
        check "$name: the queue finds a lie" port break "$way" 0
        wait "$echo"
        check_text "$name: the driver has seen it" "$(guest 'cat /tmp/port.err')" "queue $queue: the device claims"
        echoes "$name: frames pass again, all of them" "$n" "$own" 1000 --frames 1000
        after=$(queue_status "$n" "$queue" '."used-idx"')
        say "# $name: of frames that passed meanwhile: $(<"$LOG/$name.txt"); QEMU's index $before, then $after"
        # A packed ring's is a place in it, and says nothing.
        ((n > 1)) || check "$name: QEMU's index began anew" test "$after" -le 5000
    done
    port_stop "reset-$n"
}

# announcement: a device that has moved wants the port to tell the network where it is.
announcement() {
    local moved=02:00:00:00:aa:03 echo
    check 'announcement: the port starts' port_start 0
    check 'announcement: an address that QEMU does not announce itself' port mac "$moved"
    "$WIRE" echo --port "$RUN/n0" --to "$moved" --frames 4000 --window 1 >"$LOG/announced.txt" 2>&1 &
    echo=$!
    qmp announce-self initial=50 max=50 rounds=1 step=0 'interfaces=["nic0"]' >/dev/null
    wait "$echo"
    # QEMU sends one for the address that it was started with; the other one is the driver's.
    check_text 'announcement: the network hears of it, between frames' "$(<"$LOG/announced.txt")" "^announced: $moved$" '4000 sent, 4000 came back, 0 wrong'
    check 'announcement: the driver answers' guest 'n=0; while ! grep -q moved /tmp/port.err && [ $n -lt 50 ]; do usleep 100000; n=$((n + 1)); done; cat /tmp/port.err; grep -q moved /tmp/port.err'
    port_stop announcement
}

# queue_pairs N OPTION…: frames of many flows from the namespace of NIC N's tap, over two pairs.
queue_pairs() {
    local n=$1 name="pairs $1" outside=$(($1 - 4)) own answer flow
    shift
    own=$(nic_mac "$n")
    check "$name: the port starts${1:+ with $1}" port_start "$n" --queues 2 "$@"
    outside "$outside" ip neigh replace 198.18.0.9 lladdr "$own" dev wire
    for flow in {1..64}; do outside "$outside" bash -c "echo $flow >/dev/udp/198.18.0.9/$((5000 + flow))"; done
    sleep 0.5
    answer=$(port counts)
    say "# $name: $answer"
    if [[ ${1-} == --rss ]]; then
        check_text "$name: each flow is where the table leads it, on both queues" "$answer" 'by queue [1-9][0-9]* [1-9][0-9]*; 0 misled, 0 unsent, 0 dropped'
    else
        check_text "$name: frames pass" "$answer" 'by queue [0-9]+ [0-9]+;.* 0 dropped'
    fi
    check_text "$name: none is missing" "$(awk '{ print $3 + $4 }' <<<"$answer")" '^64$'
    port_stop "pairs-$n"
}
