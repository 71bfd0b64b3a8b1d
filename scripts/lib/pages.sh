# shellcheck shell=bash
# Hugepages for tests on this machine. Source it after common.sh.

KEPT_PAGES='' # 'FORMER OURS' while keep_hugepages holds

# keep_hugepages COUNT: have at least COUNT pages of 2 MiB on node 0, where that can be done. Tests
# that need pages say so themselves where it can't.
keep_hugepages() {
    local former
    former=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages 2>/dev/null) || return 0
    ((former < $1 && EUID == 0)) || return 0
    run "$REPO/scripts/hugepages.sh" -p 2M -n 0 -r "$1" || return 0
    KEPT_PAGES="$former $1"
}

# give_hugepages_back: what keep_hugepages took, unless somebody has changed the number since.
give_hugepages_back() {
    local former ours
    [[ -n $KEPT_PAGES ]] || return 0
    read -r former ours <<<"$KEPT_PAGES"
    KEPT_PAGES=
    [[ $(cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages) == "$ours" ]] || return 0
    run "$REPO/scripts/hugepages.sh" -p 2M -n 0 -r "$former"
}
