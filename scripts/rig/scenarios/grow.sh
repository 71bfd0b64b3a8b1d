# shellcheck shell=bash disable=SC2034,SC2046,SC2016
# A heap takes pages from the kernel and gives them back while NICs are open: VFIO maps and unmaps
# just these behind the virtual IOMMU, with hugepages and normal ones, and says so if it can't.
MACHINE=main

scenario() {
    bind_nics 0 1
    grows 'normal pages'
    grows 'hugepages' --huge --memory 2
    refuses 'too few mappings' 4 'dma_entry_limit'
    nothing_left grow
}

# grows NAME OPTION…: all rounds pass.
grows() {
    local name=$1 text
    shift
    text=$(guest "timeout -s KILL 60 vfio-probe --grow $* $(nic_bdf 0) $(nic_bdf 1) 2>&1")
    printf '%s\n' "$text" >"$LOG/${name// /-}.txt"
    check_text "grow: $name: mapped and unmapped with the heap" "$text" '^grown: 6 DMA mappings' '^trimmed: 2 DMA mappings' '^round 2 done' \
        '^without the early segment: 1 DMA mappings' '^closed; DMA mappings left: 0'
}

# refuses NAME LIMIT PATTERN: with so few mappings allowed the heap's error says why, and all is undone.
refuses() {
    local text
    guest "echo $2 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
    text=$(guest "timeout -s KILL 60 vfio-probe --grow $(nic_bdf 0) 2>&1")
    guest 'echo 65535 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'
    printf '%s\n' "$text" >"$LOG/refused.txt"
    check_text "grow: $1" "$text" '^vfio-probe: .*heap "grows".*more could not be had' "$3"
}
