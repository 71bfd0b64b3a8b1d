# shellcheck shell=bash disable=SC2034,SC2046
# Proof 1 behind an IOMMU of 39 address bits; memory placed too high for it is refused.
MACHINE=virtio-iommu

scenario() {
    bind_nics 0 1
    l2fwd_start -l "$LCORES" $(allow 0 1) -- -p 0x3 -q 1 -T 1
    l2fwd_ready 0 1 || return
    check_loop virtio-iommu 2 --frames 20000 --window 64
    l2fwd_stop virtio-iommu
    check_counters virtio-iommu virtio-iommu
    l2fwd_refuses 'IOVA range too small' -l "$LCORES" $(allow 0 1) --base-virtaddr 0x10000000000 -- -p 0x3 -T 0 \
        :: 'IOVA 0x100' 'offers' '--base-virtaddr'
    check_text 'IOVA range too small: the NIC is still bound' "$(driver_of "$(nic_bdf 0)")" '^vfio-pci$'
}
