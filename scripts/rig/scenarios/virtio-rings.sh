# shellcheck shell=bash disable=SC2034,SC2046
# l2fwd on QEMU's virtio devices with a ring of each kind: split and packed, in order or not. And an MTU, of
# which NIC 0 takes no more than 2000.
MACHINE=rings

scenario() {
    bind_nics 0 1 2 3
    l2fwd_refuses 'an MTU that is more than the device takes' -l "$LCORES" $(allow 0 1) -- --mtu 2001 -T 0 \
        :: "$(nic_bdf 0)" '--mtu' '68 to 2000'
    l2fwd_start -l "$LCORES" $(allow 0 1 2 3) -- -p 0xf -q 2 -T 1 --mtu 2000
    l2fwd_ready 0 1 2 3 || return
    check_loop virtio-rings 4 --frames 20000 --window 32
    l2fwd_stop virtio-rings
    check_text 'virtio-rings: each kind of ring was there' "$(cat "$LOG"/virtio-rings.{out,err})" \
        "$(nic_bdf 0): virtio-net over PCI, split," "$(nic_bdf 1): virtio-net over PCI, split in-order," \
        "$(nic_bdf 2): virtio-net over PCI, packed," "$(nic_bdf 3): virtio-net over PCI, packed in-order,"
    check_counters virtio-rings virtio-rings
}
