# shellcheck shell=bash
# Two l2fwd programs, ours and DPDK's, against the same generator on another core, taking turns.
# Sourced by bench.d/virtio.sh; TURNS, TURN_SECONDS and CPUS say how.

# What DPDK's virtio-user is asked for, and what our port is: the cheapest path of each ring for both.
THROUGHPUT_CONFIGS=(
    'split|mrg_rxbuf=0,in_order=0,vectorized=1|packed=off,mrg-rxbuf=off'
    'packed|packed_vq=1,mrg_rxbuf=0,in_order=1|packed=on,mrg-rxbuf=off'
)
THROUGHPUT_QUEUE=1024

# virtio_throughput: the table. Its standard error says what goes on.
virtio_throughput() {
    local config name dpdk ours turn order who sockets
    {
        run cargo build --release --package packetboat-l2fwd ||
            die "wanted our l2fwd built, found that cargo fails (see above). Run: cargo build --release -p packetboat-l2fwd"
        build_throughput
        keep_hugepages 450
    } >&2
    sockets=$(mktemp -d) || die "wanted a folder for sockets, found that mktemp makes none. Run: df -h ${TMPDIR:-/tmp}"
    printf '\n# throughput of the two l2fwd, Mpps (both ports together), 60-byte frames, queue %s, one generator on another core; %s turns each\n' "$THROUGHPUT_QUEUE" "$TURNS"
    printf 'configuration\tours\tours least-most\tdpdk\tdpdk least-most\tours/dpdk\tleast-most\tA/A ours\tleast-most\tgood windows\tgenerator idle\n'
    for config in "${THROUGHPUT_CONFIGS[@]}"; do
        IFS='|' read -r name dpdk ours <<<"$config"
        : >"$BUILD/bench/throughput.$name"
        for ((turn = 1; turn <= TURNS; turn++)); do
            order='ours dpdk again'
            if ((turn % 2 == 0)); then order='again dpdk ours'; fi
            for who in $order; do
                printf '%s\t%s\t%s\n' "$turn" "$who" "$(throughput_turn "$who" "$dpdk" "$ours" "$sockets")" |
                    tee -a "$BUILD/bench/throughput.$name" >&2
            done
        done
        throughput_row "$name" "$BUILD/bench/throughput.$name"
    done
    rm -rf "$sockets"
}

build_throughput() {
    local flags libraries folder
    need_package dpdk-doc # l2fwd's source is among its examples
    if ! flags=$(pkg-config --cflags libdpdk) || ! libraries=$(pkg-config --libs libdpdk) ||
        ! folder=$(pkg-config --variable=libdir libdpdk); then
        die "wanted libdpdk, found that pkg-config has none. Run: apt-get install libdpdk-dev"
    fi
    # shellcheck disable=SC2086 # several words each
    run cc -O3 -Wall -Wextra $flags benches/virtio/peer/generator.c -o "$BUILD/bench/generator" $libraries "-Wl,-rpath,$folder" ||
        die "wanted the generator, found that it doesn't build (see above)"
    # shellcheck disable=SC2086
    run cc -O3 -DALLOW_EXPERIMENTAL_API $flags /usr/share/dpdk/examples/l2fwd/main.c -o "$BUILD/bench/dpdk-l2fwd" $libraries "-Wl,-rpath,$folder" ||
        die "wanted DPDK's l2fwd, found that it doesn't build (see above)"
}

# throughput_turn WHO DPDK-ARGUMENTS OUR-ARGUMENTS FOLDER: one line of the generator's figures
throughput_turn() {
    local who=$1 dpdk=$2 ours=$3 folder=$4 here=${CPUS%,*} there=${CPUS#*,} generator forwarder tries port command=()
    rm -f "$folder"/*.sock
    "$BUILD/bench/generator" --lcores "0@$here,1@$there" --main-lcore 0 --no-pci --in-memory --log-level=error -m 64 -- \
        -p "$folder/0.sock" -p "$folder/1.sock" -w 1 -t "$TURN_SECONDS" >"$folder/figures" 2>"$folder/generator.log" &
    generator=$!
    for ((tries = 0; tries < 100; tries++)); do
        [[ -S $folder/0.sock && -S $folder/1.sock ]] && break
        sleep 0.1
    done
    if [[ $who == dpdk ]]; then
        command=("$BUILD/bench/dpdk-l2fwd" -l "$here" --no-pci --in-memory --single-file-segments --log-level=error -m 256)
        for port in 0 1; do
            command+=(--vdev "net_virtio_user$port,path=$folder/$port.sock,server=0,queues=1,queue_size=$THROUGHPUT_QUEUE,mac=02:00:00:00:00:0$port,$dpdk")
        done
        command+=(-- -p 0x3 -q 2 -T 0)
    else
        command=("$BUILD/release/packetboat-l2fwd" -l "$here" --no-pci -m 256)
        for port in 0 1; do command+=(--vdev "vhost-user,path=$folder/$port.sock,queue-size=$THROUGHPUT_QUEUE,$ours"); done
        command+=(-- -p 0x3 -q 2 -T 0)
    fi
    "${command[@]}" >"$folder/$who.log" 2>&1 </dev/null &
    forwarder=$!
    wait "$generator" # ends by itself, also if nobody comes
    kill -INT "$forwarder" 2>/dev/null
    wait "$forwarder" 2>/dev/null
    if ! [[ -s $folder/figures ]]; then
        warn "$who: wanted figures, found: $(tail -n 3 "$folder/generator.log" "$folder/$who.log")"
    fi
    cat "$folder/figures"
}

# throughput_row NAME FILE: medians over the turns; ratios turn by turn, of those with 100 good windows on each side
throughput_row() {
    python3 - "$@" <<'PYTHON'
import statistics, sys

turns = {}
for line in open(sys.argv[2]):
    turn, who, *figures = line.rstrip("\n").split("\t")
    if len(figures) == 6 and float(figures[3]) >= 100:
        turns.setdefault(who, {})[turn] = [float(figure) for figure in figures]

def cells(values):
    values = list(values)
    if not values:
        return ["-", "-"]
    return [f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}"]

def ratios(one, other):
    one, other = turns.get(one, {}), turns.get(other, {})
    return (one[turn][0] / other[turn][0] for turn in one if turn in other)

every = [figures for side in turns.values() for figures in side.values()]
print(sys.argv[1],
      *cells(f[0] for who in ("ours", "again") for f in turns.get(who, {}).values()),
      *cells(f[0] for f in turns.get("dpdk", {}).values()),
      *cells(ratios("ours", "dpdk")), *cells(ratios("again", "ours")),
      f"{sum(f[3] for f in every):.0f} of {sum(f[4] for f in every):.0f}",
      f"{statistics.median([f[5] for f in every]) if every else float('nan'):.2f}", sep="\t")
PYTHON
}
