# shellcheck shell=bash
# A machine made of files, for the tests of devbind.sh and hugepages.sh: a tree of /sys, /dev, /proc
# under $MACHINE, and small processes that act as the kernel does on what is written to it.
# Source it; `new_machine` first, `end_machine` last.

# new_machine: an empty machine, with PACKETBOAT_ROOT and PATH set to it.
new_machine() {
    end_machine
    MACHINE=$(mktemp -d "${TMPDIR:-/tmp}/packetboat-machine.XXXXXX")
    SERVERS=()
    export PACKETBOAT_ROOT=$MACHINE
    export PATH=$MACHINE/bin:$REAL_PATH
    mkdir -p "$MACHINE"/{bin,dev/vfio,proc,state} "$MACHINE"/sys/{class/net,kernel/iommu_groups} \
        "$MACHINE"/sys/bus/pci/{devices,drivers} "$MACHINE/lib/modules/$(uname -r)" \
        "$MACHINE"/usr/share/misc
    : >"$MACHINE/log"
    cp "$(dirname "${BASH_SOURCE[0]}")/pci.ids" "$MACHINE/usr/share/misc/pci.ids"
    printf '%s\n' 'alias pci:v00008086d000010FBsv*sd*bc*sc*i* ixgbe' \
        'alias pci:v00008086d00001572sv*sd*bc*sc*i* i40e' \
        'alias pci:v*d*sv*sd*bc01sc06i01* ahci' >"$MACHINE/lib/modules/$(uname -r)/modules.alias"
    printf 'virtio_pci.license=GPL\0virtio_pci.alias=pci:v00001AF4d*sv*sd*bc*sc*i*\0' \
        >"$MACHINE/lib/modules/$(uname -r)/modules.builtin.modinfo"
    make_ip
    serve "$MACHINE/sys/bus/pci/drivers_probe" on_probe
}
REAL_PATH=$PATH
MACHINE=
SERVERS=()
trap end_machine EXIT

end_machine() {
    local pid
    for pid in "${SERVERS[@]}"; do
        kill "$pid" && wait "$pid"
    done 2>/dev/null
    SERVERS=()
    [[ -z $MACHINE ]] || rm -rf "$MACHINE"
    MACHINE=
    export PATH=$REAL_PATH
}

# serve FIFO FUNCTION [ARGUMENT]: call FUNCTION ARGUMENT LINE for each line written to FIFO.
serve() {
    mkfifo "$1"
    (
        exec 3<>"$1"
        while read -r line <&3; do "$2" "${@:3}" "$line"; done
    ) </dev/null >/dev/null 2>&1 &
    SERVERS+=($!)
}

# ---- Drivers, as far as sysfs shows them -------------------------------------------------------

# add_driver NAME: a loaded driver.
add_driver() {
    mkdir -p "$MACHINE/sys/bus/pci/drivers/$1"
    serve "$MACHINE/sys/bus/pci/drivers/$1/bind" on_bind "$1"
    serve "$MACHINE/sys/bus/pci/drivers/$1/unbind" on_unbind "$1"
}

# unload_driver NAME: modprobe NAME brings it back.
unload_driver() {
    mkdir -p "$MACHINE/state/modules"
    mv "$MACHINE/sys/bus/pci/drivers/$1" "$MACHINE/state/modules/$1"
    add_command modprobe "echo \"modprobe \$*\" >>'$MACHINE/log'
        [[ -e '$MACHINE/state/modules/'\$1 ]] || { echo \"modprobe: FATAL: Module \$1 not found\" >&2; exit 1; }
        mv '$MACHINE/state/modules/'\$1 '$MACHINE/sys/bus/pci/drivers/'\$1"
}

on_probe() { # BDF: the override decides, or else the driver that knows the device
    local driver
    echo "probe $1" >>"$MACHINE/log"
    read -r driver <"$MACHINE/sys/bus/pci/devices/$1/driver_override"
    [[ -n $driver && $driver != '(null)' ]] || driver=$(cat "$MACHINE/state/native/$1")
    hold "$1" "$driver"
}

on_bind() { # DRIVER BDF: only by its table of ids
    echo "bind $1 $2" >>"$MACHINE/log"
    [[ $(cat "$MACHINE/state/native/$2") != "$1" ]] || hold "$2" "$1"
}

on_unbind() { # DRIVER BDF
    local device=$MACHINE/sys/bus/pci/devices/$2 interface
    echo "unbind $1 $2" >>"$MACHINE/log"
    [[ ! -e $MACHINE/state/stuck/$2 ]] || return
    for interface in "$device"/net/* "$device"/virtio*/net/*; do
        [[ ! -e $interface ]] || rm -rf "$MACHINE/sys/class/net/${interface##*/}" "$interface"
    done
    rm -rf "$device"/virtio* "$device/driver"
}

hold() { # BDF DRIVER: the driver takes it, unless this machine says it doesn't
    local device=$MACHINE/sys/bus/pci/devices/$1 group=$MACHINE/state/noiommu/$1
    [[ -d $MACHINE/sys/bus/pci/drivers/$2 && ! -e $MACHINE/state/refuses/$1:$2 ]] || return
    if [[ $2 == "$(cat "$MACHINE/state/native/$1")" && -s $MACHINE/state/interface/$1 ]]; then
        add_interface "$(cat "$MACHINE/state/interface/$1")" "$1"
    fi
    if [[ $2 == vfio-pci && -e $group ]]; then # without an IOMMU, vfio-pci makes a group
        : >"$MACHINE/dev/vfio/noiommu-$(cat "$group")"
        ln -sfn "../../../kernel/iommu_groups/$(cat "$group")" "$device/iommu_group"
    elif [[ $2 == vfio-pci ]]; then
        : >"$MACHINE/dev/vfio/$(basename "$(readlink "$device/iommu_group")")"
    fi
    ln -sfn "../../../bus/pci/drivers/$2" "$device/driver"
}

# ---- PCI devices -------------------------------------------------------------------------------

# add_device BDF VENDOR:DEVICE CLASS NATIVE GROUP [INTERFACE]: a function that driver NATIVE knows,
# bound to it if that driver is loaded. GROUP and NATIVE may be '-'. An INTERFACE 'virtio0/eth1'
# stands under a virtio device.
add_device() {
    local bdf=$1 vendor=${2%:*} id=${2#*:} class=$3 native=$4 group=$5 interface=${6-}
    local device=$MACHINE/sys/devices/pci0000:00/$bdf
    mkdir -p "$device" "$MACHINE"/state/{native,interface,noiommu,refuses,stuck}
    ln -s "../../../devices/pci0000:00/$bdf" "$MACHINE/sys/bus/pci/devices/$bdf"
    echo "0x$vendor" >"$device/vendor"
    echo "0x$id" >"$device/device"
    echo "0x$class" >"$device/class"
    echo -1 >"$device/numa_node"
    echo '(null)' >"$device/driver_override"
    printf 'pci:v0000%sd0000%ssv00000000sd00000000bc%ssc%si%s\n' "${vendor^^}" "${id^^}" \
        "${class:0:2}" "${class:2:2}" "${class:4:2}" >"$device/modalias"
    echo "$native" >"$MACHINE/state/native/$bdf"
    echo "$interface" >"$MACHINE/state/interface/$bdf"
    if [[ $group != - ]]; then
        mkdir -p "$MACHINE/sys/kernel/iommu_groups/$group/devices"
        ln -s "../../../../devices/pci0000:00/$bdf" "$MACHINE/sys/kernel/iommu_groups/$group/devices/$bdf"
        ln -s "../../../kernel/iommu_groups/$group" "$device/iommu_group"
    fi
    hold "$bdf" "$native"
}

# add_interface NAME|virtioN/NAME BDF: the network interface of a device.
add_interface() {
    local device=$MACHINE/sys/devices/pci0000:00/$2 name=${1##*/} parent='' owner
    if [[ $1 == */* ]]; then
        parent=/${1%/*}
        mkdir -p "$device$parent/driver"
    fi
    mkdir -p "$device$parent/net/$name" "$MACHINE/sys/class/net"
    owner=$device$parent
    ln -sfn "../../../${owner##*/}" "$owner/net/$name/device"
    ln -sfn "../../devices/pci0000:00/$2$parent/net/$name" "$MACHINE/sys/class/net/$name"
}

# add_upper LOWER UPPER: a bridge, bond or VLAN on top of an interface.
add_upper() {
    mkdir -p "$MACHINE/sys/devices/virtual/net/$2"
    [[ -e $MACHINE/sys/class/net/$2 ]] ||
        ln -s "../../devices/virtual/net/$2" "$MACHINE/sys/class/net/$2"
    ln -sfn "$MACHINE/sys/class/net/$2" "$MACHINE/sys/class/net/$1/upper_$2"
}

# driver_now BDF: what it is bound to.
driver_now() { basename "$(readlink "$MACHINE/sys/bus/pci/devices/$1/driver" || echo none)"; }

override_now() { cat "$MACHINE/sys/bus/pci/devices/$1/driver_override"; }

# ---- Hugepages ---------------------------------------------------------------------------------

# add_hugepages DIR KB COUNT FREE: a table of one page size, as plain files, which take any number.
add_hugepages() {
    mkdir -p "$MACHINE$1/hugepages-$2kB"
    echo "$3" >"$MACHINE$1/hugepages-$2kB/nr_hugepages"
    echo "$4" >"$MACHINE$1/hugepages-$2kB/free_hugepages"
}

# limit_hugepages TABLE FIRST LEAST MOST: this kernel keeps the number between LEAST and MOST. It
# expects reads and writes of the number by turns, as hugepages.sh does them.
limit_hugepages() {
    local file=$MACHINE$1/nr_hugepages
    rm "$file"
    mkfifo "$file"
    (
        number=$2
        while true; do
            echo "$number" >"$file"
            read -r number <"$file"
            echo "${1##*/node/} $number" >>"$MACHINE/log"
            ((number <= $4)) || number=$4
            ((number >= $3)) || number=$3
        done
    ) </dev/null >/dev/null 2>&1 &
    SERVERS+=($!)
}

# add_mounts: `mount` and `umount` that keep /proc/mounts.
add_mounts() {
    echo 'proc /proc proc rw 0 0' >"$MACHINE/proc/mounts"
    # shellcheck disable=SC2016 # expanded by the command itself
    add_command mount "[[ ! -e '$MACHINE/state/no_mount' ]] || { echo \"mount: \$6: permission denied.\" >&2; exit 32; }
        options=\$4 unit=\${4: -1} number=\${4#pagesize=}; number=\${number%?}
        [[ \$unit != G ]] || { unit=M; number=\$((number * 1024)); } # as the kernel shows it
        echo \"\$5 \${6// /\\\\040} \$2 rw,relatime,pagesize=\$number\$unit 0 0\" >>'$MACHINE/proc/mounts'"
    add_command umount "[[ ! -e '$MACHINE/state/busy' ]] || { echo \"umount: \$1: target is busy.\" >&2; exit 32; }
        awk -v gone=\"\${1// /\\\\\\\\040}\" '\$2 != gone' '$MACHINE/proc/mounts' >'$MACHINE/state/mounts'
        cp '$MACHINE/state/mounts' '$MACHINE/proc/mounts'"
}

# ---- Commands ----------------------------------------------------------------------------------

# make_ip: an `ip` that prints the files addr, route4 and route6.
make_ip() {
    : >"$MACHINE/state/addr"
    : >"$MACHINE/state/route4"
    : >"$MACHINE/state/route6"
    add_command ip "case \"\$*\" in
        '-o addr show') cat '$MACHINE/state/addr' ;;
        '-o -4 route show table all') cat '$MACHINE/state/route4' ;;
        '-o -6 route show table all') cat '$MACHINE/state/route6' ;;
        *) echo \"unexpected: ip \$*\" >&2; exit 2 ;;
    esac"
}

# add_command NAME SCRIPT: put it in front of the machine's PATH.
add_command() {
    printf '#!/bin/bash\n%s\n' "$2" >"$MACHINE/bin/$1"
    chmod +x "$MACHINE/bin/$1"
}

# add_busybox: a folder 'busybox' with nothing but busybox's commands and bash, as in an initramfs.
add_busybox() {
    local applet
    mkdir "$MACHINE/busybox"
    while read -r applet; do
        ln -sf "$(command -v busybox)" "$MACHINE/busybox/$applet"
    done < <(busybox --list)
    ln -sf "$(command -v bash)" "$MACHINE/busybox/bash"
}

# without_dev COMMAND…: run it where /dev has nothing but /dev/null, as in an initramfs without
# udev: no /dev/fd, so no process substitution in bash.
without_dev() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --net bash -c '/bin/mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"' - "$@"
}
export -f without_dev

# add_process PID NAME LINK…: a process that holds those files open.
add_process() {
    local fd=3 link
    mkdir -p "$MACHINE/proc/$1/fd"
    echo "$2" >"$MACHINE/proc/$1/comm"
    for link in "${@:3}"; do
        ln -s "$link" "$MACHINE/proc/$1/fd/$fd"
        fd=$((fd + 1))
    done
}
