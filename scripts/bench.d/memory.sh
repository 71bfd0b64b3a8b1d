# shellcheck shell=bash
# mempool, ring, mbuf and heap beside DPDK's: cycles, instructions, and which bars are reached

MEMORY_PAGES=400 # of 2 MiB: 384 MiB for each side, and some for rounding

memory_usage() {
    cat <<'EOF'
Usage: scripts/bench.sh memory [--quick] [OPTION…]

Prints four tables: cycles of all rows, the spread of those of two cores, which bars are reached,
and instructions per operation (callgrind). docs/bench.md says how to read them.

  --quick            a few rounds, whatever else runs: shows that all of it works, in a minute
  --only TEXT        only rows with TEXT in their names; may be given several times
  --rounds N         rounds to keep of each row (61)
  --row-seconds S    most seconds for a row, if rounds have to be thrown away (15)
  --cpus CPU[,CPU]   where to measure; the second one for the rows of two cores (0,1)
  --no-huge          normal pages on both sides
  --no-instructions, --only-instructions

The peer is the DPDK that pkg-config finds; with PEER_PKG_CONFIG_PATH=DIR it looks there first, for
one that you have built and installed yourself.
EOF
}

bench_memory() {
    local option pages=()
    for option; do
        if [[ $option == -h || $option == --help ]]; then
            memory_usage
            exit 0
        fi
    done
    {
        need_rust
        build_memory_peer
        run cargo build --release --package packetboat-bench-memory ||
            die "wanted our side of the benchmark, found that it doesn't build (its messages stand above)"
        need_command valgrind
        keep_hugepages "$MEMORY_PAGES"
        if (($(free_hugepages) < MEMORY_PAGES)); then
            warn "wanted $MEMORY_PAGES free hugepages of 2 MiB, found $(free_hugepages): both sides get normal pages instead"
            pages=(--no-huge)
        fi
    } >&2
    "$BUILD/release/bench-memory-compare" --ours "$BUILD/release/bench-memory-ours" --peer "$PEER" \
        --scratch "$BUILD/bench" "${pages[@]}" "$@"
}

free_hugepages() { cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0; }

# Sets PEER. With the flags that the peer's own package asks for: of Debian's, -march=corei7.
build_memory_peer() {
    local flags libraries folder
    need_command cc gcc
    need_command pkg-config
    export PKG_CONFIG_PATH=${PEER_PKG_CONFIG_PATH-}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    pkg-config --exists libdpdk || need_package libdpdk-dev libc6-dev
    pkg-config --exists libdpdk ||
        die "wanted libdpdk, found that pkg-config has none. Run: apt-get install libdpdk-dev, or PEER_PKG_CONFIG_PATH=… $0"
    flags=$(pkg-config --cflags libdpdk)
    libraries=$(pkg-config --libs libdpdk)
    folder=$(pkg-config --variable=libdir libdpdk)
    mkdir -p "$BUILD/bench"
    PEER=$BUILD/bench/memory-peer
    say "peer: DPDK $(pkg-config --modversion libdpdk)"
    # shellcheck disable=SC2086 # several words each
    run cc -O3 -Wall -Wextra $flags benches/memory/peer/dpdk.c -o "$PEER" $libraries "-Wl,-rpath,$folder" ||
        die "wanted the peer's side of the benchmark, found that it doesn't build (its messages stand above)"
}
