# shellcheck shell=bash
# Two Linux guests on QEMU's vhost-user, l2fwd between them: guest - testpmd - l2fwd - testpmd - guest.
# Sourced by interop.sh. QEMU, the kernel and busybox are the rig's (scripts/rig/setup.sh); iperf3,
# ethtool and an init of our own come in a second archive.
#
# l2fwd runs with interrupts, so that the guests have the processors while nothing is to be done; with
# long TCP frames (--lro --tso) the checksums aren't filled in on the whole way, without (--rx-checksum)
# l2fwd fills them in.

GUEST_PIDS=()
GUEST_BOOT_S=${GUEST_BOOT_S:-90} # at most

guests() {
    need_command iperf3
    need_command ethtool
    need_command cpio
    "$REPO/scripts/rig/setup.sh" >"$LOGS/rig.setup" 2>&1 || {
        not_ok 'guests: the rig is set up' "$(tail -n 5 "$LOGS/rig.setup")"
        return
    }
    # shellcheck source=/dev/null
    . "$CACHE/rig/env"
    guest_archive || {
        not_ok 'guests: an archive for them is made'
        return
    }
    # A port with a split ring, and one with a packed one.
    guests_one guests-long-frames packed=off/packed=on 1 --lro --tso
    # A guest that may would send long frames, and testpmd would pass them on to whoever is there.
    guests_one guests-checksums-filled-in packed=off 0 --rx-checksum
}

# guest_archive: the initramfs of both guests, $LOGS/guest.initrd.
guest_archive() {
    local root=$LOGS/guest.root program file
    rm -rf "$root"
    mkdir -p "$root/bin"
    for program in iperf3 ethtool; do
        cp "$(command -v "$program")" "$root/bin/$program" || return 1
        while read -r file; do
            mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file" || return 1
        done < <(ldd "$root/bin/$program" | grep -o '/[^ ]*\.so[^ ]*')
    done
    cp "$REPO/scripts/virtio/guest-init" "$root/init" && chmod 755 "$root/init" || return 1
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1) >"$LOGS/guest.extra" &&
        cat "$RIG_INITRAMFS" "$LOGS/guest.extra" >"$LOGS/guest.initrd"
}

# guest_start NAME ROLE SOCKET MAC
guest_start() {
    local accel=(-accel 'tcg,thread=multi' -cpu max)
    [[ ${RIG_ACCEL-} != kvm ]] || accel=(-accel kvm -cpu host)
    "$RIG_QEMU" -name "$1-$2" -no-user-config -nodefaults -display none -no-reboot -machine q35 "${accel[@]}" \
        -m 256 -object memory-backend-memfd,id=m,size=256M,share=on -numa node,memdev=m -smp 1 \
        -kernel "$RIG_VMLINUZ" -initrd "$LOGS/guest.initrd" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check cryptomgr.notests role=$2" \
        -chardev "socket,id=c,path=$3,reconnect-ms=500" -netdev vhost-user,id=n,chardev=c \
        -device "virtio-net-pci,netdev=n,mac=$4,disable-legacy=on" \
        -serial "file:$LOGS/$1.$2" >"$LOGS/$1.$2.qemu" 2>&1 </dev/null &
    GUEST_PIDS+=($!)
}

guests_stop() {
    local pid
    for pid in "${GUEST_PIDS[@]}"; do
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    GUEST_PIDS=()
}

# guest_wait FILE TEXT SECONDS
guest_wait() {
    local until_s=$((SECONDS + $3))
    while ((SECONDS < until_s)); do
        grep -aq "$2" "$1" 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

guests_one() { # NAME VDEV-ARGUMENTS TSO [OPTION…]
    local name=$1 pings rates longest client=$LOGS/$1.client
    testpmd_start_guests "$name" "$3"
    if ! l2fwd_start "$name" "$2" --no-mac-updating --interrupt-mode "${@:4}"; then
        not_ok "$name: l2fwd starts" "$(tail -n 3 "$L2FWD_LOG")"
        l2fwd_kill
        testpmd_kill
        return
    fi
    testpmd start
    guest_start "$name" server "$LOGS/a.sock" 52:54:00:70:00:01
    guest_start "$name" client "$LOGS/b.sock" 52:54:00:70:00:02
    guest_wait "$client" 'guest: done' "$GUEST_BOOT_S" || true
    sleep 1.2 # for a last report
    local code=0
    l2fwd_stop || code=$?
    guests_stop
    testpmd_kill
    pings=$(grep -ao '[0-9]* packets received' "$client" | head -n 1 | cut -d' ' -f1)
    # Bits per second that the server has received: to it, and from it.
    rates=$(grep -a 'receiver' "$client" | grep -o '[0-9.]* [KMG]bits/sec' | tr '\n' ' ')
    # Bytes of a frame, on average, by the port with more of them.
    longest=$(guests_average)
    local wrong
    wrong=$(grep -ao 'InCsumErrors [0-9]*' "$client" | awk '{ sum += $2 } END { print sum + 0 }')
    local dropped
    dropped=$(($(l2fwd_sum bad_request 0 tx) + $(l2fwd_sum bad_request 1 tx) + $(l2fwd_sum bad_request 0 rx) + $(l2fwd_sum bad_request 1 rx)))
    local least=100
    [[ $* != *--tso* ]] || least=2000 # frames longer than any single segment: they went through whole
    if ((code == 0 && ${pings:-0} == 5 && longest > least && wrong == 0 && dropped == 0)) &&
        [[ $(wc -w <<<"$rates") == 4 ]] && grep -q 'mbufs: \([0-9]*\) of \1 returned' "$L2FWD_LOG" &&
        grep -aq 'lcore 0: slept' "$L2FWD_LOG"; then
        ok "$name: 5 of 5 pings, iperf3 $rates(to the server, from it); $longest bytes a frame, no checksum wrong; $(grep -ao 'slept .*' "$L2FWD_LOG" | tail -n 1)"
    else
        not_ok "$name" "exit code $code, pings ${pings:-0} of 5, iperf3 '$rates', $longest bytes a frame (wanted more than $least), $wrong wrong checksums, $dropped bad requests: $(tail -n 3 "$client") $(tail -n 3 "$L2FWD_LOG")"
    fi
}

guests_average() {
    local port packets bytes most=0
    for port in 0 1; do
        packets=$(l2fwd_sum packets "$port" rx) bytes=$(l2fwd_sum bytes "$port" rx)
        ((packets > 0 && bytes / packets > most)) && most=$((bytes / packets))
    done
    echo "$most"
}

# testpmd_start_guests NAME TSO: ports a.sock - 0.sock and 1.sock - b.sock, in pairs. Wishes of a frame that
# comes in unfinished go along (legacy-ol-flags), as they do in l2fwd.
testpmd_start_guests() {
    local number=0 socket vdevs=()
    for socket in a 0 1 b; do
        vdevs+=(--vdev "net_vhost$number,iface=$LOGS/$socket.sock,queues=1,tso=$2,legacy-ol-flags=1")
        rm -f "$LOGS/$socket.sock"
        number=$((number + 1))
    done
    testpmd_run "$1" "${vdevs[@]}" -- -i --disable-link-check --no-lsc-interrupt --forward-mode=io --total-num-mbufs=16384 \
        --max-pkt-len=9600 --nb-cores=1
}
