# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034 # guest commands; used by scenarios
# What scenarios are written with. Sourced by run.sh, which sets LOG to the scenario's own directory
# and boots its machine. A scenario is a file scenarios/NAME.sh with (`NAME@softnic` overrides MACHINE)
#
#   MACHINE=main|virtio-iommu|rings|softnic
#   scenario() { … }   calls the functions below; each check prints `ok - …` or `FAILED - …`

. "$REPO/scripts/rig/machine.sh"
. "$REPO/scripts/lib/tally.sh"

# Hugepages of 2 MiB that the guest has while scenarios run: on node 0, and none on node 1.
PAGES=160
# Where the two busy lcores run; CPU 0 is left to the agent and the kernel.
LCORES=1,2

# check NAME COMMAND…: ok if COMMAND succeeds, else FAILED with what it printed.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$output"; fi
}

# check_output NAME PATTERN… -- COMMAND…: COMMAND must succeed and its output match each pattern.
check_output() {
    local name=$1 patterns=() output code
    shift
    while [[ $1 != -- ]]; do patterns+=("$1") && shift; done
    shift
    output=$("$@" 2>&1) || { code=$?; not_ok "$name" "exit code $code"$'\n'"$output"; return; }
    check_text "$name" "$output" "${patterns[@]}"
}

# check_text NAME TEXT PATTERN…: TEXT must match each extended regular expression.
check_text() {
    local name=$1 text=$2 pattern
    shift 2
    for pattern; do
        grep -qE -- "$pattern" <<<"$text" || { not_ok "$name" "wanted /$pattern/, found:"$'\n'"$text"; return; }
    done
    ok "$name"
}

# ---- devices

# bind_nics N…: NICs to vfio-pci, with our own script.
bind_nics() {
    local n bdfs=()
    for n; do bdfs+=("$(nic_bdf "$n")"); done
    check "devbind.sh binds NICs $* to vfio-pci" guest devbind.sh -b vfio-pci "${bdfs[@]}"
}

# driver_of BDF: the driver that a device of the guest is bound to, or `none`.
driver_of() { guest "basename \$(readlink /sys/bus/pci/devices/$1/driver || echo none)"; }

# ---- l2fwd: one at a time, in the guest's /tmp/l2fwd.*

# l2fwd_command EAL-OPTION… [-- OPTION…]: the command line, with short patience for what can't come.
l2fwd_command() { printf '%s' 'packetboat-l2fwd' && printf ' %q' "$@"; }

# allow N…: -a options for NICs.
allow() {
    local n
    for n; do printf -- '-a %s ' "$(nic_bdf "$n")"; done
}

# l2fwd_start OPTION…: start it in the background. --stats-json is added. AS=USER in the environment:
# as that user.
l2fwd_start() {
    local command
    command="$(l2fwd_command "$@") --stats-json /tmp/l2fwd.json"
    [[ -z ${AS-} ]] || command="su $AS -s /bin/bash -c $(printf %q "exec $command")"
    taps_mark
    printf '%s\n' "$command" >>"$LOG/l2fwd.commands"
    guest "cd /tmp && rm -f l2fwd.* && ulimit -c 0 && ulimit -l ${MEMLOCK_KIB:-unlimited}
        date +%s.%N >l2fwd.began
        setsid bash -c 'trap \"\" HUP; $command >/tmp/l2fwd.out 2>/tmp/l2fwd.err &
            echo \$! >/tmp/l2fwd.pid; wait \$!; echo \$? >/tmp/l2fwd.code.new; mv /tmp/l2fwd.code.new /tmp/l2fwd.code' </dev/null >/dev/null 2>&1 &
        while [ ! -s l2fwd.pid ]; do usleep 10000; done"
}

# l2fwd_ready N…: wait until a driver has started these NICs, for a minute at most. Frames must not come
# earlier: QEMU drops what it holds for a device when that is reset, and softnic what comes to a receiver
# that is off.
l2fwd_ready() {
    local n bar try
    for n; do
        # The common configuration stands at the start of BAR 4, device_status at its byte 20
        # (virtio 1.3, 4.1.4.3). Read through QEMU: the guest's own view belongs to l2fwd.
        bar=$(guest "sed -n '5s/ .*//p' /sys/bus/pci/devices/$(nic_bdf "$n")/resource")
        for ((try = 0; try < 300; try++)); do
            if [[ $MACHINE == softnic ]]; then
                softnic_receives "$n" && continue 2
            else
                (($(device_status $((bar + 20))) & 4)) && continue 2 # DRIVER_OK
            fi
            ((try % 10)) || guest '[ ! -e /tmp/l2fwd.code ]' || break
            sleep 0.2
        done
        not_ok "l2fwd starts NIC $n" "$(guest 'cat /tmp/l2fwd.code /tmp/l2fwd.out /tmp/l2fwd.err 2>/dev/null')"
        return 1
    done
    ok "l2fwd starts NICs $*"
}

# device_status ADDRESS: the byte there, or 0 where nothing answers (a device asleep reads as 0xff).
device_status() {
    local byte
    byte=$(qmp human-monitor-command "command-line=xp /1bx $1" | grep -oE '0x[0-9a-f]{2}\b' | tail -n 1)
    [[ ${byte:-0xff} != 0xff ]] || byte=0
    printf '%s\n' "$byte"
}

# set_link N up|down: the link of a NIC, as from outside.
set_link() {
    case $MACHINE in
        softnic) softnic_ctl nic "$1" link "$2" ;;
        *) qmp set_link "name=nic$1" "up=$([[ $2 == up ]] && echo true || echo false)" ;;
    esac >/dev/null
}

# l2fwd_signal SIGNAL
l2fwd_signal() { guest "kill -$1 \$(cat /tmp/l2fwd.pid)"; }

# l2fwd_wait SECONDS: wait for its end; prints its exit code, or `running`.
l2fwd_wait() {
    GUEST_TIMEOUT_S=$(($1 + 10)) guest "n=0; while [ ! -e /tmp/l2fwd.code ] && [ \$n -lt $(($1 * 10)) ]; do usleep 100000; n=\$((n + 1)); done
        cat /tmp/l2fwd.code 2>/dev/null || echo running"
}

# l2fwd_fetch NAME: copy its output and statistics to the host as $LOG/NAME.{out,err,json}.
l2fwd_fetch() {
    local part
    for part in out err json; do guest "cat /tmp/l2fwd.$part" >"$LOG/$1.$part" 2>/dev/null; done
}

# l2fwd_stop NAME: end it by SIGINT; it must exit with 0 and have all mbufs back.
l2fwd_stop() {
    local code
    l2fwd_signal INT
    code=$(l2fwd_wait 20)
    l2fwd_fetch "$1"
    if [[ $code == 0 ]]; then
        ok "$1: l2fwd ends with 0 on SIGINT"
    else
        not_ok "$1: l2fwd ends with 0 on SIGINT" "wanted 0, found $code"$'\n'"$(tail -n 15 "$LOG/$1.out" "$LOG/$1.err")"
        guest 'kill -KILL $(cat /tmp/l2fwd.pid) 2>/dev/null; true'
    fi
    check_text "$1: all mbufs are back" "$(cat "$LOG/$1.out" "$LOG/$1.err")" 'mbufs: ([0-9]+) of \1 returned'
}

# l2fwd_refuses NAME OPTION… :: PATTERN…: it must end by itself with an exit code of its own (no
# signal, no panic), say what the patterns ask for, and leave nothing behind.
l2fwd_refuses() {
    local name=$1 command=() text code
    shift
    while [[ $1 != :: ]]; do command+=("$1") && shift; done
    shift
    text=$(guest "${BEFORE:+$BEFORE; }timeout -s KILL 30 $(l2fwd_command "${command[@]}")")
    code=$?
    { printf '$ %s\n%s\nexit code %d\n\n' "$(l2fwd_command "${command[@]}")" "$text" "$code"; } >>"$LOG/refusals.txt"
    if ((code == 0 || code >= 101)); then
        not_ok "$name" "wanted an exit code from 1 to 100, found $code with:"$'\n'"$text"
    else
        check_text "$name" "$text" "$@"
    fi
    nothing_left "$name"
}

# ---- traffic over the sockets

# closed_loop NAME PORTS OPTION…: frames through NICs 0 … PORTS-1, as JSON in $LOG/NAME.wire.json.
closed_loop() {
    local name=$1 n ports=()
    for ((n = 0; n < $2; n++)); do ports+=(--port "$RUN/n$n,$(nic_mac "$n")"); done
    shift 2
    "$WIRE" closed-loop "${ports[@]}" --json "$LOG/$name.wire.json" "$@" | tee -a "$LOG/wire.txt"
    return "${PIPESTATUS[0]}"
}

# check_loop NAME PORTS OPTION…: a closed loop without any deviation.
check_loop() { check "$1: 0 lost, 0 reordered, bytes and MACs exact" closed_loop "$@"; }

# check_counters NAME LOOP…: what l2fwd counted (fetched as NAME) equals what the loops saw outside.
check_counters() {
    local name=$1 loops=()
    shift
    loops=("${@/#/$LOG/}")
    check "$name: l2fwd's counters equal what was sent and received outside" \
        "$WIRE" compare --stats "$LOG/$name.json" "${loops[@]/%/.wire.json}"
}

# ---- traffic over the taps

# outside N COMMAND…: run it in the namespace of tap N (0 or 1).
outside() { ip netns exec "${NETNS[$1]}" "${@:2}"; }

# transfer FILE COPY MIB STREAMS: a new file from namespace 0 to 1 over TCP; both must be equal.
transfer() {
    local file=$1 copy=$2 receiver
    head -c "$3M" /dev/urandom >"$file"
    outside 1 "$WIRE" tcp-receive 198.18.0.2:5201 "$copy" --streams "$4" >"$LOG/receive.txt" 2>&1 &
    receiver=$!
    check "$3 MiB over $4 TCP connections are sent" outside 0 "$WIRE" tcp-send 198.18.0.2:5201 "$file" --streams "$4"
    if wait "$receiver"; then
        ok "$3 MiB over $4 TCP connections are received"
    else
        not_ok "$3 MiB over $4 TCP connections are received" "$(<"$LOG/receive.txt")"
    fi
    check_text "$3 MiB arrive with the checksum that they left with" \
        "$(sha256sum <"$copy" 2>&1)" "^$(sha256sum <"$file")$"
}

# counters_settle: until nothing moves between the namespaces.
counters_settle() {
    local before='' now try
    for ((try = 0; try < 20; try++)); do
        now=$(outside_counter 0 rx_packets) && now+=" $(outside_counter 1 rx_packets)"
        [[ $now != "$before" ]] || return 0
        before=$now
        sleep 0.7
    done
}

# outside_counter N NAME: a counter of the tap's interface, seen from the namespace.
outside_counter() { outside "$1" cat "/sys/class/net/wire/statistics/$2"; }

# taps_mark: from here on check_outside_counters counts.
declare -A TAP_MARK
taps_mark() {
    local n name
    for n in 0 1; do
        for name in rx_packets rx_bytes tx_packets tx_bytes; do
            TAP_MARK[$n$name]=$(outside_counter "$n" "$name")
        done
    done
}

# check_outside_counters NAME: what l2fwd counted equals what the interfaces of the namespaces did
# since taps_mark: its received is their sent, and the other way round; and what entered at a port left
# at the other one or was counted as dropped there. (TCP probes until something drops.)
check_outside_counters() {
    local n pair unit inside outside_name wanted found differences=
    for n in 0 1; do
        for pair in rx:tx tx:rx; do
            for unit in packets bytes; do
                # An 82599 pads frames of less than 60 bytes, ARP's 42 for one; an interface doesn't count that.
                [[ $MACHINE/$unit != softnic/bytes ]] || continue
                inside=${pair%:*}_$unit outside_name=${pair#*:}_$unit
                wanted=$(($(outside_counter "$n" "$outside_name") - TAP_MARK[$n$outside_name]))
                found=$(jq ".ports[$n].$inside" "$LOG/$1.json")
                [[ $wanted == "$found" ]] || differences+="port $n $inside: l2fwd $found, outside $wanted"$'\n'
            done
        done
        wanted=$(jq ".ports[$n].rx_packets" "$LOG/$1.json")
        found=$(jq ".ports[$((1 - n))] | .tx_packets + .tx_dropped" "$LOG/$1.json")
        [[ $wanted == "$found" ]] || differences+="port $n took $wanted, port $((1 - n)) sent or dropped $found"$'\n'
    done
    local what="$1: l2fwd's counters equal those of the namespaces' interfaces"
    if [[ -z $differences ]]; then ok "$what"; else not_ok "$what" "$differences"; fi
}

# ---- what must hold after each run

# nothing_left NAME: no l2fwd, no hugepage in use, no lock file of a hugetlbfs.
nothing_left() {
    check "$1: nothing is left behind" guest "
        if pidof packetboat-l2fwd; then echo 'l2fwd still runs'; exit 1; fi
        for node in 0 1; do
            cd /sys/devices/system/node/node\$node/hugepages/hugepages-2048kB
            [ \$(cat nr_hugepages) = \$(cat free_hugepages) ] || { echo node \$node: \$(cat nr_hugepages) hugepages, \$(cat free_hugepages) free; exit 1; }
        done"
}

# Lines of the guest's log that no test may cause: DMA faults, and the kernel's own alarms.
ALARMS='DMAR:.*([Ff]ault|\[(DMA|INTR|PASID)|ERROR)|page fault from|BUG:|WARNING:|Oops|general protection|unable to handle|Call Trace|soft lockup|hung_task|blocked for more than'

# check_kernel_log NAME: reads and empties the guest's dmesg.
check_kernel_log() {
    local alarms
    guest 'dmesg -c' >"$LOG/dmesg.txt"
    if alarms=$(grep -E "$ALARMS" "$LOG/dmesg.txt"); then
        not_ok "$1: the guest's log has no DMA fault and no alarm" "$alarms"
    else
        ok "$1: the guest's log has no DMA fault and no alarm"
    fi
}
