# shellcheck shell=bash disable=SC2034,SC2046
# The NIC itself wants to go: softnic rings the request interrupt while l2fwd runs.
MACHINE=softnic

scenario() {
    local code
    bind_nics 2 3
    l2fwd_start -l "$LCORES" $(allow 2 3) -- -p 0x3 -q 1 -T 1
    l2fwd_ready 2 3 || return
    check_loop_on 2 3 softnic-unplug --frames 500
    check 'softnic-unplug: the request interrupt is rung' softnic_ctl nic 2 unplug
    code=$(l2fwd_wait 30)
    l2fwd_fetch softnic-unplug
    if [[ $code =~ ^[0-9]+$ ]] && ((code > 0 && code < 101)); then
        ok "softnic-unplug: l2fwd ends with an error of its own ($code)"
    else
        not_ok 'softnic-unplug: l2fwd ends with an error of its own' "wanted an exit code from 1 to 100, found $code"$'\n'"$(tail -n 5 "$LOG/softnic-unplug.err")"
    fi
    check_text 'softnic-unplug: the message names port and device' "$(<"$LOG/softnic-unplug.err")" \
        "port 0.*$(nic_bdf 2)" 'unplugged|taken away|gone'
    check_text 'softnic-unplug: all mbufs are back' "$(cat "$LOG/softnic-unplug.out" "$LOG/softnic-unplug.err")" 'mbufs: ([0-9]+) of \1 returned'
    check_text 'softnic-unplug: the other device is still bound' "$(driver_of "$(nic_bdf 3)")" '^vfio-pci$'
    BOOTED= # the next scenario wants all devices
}

# check_loop_on N N NAME OPTION…: as check_loop, through these two NICs.
check_loop_on() {
    check "$3: 0 lost, 0 reordered, bytes and MACs exact" "$WIRE" closed-loop \
        --port "$RUN/n$1,$(nic_mac "$1")" --port "$RUN/n$2,$(nic_mac "$2")" "${@:4}"
}
