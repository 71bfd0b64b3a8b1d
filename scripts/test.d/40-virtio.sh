# shellcheck shell=bash
# virtio: frames in process; testpmd over each kind of ring, Linux guests, OVS-DPDK; either side killed; fuzzing

part_virtio() {
    need_rust
    step_cargo 'ten million frames' \
        cargo test --release -p packetboat-virtio --test net -- --ignored --nocapture ten_million
    if ((EUID == 0)); then
        step 'l2fwd and softnic are built' cargo build --release -p packetboat-l2fwd -p packetboat-softnic
        # Some 5 s a configuration, and 30 s where other things run: what got through is accounted for.
        step_suite 'with testpmd: every kind of ring' env FRAMES=1000000 LIMIT_S=30 scripts/virtio/interop.sh matrix
        step_suite 'with testpmd: either side killed' scripts/virtio/interop.sh restart
        step_suite 'an 82599 and a vhost-user port' scripts/virtio/interop.sh mix
        step_suite 'Linux guests behind testpmd' scripts/virtio/interop.sh guests
        step_suite 'with OVS-DPDK' scripts/virtio/interop.sh ovs
    else
        cannot 'with testpmd' "hugepages take root. Run: sudo $0 virtio"
    fi
    if has_nightly; then
        build_fuzz_targets
        if also_runs ixgbe; then
            fuzz virtio_rings virtio_messages ixgbe # one minute for all
        else
            fuzz virtio_rings virtio_messages
        fi
    else
        without 'fuzzing' "$NIGHTLY_WANTED"
    fi
}
