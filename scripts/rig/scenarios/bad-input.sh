# shellcheck shell=bash disable=SC2034,SC2046,SC2016
# What a person gets wrong, each with an error of its own and nothing left behind.
MACHINE=main

scenario() {
    local good=(-l "$LCORES" -a "$(nic_bdf 0)" -a "$(nic_bdf 1)") devbind='devbind.sh -b vfio-pci'
    bind_nics 0 1 2
    devices
    vfio
    if [[ $MACHINE != softnic ]]; then
        # Refused before there is a port, of whichever driver.
        memory
        lists
    fi
    queues
    check_text 'bad-input: the NICs are still bound' "$(driver_of "$(nic_bdf 0)") $(driver_of "$(nic_bdf 1)")" '^vfio-pci vfio-pci$'
    l2fwd_start "${good[@]}" -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check_loop 'after all refusals' 2 --frames 1000
    l2fwd_stop 'after all refusals'
}

# kernel_driver: the kernel's own driver of the NICs.
kernel_driver() { if [[ $MACHINE == softnic ]]; then echo ixgbe; else echo virtio-pci; fi; }

devices() {
    [[ $MACHINE != softnic ]] || guest "modprobe ixgbe; $devbind $(nic_bdf 0) $(nic_bdf 1) $(nic_bdf 2)" >/dev/null
    l2fwd_refuses 'no such BDF' -l "$LCORES" -a 0000:42:00.0 -- -T 0 :: '0000:42:00.0' 'no such PCI' 'devbind.sh -s'
    l2fwd_refuses 'a BDF that is none' -l "$LCORES" -a 42 -- -T 0 :: "42" "isn't a PCI address"
    guest "devbind.sh --restore $(nic_bdf 1)" >/dev/null
    l2fwd_refuses 'bound to a kernel driver' "${good[@]}" -- -T 0 :: 'virtio-pci|virtio_net|ixgbe' "$devbind $(nic_bdf 1)"
    check_text 'bound to a kernel driver: it is still' "$(driver_of "$(nic_bdf 1)")" "^$(kernel_driver)$"
    guest "devbind.sh -u $(nic_bdf 1)" >/dev/null
    l2fwd_refuses 'bound to no driver' "${good[@]}" -- -T 0 :: 'no driver' "$devbind $(nic_bdf 1)"
    guest "devbind.sh -b vfio-pci $(nic_bdf 1)" >/dev/null

    [[ $MACHINE == softnic ]] || other_devices

    local text code
    l2fwd_start -l 1 -a "$(nic_bdf 2)" -a "$(nic_bdf 1)" -- -q 2 -T 0
    if l2fwd_ready 2; then
        text=$(guest "timeout -s KILL 30 $(l2fwd_command -l 2 -a "$(nic_bdf 2)" -a "$(nic_bdf 0)" -- -T 0)")
        code=$?
        check_text 'group busy: names the device and who has it' "$text" "$(nic_bdf 2)" 'in use' 'packetboat-l2fwd'
        check 'group busy: exit code of its own' test "$code" -gt 0 -a "$code" -lt 101
        l2fwd_stop 'the one that was first'
    fi
    nothing_left 'group busy'
}

# other_devices: those that only the machines with virtio NICs have.
other_devices() {
    guest "devbind.sh -b vfio-pci ${GROUP_BDFS[0]}" >/dev/null
    l2fwd_refuses 'group not viable' -l "$LCORES" -a "${GROUP_BDFS[0]}" -a "$(nic_bdf 0)" -- -T 0 :: "isn't viable" "${GROUP_BDFS[1]}" "$devbind"
    guest "devbind.sh --restore ${GROUP_BDFS[*]}" >/dev/null

    guest "devbind.sh --force -b vfio-pci $UNKNOWN_BDF" >/dev/null
    l2fwd_refuses 'unknown device' -l "$LCORES" -a "$UNKNOWN_BDF" -- -T 0 :: "$UNKNOWN_BDF" '8086:10d3|10d3' 'virtio'
    guest "devbind.sh -u $UNKNOWN_BDF" >/dev/null
}

vfio() {
    local BEFORE
    BEFORE='mv /dev/vfio /dev/vfio.away'
    l2fwd_refuses '/dev/vfio missing' "${good[@]}" -- -T 0 :: '/dev/vfio/vfio' "isn't there" 'modprobe vfio-pci'
    guest 'mv /dev/vfio.away /dev/vfio'
    # Nobody may open nodes that belong to root.
    unprivileged '/dev/vfio not permitted' unlimited 'may not open' '/dev/vfio/[0-9]+'
    local groups # expanded in the guest
    groups="/dev/vfio/\$(basename \$(readlink /sys/bus/pci/devices/$(nic_bdf 0)/iommu_group)) /dev/vfio/\$(basename \$(readlink /sys/bus/pci/devices/$(nic_bdf 1)/iommu_group))"
    guest "chmod 666 /dev/vfio/vfio; chown nobody $groups"
    unprivileged 'MEMLOCK too low' 64 'MEMLOCK' 'ulimit -l'
    guest "chown root $groups"
    ordinary_user
    BEFORE='echo 0 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'
    l2fwd_refuses 'too few DMA mappings' "${good[@]}" -- -T 0 :: 'dma_entry_limit' 'DMA mappings'
    guest 'echo 65535 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'
}

# ordinary_user: what the messages above tell one to do makes it work for a user without rights.
ordinary_user() {
    guest "devbind.sh -U nobody -b vfio-pci $(nic_bdf 0) $(nic_bdf 1); ls -l /dev/vfio" >"$LOG/nodes.txt"
    MEMLOCK_KIB=65536 AS=nobody l2fwd_start "${good[@]}" -- -p 0x3 -q 1 -T 1
    if l2fwd_ready 0 1; then
        check_loop 'as an ordinary user' 2 --frames 1000
        l2fwd_stop 'as an ordinary user'
        check_counters 'as an ordinary user' 'as an ordinary user'
    fi
    guest "devbind.sh -U root -b vfio-pci $(nic_bdf 0) $(nic_bdf 1)" >/dev/null
}

# unprivileged NAME MEMLOCK_KIB PATTERN…: as l2fwd_refuses, but run by a user without rights.
unprivileged() {
    local name=$1 command
    command=$(l2fwd_command "${good[@]}" -- -T 0)
    local text code
    text=$(guest "ulimit -l $2; timeout -s KILL 30 su nobody -s /bin/bash -c $(printf %q "$command")")
    code=$?
    { printf '$ (nobody) %s\n%s\nexit code %d\n\n' "$command" "$text" "$code"; } >>"$LOG/refusals.txt"
    check "$name: exit code of its own" test "$code" -gt 0 -a "$code" -lt 101
    check_text "$name" "$text" "${@:3}"
    nothing_left "$name"
}

memory() {
    l2fwd_refuses 'too few hugepages on a node' "${good[@]}" --socket-mem 0,64 -- -T 0 :: 'node 1' 'nr_hugepages|hugepages.sh'
    l2fwd_refuses 'more memory than there is' "${good[@]}" -m 4096 -- -T 0 :: '4096|4 GiB|4\.0 GiB|2048' 'nr_hugepages|hugepages.sh'
    l2fwd_refuses '-m smaller than what is needed' "${good[@]}" -m 2 -- -T 0 :: '-m' 'needed'
    l2fwd_refuses 'a directory that is no hugetlbfs' "${good[@]}" --huge-dir /tmp -- -T 0 :: '--huge-dir /tmp' 'hugetlbfs'
    guest 'hugepages.sh -m && mount -o remount,ro /dev/hugepages'
    l2fwd_refuses 'hugetlbfs not writable' "${good[@]}" --huge-dir /dev/hugepages -- -T 0 :: '--huge-dir' '/dev/hugepages' '[Rr]ead-only'
    guest 'hugepages.sh -u; hugepages.sh -c' >/dev/null
    l2fwd_refuses 'no hugepages' "${good[@]}" -- -T 0 :: 'hugepages' 'nr_hugepages|hugepages.sh'
    guest "hugepages.sh -r $PAGES -n 0" >/dev/null
}

lists() {
    l2fwd_refuses 'an lcore that does not exist' -l 1,7 $(allow 0 1) -- -T 0 :: '-l' 'CPU 7' 'no such CPU'
    local BEFORE
    BEFORE='taskset -p 3 $$ >/dev/null'
    l2fwd_refuses 'an lcore that is not allowed' -l 1,2 $(allow 0 1) -- -T 0 :: '-l' 'CPU 2' 'may use'
    BEFORE=
    l2fwd_refuses 'a portmask without a port' "${good[@]}" -- -p 0x0 -T 0 :: '-p'
    l2fwd_refuses 'a portmask beyond the ports' "${good[@]}" -- -p 0x4 -T 0 :: '-p' '0x4' 'port 2'
    l2fwd_refuses 'an odd number of ports' "${good[@]}" -- -p 0x1 -T 0 :: 'odd' '--portmap'
    l2fwd_refuses 'a portmap with a duplicate' "${good[@]}" -- '--portmap=(0,1),(1,0)' -T 0 :: '--portmap' 'port [01]'
    l2fwd_refuses 'a portmap with an unknown port' "${good[@]}" -- '--portmap=(0,9)' -T 0 :: '--portmap' 'port 9'
    l2fwd_refuses 'statistics that can not be written' "${good[@]}" -- --stats-json /no/such/file -T 0 :: '--stats-json' '/no/such/file'
}

queues() {
    local many=4 has=1
    [[ $MACHINE != softnic ]] || many=17 has=16
    l2fwd_refuses 'more queues than the device has' "${good[@]}" -- --rxq "$many" -q "$many" -T 0 :: 'queue' "$many" "$has"
    l2fwd_refuses 'descriptors not a power of two' "${good[@]}" -- --rxd 100 -T 0 :: '100' 'power of (2|two)'
    l2fwd_refuses 'descriptors out of range' "${good[@]}" -- --txd 32768 -T 0 :: '32768'
}
