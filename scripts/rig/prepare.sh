# shellcheck shell=bash disable=SC2034 # used by those who source this file
# What must be there before a guest can boot: QEMU, the guest's kernel, our programs. Sourced by
# run.sh and demo.sh after lib/common.sh.

. "$REPO/scripts/lib/rust.sh"

RIG_ACCEL=${RIG_ACCEL:-tcg}
TARGET=${CARGO_TARGET_DIR:-$REPO/target}
LOGS=$REPO/target/rig

# prepare: QEMU and the guest from the cache, our programs, and the payload of the guest.
prepare() {
    need_rust
    "$REPO/scripts/rig/setup.sh" || exit
    # shellcheck source=/dev/null # written by setup.sh
    . "$CACHE/rig/env"
    need_command ip iproute2
    need_command cpio
    need_command sysctl procps
    need_command ping iputils-ping
    need_command jq
    [[ -n ${RIG_L2FWD-} || -e $TARGET/release/packetboat-l2fwd ]] ||
        say 'rig: building l2fwd for the first time, optimised as a whole: this takes a few minutes'
    (cd "$REPO" && cargo build -q -p packetboat-wire && cargo build -q -p packetboat --example vfio-probe &&
        cargo build -q -p packetboat-virtio --example port-commands && { [[ -n ${RIG_L2FWD-} ]] || cargo build -q --release -p packetboat-l2fwd; }) ||
        die "wanted l2fwd and the wire built, found that cargo fails (see above). Run: cargo build --release -p packetboat-l2fwd"
    WIRE=$TARGET/debug/packetboat-wire
    PROBE=$TARGET/debug/examples/vfio-probe
    PORT_COMMANDS=$TARGET/debug/examples/port-commands
    L2FWD=${RIG_L2FWD:-$TARGET/release/packetboat-l2fwd}
    make_payload
}

# make_payload: bash, l2fwd, the probe, the port that takes commands, the wire's program for TCP, their libraries and our scripts, as a second archive behind
# the initramfs. The kernel unpacks one after the other.
make_payload() {
    local root file
    root=$(mktemp -d)
    chmod 755 "$root" # becomes the mode of the guest's /
    PAYLOAD_INITRD=$LOGS/initrd
    mkdir -p "$root/bin" "$LOGS"
    install -m 755 "$L2FWD" "$root/bin/packetboat-l2fwd"
    install -m 755 -s "$PROBE" "$root/bin/vfio-probe"
    install -m 755 -s "$PORT_COMMANDS" "$root/bin/port-commands"
    install -m 755 -s "$WIRE" "$root/bin/packetboat-wire"
    install -m 755 "$(command -v bash)" "$root/bin/bash"
    install -m 755 "$REPO/scripts/devbind.sh" "$REPO/scripts/hugepages.sh" "$root/bin"
    for file in $(ldd "$L2FWD" "$PROBE" "$PORT_COMMANDS" "$WIRE" "$root/bin/bash" | grep -oE '/[^ ]+\.so[^ ]*' | sort -u); do
        install -D -m 755 "$file" "$root$file"
    done
    [[ -z ${RIG_EXTRA-} ]] || cp -a "$RIG_EXTRA"/. "$root" # a directory to lay over the guest's root
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1) |
        cat "$RIG_INITRAMFS" - >"$PAYLOAD_INITRD"
    rm -rf "$root"
}
