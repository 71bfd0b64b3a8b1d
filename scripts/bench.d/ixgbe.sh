# shellcheck shell=bash
# user-mode instructions per forwarded frame of the ixgbe driver, lean and full path, x86-64-v2 and v3
#
# bench-ixgbe-loop moves bursts of 32 frames of 60 bytes between two ports whose rings are always full, and
# rewrites both MAC addresses; callgrind counts. The device in process moves frames within the writes of
# tail registers, and is left out. What l2fwd itself costs in a guest isn't counted here.

IXGBE_TURNS=2000 # 64 frames each

bench_ixgbe() {
    local level path
    if [[ ${1-} == --help ]]; then
        sed -n '2,7s/^# \{0,1\}//p' "$REPO/scripts/bench.d/ixgbe.sh"
        return
    fi
    need_rust >&2
    need_command valgrind >&2
    printf 'cpu\tpath\treceive\ttransmit\tloop and rewrite\tpool\tall\n'
    for level in x86-64-v2 x86-64-v3; do
        run env RUSTFLAGS="-Ctarget-cpu=$level" CARGO_TARGET_DIR="$BUILD/bench-$level" \
            cargo build --quiet --release --package packetboat-bench-ixgbe >&2 </dev/null || die 'wanted bench-ixgbe-loop, found that it does not build (above)'
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
