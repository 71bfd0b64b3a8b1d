#!/bin/bash
# Counts user-mode instructions per forwarded frame in a guest whose NICs keep their rings full: l2fwd
# with the ixgbe driver and, in the same way, DPDK's l2fwd, each through VFIO behind the virtual IOMMU.
#
#   scripts/rig/count.sh [ROW…]   rows by name (default: all), as tab-separated values
#   scripts/rig/count.sh --list   name them
#
# A boot serves several rows. DPDK's testpmd needs one of its own, since QEMU keeps what it has translated
# of a file, and with it the address that the plugin saw: libraries must be where they were. The last row
# is the first one again, in a new guest. Logs, profiles and the cost of each function: target/rig/counting/.
# Environment: WINDOWS, WINDOW_S, WARM_FRAMES  how long is counted (5 windows of 2 s after 300,000 frames)
# shellcheck disable=SC2016 # the guest's commands
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
. "$REPO/scripts/rig/prepare.sh"
. "$REPO/scripts/rig/lib.sh"

WINDOWS=${WINDOWS:-5}
WINDOW_S=${WINDOW_S:-2}
WARM_FRAMES=${WARM_FRAMES:-300000}
COUNTS=$LOGS/counting
DPDK_RUN='/dpdk/ld-linux-x86-64.so.2 --inhibit-cache --library-path /dpdk'
DPDK_EAL='-n 1 --in-memory -d $(ls /dpdk/drivers/librte_mempool_ring.so*)'
# testpmd has these linked; they must be the files that the loader finds.
DPDK_NET='-d $(ls /dpdk/librte_bus_pci.so*) -d $(ls /dpdk/librte_net_ixgbe.so*)'

# NAME: PROGRAM, CPU, PATH, and its command; NICS stands for the two -a options.
ROWS=(ours-v2-lean ours-v2-full ours-v3-lean ours-v3-full dpdk-l2fwd dpdk-testpmd dpdk-testpmd-full ours-v2-lean-again)
row() {
    local ours='-l 1 NICS -- -p 0x3 -q 2 -P -T 0'
    case $1 in
        ours-v2-lean | ours-v2-lean-again) echo "packetboat l2fwd|x86-64-v2|lean|packetboat-l2fwd-x86-64-v2 $ours" ;;
        ours-v2-full) echo "packetboat l2fwd|x86-64-v2|full|packetboat-l2fwd-x86-64-v2 $ours --rx-checksum --scatter" ;;
        ours-v3-lean) echo "packetboat l2fwd|x86-64-v3|lean|packetboat-l2fwd-x86-64-v3 $ours" ;;
        ours-v3-full) echo "packetboat l2fwd|x86-64-v3|full|packetboat-l2fwd-x86-64-v3 $ours --rx-checksum --scatter" ;;
        dpdk-l2fwd) echo "DPDK l2fwd|corei7|vector|$DPDK_RUN /dpdk/l2fwd -l 1 $DPDK_EAL $DPDK_NET NICS -- -p 0x3 -q 2 -P -T 0" ;;
        dpdk-testpmd) echo "DPDK testpmd|corei7|vector|$DPDK_RUN /dpdk/testpmd -l 0-1 $DPDK_EAL NICS -- --forward-mode=mac --auto-start --total-num-mbufs=6144" ;;
        dpdk-testpmd-full) echo "DPDK testpmd|corei7|checksum, scatter; full TX|$DPDK_RUN /dpdk/testpmd -l 0-1 $DPDK_EAL NICS -- --forward-mode=mac --auto-start --total-num-mbufs=6144 --enable-rx-cksum --enable-scatter --tx-offloads=0x8000" ;;
        *) return 1 ;;
    esac
}

main() {
    local name names=("$@") failed=0
    case ${1-} in
        --list) printf '%s\n' "${ROWS[@]}" && exit ;;
        -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        '') names=("${ROWS[@]}") ;;
    esac
    for name in "${names[@]}"; do
        row "$name" >/dev/null || die "wanted a row, found '$name'. Run: scripts/rig/count.sh --list"
    done
    ((EUID == 0)) || die "wanted root for VFIO's guest, found user $(id -un). Run: sudo scripts/rig/count.sh"
    build >&2
    trap 'machine_stop; rm -rf "$ROOT"' EXIT
    trap 'exit 130' INT TERM
    printf 'row\tprogram\tcpu\tpath\tall\treceive\ttransmit\tapplication\tpool\tother\tleast\tmost\tframes/TDT\tfaults\n'
    for name in "${names[@]}"; do
        [[ $name != *-again && $name != dpdk-testpmd ]] || machine_stop
        count "$name" && continue
        failed=1
        machine_stop
    done
    return "$failed"
}

# build: l2fwd for each level, the plugin, DPDK's l2fwd; all but the plugin go into the guest.
build() {
    local level
    need_rust
    need_command readelf binutils
    ROOT=$(mktemp -d)
    mkdir -p "$ROOT/bin" "$ROOT/dpdk" "$COUNTS"
    for level in x86-64-v2 x86-64-v3; do
        (cd "$REPO" && RUSTFLAGS="-Ctarget-cpu=$level" CARGO_TARGET_DIR="$TARGET/bench-$level" \
            cargo build --quiet --release --package packetboat-l2fwd </dev/null) ||
            die "wanted l2fwd for $level, found that cargo fails (see above)"
        install -m 755 "$TARGET/bench-$level/release/packetboat-l2fwd" "$ROOT/bin/packetboat-l2fwd-$level"
    done
    (cd "$REPO" && cargo build --quiet --release --package packetboat-bench-ixgbe --bin bench-ixgbe-shares </dev/null) ||
        die 'wanted bench-ixgbe-shares built, found that cargo fails (see above)'
    SHARES=$TARGET/release/bench-ixgbe-shares
    COUNTING_PLUGIN=$COUNTS/user_instructions.so
    cc -O2 -Wall -Wextra -fPIC -shared -fvisibility=hidden -o "$COUNTING_PLUGIN" \
        "$REPO/benches/ixgbe/plugin/user_instructions.c" -lpthread ||
        die 'wanted the plugin built, found that cc fails (see above)'
    "$REPO/scripts/rig/setup.sh" --bench || exit
    # shellcheck source=/dev/null # written by setup.sh
    . "$CACHE/rig/env"
    cp "$RIG_DPDK_L2FWD/root/dpdk/l2fwd" "$ROOT/dpdk"
    RIG_L2FWD=$ROOT/bin/packetboat-l2fwd-x86-64-v2 RIG_EXTRA=$ROOT
    prepare
    softnic_build
}

# boot ROW: a guest with both NICs bound to vfio-pci.
boot() {
    ! machine_is_up || return 0
    machine_stop
    machine_start counting "$COUNTS/machine-$1" || { warn "$1: the guest doesn't boot, see $COUNTS/machine-$1"; return 1; }
    guest "hugepages.sh -r $PAGES -n 0 && devbind.sh -b vfio-pci $(nic_bdf 0) $(nic_bdf 1) && dmesg -c >/dev/null" >"$LOG/prepared.txt" ||
        { warn "$1: no hugepages or VFIO: $(<"$LOG/prepared.txt")"; return 1; }
}

# count ROW: run, count; prints its line.
count() {
    local name=$1 program cpu path command line n faults
    IFS='|' read -r program cpu path command < <(row "$name")
    command=${command/NICS/$(allow 0 1)}
    LOG=$COUNTS/$name
    rm -rf "$LOG" && mkdir -p "$LOG"
    boot "$name" || return
    faults=$(faults)
    # testpmd ends when its input does. The mask lets a program have the isolated CPU.
    guest "setsid sleep 600 </dev/null 2>/dev/null | taskset 7 $command >/tmp/out 2>&1 & echo \$! >/tmp/pid" </dev/null
    begin || { warn "$name: its ports don't start: $(guest 'tail -n 20 /tmp/out')"; return 1; }
    guest 'cat /proc/$(cat /tmp/pid)/maps' >"$LOG/maps"
    if [[ $program == DPDK* ]]; then bursts >"$LOG/bursts" || return; else : >"$LOG/bursts"; fi
    printf '%s\n' "$LOG/profile" >"$RUN/order.new" && mv "$RUN/order.new" "$RUN/order"
    profiled "$LOG/profile" || { warn "$name: nothing was counted: $(guest 'tail -n 20 /tmp/out')"; return 1; }
    softnic_ctl nic 0 stats >"$LOG/nic0.stats"
    softnic_ctl nic 1 stats >"$LOG/nic1.stats"
    guest 'cat /tmp/out' >"$LOG/out"
    guest 'kill -INT $(cat /tmp/pid); for n in $(seq 50); do [ -e /proc/$(cat /tmp/pid)/exe ] || break; usleep 100000; done
        kill -KILL $(cat /tmp/pid) $(pidof sleep) 2>/dev/null; true'
    guest 'dmesg -c' >"$LOG/dmesg"
    # shellcheck disable=SC2046 # two words or none
    "$SHARES" "$LOG/profile" "$LOG/maps" $(<"$LOG/bursts") "$ROOT" "$RIG_DPDK" / >"$LOG/shares" || return
    line=$(head -n 1 "$LOG/shares")
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$program" "$cpu" "$path" "$line"
    [[ $(faults) == "$faults" ]] || { warn "$name: wanted no fault of DMA, found: $(faults | paste -sd' '), before: ${faults//$'\n'/ }"; return 1; }
    healthy "$name"
}

# faults: of DMA, and descriptors that were no good, of both NICs since the boot.
faults() { local n; for n in 0 1; do softnic_ctl nic "$n" stats | grep -E '^(dma_faults|bad_descriptors) '; done; }

# begin: wait until both receivers are on, and fill their rings.
begin() {
    local n try
    for n in 0 1; do
        for ((try = 0; try < 120; try++)); do
            softnic_receives "$n" && continue 2
            sleep 0.5
        done
        return 1
    done
    sleep 5 # both ports have a link, and testpmd has emptied its rings
    for n in 0 1; do softnic_ctl nic "$n" fill || return; done >/dev/null
    sleep 2 # what the program before this one took to its end has been missed by now
    for n in 0 1; do softnic_ctl nic "$n" wire reset || return; done >/dev/null
}

# bursts: where DPDK's two functions are. Its libraries have no names for them; their addresses stand in
# rte_eth_fp_ops[0], at 16 and at 64 + 16 (rte_ethdev_core.h of 24.11).
bursts() {
    local file base value at which offset
    # The linker may have moved the table into the program.
    for file in "$(awk '$6 ~ /\/dpdk\/(l2fwd|testpmd)$/ { print $6; exit }' "$LOG/maps")" \
        "$(awk '$6 ~ /librte_ethdev/ { print $6; exit }' "$LOG/maps")"; do
        value=$(readelf -W --dyn-syms "$(dpdk_file "$file")" | awk '$8 ~ /^rte_eth_fp_ops/ && $7 != "UND" { print $2; exit }')
        [[ -z $value ]] || break
    done
    [[ -n $value ]] || { warn "wanted rte_eth_fp_ops, found no such symbol. See: $LOG/maps"; return 1; }
    base=$(awk -v file="$file" '$6 == file { sub(/-.*/, "", $1); print $1; exit }' "$LOG/maps")
    for which in rx:16 tx:80; do
        offset=${which#*:}
        at=$((0x$base + 0x$value + offset))
        printf '%s=%s\n' "${which%:*}" "$(guest "dd if=/proc/\$(cat /tmp/pid)/mem bs=8 count=1 skip=$((at / 8)) 2>/dev/null | od -An -tx8 | tr -d ' '")"
    done
}

dpdk_file() { if [[ -e $ROOT$1 ]]; then printf '%s\n' "$ROOT$1"; else printf '%s\n' "$RIG_DPDK$1"; fi; }

# profiled FILE: wait until the plugin has put its results there.
profiled() {
    local try
    for ((try = 0; try < 600; try++)); do
        [[ ! -e $1 ]] || return 0
        sleep 0.5
        ((try % 20)) || guest '[ -e /proc/$(cat /tmp/pid)/exe ]' || return
    done
    return 1
}

# healthy ROW: what was counted was right: frames whole, in order, none lost; the guest quiet.
healthy() {
    local n found
    for n in 0 1; do
        found=$(grep -E '^(gen_lost|gen_reordered|gen_duplicates|gen_corrupt|gen_alien) [1-9]' "$LOG/nic$n.stats") &&
            { warn "$1: NIC $n: wanted all frames whole and in order, found: $found"; return 1; }
    done
    found=$(grep -E "$ALARMS" "$LOG/dmesg") && { warn "$1: wanted a quiet guest, found: $found"; return 1; }
    return 0
}

main "$@"
