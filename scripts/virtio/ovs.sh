# shellcheck shell=bash
# Open vSwitch with DPDK (Debian's openvswitch-switch-dpdk) as the back end of both ports. Sourced by
# interop.sh. OVS connects, l2fwd listens. Its daemons and its database are this test's own: in
# $LOGS/ovs, found again by their pid files.
#
# A flow sends what comes in by v1 out by v0, and l2fwd sends it back: frames put in at v0 go round
# until the flow is taken away. The other way round likewise.

OVS=$LOGS/ovs
export OVS_RUNDIR=$OVS OVS_LOGDIR=$OVS OVS_DBDIR=$OVS OVS_SYSCONFDIR=$OVS

vsctl() { ovs-vsctl --db="unix:$OVS/db.sock" --timeout=30 "$@"; }
ofctl() { ovs-ofctl --timeout=30 "$@"; }

ovs_start() {
    rm -rf "$OVS"
    mkdir -p "$OVS"
    ovsdb-tool create "$OVS/conf.db" /usr/share/openvswitch/vswitch.ovsschema &&
        ovsdb-server "$OVS/conf.db" "--remote=punix:$OVS/db.sock" "--pidfile=$OVS/ovsdb.pid" --detach \
            "--log-file=$OVS/ovsdb.log" -vconsole:off || return 1
    vsctl --no-wait init
    # No PCI device, no files in hugetlbfs, one core to poll with.
    vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true \
        other_config:dpdk-extra='--no-pci --in-memory' other_config:dpdk-socket-mem=256 \
        other_config:dpdk-lcore-mask=0x1 other_config:pmd-cpu-mask=0x2
    /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk "unix:$OVS/db.sock" "--pidfile=$OVS/vswitchd.pid" --detach \
        "--log-file=$OVS/vswitchd.log" -vconsole:off || return 1
    vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- set-fail-mode br0 secure &&
        vsctl add-port br0 v0 -- set Interface v0 type=dpdkvhostuserclient \
            "options:vhost-server-path=$LOGS/0.sock" ofport_request=1 &&
        vsctl add-port br0 v1 -- set Interface v1 type=dpdkvhostuserclient \
            "options:vhost-server-path=$LOGS/1.sock" ofport_request=2
}

ovs_stop() {
    local name pid tries
    for name in vswitchd ovsdb; do
        pid=$(cat "$OVS/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null
        for ((tries = 0; tries < 100; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null
    done
    return 0
}

# ovs_counts: received, sent and dropped packets of v0, then of v1.
ovs_counts() {
    local port field
    for port in v0 v1; do
        for field in rx_packets tx_packets tx_dropped; do
            vsctl get Interface "$port" "statistics:$field" 2>/dev/null || echo 0
        done
    done | tr '\n' ' '
}

# ovs_circulate FROM TO: frames of three lengths go in at port FROM and come back by port TO, to be sent
# to FROM again; for a while.
ovs_circulate() {
    local length number frame
    ofctl add-flow br0 "in_port=$2,actions=output:$1"
    for length in 60 512 1500; do
        frame=020000000001020000000002$(printf '88b5%0*d' $((2 * length - 28)) 0)
        for ((number = 0; number < 8; number++)); do
            ofctl packet-out br0 "in_port=LOCAL,packet=$frame,actions=output:$1"
        done
    done
    sleep "$3"
    ofctl del-flows br0 "in_port=$2"
    sleep 1
}

ovs() {
    local packed
    need_package openvswitch-switch-dpdk
    for packed in off on; do ovs_one "$packed"; done
}

ovs_one() { # PACKED
    local name="ovs-packed-$1" counts tries
    local rx0 tx0 drop0 rx1 tx1 drop1 in0 in1 out0 out1 dropped
    if ! ovs_start >"$LOGS/$name.start" 2>&1; then
        not_ok "$name: OVS-DPDK starts" "$(tail -n 5 "$LOGS/$name.start" "$OVS/vswitchd.log")"
        ovs_stop
        return
    fi
    l2fwd_start_late "$name" "packed=$1,server"
    l2fwd_wait 'Ctrl-C stops' || true
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(vsctl get Interface v0 link_state) == up && $(vsctl get Interface v1 link_state) == up ]] && break
        sleep 0.1
    done
    ovs_circulate 1 2 4
    ovs_circulate 2 1 4
    # Its database has the counters of some seconds ago.
    sleep 6
    counts=$(ovs_counts)
    local code=0
    l2fwd_stop || code=$?
    ovs_stop
    read -r rx0 tx0 drop0 rx1 tx1 drop1 <<<"$counts"
    in0=$(l2fwd_line 0 rx_packets) in1=$(l2fwd_line 1 rx_packets)
    out0=$(l2fwd_line 0 tx_packets) out1=$(l2fwd_line 1 tx_packets)
    dropped=$(($(l2fwd_line 0 rx_dropped) + $(l2fwd_line 1 rx_dropped) + $(l2fwd_line 0 tx_dropped) + $(l2fwd_line 1 tx_dropped)))
    local account="OVS sent $tx0 and $tx1 (dropped $drop0 and $drop1), l2fwd received $in0 and $in1, sent $out1 and $out0, dropped $dropped, OVS received $rx1 and $rx0; exit code $code"
    if [[ -n $in0 ]] && ((code == 0 && tx0 == in0 && tx1 == in1 && in0 == out1 + dropped && in1 == out0 && out1 == rx1 && out0 == rx0 && in0 > 10000 && in1 > 10000)) &&
        grep -q 'mbufs: \([0-9]*\) of \1 returned' "$L2FWD_LOG"; then
        ok "$name: $((in0 + in1)) frames of 60 to 1500 bytes, all accounted for ($(grep -ao 'vhost-user:.*0.sock: .*' "$L2FWD_LOG" | head -n 1 | sed 's/.*sock: //'))"
    else
        not_ok "$name: all accounted for" "$account"
    fi
}
