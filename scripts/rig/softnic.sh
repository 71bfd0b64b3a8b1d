# shellcheck shell=bash
# shellcheck disable=SC2034 # used by scenarios
# The machine `softnic`: the same places as in `main`, with 82599s that softnic plays instead of virtio
# NICs. Sourced by machine.sh.
#
#   01:00.0 … 04:00.0  frames over unix sockets (the wire)           NICs 0–3
#   05:00.0, 06:00.0   on taps in two namespaces                     NICs 4, 5
#   07:00.0, 08:00.0   plugged into each other                       NICs 6, 7
#   09:00.0, 0a:00.0   softnic's own generator and checker           NICs 8, 9
#
# A frame whose ring is full waits: on a busy machine a doorbell may come late, and a test that counts
# frames mustn't depend on it. What is dropped otherwise is in apps/softnic/tests.
#
# The machine `counting` is for instructions per frame (count.sh). It has two NICs, 01:00.0 and 02:00.0,
# each with a generator and checker, which keep rings full: they move frames within the writes of
# doorbells, and QEMU waits for these. A plugin counts what runs on CPU 1.

SOFTNIC_PID=
COUNTING_PLUGIN= # the plugin, built; it counts when there is a file $RUN/order

# softnic_build: the program, and a payload with what its scenarios run in the guest.
softnic_build() {
    need_command ethtool
    need_command iperf3
    # By the same command as everywhere.
    (cd "$REPO" && cargo build -q --release -p packetboat-l2fwd -p packetboat-softnic) ||
        die "wanted softnic built, found that cargo fails (see above). Run: cargo build --release -p packetboat-softnic"
    SOFTNIC=${RIG_SOFTNIC:-$TARGET/release/packetboat-softnic}
    local root file
    root=$(mktemp -d)
    chmod 755 "$root"
    mkdir -p "$root/bin"
    install -m 755 "$(command -v ethtool)" "$(command -v iperf3)" "$root/bin"
    for file in $(ldd "$root/bin/ethtool" "$root/bin/iperf3" | grep -oE '/[^ ]+\.so[^ ]*' | sort -u); do
        install -D -m 755 "$file" "$root$file"
    done
    cp -a "$RIG_DPDK"/. "$root"
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1) |
        cat "$PAYLOAD_INITRD" - >"$LOGS/initrd-softnic"
    rm -rf "$root"
}

# softnic_start softnic|counting: all NICs in one process, before QEMU.
softnic_start() {
    local n options=()
    [[ -n ${SOFTNIC-} ]] || softnic_build
    case $1 in
        softnic)
            for n in {0..9}; do options+=(--socket "$RUN/softnic$n"); done
            for n in 0 1 2 3; do options+=(--wire "stream:$RUN/n$n"); done
            for n in 0 1; do options+=(--wire "tap:${TAPS[n]}"); done
            options+=(--wire pair --wire pair)
            for n in 8 9; do options+=(--wire 'gen:start=manual,size=60-1514,flows=64,checksums=on,rate=3k'); done
            options+=(--wait-when-full)
            ;;
        counting)
            for n in 0 1; do options+=(--socket "$RUN/softnic$n" --wire 'gen:size=60,flows=64,checksums=on'); done
            options+=(--full-rings --counters "$RUN/counters")
            ;;
    esac
    options+=(--mac "$(nic_mac 0)" --control "$RUN/control")
    printf '%q ' "$SOFTNIC" "${options[@]}" >"$MACHINE_LOG/softnic.command"
    "$SOFTNIC" "${options[@]}" >"$MACHINE_LOG/softnic.log" 2>&1 </dev/null &
    SOFTNIC_PID=$!
    for ((n = 0; n < 50; n++)); do
        [[ ! -S $RUN/control ]] || return 0
        sleep 0.1
    done
    sed 's/^/    /' "$MACHINE_LOG/softnic.log" >&2
    warn "wanted softnic to listen, found that it doesn't (its words stand above). Its command: $MACHINE_LOG/softnic.command"
    return 1
}

softnic_stop() {
    [[ -n $SOFTNIC_PID ]] || return 0
    kill "$SOFTNIC_PID" 2>/dev/null
    wait "$SOFTNIC_PID" 2>/dev/null
    SOFTNIC_PID=
}

# softnic_arguments: adds the NICs to args.
softnic_arguments() {
    local n
    for n in 8 9; do
        args+=(-device "pcie-root-port,id=rp$n,chassis=$((n + 1)),slot=$((n + 1))")
    done
    for n in {0..9}; do
        args+=(-device "{\"driver\":\"vfio-user-pci\",\"id\":\"nic$n\",\"bus\":\"rp$n\",\"socket\":{\"type\":\"unix\",\"path\":\"$RUN/softnic$n\"}}")
    done
}

# counting_arguments: adds the two NICs and the plugin to args. A doorbell is done when the guest goes on.
counting_arguments() {
    local n
    for n in 0 1; do
        args+=(-device "{\"driver\":\"vfio-user-pci\",\"id\":\"nic$n\",\"bus\":\"rp$n\",\"x-no-posted-writes\":true,\"socket\":{\"type\":\"unix\",\"path\":\"$RUN/softnic$n\"}}")
    done
    args+=(-plugin "$COUNTING_PLUGIN,counters=$RUN/counters,order=$RUN/order,vcpu=1,windows=$WINDOWS,seconds=$WINDOW_S,warm=$WARM_FRAMES")
}

# softnic_ctl WORDS…: a command for softnic.
softnic_ctl() { "$SOFTNIC" ctl "$RUN/control" "$@"; }

# softnic_receives N: whether a driver has switched the receiver of NIC N on.
softnic_receives() { softnic_ctl nic "$1" registers | grep -q '^RXCTRL .*1$'; }

# softnic_stat N NAME: a counter of NIC N.
softnic_stat() { softnic_ctl nic "$1" stats | awk -v name="$2" '$1 == name { print $2 }'; }
