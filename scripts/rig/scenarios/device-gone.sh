# shellcheck shell=bash disable=SC2034,SC2046
# A device is unplugged while l2fwd runs: it says so, ends with an error, lets go of the device.
MACHINE=main

scenario() {
    local code
    bind_nics 2 3
    l2fwd_start -l "$LCORES" $(allow 2 3) -- -p 0x3 -q 1 -T 1
    l2fwd_ready 2 3 || return
    check 'device-gone: the device goes within 20 s of being asked for' \
        qmp --event DEVICE_DELETED --timeout-s 20 device_del id=nic2
    code=$(l2fwd_wait 20)
    l2fwd_fetch device-gone
    if [[ $code =~ ^[0-9]+$ ]] && ((code > 0 && code < 101)); then
        ok "device-gone: l2fwd ends with an error of its own ($code)"
    else
        not_ok 'device-gone: l2fwd ends with an error of its own' "wanted an exit code from 1 to 100, found $code"
    fi
    check_text 'device-gone: the message names port and device' "$(cat "$LOG/device-gone.err")" \
        "port 0.*$(nic_bdf 2)" 'unplugged|taken away|gone'
    check_text 'device-gone: all mbufs are back' "$(cat "$LOG/device-gone.out" "$LOG/device-gone.err")" 'mbufs: ([0-9]+) of \1 returned'
    check_text 'device-gone: its node in sysfs is gone' "$(guest "ls -d /sys/bus/pci/devices/$(nic_bdf 2) 2>&1")" 'No such file'
    check_text 'device-gone: the other device is still bound' "$(driver_of "$(nic_bdf 3)")" '^vfio-pci$'
    l2fwd_refuses 'device-gone: a start without the device' -l "$LCORES" $(allow 2 3) -- -T 0 :: "$(nic_bdf 2)" 'no such PCI'
    BOOTED= # the next scenario wants all devices
}
