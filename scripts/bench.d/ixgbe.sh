# shellcheck shell=bash
# instructions per forwarded frame of l2fwd with the ixgbe driver, beside DPDK's; its cycles on softnic

ixgbe_usage() {
    cat <<'USAGE'
Usage: scripts/bench.sh ixgbe [guest|loop|cycles|all] [ROW…]

guest   l2fwd in a QEMU guest, its NICs 82599s that softnic plays and that keep rings full, through VFIO
        and a virtual IOMMU; a plugin of QEMU counts user-mode instructions. DPDK's l2fwd and testpmd in
        the same way, and our first row again as a control. ROWs: scripts/rig/count.sh --list
loop    the driver with a loop around it, on a device in process, counted by callgrind
cycles  cycles per frame of the driver on softnic on one core, without a VM, and what softnic moves;
        needs a quiet machine: rounds beside a bad canary don't count. CPU=N says where (1)
all     the three, one after the other (default)
USAGE
}

bench_ixgbe() {
    local what=${1-all}
    shift
    case $what in
        -h | --help) ixgbe_usage ;;
        guest) scripts/rig/count.sh "$@" ;;
        loop) _ixgbe_loop ;;
        cycles) _ixgbe_cycles ;;
        all)
            scripts/rig/count.sh || return
            _ixgbe_loop || return
            _ixgbe_cycles
            ;;
        *) die "wanted guest, loop, cycles or all, found '$what'. Run: scripts/bench.sh ixgbe --help" ;;
    esac
}

_ixgbe_cycles() {
    local cpu=${CPU:-1}
    need_rust >&2
    need_command taskset util-linux >&2
    keep_hugepages 128 >&2
    run cargo build --quiet --release --package packetboat-bench-ixgbe --bin bench-ixgbe-cycles >&2 </dev/null ||
        die 'wanted bench-ixgbe-cycles, found that it does not build (above)'
    # Its server threads answer while ports start, and sleep then.
    taskset -c "$cpu" "$BUILD/release/bench-ixgbe-cycles"
}

# bench-ixgbe-loop moves bursts of 32 frames of 60 bytes between two ports whose rings are always full, and
# rewrites both MAC addresses; callgrind counts. The device in process moves frames within the writes of
# tail registers, and is left out.

IXGBE_TURNS=2000 # 64 frames each

_ixgbe_loop() {
    local level path
    need_rust >&2
    need_command valgrind >&2
    printf 'cpu\tpath\treceive\ttransmit\tloop and rewrite\tpool\tall\n'
    for level in x86-64-v2 x86-64-v3; do
        run env RUSTFLAGS="-Ctarget-cpu=$level" CARGO_TARGET_DIR="$BUILD/bench-$level" \
            cargo build --quiet --release --package packetboat-bench-ixgbe --bin bench-ixgbe-loop >&2 </dev/null || die 'wanted bench-ixgbe-loop, found that it does not build (above)'
        for path in lean full; do _ixgbe_count "$level" "$path"; done
    done
}

_ixgbe_count() { # LEVEL PATH
    local out=$BUILD/callgrind.$1.$2
    valgrind --tool=callgrind --callgrind-out-file="$out" --toggle-collect=bench_ixgbe_loop::forward \
        "$BUILD/bench-$1/release/bench-ixgbe-loop" "$IXGBE_TURNS" "${2/lean/}" >"$out.txt" 2>&1 ||
        die "wanted callgrind's counts, found: $(tail -n 2 "$out.txt")"
    grep -q "^$((IXGBE_TURNS * 64)) frames" "$out.txt" || die "wanted full bursts, found: $(grep frames "$out.txt")"
    awk -v frames=$((IXGBE_TURNS * 64)) -v level="$1" -v path="$2" '
        # A name is given in full once, then by its number.
        /^c?fn=/ {
            match($0, /\([0-9]+\)/); id = substr($0, RSTART, RLENGTH); rest = substr($0, RSTART + RLENGTH + 1)
            if (rest != "") name[id] = rest
            if ($0 ~ /^fn=/) now = name[id]
            next
        }
        /^calls=/ { skip = 1; next }
        /^[0-9+*-]/ { if (skip) skip = 0; else if (NF >= 2) cost[now] += $2 }
        END {
            for (fn in cost) {
                if (fn ~ /RxQueue>::receive/) part["rx"] += cost[fn]
                else if (fn ~ /TxQueue>::send/) part["tx"] += cost[fn]
                else if (fn ~ /bench_ixgbe_loop::forward/) part["loop"] += cost[fn]
                else if (fn ~ /packetboat::mempool|packetboat::ring|packetboat::mbuf/) part["pool"] += cost[fn]
            }
            sum = part["rx"] + part["tx"] + part["loop"] + part["pool"]
            printf "%s\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", level, path, part["rx"] / frames, part["tx"] / frames,
                part["loop"] / frames, part["pool"] / frames, sum / frames
        }' "$out"
}
