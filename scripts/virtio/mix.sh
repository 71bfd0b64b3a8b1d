# shellcheck shell=bash disable=SC2034 # L2FWD_PID is interop.sh's
# An 82599 (softnic) and a vhost-user port in one l2fwd: softnic's generator, l2fwd, testpmd, and all the
# way back to where each frame is checked. Sourced by interop.sh.

SOFTNIC=${SOFTNIC:-$(dirname "$L2FWD")/packetboat-softnic}
MIX_FRAMES=200000

mix() {
    local name=mix nic=$LOGS/nic.sock control=$LOGS/nic.control softnic tries stats='' code=0
    [[ -x $SOFTNIC ]] || die "wanted softnic at $SOFTNIC, found none. Run: cargo build --release -p packetboat-softnic"
    testpmd_start "$name" 1
    "$SOFTNIC" --socket "$nic" --control "$control" --share-pages --wait-when-full \
        --wire "gen:size=60-1514,rate=50000,frames=$MIX_FRAMES,start=manual" >"$LOGS/$name.softnic" 2>&1 &
    softnic=$!
    for ((tries = 0; tries < 100; tries++)); do
        [[ -S $nic && -S $control ]] && break
        sleep 0.05
    done
    L2FWD_LOG=$LOGS/$name.l2fwd
    "$L2FWD" -l 0 -m 64 -a "vfio-user:$nic" --vdev "vhost-user,path=$LOGS/0.sock" -P -T 1 --no-mac-updating \
        --lossless >"$L2FWD_LOG" 2>&1 &
    L2FWD_PID=$!
    if l2fwd_wait 'Ctrl-C stops'; then
        sleep 1 # until testpmd has noticed that somebody has connected
        testpmd 'set portlist 0' # one port: what comes in goes out there
        testpmd 'set fwd io retry'
        testpmd 'set burst tx delay 100 retry 10000'
        testpmd 'start'
        "$SOFTNIC" ctl "$control" nic 0 wire start >/dev/null
        for ((tries = 0; tries < 100; tries++)); do
            stats=$("$SOFTNIC" ctl "$control" stats)
            [[ $stats == *"gen_received $MIX_FRAMES"* ]] && break
            sleep 0.2
        done
    fi
    testpmd 'stop'
    testpmd_quit
    l2fwd_stop || code=$?
    kill "$softnic"
    wait "$softnic" 2>/dev/null
    if ((code == 0)) && [[ $stats == *"gen_received $MIX_FRAMES"* && $stats == *'gen_lost 0'* && $stats == *'gen_reordered 0'* &&
        $stats == *'gen_corrupt 0'* ]] && grep -q 'mbufs: \([0-9]*\) of \1 returned' "$L2FWD_LOG"; then
        ok "$name: $MIX_FRAMES frames from an 82599 to a vhost-user port and back, each byte as it was"
    else
        not_ok "$name" "exit code $code, $(grep -o 'gen_[a-z]* [0-9]*' <<<"$stats" | tr '\n' ' '), $(tail -n 3 "$L2FWD_LOG")"
    fi
}
