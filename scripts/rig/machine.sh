# shellcheck shell=bash
# shellcheck disable=SC2034 # used by scenarios
# The guest: which hardware it has, how it starts and ends, how one talks to it. Sourced by lib.sh.
#
# Both machines have the same PCI devices, each NIC behind a root port of its own:
#
#   01:00.0 … 04:00.0  virtio-net, frames over unix sockets (the wire)     NICs 0–3
#   05:00.0, 06:00.0   virtio-net of two queue pairs, on taps in two namespaces  NICs 4, 5
#   07:00.0, 07:00.1   two virtio-nets that share an IOMMU group
#   08:00.0            e1000e, a device that l2fwd has no driver for
#
# and two NUMA nodes, of which only node 0 has CPUs. `main` has an Intel IOMMU, `virtio-iommu` that.
# `rings` is as `main`, but NICs 0 to 3 have a ring of each kind, and NIC 4 has RSS.
# `softnic` has other NICs in the same places, `counting` two that count: softnic.sh.

. "$REPO/scripts/rig/softnic.sh"

QEMU_PID=
RUN=         # directory with the sockets, short enough for a unix socket's path
MACHINE_LOG= # directory for the console's and QEMU's own output

# nic_bdf N: PCI address of NIC N.
nic_bdf() { printf '0000:%02x:00.0' $(($1 + 1)); }
# nic_mac N: MAC of NIC N.
nic_mac() { printf '52:54:00:12:00:%02x' "$1"; }

GROUP_BDFS=(0000:07:00.0 0000:07:00.1)
UNKNOWN_BDF=0000:08:00.0

# Names of the namespaces and taps: with our process id, so that two rigs don't meet.
NETNS=("pbrig$$a" "pbrig$$b")
TAPS=("pb$$a" "pb$$b")

# machine_start main|virtio-iommu|rings|softnic|counting LOGDIR: boot, and wait until the agent answers.
machine_start() {
    local kind=$1 n args=()
    MACHINE_LOG=$2
    RUN=$(mktemp -d /tmp/pbrig.XXXXXX)
    mkdir -p "$MACHINE_LOG"
    [[ $kind == counting ]] || taps_create "$kind" || { machine_stop; return 1; }
    [[ $kind != softnic && $kind != counting ]] || softnic_start "$kind" || { machine_stop; return 1; }
    machine_arguments "$kind"
    printf '%q ' "$RIG_QEMU" "${args[@]}" >"$MACHINE_LOG/qemu.command"
    "$RIG_QEMU" "${args[@]}" >"$MACHINE_LOG/qemu.log" 2>&1 </dev/null &
    QEMU_PID=$!
    for ((n = 0; n < 60; n++)); do
        if ! kill -0 "$QEMU_PID" 2>/dev/null; then
            sed 's/^/    /' "$MACHINE_LOG/qemu.log" >&2
            machine_stop
            warn "wanted QEMU to run, found that it ended (its words stand above). Its command: $MACHINE_LOG/qemu.command"
            return 1
        fi
        if [[ -S $RUN/agent ]] && "$WIRE" guest --socket "$RUN/agent" --timeout-s 5 true 2>/dev/null; then
            [[ $kind == counting ]] || taps_move
            return 0
        fi
        sleep 0.1
    done
    tail -5 "$MACHINE_LOG/console.log" >&2
    machine_stop
    warn "wanted the guest's agent to answer within a few minutes, found silence. See $MACHINE_LOG/console.log"
    return 1
}

# machine_arguments KIND: fills args.
machine_arguments() {
    local kind=$1 n tap append initrd=$PAYLOAD_INITRD memory=memory-backend-ram share='' reboot=-no-reboot
    append='console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests apparmor=0 audit=0'
    case $kind in
        softnic | counting)
            # Its NICs live in another process: memory must be shared. They must outlive a reboot, too.
            initrd=$LOGS/initrd-softnic memory=memory-backend-memfd share=,share=on reboot=
            ;;
    esac
    # CPU 1 is for the lcore alone, and programs are always in the same place.
    [[ $kind != counting ]] || append+=' isolcpus=1 norandmaps'
    args=(-name packetboat-rig -no-user-config -nodefaults -display none ${reboot:+"$reboot"}
        -kernel "$RIG_VMLINUZ" -initrd "$initrd" -m 1024 -smp 3
        -object "$memory,id=m0,size=768M$share" -object "$memory,id=m1,size=256M$share"
        -numa 'node,nodeid=0,memdev=m0,cpus=0-2' -numa 'node,nodeid=1,memdev=m1')
    case $RIG_ACCEL in
        kvm) args+=(-accel kvm -cpu host -machine 'q35,kernel-irqchip=split') ;;
        *) args+=(-accel 'tcg,thread=multi' -cpu max -machine q35) ;;
    esac
    case $kind in
        main | rings | softnic | counting)
            args+=(-device 'intel-iommu,intremap=on,caching-mode=on')
            append+=' intel_iommu=on iommu.passthrough=0'
            ;;
        virtio-iommu)
            args+=(-device virtio-iommu-pci)
            append+=' allow_unsafe_interrupts=1'
            ;;
    esac
    args+=(-append "$append")
    for n in {0..7}; do
        args+=(-device "pcie-root-port,id=rp$n,chassis=$((n + 1)),slot=$((n + 1))")
    done
    case $kind in
        softnic) softnic_arguments ;;
        counting) counting_arguments ;;
        *) virtio_arguments "$kind" ;;
    esac
    args+=(-serial "file:$MACHINE_LOG/console.log"
        -device virtio-serial-pci
        -chardev "socket,id=agent,path=$RUN/agent,server=on,wait=off"
        -device 'virtserialport,chardev=agent,name=packetboat.agent'
        -chardev "file,id=screen,path=$RUN/screen" -device 'virtconsole,chardev=screen'
        -qmp "unix:$RUN/qmp,server=on,wait=off")
}

# virtio_arguments KIND: adds the NICs of `main`, `virtio-iommu` and `rings` to args.
virtio_arguments() {
    local n tap nic='disable-legacy=on,iommu_platform=on' more=('' '' '' '' '' '')
    if [[ $1 == rings ]]; then
        more=(',host_mtu=2000' ',in_order=on' ',packed=on' ',packed=on,in_order=on' ',rss=on' '')
    fi
    for n in 0 1 2 3; do
        args+=(-netdev "stream,id=n$n,server=on,addr.type=unix,addr.path=$RUN/n$n"
            -device "virtio-net-pci,id=nic$n,bus=rp$n,netdev=n$n,mac=$(nic_mac $n),$nic${more[n]}")
    done
    for n in 4 5; do
        tap=${TAPS[n - 4]}
        args+=(-netdev "tap,id=n$n,ifname=$tap,script=no,downscript=no,queues=2,vhost=off"
            -device "virtio-net-pci,id=nic$n,bus=rp$n,netdev=n$n,mac=$(nic_mac $n),mq=on,vectors=6,$nic${more[n]}")
    done
    for n in 0 1; do
        args+=(-netdev "hubport,id=g$n,hubid=$n"
            -device "virtio-net-pci,id=group$n,bus=rp6,addr=0.$n,multifunction=on,netdev=g$n,mac=52:54:00:12:01:0$n,$nic")
    done
    args+=(-netdev 'hubport,id=e0,hubid=2' -device 'e1000e,id=intel,bus=rp7,netdev=e0,mac=52:54:00:12:01:02')
}

# machine_stop: switch the guest off, and undo what machine_start made on the host.
machine_stop() {
    local n
    if [[ -n $QEMU_PID ]]; then
        [[ ! -S $RUN/qmp ]] || "$WIRE" qmp --socket "$RUN/qmp" --timeout-s 5 quit >/dev/null 2>&1
        for ((n = 0; n < 50; n++)); do
            kill -0 "$QEMU_PID" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$QEMU_PID" 2>/dev/null
        wait "$QEMU_PID" 2>/dev/null
        QEMU_PID=
    fi
    softnic_stop
    taps_delete
    [[ -z $RUN ]] || rm -rf "$RUN"
    RUN=
}

machine_is_up() {
    [[ -n $QEMU_PID ]] && kill -0 "$QEMU_PID" 2>/dev/null && guest true 2>/dev/null
}

# guest SCRIPT…: run it in the guest; prints its output, returns its exit code (125: no answer).
# GUEST_TIMEOUT_S bounds it (60).
guest() { "$WIRE" guest --socket "$RUN/agent" --timeout-s "${GUEST_TIMEOUT_S:-60}" -- "$*"; }

# qmp COMMAND [NAME=VALUE…]: one command to QEMU.
qmp() { "$WIRE" qmp --socket "$RUN/qmp" "$@"; }

# The taps stand for themselves until QEMU holds them, then each goes into its namespace, where the
# address of its interface is the one that l2fwd writes into frames for that port (MAC updating).
# softnic's are of one queue, and made by itself.
taps_create() { # KIND
    local n
    taps_delete
    [[ -e /dev/net/tun ]] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }
    for n in 0 1; do
        if { [[ $1 != softnic ]] && ! ip tuntap add dev "${TAPS[n]}" mode tap multi_queue; } || ! ip netns add "${NETNS[n]}"; then
            warn "wanted a tap and a namespace, found that ip can't make them (its message stands above). Run: modprobe tun; in a container: --privileged --device /dev/net/tun"
            return 1
        fi
        # Nothing but the test's own traffic, so that all counters can be compared.
        ip netns exec "${NETNS[n]}" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    done
}

taps_move() {
    local n tap
    for n in 0 1; do
        tap=${TAPS[n]}
        ip link set "$tap" netns "${NETNS[n]}"
        ip -n "${NETNS[n]}" link set "$tap" name wire address "02:00:00:00:00:0$n"
        ip -n "${NETNS[n]}" address add "198.18.0.$((n + 1))/24" dev wire
        ip -n "${NETNS[n]}" link set lo up
        ip -n "${NETNS[n]}" link set wire up
    done
}

taps_delete() {
    local n
    for n in 0 1; do
        ip netns delete "${NETNS[n]}" 2>/dev/null
        ip tuntap delete dev "${TAPS[n]}" mode tap multi_queue 2>/dev/null
    done
    return 0
}
