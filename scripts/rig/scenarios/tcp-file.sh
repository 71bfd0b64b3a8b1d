# shellcheck shell=bash disable=SC2034,SC2046
# 64 MiB (16 through softnic) over one TCP connection between two namespaces whose only way to each other is the guest.
MACHINE=main
SIZE_MIB=64

scenario() {
    local file=$LOG/sent copy=$LOG/received
    [[ $MACHINE != softnic ]] || SIZE_MIB=16 # each doorbell is a message to another process there
    bind_nics 4 5
    l2fwd_start -l "$LCORES" $(allow 4 5) -- -p 0x3 -P -q 1 -T 1
    l2fwd_ready 4 5 || return
    transfer "$file" "$copy" "$SIZE_MIB" 1
    counters_settle
    l2fwd_stop tcp-file
    check_outside_counters tcp-file
    rm -f "$file" "$copy"
}
