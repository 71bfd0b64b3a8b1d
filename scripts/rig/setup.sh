#!/bin/bash
# Fetches what the rig boots, once, into a cache outside the checkout: QEMU (as an unpacked tree,
# nothing is installed from it), a guest kernel with the modules it needs, an initramfs.
# Run it as root on Debian 12 or newer. A second run finds everything in place and ends at once.
#
#   scripts/rig/setup.sh            fetch and build what is missing
#   scripts/rig/setup.sh --bench    the same, and DPDK's l2fwd to compare with (count.sh)
#   scripts/rig/setup.sh --clean    forget the cache of the rig
#
# Environment: PACKETBOAT_CACHE  where the cache is (default: ~/.cache/packetboat)
#              RIG_QEMU_VERSION  Debian version of QEMU to fetch instead of the pinned one
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

# vfio-user-pci needs QEMU 10.1; Debian 12 has 7.2, its backports 10.0, those of Debian 13 this one.
QEMU_VERSION=${RIG_QEMU_VERSION:-1:11.1.3+ds-1~bpo13+1}
QEMU_SUITE=trixie-backports
QEMU_PACKAGES=(qemu-system-x86 ipxe-qemu seabios)
GUEST_SUITE=trixie
GUEST_PACKAGES=(linux-image-amd64 busybox-static)
# What the guest loads; what these depend on is added.
GUEST_MODULES=(virtio_pci virtio_net virtio_console virtio-iommu vfio vfio_iommu_type1 vfio-pci
    e1000e igb ixgbe 8021q)
# What judges softnic beside the kernel: DPDK's test program with its ixgbe driver.
DPDK_PACKAGES=(dpdk-dev)
DPDK_DRIVERS=(bus_pci bus_vdev mempool_ring net_ixgbe)
# What its l2fwd is built from: the source is among its examples.
L2FWD_PACKAGES=(libdpdk-dev dpdk-doc)

RIG_CACHE=$CACHE/rig
HERE=$REPO/scripts/rig
QEMU_TREE=$RIG_CACHE/qemu-${QEMU_VERSION//[:~+]/_}
GUEST_DIR=$RIG_CACHE/guest-$(printf '%s\n' "$GUEST_SUITE" "${GUEST_PACKAGES[@]}" "${GUEST_MODULES[@]}" | sha256sum | cut -c1-12)
DPDK_DIR=$RIG_CACHE/dpdk-$(printf '%s\n' "$GUEST_SUITE" "${DPDK_PACKAGES[@]}" "${DPDK_DRIVERS[@]}" | sha256sum | cut -c1-12)
L2FWD_DIR=$RIG_CACHE/dpdk-l2fwd-${DPDK_DIR##*-}
INITRAMFS=$GUEST_DIR/initramfs-$(cat "$HERE"/guest/* | sha256sum | cut -c1-12).cpio.gz

main() {
    case ${1-} in
    --clean) run rm -rf "$RIG_CACHE" && exit ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
    '' | --bench) ;;
    *) die "wanted no argument, --bench or --clean, found '$1'. Run: scripts/rig/setup.sh --help" ;;
    esac
    mkdir -p "$RIG_CACHE"
    exec 9>"$RIG_CACHE/lock" && flock 9 # two set-ups at once would write into the same tree
    [[ -e $QEMU_TREE/done ]] || fetch_qemu
    [[ -e $GUEST_DIR/done ]] || fetch_guest
    [[ -e $INITRAMFS ]] || build_initramfs
    [[ -e $DPDK_DIR/done ]] || fetch_dpdk
    [[ ${1-} != --bench || -e $L2FWD_DIR/done ]] || build_dpdk_l2fwd
    write_wrapper
    say "rig: $("$RIG_CACHE/qemu" --version | head -1), guest $(<"$GUEST_DIR/done"), in $RIG_CACHE"
}

# fetch_qemu: a tree of packages beside the system's own, run through its own loader.
fetch_qemu() {
    need_tools
    local tree=$QEMU_TREE.new qemu version=$QEMU_VERSION
    local release=("--aptopt=APT::Default-Release \"$QEMU_SUITE\"")
    qemu=$(printf '%s,' "${QEMU_PACKAGES[@]/#qemu-system-x86/qemu-system-x86=$version}")
    if ! extract "$QEMU_SUITE" "$tree" "${qemu%,}" "${release[@]}"; then
        warn "wanted QEMU $version in $QEMU_SUITE, found that it can't be fetched (see above): trying the newest one there"
        qemu=$(printf '%s,' "${QEMU_PACKAGES[@]}")
        extract "$QEMU_SUITE" "$tree" "${qemu%,}" "${release[@]}" ||
            die "wanted any QEMU from $QEMU_SUITE, found none. See what the mirror has: rmadison qemu; then run: RIG_QEMU_VERSION=VERSION scripts/rig/setup.sh"
    fi
    rm -rf "$QEMU_TREE" "$tree/usr/share/doc" "$tree/usr/share/locale"
    mv "$tree" "$QEMU_TREE"
    touch "$QEMU_TREE/done"
}

# fetch_guest: kernel, the modules of GUEST_MODULES with what they need, and busybox.
fetch_guest() {
    need_tools
    local tree=$GUEST_DIR.new kernel modules module paths
    extract "$GUEST_SUITE" "$tree" "$(IFS=,; printf '%s' "${GUEST_PACKAGES[*]}")" ||
        die "wanted the packages ${GUEST_PACKAGES[*]} of Debian $GUEST_SUITE, found that they can't be fetched (see above). Check the mirror in /etc/apt and run: scripts/rig/setup.sh"
    kernel=$(basename "$tree"/usr/lib/modules/*)
    rm -rf "$GUEST_DIR"
    modules=$GUEST_DIR/root/lib/modules/$kernel
    mkdir -p "$modules" "$GUEST_DIR/root/bin"
    cp "$tree/boot/vmlinuz-$kernel" "$GUEST_DIR/vmlinuz"
    cp "$tree"/usr/lib/modules/"$kernel"/modules.{builtin,builtin.modinfo,order} "$modules"
    cp "$tree/usr/bin/busybox" "$GUEST_DIR/root/bin/busybox"
    depmod -b "$tree/usr" "$kernel" # --show-depends reads the list that this writes
    paths=$(for module in "${GUEST_MODULES[@]}"; do
        modprobe -d "$tree/usr" -S "$kernel" --show-depends "$module" # those built in have no path
    done | awk '$1 == "insmod" { print $2 }' | sort -u)
    # shellcheck disable=SC2086 # a list of paths without blanks
    cp --no-preserve=ownership $paths "$modules"
    xz -d "$modules"/*.ko.xz # busybox' insmod can't
    depmod -b "$GUEST_DIR/root" "$kernel"
    rm -rf "$tree"
    printf 'Linux %s\n' "$kernel" >"$GUEST_DIR/done"
}

# fetch_dpdk: testpmd, the drivers of DPDK_DRIVERS and the libraries of all, as a folder /dpdk for the
# guest. It runs through its own loader, beside whatever else is there.
fetch_dpdk() {
    need_tools
    local tree=$RIG_CACHE/dpdk.new root=$DPDK_DIR/root/dpdk file drivers=() driver lib
    extract "$GUEST_SUITE" "$tree" "$(IFS=,; printf '%s' "${DPDK_PACKAGES[*]}")" ||
        die "wanted the packages ${DPDK_PACKAGES[*]} of Debian $GUEST_SUITE, found that they can't be fetched (see above). Check the mirror in /etc/apt and run: scripts/rig/setup.sh"
    lib=$tree/usr/lib/x86_64-linux-gnu
    rm -rf "$DPDK_DIR"
    mkdir -p "$root/drivers"
    for driver in "${DPDK_DRIVERS[@]}"; do
        file=$(find "$lib/dpdk" -name "librte_$driver.so.*.*" | head -1)
        [[ -n $file ]] || die "wanted DPDK's driver $driver in ${DPDK_PACKAGES[*]}, found none. See: find $lib/dpdk"
        drivers+=("$file")
    done
    install -m 755 "$tree/usr/bin/dpdk-testpmd" "$root/testpmd"
    for file in $("$lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$lib" --list "$root/testpmd" &&
        for driver in "${drivers[@]}"; do
            "$lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$lib" --list "$driver"
        done); do
        [[ $file != "$lib"/* ]] || install -m 755 "$(realpath "$file")" "$root/${file##*/}"
    done
    for file in "${drivers[@]}"; do install -m 755 "$file" "$root/drivers"; done
    install -m 755 "$lib/ld-linux-x86-64.so.2" "$lib/libgcc_s.so.1" "$root"
    rm -rf "$tree"
    touch "$DPDK_DIR/done"
}

# build_dpdk_l2fwd: DPDK's example, with the headers and flags of the package whose libraries fetch_dpdk
# took. Linked by this machine's compiler; those libraries' own needs are met in the guest.
build_dpdk_l2fwd() {
    need_tools
    need_package gcc libc6-dev pkgconf
    local tree=$RIG_CACHE/dpdk-l2fwd.new lib flags=()
    extract "$GUEST_SUITE" "$tree" "$(IFS=,; printf '%s' "${L2FWD_PACKAGES[*]}")" ||
        die "wanted the packages ${L2FWD_PACKAGES[*]} of Debian $GUEST_SUITE, found that they can't be fetched (see above). Check the mirror in /etc/apt and run: scripts/rig/setup.sh --bench"
    lib=$tree/usr/lib/x86_64-linux-gnu
    # As its Makefile does it: -O3 and what the package says, -march=corei7 among it.
    read -ra flags < <(PKG_CONFIG_SYSROOT_DIR=$tree PKG_CONFIG_LIBDIR=$lib/pkgconfig pkg-config --cflags libdpdk-libs)
    rm -rf "$L2FWD_DIR"
    mkdir -p "$L2FWD_DIR/root/dpdk"
    cc -O3 -DALLOW_EXPERIMENTAL_API "${flags[@]}" -idirafter "$tree/usr/include" \
        "$tree/usr/share/dpdk/examples/l2fwd/main.c" -o "$L2FWD_DIR/root/dpdk/l2fwd" \
        -L"$lib" -Wl,--as-needed,--allow-shlib-undefined -lrte_ethdev -lrte_net -lrte_mbuf -lrte_mempool -lrte_ring -lrte_eal -lrte_log ||
        die "wanted DPDK's l2fwd built from $tree/usr/share/dpdk/examples/l2fwd, found that cc fails (see above). Run: scripts/rig/setup.sh --bench"
    sed -n 's/^Version: /DPDK /p' "$lib/pkgconfig/libdpdk-libs.pc" >"$L2FWD_DIR/done"
    rm -rf "$tree"
}

# build_initramfs: busybox, the modules, and the two scripts of guest/.
build_initramfs() {
    need_tools
    local root=$GUEST_DIR/initramfs.new
    rm -rf "$root" "$GUEST_DIR"/initramfs-*.cpio.gz
    cp -a "$GUEST_DIR/root" "$root"
    mkdir -p "$root"/{dev,proc,sys,tmp,run,etc,root,usr/bin,usr/sbin,sbin,var}
    ln -s /run "$root/var/run"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    install -m 755 "$HERE/guest/init" "$root/init"
    install -m 755 "$HERE/guest/agent" "$root/bin/guest-agent"
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1) >"$INITRAMFS.new"
    rm -rf "$root"
    mv "$INITRAMFS.new" "$INITRAMFS"
}

# write_wrapper: $RIG_CACHE/qemu runs QEMU out of its tree, $RIG_CACHE/env names the guest's files.
write_wrapper() {
    local lib=$QEMU_TREE/usr/lib/x86_64-linux-gnu share=$QEMU_TREE/usr/share
    cat >"$RIG_CACHE/qemu.new" <<WRAPPER
#!/bin/sh
# Written by scripts/rig/setup.sh.
QEMU_MODULE_DIR='$lib/qemu' exec '$lib/ld-linux-x86-64.so.2' --inhibit-cache \\
    --library-path '$lib:$lib/pulseaudio' --argv0 qemu-system-x86_64 '$QEMU_TREE/usr/bin/qemu-system-x86_64' \\
    -L '$share/qemu' -L '$share/seabios' -L '$QEMU_TREE/usr/lib/ipxe/qemu' "\$@"
WRAPPER
    chmod 755 "$RIG_CACHE/qemu.new"
    mv "$RIG_CACHE/qemu.new" "$RIG_CACHE/qemu"
    printf 'RIG_QEMU=%q\nRIG_VMLINUZ=%q\nRIG_INITRAMFS=%q\nRIG_DPDK=%q\nRIG_DPDK_L2FWD=%q\n' "$RIG_CACHE/qemu" "$GUEST_DIR/vmlinuz" "$INITRAMFS" "$DPDK_DIR/root" "$L2FWD_DIR" >"$RIG_CACHE/env.new"
    mv "$RIG_CACHE/env.new" "$RIG_CACHE/env"
}

need_tools() {
    [[ $(uname -m) == x86_64 ]] ||
        die "wanted an x86-64 machine for the rig's QEMU, found $(uname -m). The rig can't run here; the other parts of scripts/test.sh can"
    ((EUID == 0)) || die "wanted root to unpack packages and to make taps, found user $(id -un). Run: sudo scripts/rig/setup.sh"
    need_package mmdebstrap cpio xz-utils kmod
}

# extract SUITE TREE PACKAGES [OPTION…]: unpack PACKAGES and all they depend on into TREE, from the
# mirror that this machine's apt uses, checked with Debian's keys.
extract() {
    local suite=$1 tree=$2 packages=$3 mirror sources=() options=("${@:4}") proxy
    mirror=$(debian_mirror)
    sources+=("deb [signed-by=$(debian_keyring)] $mirror ${suite%-backports} main")
    [[ $suite != *-backports ]] || sources+=("deb [signed-by=$(debian_keyring)] $mirror $suite main")
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [[ -z ${proxy-} ]] || options+=("--aptopt=Acquire::http::Proxy \"$proxy\"")
    rm -rf "$tree"
    say "rig: fetching $packages from Debian $suite"
    mmdebstrap --quiet --variant=extract --mode=root "${options[@]}" --include="$packages" \
        "${suite%-backports}" "$tree" "${sources[@]}" </dev/null
}

# debian_mirror: where this machine's apt takes Debian's main archive from.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # apt's own placeholders
    list_mirrors() {
        apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(CODENAME)' 'Created-By: Packages' |
            awk '$2 == "Debian" && $3 == "Debian" && $4 !~ /-/ { print $1; exit }'
    }
    mirror=$(list_mirrors)
    if [[ -z $mirror ]]; then
        apt-get -q update >&2 </dev/null # a fresh image has no lists
        mirror=$(list_mirrors)
    fi
    [[ -n $mirror ]] ||
        die "wanted this machine's Debian mirror, found none in 'apt-get indextargets'. Add one to /etc/apt/sources.list and run: apt-get update"
    printf '%s\n' "$mirror"
}

debian_keyring() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -e $keyring ]] || need_package debian-archive-keyring >&2
    printf '%s\n' "$keyring"
}

main "$@"
