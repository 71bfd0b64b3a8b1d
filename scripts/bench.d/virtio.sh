# shellcheck shell=bash
# virtio's front end beside DPDK's: instructions, cycles and bars in lock step; throughput of both l2fwd

# shellcheck source=../virtio/throughput.sh
. "$REPO/scripts/virtio/throughput.sh"

VIRTIO_PAGES=80 # of 2 MiB: 64 MiB for each side of one process, and some for rounding

virtio_usage() {
    cat <<'USAGE'
Usage: scripts/bench.sh virtio [OPTION…]

One process, one core: DPDK's vhost library and a few lines of ring code are the back end, ours or
DPDK's virtio-user the front end. Per step the back end makes exactly B frames available and takes
what was sent, uncounted; receiving, rewriting addresses and sending are counted. Three tables:
instructions per frame (callgrind; each twice: the difference is the A/A column), cycles per frame
(processes of both sides taking turns, each twice: A/A again), and which bars are reached. A fourth
one: what both l2fwd programs forward for the same generator on another core, with its spread.

  --queues LIST       queue sizes (256)
  --rounds N          rounds to keep of each cycle figure (101)
  --row-seconds S     most seconds for one (3)
  --cpu CPU           where (0)
  --turns N           of each l2fwd (7), of --turn-seconds S (2)
  --cpus CPU,CPU      where to forward and where to generate (0,1)
  --aged              mbufs in random order, as after a long life
  --quick             few steps: shows that all of it works
  --no-instructions, --only-instructions, --no-throughput, --only-throughput

The peer is the DPDK that pkg-config finds, PEER_PKG_CONFIG_PATH=DIR first.
USAGE
}

# As DPDK's virtio-user has them: what is negotiated, and so which functions it picks.
VIRTIO_CONFIGS='packed_vq=0,mrg_rxbuf=0,in_order=0,vectorized=1
packed_vq=0,mrg_rxbuf=0,in_order=1,vectorized=1
packed_vq=0,mrg_rxbuf=0,in_order=0,vectorized=0
packed_vq=0,mrg_rxbuf=1,in_order=0,vectorized=0
packed_vq=0,mrg_rxbuf=1,in_order=1,vectorized=0
packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=0
packed_vq=1,mrg_rxbuf=1,in_order=0,vectorized=0'

bench_virtio() {
    local queues=256 rounds=101 seconds=3 cpu=0 aged=() quick='' instructions=yes cycles=yes throughput=yes
    TURNS=7 TURN_SECONDS=2 CPUS=0,1
    while (($#)); do
        case $1 in
            -h | --help)
                virtio_usage
                exit 0
                ;;
            --queues) queues=${2//,/ } && shift ;;
            --rounds) rounds=$2 && shift ;;
            --row-seconds) seconds=$2 && shift ;;
            --cpu) cpu=$2 && shift ;;
            --aged) aged=(-a) ;;
            --turns) TURNS=$2 && shift ;;
            --turn-seconds) TURN_SECONDS=$2 && shift ;;
            --cpus) CPUS=$2 && shift ;;
            --quick) quick=yes rounds=3 seconds=0.3 TURNS=1 TURN_SECONDS=1 ;;
            --no-instructions) instructions= ;;
            --only-instructions) cycles='' throughput='' ;;
            --no-throughput) throughput= ;;
            --only-throughput) instructions='' cycles='' ;;
            *) die "wanted an option of the virtio part, found '$1'. Run: $0 virtio --help" ;;
        esac
        shift
    done
    {
        need_rust
        run cargo build --release --package packetboat-bench-virtio ||
            die "wanted our side of the benchmark, found that it doesn't build (its messages stand above)"
        build_lockstep
        need_command valgrind
        keep_hugepages "$VIRTIO_PAGES"
    } >&2
    FIGURES=$BUILD/bench/virtio.tsv
    : >"$FIGURES"
    if [[ -n $instructions ]]; then virtio_instructions; fi
    if [[ -n $cycles ]]; then virtio_cycles; fi
    if [[ -n $instructions ]]; then virtio_bars; fi
    if [[ -n $throughput ]]; then virtio_throughput; fi
}

# Sets LOCKSTEP: the two programs are $LOCKSTEP-ours and $LOCKSTEP-dpdk.
build_lockstep() {
    local flags libraries folder here=benches/virtio/peer side more
    need_command cc gcc
    need_command pkg-config
    export PKG_CONFIG_PATH=${PEER_PKG_CONFIG_PATH-}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    pkg-config --exists libdpdk || need_package libdpdk-dev libc6-dev
    if ! flags=$(pkg-config --cflags libdpdk) || ! libraries=$(pkg-config --libs libdpdk) ||
        ! folder=$(pkg-config --variable=libdir libdpdk); then
        die "wanted libdpdk, found that pkg-config has none. Run: apt-get install libdpdk-dev, or PEER_PKG_CONFIG_PATH=… $0"
    fi
    mkdir -p "$BUILD/bench"
    LOCKSTEP=$BUILD/bench/lockstep
    say "peer: DPDK $(pkg-config --modversion libdpdk)"
    for side in dpdk packetboat; do
        more=()
        if [[ $side == packetboat ]]; then more=("$BUILD/release/libpacketboat_bench_virtio.a" -lpthread -ldl -lm); fi
        # shellcheck disable=SC2086 # several words each
        run cc -O3 -Wall -Wextra $flags $here/lockstep.c $here/frontend_$side.c "${more[@]}" \
            -o "$LOCKSTEP-${side/packetboat/ours}" $libraries "-Wl,-rpath,$folder" ||
            die "wanted the lock step with $side, found that it doesn't build (its messages stand above)"
    done
}

# lockstep_count SIDE FUNCTION QUEUE CONFIG BATCH STEPS PER [-p]: instructions per packet or step
lockstep_count() {
    (cd "$BUILD/bench" && taskset -c "$cpu" valgrind --tool=callgrind --fair-sched=yes \
        --callgrind-out-file=/dev/null --toggle-collect="$2" "$LOCKSTEP-$1" -q "$3" -o "$4" -b "$5" -n "$6" \
        "${aged[@]}" ${8:+"$8"} -- --base-virtaddr=0x10000000000 2>&1) |
        awk -v per="$7" '/^# counted/ { for (i = 3; i < NF; i++) if ($i == per) n = $(i + 1) }
            /Collected :/ { c = $NF } END { if (n && c) printf "%.3f", c / n; else print "nan" }'
}

virtio_instructions() {
    local queue config row name function batch steps per option ours again dpdk
    printf '# instructions per frame; empty: per call\nqueue\tconfiguration\tmeasure\tbatch\tours\tdpdk\tours/dpdk\tA/A\n'
    for queue in $queues; do
        for config in $VIRTIO_CONFIGS; do
            for row in step:frontend_step:32:2048:packets: step:frontend_step:8:4096:packets: step:frontend_step:1:16384:packets: \
                rx:frontend_rx:32:2048:packets:-p tx:frontend_tx:32:2048:packets:-p empty:frontend_poll:32:2048:steps:-p; do
                IFS=: read -r name function batch steps per option <<<"$row"
                if [[ -n $quick ]]; then steps=$((steps / 8)); fi
                ours=$(lockstep_count ours "$function" "$queue" "$config" "$batch" "$steps" "$per" "$option")
                again=$(lockstep_count ours "$function" "$queue" "$config" "$batch" "$steps" "$per" "$option")
                dpdk=$(lockstep_count dpdk "$function" "$queue" "$config" "$batch" "$steps" "$per" "$option")
                awk -v OFS='\t' -v o="$ours" -v a="$again" -v d="$dpdk" \
                    -v q="$queue" -v c="$config" -v n="$name" -v b="$batch" \
                    'BEGIN { print q, c, n, b, o, d, sprintf("%.3f", o / d), sprintf("%.4f", a / o) }' | tee -a "$FIGURES"
            done
        done
    done
}

# lockstep_time SIDE QUEUE CONFIG BATCH: the lower quartile of cycles per frame
lockstep_time() {
    (cd "$BUILD/bench" && taskset -c "$cpu" "$LOCKSTEP-$1" -c "$canary" -q "$2" -o "$3" -b "$4" -r "$rounds" \
        -t "$seconds" "${aged[@]}" 2>/dev/null) | awk -F'\t' '/^(ours|dpdk)\t/ { print $7; found = 1 } END { if (!found) print "nan" }'
}

virtio_cycles() {
    local queue config batch canary ours again dpdk second
    canary=$(for _ in 1 2 3; do (cd "$BUILD/bench" && taskset -c "$cpu" "$LOCKSTEP-dpdk" -k); done | sort -n | head -1)
    printf '\n# TSC cycles per frame, lower quartile; processes in the order ours, dpdk, ours, dpdk\nqueue\tconfiguration\tbatch\tours\tdpdk\tours/dpdk\tA/A ours\tA/A dpdk\n'
    for queue in $queues; do
        for config in $VIRTIO_CONFIGS; do
            for batch in 32 8 1; do
                ours=$(lockstep_time ours "$queue" "$config" "$batch")
                dpdk=$(lockstep_time dpdk "$queue" "$config" "$batch")
                again=$(lockstep_time ours "$queue" "$config" "$batch")
                second=$(lockstep_time dpdk "$queue" "$config" "$batch")
                awk -v OFS='\t' -v o="$ours" -v a="$again" -v d="$dpdk" -v s="$second" -v q="$queue" -v c="$config" -v b="$batch" \
                    'BEGIN { print q, c, b, o, d, sprintf("%.3f", (o + a) / (d + s)), sprintf("%.3f", a / o), sprintf("%.3f", s / d) }'
            done
        done
    done
}

# The bars of the project, at queue 256: see docs/virtio.md.
virtio_bars() {
    printf '\n# bars, instructions at queue 256\nbar\tallowed\tfound\treached\n'
    awk -F'\t' -v OFS='\t' '
        $1 != 256 { next }
        { packed = $2 ~ /packed_vq=1/; merge = $2 ~ /mrg_rxbuf=1/; ring = packed ? "packed" : "split" }
        $3 == "step" && $4 == 32 { k = ring (merge ? " mergeable" : ""); if (!(k in b32) || $5 > b32[k]) b32[k] = $5 }
        $3 == "step" && $4 == 1 {
            if (!(ring in b1) || $5 > b1[ring]) b1[ring] = $5
            if (!(ring in best) || $6 < best[ring]) best[ring] = $6
        }
        $3 == "empty" { if ($5 > empty) empty = $5 }
        function bar(name, allowed, found) { print name, sprintf("%.1f", allowed), found, found <= allowed ? "yes" : "no" }
        END {
            bar("batch 32, split", 190, b32["split"])
            bar("batch 32, split, mergeable buffers", 230, b32["split mergeable"])
            bar("batch 32, packed", 220, b32["packed"])
            bar("batch 32, packed, mergeable buffers", 230, b32["packed mergeable"])
            bar("batch 1, split: 0.7 of the best of DPDK", 0.7 * best["split"], b1["split"])
            bar("batch 1, packed: 0.7 of the best of DPDK", 0.7 * best["packed"], b1["packed"])
            bar("empty poll", 40, empty)
        }' "$FIGURES"
}
