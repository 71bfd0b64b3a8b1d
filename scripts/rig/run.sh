#!/bin/bash
# Runs l2fwd in a QEMU guest, with real frames from outside, and checks what becomes of them.
#
#   scripts/rig/run.sh SCENARIO…   run these; NAME@softnic on 82599s that softnic plays
#   scripts/rig/run.sh all         run all of l2fwd's on virtio, the machine booted once per kind
#   scripts/rig/run.sh ixgbe       run l2fwd's on softnic
#   scripts/rig/run.sh softnic     run others' drivers on softnic
#   scripts/rig/run.sh --list      name them
#   scripts/rig/run.sh --shell [MACHINE]  boot and take commands for the guest line by line
#
# One line per check, `ok - …` or `FAILED - …`; the last one counts them. Logs: target/rig/SCENARIO/.
# Environment: RIG_ACCEL=kvm  instead of tcg, which needs nothing of the host
#              RIG_L2FWD=FILE another binary than the one built here
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
. "$REPO/scripts/rig/prepare.sh"
. "$REPO/scripts/rig/lib.sh"

SCENARIOS=$REPO/scripts/rig/scenarios
# In this order: what is most telling first, what changes the machine last, one kind after the other.
ORDER=(two-ports no-mac-updating four-ports two-queues tcp-file link-flap kill-9 startup grow bad-input
    device-gone virtio-iommu virtio-rings virtio-commands)
# The same with our ixgbe driver; `ixgbe` for short.
IXGBE_ORDER=(two-ports@softnic no-mac-updating@softnic four-ports@softnic two-queues@softnic tcp-file@softnic
    link-flap@softnic kill-9@softnic startup@softnic grow@softnic bad-input@softnic softnic-interop)
# Others' drivers on softnic; `softnic` for short.
SOFTNIC_ORDER=(softnic-linux softnic-dpdk)

main() {
    local names=()
    case ${1-} in
        --list) printf '%s\n' "${ORDER[@]}" "${IXGBE_ORDER[@]}" "${SOFTNIC_ORDER[@]}" && exit ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
        '') die "wanted a scenario, found none. Run: scripts/rig/run.sh --list" ;;
        all) names=("${ORDER[@]}") ;;
        ixgbe) names=("${IXGBE_ORDER[@]}") ;;
        softnic) names=("${SOFTNIC_ORDER[@]}") ;;
        --shell) ;;
        *) names=("$@") ;;
    esac
    local name
    for name in "${names[@]}"; do
        [[ -e $SCENARIOS/${name%@softnic}.sh ]] || die "wanted a scenario, found '$name'. Run: scripts/rig/run.sh --list"
    done
    ((EUID == 0)) || die "wanted root for taps and namespaces, found user $(id -un). Run: sudo scripts/rig/run.sh $*"
    prepare
    trap machine_stop EXIT
    trap 'exit 130' INT TERM
    if [[ $1 == --shell ]]; then
        shell "${2-main}"
        exit
    fi
    for name in "${names[@]}"; do run_scenario "$name"; done
    machine_stop
    tally
}

run_scenario() {
    local name=$1 before=$FAILED began=$SECONDS
    LOG=$LOGS/$name
    rm -rf "$LOG" && mkdir -p "$LOG"
    # shellcheck source=/dev/null
    . "$SCENARIOS/${name%@softnic}.sh"
    [[ $name != *@softnic ]] || MACHINE=softnic
    say "# $name"
    if [[ ${BOOTED-} != "$MACHINE" ]] || ! machine_is_up; then
        machine_stop
        if ! boot "$MACHINE"; then
            not_ok "$name: the guest boots" "see $LOGS/machine-$MACHINE"
            BOOTED=
            return
        fi
        BOOTED=$MACHINE
    fi
    check "$name: hugepages.sh reserves $PAGES pages" guest "hugepages.sh -c && hugepages.sh -r $PAGES -n 0 && dmesg -c >/dev/null"
    scenario
    if machine_is_up; then
        # shellcheck disable=SC2016 # the guest's
        guest 'kill -KILL $(pidof packetboat-l2fwd) 2>/dev/null; usleep 300000; true' # a failed check may leave one
        nothing_left "$name"
        check_kernel_log "$name"
    else
        not_ok "$name: the guest still answers" "$(tail -n 20 "$LOGS/machine-$MACHINE/console.log")"
    fi
    say "# $name: $((SECONDS - began)) s"
    if ((FAILED > before)); then
        say "# logs: $LOG and $LOGS/machine-$MACHINE"
        BOOTED= # a fresh machine for the next one
    fi
}

boot() {
    local began=$SECONDS
    machine_start "$1" "$LOGS/machine-$1" || return
    say "# machine $1 is up after $((SECONDS - began)) s"
}

shell() {
    local line
    LOG=$LOGS/shell
    mkdir -p "$LOG"
    boot "$1" || exit
    say "# sockets in $RUN; end with Ctrl-D"
    while read -rep 'guest# ' line; do guest "$line" || say "exit code $?"; done
}

main "$@"
