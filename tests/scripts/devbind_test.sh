#!/bin/bash
# Tests of scripts/devbind.sh on machines made of files. Prints one line a check.

set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=fake_machine.sh
. "$HERE/fake_machine.sh"
# shellcheck source=checks.sh
. "$HERE/checks.sh"
DEVBIND=$HERE/../../scripts/devbind.sh

# The machine most tests use: two ports of an 82599 in one group, a virtio NIC, and a disk.
usual_machine() {
    new_machine
    add_driver ixgbe
    add_driver virtio-pci
    add_driver vfio-pci
    add_device 0000:03:00.0 8086:10fb 020000 ixgbe 7 eth1
    add_device 0000:03:00.1 8086:10fb 020000 ixgbe 7 eth2
    add_device 0000:05:00.0 1af4:1041 020000 virtio-pci 9 virtio0/eth3
    add_device 0000:06:00.0 1af4:1042 018000 virtio-pci 10
}

devbind() { try "$DEVBIND" "$@"; }

# refused NAME WORDS…: the last command failed with 1, its message has all WORDS (each one argument),
# and nothing was written to any driver.
refused() {
    local name=$1 word
    shift
    exits 1 "$name: exit code 1"
    for word; do says "$word" "$name: says '$word'"; done
    is "$(cat "$MACHINE/log")" '' "$name: nothing changed"
}

# ---- Status ------------------------------------------------------------------------------------

usual_machine
add_device 0000:07:00.0 8086:1572 020000 i40e 11
echo 1 >"$MACHINE/sys/bus/pci/devices/0000:07:00.0/numa_node"
echo '2: eth3    inet 198.18.0.2/24 scope global eth3' >"$MACHINE/state/addr"
devbind -b vfio-pci 03:00.1
devbind -s
exits 0 'status: exit code 0'
is "$OUTPUT" "
Network devices using DPDK-compatible driver
============================================
0000:03:00.1 '82599ES 10-Gigabit SFI/SFP+ Network Connection 10fb' drv=vfio-pci unused=ixgbe

Network devices using kernel driver
===================================
0000:03:00.0 '82599ES 10-Gigabit SFI/SFP+ Network Connection 10fb' if=eth1 drv=ixgbe unused=vfio-pci
0000:05:00.0 'Virtio 1.0 network device 1041' if=eth3 drv=virtio-pci unused=vfio-pci *Active*

Other Network devices
=====================
0000:07:00.0 'Ethernet Controller X710 for 10GbE SFP+ 1572' numa_node=1 unused=i40e,vfio-pci" \
    'status: three sections, names, interfaces, drivers, what is active'
devbind --status-dev net
says '*Active*' 'status-dev net: the same as status'
rm "$MACHINE/lib/modules/$(uname -r)"/*
echo 'vfio-pci.ko: vfio-pci-core.ko' >"$MACHINE/lib/modules/$(uname -r)/modules.dep"
mv "$MACHINE/sys/bus/pci/drivers/vfio-pci" "$MACHINE/state/vfio-pci"
devbind -s
says 'drv=virtio-pci unused=vfio-pci *Active*' 'status: vfio-pci, not loaded, is listed'
says "'82599ES 10-Gigabit SFI/SFP+ Network Connection 10fb' drv=vfio-pci unused=" 'status: no list of modules'
mv "$MACHINE/state/vfio-pci" "$MACHINE/sys/bus/pci/drivers/vfio-pci"
devbind -u 05:00.0 --force
devbind -s
says "1041' unused=virtio-pci,vfio-pci" 'status: virtio-pci, built in, is listed'
devbind -b virtio_pci 05:00.0
is "$(driver_now 0000:05:00.0)" virtio-pci "bind: the module's name for the driver's"
rm "$MACHINE/usr/share/misc/pci.ids"
devbind -s
says "0000:05:00.0 '1af4:1041' if=eth3" 'status: ids in hex where there is no list of names'
add_command ip 'exit 127'
devbind -s
exits 0 'status without ip: exit code 0'
says "*Active* can't be shown" 'status without ip: says what is missing'

new_machine
devbind -s
is "$OUTPUT" "
No 'Network' devices detected
=============================" 'status: a machine without network devices'

# ---- Bind, unbind, restore ---------------------------------------------------------------------

usual_machine
devbind -b vfio-pci 03:00.0 eth2
exits 0 'bind: a short address and an interface'
is "$(driver_now 0000:03:00.0) $(driver_now 0000:03:00.1)" 'vfio-pci vfio-pci' 'bind: both are on vfio-pci'
is "$(override_now 0000:03:00.0)" vfio-pci 'bind: the override stays, so that the kernel keeps off'
is "$(cat "$MACHINE/log")" "unbind ixgbe 0000:03:00.0
probe 0000:03:00.0
unbind ixgbe 0000:03:00.1
probe 0000:03:00.1" 'bind: unbind, then drivers_probe, for each'
says '0000:03:00.0: driver vfio-pci (was ixgbe, if=eth1)' 'bind: says what was'
: >"$MACHINE/log"
devbind -b vfio-pci 0000:03:00.0 --status
exits 0 'bind again: exit code 0'
says 'already bound to driver vfio-pci, skipping' 'bind again: a notice'
says 'Network devices using DPDK-compatible driver' 'bind with --status: shows it afterwards'
is "$(cat "$MACHINE/log")" '' 'bind again: nothing is written'
devbind --unbind 0000:03:00.0
is "$(driver_now 0000:03:00.0)/$(override_now 0000:03:00.0)" none/ 'unbind: no driver and no override'
devbind -u 0000:03:00.0
says 'not bound to a driver, skipping' 'unbind again: a notice'
devbind --restore 0000:03:00.0 03:00.1 05:00.0
exits 0 'restore: exit code 0'
is "$(driver_now 0000:03:00.0)/$(override_now 0000:03:00.0)" ixgbe/ 'restore: from no driver'
is "$(driver_now 0000:03:00.1)/$(override_now 0000:03:00.1)" ixgbe/ 'restore: from vfio-pci'
says '0000:05:00.0 already bound to driver virtio-pci' 'restore: leaves a kernel driver alone'

usual_machine
devbind --bind=vfio-pci eth3
is "$(driver_now 0000:05:00.0)" vfio-pci 'bind: the interface of a virtio device, --bind=DRIVER'
devbind -b virtio-pci 05:00.0 05:00.0
exits 0 'bind to a kernel driver: exit code 0'
is "$(driver_now 0000:05:00.0)/$(override_now 0000:05:00.0)" virtio-pci/ 'bind to a kernel driver: no override is left'
says 'bind virtio-pci 0000:05:00.0' 'bind to a kernel driver: by its own table of ids' "$MACHINE/log"
devbind -b none 05:00.0
is "$(driver_now 0000:05:00.0)" none 'bind to none: the same as unbind'

usual_machine
devbind -b ixgbe 05:00.0
exits 1 'bind to a driver that does not know the device: exit code 1'
says "ixgbe didn't take it" 'bind to a driver that does not know the device: says so'
says 'Every device has its former driver again' 'bind to a driver that does not know the device: says what is left'
is "$(driver_now 0000:05:00.0)" virtio-pci 'bind to a driver that does not know the device: the former one is back'

usual_machine
touch "$MACHINE/state/refuses/0000:05:00.0:vfio-pci"
devbind -b vfio-pci 03:00.0 03:00.1 05:00.0
exits 1 'bind, the third fails: exit code 1'
says 'wanted to bind 0000:05:00.0 to vfio-pci' 'bind, the third fails: names it'
is "$(driver_now 0000:03:00.0) $(driver_now 0000:03:00.1) $(driver_now 0000:05:00.0)" \
    'ixgbe ixgbe virtio-pci' 'bind, the third fails: all have their former drivers again'
is "$(override_now 0000:03:00.0)$(override_now 0000:05:00.0)" '' 'bind, the third fails: no override is left'

usual_machine
touch "$MACHINE/state/stuck/0000:03:00.0"
devbind -b vfio-pci 03:00.0
exits 1 "bind, the driver doesn't let go: exit code 1"
says "ixgbe doesn't let go" "bind, the driver doesn't let go: says so"
is "$(driver_now 0000:03:00.0)/$(override_now 0000:03:00.0)" 'ixgbe/' "bind, the driver doesn't let go: as before"

usual_machine
devbind -u 05:00.0
touch "$MACHINE/state/refuses/0000:05:00.0:virtio-pci"
devbind --restore 05:00.0
exits 1 'restore, no driver wants it: exit code 1'
says 'modules for this device: virtio-pci' 'restore, no driver wants it: names the modules'

# ---- What it refuses ---------------------------------------------------------------------------

usual_machine
echo '2: eth2    inet 198.18.0.2/24 scope global eth2' >"$MACHINE/state/addr"
devbind -b vfio-pci 03:00.0 03:00.1
refused 'an address on the second' '0000:03:00.1' '198.18.0.2/24 on eth2' '-b vfio-pci 03:00.0 03:00.1 --force'
devbind -u 03:00.1
refused 'unbind, an address' '198.18.0.2/24 on eth2'
devbind -b vfio-pci 03:00.0 03:00.1 --force
exits 0 'an address, --force: exit code 0'
is "$(driver_now 0000:03:00.1)" vfio-pci 'an address, --force: bound'

usual_machine
echo '2: eth2    inet6 2001:db8::2/64 scope global ' >"$MACHINE/state/addr"
devbind -b vfio-pci 03:00.1 03:00.0
refused 'an IPv6 address' '2001:db8::2/64 on eth2'

usual_machine
echo '2: eth1    inet6 fe80::1/64 scope link ' >"$MACHINE/state/addr"
printf '%s\n' 'fe80::/64 dev eth1 proto kernel metric 256' 'multicast ff00::/8 dev eth1 table local' \
    >"$MACHINE/state/route6"
devbind -b vfio-pci 03:00.0 03:00.1
exits 0 'link-local only, which every interface has: bound'

usual_machine
printf 'default \\\tnexthop via 198.18.9.1 dev eth9 weight 1\\\tnexthop via 198.18.1.1 dev eth1 weight 1\n' \
    >"$MACHINE/state/route4"
devbind -b vfio-pci eth1 eth2
refused 'one way of a multipath route' 'route default on eth1'

usual_machine
add_upper eth1 bond0
add_upper bond0 bond0.5
add_upper bond0 eth1 # a loop must not hang it
echo '9: bond0.5@bond0    inet 198.18.5.1/24 scope global bond0.5' >"$MACHINE/state/addr"
devbind -b vfio-pci eth1 eth2
refused 'an address on a VLAN of a bond of it' '198.18.5.1/24 on bond0.5'

usual_machine
add_command ip 'exit 127'
devbind -b vfio-pci 03:00.0
refused 'no ip command' "found no 'ip' command that works" iproute2

usual_machine
devbind -b vfio-pci 06:00.0
refused 'a disk' 'wanted a network device' 'Virtio 1.0 block device' '0x018000' --force
devbind -b vfio-pci 06:00.0 --force
is "$(driver_now 0000:06:00.0)" vfio-pci 'a disk, --force: bound'

usual_machine
rm -r "$MACHINE/sys/class/net/eth1" "$MACHINE/sys/bus/pci/devices/0000:03:00.0/net"
devbind -b vfio-pci 03:00.0
refused 'an interface in another namespace' 'another network namespace' '0000:03:00.0'
rm -r "$MACHINE/sys/class/net/eth3" "$MACHINE"/sys/bus/pci/devices/0000:05:00.0/virtio0/{net,driver}
devbind -b vfio-pci 05:00.0
exits 0 'a virtio device without virtio_net on it: bound'

usual_machine
devbind -b vfio-pci 05:00.0
add_process 1234 l2fwd /dev/null /dev/vfio/9
add_process 99 other /dev/vfio/91
: >"$MACHINE/log"
devbind --restore 05:00.0
refused 'in use by a program' 'PID 1234 (l2fwd)' 'kill 1234'
unsays 99 'in use by a program: no other group'

usual_machine
unload_driver vfio-pci
devbind -b vfio-pci 03:00.0 03:00.1
exits 0 'vfio-pci not loaded: loaded by modprobe'
is "$(head -1 "$MACHINE/log")" 'modprobe vfio-pci' 'vfio-pci not loaded: modprobe first'
usual_machine
unload_driver vfio-pci
rm -r "$MACHINE/state/modules"
devbind -b vfio-pci 05:00.0
exits 1 'vfio-pci missing: exit code 1'
says 'Module vfio-pci not found' 'vfio-pci missing: repeats modprobe'
is "$(driver_now 0000:05:00.0)" virtio-pci 'vfio-pci missing: nothing changed'

usual_machine
devbind -b vfio-pci 0000:09:00.0
refused 'no such address' 'PCI device 0000:09:00.0' '--status'
devbind -b vfio-pci eth9
refused 'no such interface' "'eth9', which is neither"
add_upper eth1 br0
devbind -b vfio-pci br0
refused 'a virtual interface' "interface 'br0'" 'it is virtual'
mkdir -p "$MACHINE/sys/devices/pci0000:00/0000:06:00.0/usb1/1-1:1.0/net/usb0"
ln -s ../../../1-1:1.0 "$MACHINE/sys/devices/pci0000:00/0000:06:00.0/usb1/1-1:1.0/net/usb0/device"
ln -s ../../devices/pci0000:00/0000:06:00.0/usb1/1-1:1.0/net/usb0 "$MACHINE/sys/class/net/usb0"
devbind -b vfio-pci usb0
refused 'a USB adapter, not its controller' "interface 'usb0'"
devbind -b vfio-pci ''
refused 'an empty name' "found ''"
devbind -b vfio-pci ../../x
refused 'a path' "found '../../x'"
devbind
refused 'no action' 'wanted an action' '--status'
devbind 03:00.0
refused 'a device without an action' "no action for it" '-b vfio-pci 03:00.0'
devbind -b vfio-pci
refused 'bind without a device' '--bind: wanted at least one device'
devbind -b
refused 'bind without a driver' 'option -b wants a value'
devbind -b 03:00.0
refused 'bind with a device for a driver' "found the device '03:00.0'" '-b vfio-pci 03:00.0'
devbind -b eth1 eth2
refused 'bind with an interface for a driver' "found the device 'eth1'"
devbind -b ../x 03:00.0
refused 'bind to a path' "found '../x'"
devbind -u 03:00.0 -b vfio-pci
refused 'two actions' 'both --unbind and --bind'
devbind --status-dev crypto
refused 'another kind of device' "found 'crypto'"
devbind --colour
refused 'an unknown option' "unknown option '--colour'" '--help'
devbind -u 03:00.0 -U root
refused 'an owner without bind' "wanted '-b vfio-pci' beside them"
devbind -b vfio-pci -U nobody-of-this-name 03:00.0
refused 'an unknown owner' "found 'nobody-of-this-name'" /etc/passwd
devbind -b ixgbe --noiommu-mode 03:00.0
refused 'no-IOMMU with another driver' "--noiommu-mode: wanted '-b vfio-pci'"
devbind --help
exits 0 'help: exit code 0'
says '--noiommu-mode' 'help: lists the options'

# ---- Groups, no IOMMU, owners ------------------------------------------------------------------

usual_machine
devbind -b vfio-pci 03:00.0
exits 3 'group not viable: exit code 3'
says "IOMMU group 7 is not viable: 0000:03:00.1 '82599ES 10-Gigabit SFI/SFP+ Network Connection 10fb' if=eth2 drv=ixgbe" \
    'group not viable: names the other device'
says '-b vfio-pci 0000:03:00.1' 'group not viable: says the command'
is "$(driver_now 0000:03:00.0) $(driver_now 0000:03:00.1)" 'vfio-pci ixgbe' 'group not viable: only the one asked for is bound'
devbind -u 03:00.1
devbind -b vfio-pci 03:00.0
exits 0 'group with a device without a driver: viable'
add_driver pcieport
add_device 0000:02:00.0 8086:1572 060400 pcieport 7
devbind -b vfio-pci 03:00.0
exits 0 'group with a root port: viable'
add_device 0000:02:01.0 1af4:1042 018000 virtio-pci 7
devbind -b vfio-pci 03:00.0
exits 3 'group with a disk: not viable'
says '--force -b vfio-pci 0000:02:01.0' 'group with a disk: the command has --force'

noiommu_machine() {
    new_machine
    add_driver vfio-pci
    add_driver ixgbe
    add_device 0000:03:00.0 8086:10fb 020000 ixgbe - eth1
    echo 5 >"$MACHINE/state/noiommu/0000:03:00.0"
    mkdir -p "$MACHINE/sys/module/vfio/parameters" "$MACHINE/sys/kernel/iommu_groups/5/devices"
    echo N >"$MACHINE/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
}
noiommu_machine
devbind -b vfio-pci 03:00.0
refused 'no IOMMU' 'wanted an IOMMU group for 0000:03:00.0' intel_iommu=on -- '-b vfio-pci 03:00.0 --noiommu-mode'
devbind -b vfio-pci 03:00.0 --noiommu-mode
exits 0 'no-IOMMU mode: exit code 0'
is "$(cat "$MACHINE/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")" 1 'no-IOMMU mode: turned on'
is "$(driver_now 0000:03:00.0)" vfio-pci 'no-IOMMU mode: bound'
noiommu_machine
rm "$MACHINE/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
devbind -b vfio-pci 03:00.0 --noiommu-mode
refused 'no-IOMMU mode that the kernel lacks' CONFIG_VFIO_NOIOMMU

usual_machine
devbind -b vfio-pci --noiommu-mode 05:00.0
exits 0 'no-IOMMU mode where there is an IOMMU: uses the IOMMU'
me=$(id -u) group=$(id -g)
((EUID != 0)) || me=12345 group=12346
devbind -u 05:00.0
devbind -b vfio-pci -U "$me" --gid "$group" 05:00.0
exits 0 'owner: exit code 0'
is "$(stat -c %u:%g "$MACHINE/dev/vfio/9")" "$me:$group" 'owner: the group node is given away'
rm "$MACHINE/dev/vfio/9"
devbind -b vfio-pci -G "$group" 05:00.0
exits 1 'owner, no node: exit code 1'
says "found none for group '9'; the device is bound" 'owner, no node: says what is missing'

if ((EUID == 0)); then
    usual_machine
    chmod 755 "$MACHINE"
    chmod 644 "$MACHINE/sys/bus/pci/drivers_probe"
    cp "$DEVBIND" "$MACHINE/devbind.sh"
    try setpriv --reuid 65534 --regid 65534 --clear-groups env PATH="$PATH" bash "$MACHINE/devbind.sh" -b vfio-pci 05:00.0
    refused 'not root' 'drivers_probe' 'sudo ' '-b vfio-pci 05:00.0'
else
    cannot 'not root: says so' 'only root can become another user'
fi

# ---- With nothing but busybox ------------------------------------------------------------------

if ! command -v busybox >/dev/null; then
    cannot 'busybox: devbind.sh works with its tools' 'busybox is not installed: apt-get install busybox-static'
elif ! without_dev true 2>/dev/null; then
    cannot 'busybox: devbind.sh works with its tools' 'network and mount namespaces need root'
else
    # Its ip is the real one, in a namespace of its own, whose only interface is lo.
    usual_machine
    rm "$MACHINE/bin/ip"
    add_busybox
    add_device 0000:08:00.0 8086:10fb 020000 ixgbe 12 lo
    in_busybox() { try bash -c 'without_dev "$@"' - env -i PATH="$MACHINE/bin:$MACHINE/busybox" PACKETBOAT_ROOT="$MACHINE" bash -c "$1"; }
    in_busybox "'$DEVBIND' -b vfio-pci 03:00.0 03:00.1 && '$DEVBIND' -s"
    exits 0 'busybox: bind and status'
    says "0000:03:00.1 '82599ES 10-Gigabit SFI/SFP+ Network Connection 10fb' drv=vfio-pci unused=ixgbe" 'busybox: status'
    unsays 'not found' 'busybox: no command is missing'
    unsays 'No such file' 'busybox: no file is missing'
    unsays 'Active' 'busybox: nothing is active before lo has an address'
    : >"$MACHINE/log"
    in_busybox "ip link set lo up; ip addr add 198.18.0.1/24 dev lo; ip route add 198.19.0.0/16 dev lo; '$DEVBIND' -b vfio-pci 08:00.0"
    refused 'busybox, an address' '198.18.0.1/24 on lo' 'route 198.19.0.0/16 on lo'
    in_busybox "'$DEVBIND' --restore 03:00.0 03:00.1"
    is "$(driver_now 0000:03:00.0)" ixgbe 'busybox: restore'
    add_process 77 l2fwd /dev/vfio/7
    in_busybox "'$DEVBIND' -b vfio-pci 03:00.0 03:00.1; '$DEVBIND' -u 03:00.0"
    says 'PID 77 (l2fwd)' 'busybox: in use by a program'
fi

end_machine
tally
