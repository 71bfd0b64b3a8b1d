#!/bin/bash
# Shows which driver each PCI network device is bound to, and binds devices to vfio-pci or back.
# Its options and output follow DPDK's dpdk-devbind.py. One file, bash and busybox's tools are
# enough, so that it also works in an initramfs. `devbind.sh --help` says the rest.

set -u -o pipefail

main() {
    parse_options "$@"
    local failed=0
    case $ACTION in
        bind) bind_devices ;;
        unbind) unbind_devices ;;
        restore) restore_devices ;;
    esac || failed=$?
    ((!STATUS)) || show_status
    return "$failed"
}

usage() {
    cat <<EOF_USAGE
Usage: $SELF -s
       $SELF -b DRIVER [-U USER] [-G GROUP] [--noiommu-mode] [--force] DEVICE...
       $SELF -u DEVICE...
       $SELF --restore DEVICE...

DEVICE is a PCI address (0000:03:00.0 or 03:00.0) or the name of its interface (eth1).

Actions:
  -s, --status          show the network devices and their drivers (also after another action)
      --status-dev net  the same; 'net' is the only kind of device known here
  -b, --bind DRIVER     bind to DRIVER: vfio-pci, or a kernel driver such as virtio-pci;
                        'none' is the same as --unbind
  -u, --unbind          take the driver away and leave the device without one
      --restore         give the device back to the driver that the kernel chooses for it
  -h, --help            show this text

Options:
      --noiommu-mode    where there is no IOMMU, let vfio-pci work without one: the device can
                        then write to all of memory
  -U, --uid USER        owner of the device's VFIO node, by name or number (with -b vfio-pci)
  -G, --gid GROUP       group of the device's VFIO node, by name or number (with -b vfio-pci)
      --force           take a device although it carries an address or a route, isn't a network
                        device, or is in use by a program (then this waits until it lets go)

Exit codes: 0 done, 1 not done (drivers are as before, unless the message says otherwise),
3 bound, but the IOMMU group isn't viable because of another device in it, which is named.
PACKETBOAT_ROOT is put before /sys, /dev, /proc, /lib and /usr/share (for tests).
EOF_USAGE
}

SELF=$0
AGAIN="$0 $*" # the whole command, for messages that say how to run it again
ROOT=${PACKETBOAT_ROOT:-}
PCI=$ROOT/sys/bus/pci
NET=$ROOT/sys/class/net
BDF_PATTERN='^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$'

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${SELF##*/}" "$*" >&2; }
die() {
    warn "$@"
    exit 1
}

# ---- Options -----------------------------------------------------------------------------------

parse_options() {
    ACTION='' DRIVER='' STATUS=0 FORCE=0 NOIOMMU=0 OWNER_USER='' OWNER_GROUP=''
    local named=() option
    while (($#)); do
        option=$1
        if [[ $option == --?*=* ]]; then # --bind=vfio-pci
            set -- "${option%%=*}" "${option#*=}" "${@:2}"
            option=$1
        fi
        case $option in
            -s | --status) STATUS=1 ;;
            --status-dev)
                need_value "$@"
                [[ $2 == net ]] ||
                    die "--status-dev: wanted 'net', found '$2': only network devices are known here. Run: $SELF --status-dev net"
                STATUS=1
                shift
                ;;
            -b | --bind)
                need_value "$@"
                choose_action bind
                DRIVER=$2
                shift
                ;;
            -u | --unbind) choose_action unbind ;;
            --restore) choose_action restore ;;
            -U | --uid)
                need_value "$@"
                OWNER_USER=$2
                shift
                ;;
            -G | --gid)
                need_value "$@"
                OWNER_GROUP=$2
                shift
                ;;
            --noiommu-mode) NOIOMMU=1 ;;
            --force) FORCE=1 ;;
            -h | --help)
                usage
                exit 0
                ;;
            -*) die "unknown option '$option'. Run: $SELF --help" ;;
            *) named+=("$option") ;;
        esac
        shift
    done
    check_options "${named[@]+"${named[@]}"}"
}

need_value() {
    if (($# < 2)) || [[ $2 == -* ]]; then die "option $1 wants a value, found '${2-}'. Run: $SELF --help"; fi
}

choose_action() {
    [[ -z $ACTION || $ACTION == "$1" ]] ||
        die "wanted one action, found both --$ACTION and --$1. Run them one after the other; see $SELF --help"
    ACTION=$1
}

check_options() { # NAMED…: what stands beside the options, to be resolved to DEVICES
    DEVICES=()
    if [[ -z $ACTION ]]; then
        (($# == 0)) ||
            die "found the device '$1', but no action for it. Run: $SELF -b vfio-pci $*  (or -u, or --restore)"
        ((STATUS)) || die "wanted an action, found none. Run: $SELF --status  (or --help)"
    fi
    if [[ $DRIVER == none ]]; then ACTION=unbind; fi
    DRIVER=$(driver_name "$DRIVER")
    if [[ $ACTION == bind ]]; then
        # `-b 0000:03:00.0` has lost its driver: don't go looking for a module of that name.
        if [[ $DRIVER == *:* || -e $NET/$DRIVER ]]; then
            die "--bind: wanted a driver's name first, found the device '$DRIVER'. Run: $SELF -b vfio-pci $DRIVER $*"
        fi
        [[ $DRIVER =~ ^[A-Za-z0-9_-]+$ ]] ||
            die "--bind: wanted a driver's name such as vfio-pci, found '$DRIVER'. Run: $SELF --help"
    fi
    if [[ -n $ACTION ]] && (($# == 0)); then
        die "--$ACTION: wanted at least one device, found none. Run: $SELF --status  to see them"
    fi
    if [[ -n $OWNER_USER$OWNER_GROUP && $DRIVER != vfio-pci ]]; then
        die "-U and -G set the owner of a VFIO node: wanted '-b vfio-pci' beside them, found '${ACTION:-no action} $DRIVER'. Run: $SELF -b vfio-pci ${OWNER_USER:+-U $OWNER_USER }${OWNER_GROUP:+-G $OWNER_GROUP }DEVICE"
    fi
    if ((NOIOMMU)) && [[ $DRIVER != vfio-pci ]]; then
        die "--noiommu-mode: wanted '-b vfio-pci' beside it, found '${ACTION:-no action} $DRIVER'. Run: $SELF -b vfio-pci --noiommu-mode DEVICE"
    fi
    check_owner -U passwd "$OWNER_USER" && check_owner -G group "$OWNER_GROUP"
    local name
    for name; do
        resolve "$name"
        [[ " ${DEVICES[*]-} " == *" $BDF "* ]] || DEVICES+=("$BDF")
    done
}

check_owner() { # OPTION passwd|group NAME: NAME may be a number
    [[ -z $3 || $3 =~ ^[0-9]+$ ]] || grep -qs "^$3:" "/etc/$2" || getent "$2" "$3" >/dev/null 2>&1 ||
        die "$1: wanted a name from /etc/$2 or a number, found '$3'. Run: cat /etc/$2"
}

# resolve NAME: sets BDF to the PCI address of a full or short address, or of an interface.
resolve() {
    local path
    if [[ ${1,,} =~ ^([0-9a-f]{4,8}:)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$ ]]; then
        BDF=${BASH_REMATCH[1]:-0000:}${BASH_REMATCH[2]}
        [[ -e $PCI/devices/$BDF ]] ||
            die "wanted the PCI device $BDF, found none of that address in $PCI/devices. Run: $SELF --status"
        return
    fi
    [[ $1 != */* && -n $1 && -e $NET/$1 ]] ||
        die "wanted a PCI address (0000:03:00.0, 03:00.0) or an interface, found '$1', which is neither. Run: $SELF --status"
    # The interface's own device, or its parent if that is a virtio device. No higher: above a USB
    # adapter stands the controller that serves everything else on the bus.
    path=$(readlink -f "$NET/$1/device" 2>/dev/null) || path=
    if [[ ${path##*/} == virtio* ]]; then path=${path%/*}; fi
    BDF=${path##*/}
    [[ $BDF =~ $BDF_PATTERN ]] ||
        die "wanted the PCI device of interface '$1', found that it has none (it is virtual, or on another bus). Run: $SELF --status"
}

# ---- What the kernel says about a device -------------------------------------------------------

read_word() { # FILE: prints its first line, or nothing
    local word=
    { read -r word <"$1"; } 2>/dev/null
    printf '%s' "$word"
}

link_name() { # LINK: prints the last part of what it points to, or nothing
    local target
    target=$(readlink "$1" 2>/dev/null) && printf '%s' "${target##*/}"
}

driver_of() { link_name "$PCI/devices/$1/driver"; }
group_of() { link_name "$PCI/devices/$1/iommu_group"; }

interfaces_of() { # BDF: prints the names of its interfaces, one a line
    local path
    for path in "$PCI/devices/$1"/net/* "$PCI/devices/$1"/virtio*/net/*; do
        [[ -e $path ]] && say "${path##*/}"
    done
}

is_network() { [[ $(read_word "$PCI/devices/$1/class") == 0x02* ]]; }

# Drivers that hand a device to a program. They match any device, by driver_override.
is_userspace_driver() { [[ $1 == vfio-pci || $1 == uio_pci_generic || $1 == igb_uio ]]; }

# Does VFIO accept a group with a device on this driver in it? (The kernel's documentation,
# driver-api/vfio.rst: a VFIO driver, none, or one of those that leave DMA to others.)
is_viable_driver() { [[ -z $1 || $1 == *vfio* || $1 == pcieport || $1 == pci-stub || $1 == shpchp ]]; }

# describe BDF: one line as dpdk-devbind.py prints it, without the list of unused drivers.
describe() {
    local driver node interfaces
    driver=$(driver_of "$1") node=$(read_word "$PCI/devices/$1/numa_node") interfaces=$(interfaces_of "$1")
    printf '%s %s' "$1" "$(device_name "$1")"
    if [[ -n $node && $node != -1 ]]; then printf ' numa_node=%s' "$node"; fi
    if [[ -n $interfaces ]]; then printf ' if=%s' "${interfaces//$'\n'/,}"; fi
    if [[ -n $driver ]]; then printf ' drv=%s' "$driver"; fi
}

# device_name BDF: 'Name id' from the PCI id list, or 'vendor:device' where there is no list.
declare -A NAMES=()
NAMES_LOADED=
device_name() {
    local vendor device
    vendor=$(read_word "$PCI/devices/$1/vendor") device=$(read_word "$PCI/devices/$1/device")
    if [[ -n ${NAMES[$vendor:$device]-} ]]; then
        printf "'%s %s'" "${NAMES[$vendor:$device]}" "${device#0x}"
    else
        printf "'%s:%s'" "${vendor#0x}" "${device#0x}"
    fi
}

load_names() { # reads the list once, for the ids of this machine only
    local list path wanted='' vendor device name
    [[ -z $NAMES_LOADED ]] || return 0
    NAMES_LOADED=1
    for list in "$ROOT"/usr/share/{misc,hwdata}/pci.ids; do
        [[ -r $list ]] || continue
        for path in "$PCI"/devices/*; do
            wanted+=" $(read_word "$path/vendor"):$(read_word "$path/device")"
        done
        # A here-string, not <(…): an initramfs may have no /dev/fd.
        while read -r vendor device name; do
            if [[ -n $name ]]; then NAMES[0x$vendor:0x$device]=$name; fi
        done <<<"$(awk -v wanted="${wanted//0x/}" '
            BEGIN { count = split(wanted, ids, " "); for (i = 1; i <= count; i++) need[ids[i]] = 1 }
            /^C / { exit }                                # classes follow the devices
            /^[0-9a-f]/ { vendor = substr($0, 1, 4) }
            /^\t[0-9a-f]/ { device = substr($0, 2, 4)
                if ((vendor ":" device) in need) print vendor, device, substr($0, 8) }' "$list")"
        return
    done
}

# matching_drivers BDF: prints the drivers whose alias matches the device, one a line.
matching_drivers() {
    local modules modalias vendor pattern module
    modules=$ROOT/lib/modules/$(uname -r)
    modalias=$(read_word "$PCI/devices/$1/modalias")
    [[ -n $modalias ]] || return 0
    vendor=${modalias:4:9}
    {
        # alias pci:v00008086d000010FBsv*sd*bc*sc*i* ixgbe
        awk -v mine="pci:$vendor" 'index($2, mine) == 1 || $2 ~ /^pci:v\*/ { print $2, $3 }' "$modules/modules.alias"
        # virtio_pci.alias=pci:v00001AF4d*sv*sd*bc*sc*i*, ended by a zero byte
        tr '\0' '\n' <"$modules/modules.builtin.modinfo" |
            awk -F'.alias=' '$2 ~ /^pci:/ { print $2, $1 }'
        # Kernels before 6.19 list no aliases of what is built in, and this often is.
        [[ ! -e $PCI/drivers/virtio-pci ]] || echo 'pci:v00001AF4d*sv*sd*bc*sc*i* virtio-pci'
    } 2>/dev/null | while read -r pattern module; do
        # shellcheck disable=SC2053 # the right side is a pattern
        if [[ $modalias == $pattern ]]; then driver_name "$module"; fi
    done | sort -u
}

driver_name() { # NAME: the module virtio_pci brings the driver virtio-pci
    if [[ ! -e $PCI/drivers/$1 && -e $PCI/drivers/${1//_/-} ]]; then
        say "${1//_/-}"
    else
        say "$1"
    fi
}

# unused_drivers BDF: prints those that could be bound instead of the present one, with commas.
unused_drivers() {
    local driver present list=
    present=$(driver_of "$1")
    for driver in $(matching_drivers "$1") $(available_vfio); do
        if [[ ${driver//_/-} != "${present//_/-}" && ,$list, != *,$driver,* ]]; then list+=,$driver; fi
    done
    printf '%s' "${list#,}"
}

available_vfio() {
    if [[ -e $PCI/drivers/vfio-pci ]] ||
        grep -Eqs '(^|/)vfio-pci\.ko' "$ROOT/lib/modules/$(uname -r)/modules.dep"; then
        say vfio-pci
    fi
}

# ---- What would be lost by taking a device -----------------------------------------------------

# traffic_on BDF: prints the addresses and routes on its interfaces and on what is stacked on them
# (bridge, bond, VLAN), one a line.
traffic_on() {
    local interface
    for interface in $(interfaces_of "$1"); do
        traffic_on_interface "$interface" ' '
    done
}

traffic_on_interface() { # INTERFACE SEEN
    local upper above seen="$2$1 "
    awk -F'\t' -v name="$1" '$1 == name { print $2 }' <<<"$TRAFFIC"
    for upper in "$NET/$1"/upper_* "$NET/$1"/master; do
        [[ -e $upper ]] || continue
        above=$(link_name "$upper")
        if [[ $seen != *" $above "* ]]; then
            seen+="$above "
            traffic_on_interface "$above" "$seen"
        fi
    done
}

# load_traffic: sets TRAFFIC to lines of 'interface TAB address or route'. Link-local and multicast
# entries of IPv6 don't count: every interface that is up has them.
load_traffic() {
    local addresses routes4 routes6
    TRAFFIC=
    addresses=$(ip -o addr show 2>&1) && routes4=$(ip -o -4 route show table all 2>&1) || return 1
    routes6=$(ip -o -6 route show table all 2>/dev/null) || routes6= # a kernel without IPv6
    TRAFFIC=$(
        awk '($3 == "inet" || $3 == "inet6") && !($3 == "inet6" && $4 ~ /^fe[89ab]/) {
            name = $2; sub(/[@:].*/, "", name); print name "\taddress " $4 " on " name }' <<<"$addresses"
        awk '/^(broadcast|local|anycast|multicast) / || /^(fe80::|ff00::)/ || NF == 0 { next }
            { for (i = 1; i < NF; i++) if ($i == "dev") print $(i + 1) "\troute " $1 " on " $(i + 1) }' \
            <<<"$routes4"$'\n'"$routes6"
    )
}

# users_of BDF: prints the processes that hold the device's VFIO node open, one a line.
users_of() {
    local group pid
    group=$(group_of "$1")
    # /dev/null: with a second name, ls prints the folder's name before its entries.
    # shellcheck disable=SC2012 # one process for all of /proc; find of busybox prints no link's target
    ls -l "$ROOT"/proc/[0-9]*/fd /dev/null 2>/dev/null |
        awk -v group="/dev/vfio/$group" -v noiommu="/dev/vfio/noiommu-$group" \
            -v device="/dev/vfio/devices/$(vfio_name "$1")" '
            /\/fd:$/ { count = split($0, part, "/"); pid = part[count - 1] }
            NF > 2 && $(NF - 1) == "->" && ($NF == group || $NF == noiommu || $NF == device) { print pid }' |
        sort -u | while read -r pid; do
        # This script has what its caller holds open, and may be called by that very program.
        if [[ ! -e $ROOT/proc/$pid ]] || is_own_process "$pid"; then continue; fi
        say "$pid ($(read_word "$ROOT/proc/$pid/comm"))"
    done
}

is_own_process() { # PID: this script, or a process that it has started
    local pid=$1
    while [[ -n $pid ]] && ((pid > 1)); do
        ((pid != $$)) || return 0
        pid=$(awk '$1 == "PPid:" { print $2 }' "$ROOT/proc/$pid/status" 2>/dev/null)
    done
    return 1
}

vfio_name() { # BDF: the name of its node in /dev/vfio/devices, where the kernel has that folder
    local path
    for path in "$PCI/devices/$1"/vfio-dev/vfio*; do
        if [[ -e $path ]]; then printf '%s' "${path##*/}"; fi
    done
}

# check_free BDF: dies if taking the device from its driver would break something.
check_free() {
    local driver found retry="$AGAIN --force"
    driver=$(driver_of "$1")
    if [[ -z $driver ]] || ((FORCE)); then return; fi
    if is_userspace_driver "$driver"; then
        found=$(users_of "$1")
        [[ -z $found ]] ||
            die "wanted to take $1 from $driver, found that a program uses it: PID ${found//$'\n'/, PID }. End it first: kill ${found%% *}"
        return
    fi
    load_names
    is_network "$1" ||
        die "wanted a network device, found $(describe "$1") of class $(read_word "$PCI/devices/$1/class"). If the system can do without it, run: $retry"
    if [[ -n $(interfaces_of "$1") ]]; then
        load_traffic ||
            die "wanted to see the addresses and routes of $1 ($(interfaces_of "$1" | tr '\n' ' ')), found no 'ip' command that works. Install iproute2, or, if nothing depends on the device, run: $retry"
        found=$(traffic_on "$1")
        [[ -z $found ]] ||
            die "wanted to take $1 from $driver, found that it carries traffic: ${found//$'\n'/, }. Move that to another interface; or, if you can do without it (also without the connection you are on), run: $retry"
    elif expects_interface "$1"; then
        die "wanted to see the interface of $1 on $driver, found none: it may belong to another network namespace (a container). If nothing depends on it, run: $retry"
    fi
}

# A virtio device without virtio_net on it has no interface; other network drivers make one.
expects_interface() {
    local path
    for path in "$PCI/devices/$1"/virtio*; do
        if [[ -e $path ]]; then
            [[ -e $path/driver ]]
            return
        fi
    done
}

# ---- Changing drivers --------------------------------------------------------------------------

bind_devices() {
    local bdf todo=()
    for bdf in "${DEVICES[@]}"; do
        if [[ $(driver_of "$bdf") == "$DRIVER" ]]; then
            say "Notice: $bdf already bound to driver $DRIVER, skipping"
        else
            check_free "$bdf"
            todo+=("$bdf")
        fi
    done
    if ((${#todo[@]})); then
        check_writable
        [[ $DRIVER != vfio-pci ]] || check_iommu "${todo[@]}"
        load_driver
        [[ $DRIVER != vfio-pci ]] || enable_noiommu "${todo[@]}"
        change attach "${todo[@]}"
    fi
    [[ $DRIVER == vfio-pci ]] || return 0
    give_to_owner
    check_groups
}

unbind_devices() { take_from_driver leave_alone; }
restore_devices() { take_from_driver reprobe; }

take_from_driver() { # STEP: what follows when the driver is gone
    local bdf driver todo=()
    for bdf in "${DEVICES[@]}"; do
        driver=$(driver_of "$bdf")
        if [[ $ACTION == unbind && -z $driver ]]; then
            say "Notice: $bdf is not bound to a driver, skipping"
        elif [[ $ACTION == restore && -n $driver ]] && ! is_userspace_driver "$driver"; then
            say "Notice: $bdf already bound to driver $driver, skipping"
        else
            check_free "$bdf"
            todo+=("$bdf")
        fi
    done
    ((${#todo[@]})) || return 0
    check_writable
    change "$1" "${todo[@]}"
}

check_writable() {
    [[ -w $PCI/drivers_probe ]] ||
        die "wanted to write $PCI/drivers_probe, found that user $(id -un) can't (not root, or a read-only /sys). Run: sudo $AGAIN"
}

check_iommu() { # BDF…: with vfio-pci, each needs an IOMMU group, or the mode without
    local bdf
    ((!NOIOMMU)) || return 0
    for bdf; do
        [[ -n $(group_of "$bdf") ]] ||
            die "wanted an IOMMU group for $bdf, found none. Turn the IOMMU on: in the firmware (VT-d, AMD-Vi) and with intel_iommu=on on the kernel's command line; or, where a device that can write to all of memory is acceptable, run: $AGAIN --noiommu-mode"
    done
}

load_driver() {
    local message
    [[ ! -e $PCI/drivers/$DRIVER ]] || return 0
    command -v modprobe >/dev/null ||
        die "wanted the driver $DRIVER, found that it isn't loaded and that there is no modprobe to load it. Run: insmod FILE-OF-$DRIVER.ko"
    message=$(modprobe "$DRIVER" 2>&1) ||
        die "wanted the driver $DRIVER, found that modprobe can't load it: ${message:-no message}. Install the modules of this kernel ($(uname -r)), or see: find /lib/modules -name '${DRIVER//[-_]/?}.ko*'"
    wait_until test -e "$PCI/drivers/$DRIVER" ||
        die "wanted the driver $DRIVER in $PCI/drivers, found that modprobe $DRIVER brought none of that name. Run: ls $PCI/drivers"
}

enable_noiommu() { # BDF…: only where one of them has no IOMMU; otherwise the IOMMU is used
    local bdf file=$ROOT/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
    ((NOIOMMU)) || return 0
    for bdf; do
        [[ -z $(group_of "$bdf") ]] || continue
        [[ -e $file ]] ||
            die "--noiommu-mode: wanted $file, found no such file: this kernel is built without CONFIG_VFIO_NOIOMMU. Turn the IOMMU on instead (intel_iommu=on), or boot a kernel with that option"
        WHY=
        write "$file" 1 || die "--noiommu-mode: wanted to turn it on, found: $WHY. Run: sudo sh -c 'echo 1 >$file'"
        return
    done
}

# change STEP BDF…: takes each device from its driver and calls STEP; if one fails, all go back.
# Each STEP BDF sets WHY when it fails.
change() {
    local step=$1 bdf former word interfaces was=() i
    shift
    trap '' HUP # the terminal may hang on the very interface that is taken
    for bdf; do
        former=$(driver_of "$bdf") word=$(read_word "$PCI/devices/$bdf/driver_override")
        was+=("$bdf|$former|$word|$(interfaces_of "$bdf" | tr '\n' ' ')")
        WHY=
        if ! { detach "$bdf" && "$step" "$bdf"; }; then
            local failure=$WHY stuck=
            for ((i = ${#was[@]} - 1; i >= 0; i--)); do
                put_back "${was[i]}" || stuck+=" ${was[i]%%|*}"
            done
            if [[ -n $stuck ]]; then
                die "wanted to $ACTION $bdf${DRIVER:+ to $DRIVER}, found: $failure. Giving back the former driver failed, too, for:$stuck. See: dmesg | tail; $SELF --status"
            fi
            die "wanted to $ACTION $bdf${DRIVER:+ to $DRIVER}, found: $failure. Every device has its former driver again. See: dmesg | tail"
        fi
    done
    for word in "${was[@]}"; do
        IFS='|' read -r bdf former _ interfaces <<<"$word"
        say "$bdf: driver $(driver_of "$bdf" | grep . || echo none) (was ${former:-none}${interfaces:+, if=${interfaces% }})"
    done
}

put_back() { # 'BDF|DRIVER|OVERRIDE|…', as kept by change
    local bdf former word rest
    IFS='|' read -r bdf former word rest <<<"$1"
    if [[ $(driver_of "$bdf") != "$former" ]]; then
        detach "$bdf" || return
        [[ -z $former ]] || attach "$bdf" "$former" || return
    fi
    [[ $word != '(null)' ]] || word=
    write "$PCI/devices/$bdf/driver_override" "$word"
}

detach() { # BDF
    local driver
    driver=$(driver_of "$1")
    [[ -n $driver ]] || return 0
    write "$PCI/devices/$1/driver/unbind" "$1" || return
    wait_until test ! -e "$PCI/devices/$1/driver" || {
        WHY="$driver doesn't let go of it"
        return 1
    }
}

attach() { # BDF [DRIVER]: a device without a driver gets this one
    local driver=${2:-$DRIVER}
    if is_userspace_driver "$driver"; then
        # The override stays: the kernel then gives the device to nobody else.
        write "$PCI/devices/$1/driver_override" "$driver" && write "$PCI/drivers_probe" "$1" || return
    else
        # By its own table of ids, so that a driver is never let loose on hardware it doesn't know.
        write "$PCI/devices/$1/driver_override" '' || return
        write "$PCI/drivers/$driver/bind" "$1" || {
            WHY+="; modules for this device: $(matching_drivers "$1" | tr '\n' ' ' | grep . || echo none that is known)"
            return 1
        }
    fi
    wait_until is_bound_to "$1" "$driver" || {
        WHY="$driver didn't take it, it has $(driver_of "$1" | grep . || echo no driver)"
        return 1
    }
}

leave_alone() { write "$PCI/devices/$1/driver_override" ''; } # BDF

reprobe() { # BDF: the kernel chooses
    local modules module
    modules=$(matching_drivers "$1")
    for module in $modules; do modprobe "$module" 2>/dev/null; done # it may have been unloaded
    write "$PCI/devices/$1/driver_override" '' || return
    [[ -e $PCI/devices/$1/driver ]] || write "$PCI/drivers_probe" "$1" || return
    wait_until test -e "$PCI/devices/$1/driver" || {
        WHY="no loaded driver wants it; modules for this device: ${modules:-none that is known}"
        return 1
    }
}

is_bound_to() { [[ $(driver_of "$1") == "$2" ]]; }

write() { # FILE VALUE: on failure, sets WHY to the kernel's answer
    local message
    message=$({ printf '%s\n' "$2" >"$1"; } 2>&1) && return
    WHY="writing '$2' to $1 gave '${message##*: }'"
    return 1
}

wait_until() { # COMMAND…: the kernel acts at once, udev and a loading module may take a moment
    local _
    for _ in {1..20}; do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}

# ---- After binding to vfio-pci -----------------------------------------------------------------

give_to_owner() {
    local bdf node message
    [[ -n $OWNER_USER$OWNER_GROUP ]] || return 0
    for bdf in "${DEVICES[@]}"; do
        wait_until group_node "$bdf" ||
            die "wanted the VFIO node of $bdf to give it to ${OWNER_USER:-group $OWNER_GROUP}, found none for group '$(group_of "$bdf")'; the device is bound. Run: ls -l $ROOT/dev/vfio"
        for node in "$NODE" "$ROOT/dev/vfio/devices/$(vfio_name "$bdf")"; do
            [[ -e $node && ! -d $node ]] || continue
            message=$(chown "$OWNER_USER${OWNER_GROUP:+:$OWNER_GROUP}" "$node" 2>&1) ||
                die "wanted to give $node to '$OWNER_USER${OWNER_GROUP:+:$OWNER_GROUP}', found: ${message##*: }; the device is bound. Run: ls -l $node"
        done
    done
}

group_node() { # BDF: sets NODE
    local group
    group=$(group_of "$1")
    [[ -n $group ]] || return
    for NODE in "$ROOT/dev/vfio/$group" "$ROOT/dev/vfio/noiommu-$group"; do
        if [[ -e $NODE ]]; then return; fi
    done
    return 1
}

# check_groups: names every device that keeps a group from being used; 3 if there is one.
check_groups() {
    local bdf group member driver found force seen=' ' failed=0
    for bdf in "${DEVICES[@]}"; do
        group=$(group_of "$bdf")
        [[ -n $group && $seen != *" $group "* ]] || continue
        seen+="$group " found='' force=''
        for member in "$ROOT/sys/kernel/iommu_groups/$group/devices"/*; do
            member=${member##*/}
            [[ -e $PCI/devices/$member ]] || continue
            driver=$(driver_of "$member")
            is_viable_driver "$driver" && continue
            load_names
            warn "IOMMU group $group is not viable: $(describe "$member")"
            found+=" $member"
            is_network "$member" || force=' --force'
        done
        [[ -n $found ]] || continue
        failed=3
        warn "$bdf is bound, but VFIO opens group $group only when all of its devices are on vfio-pci or on no driver. Run: $SELF$force -b vfio-pci$found  (or -u$found)"
    done
    return "$failed"
}

# ---- Status ------------------------------------------------------------------------------------

show_status() {
    local path bdf line driver unused userspace=() kernel=() other=()
    load_names
    load_traffic || warn "found no 'ip' command that works: *Active* can't be shown. Run: apt-get install iproute2"
    for path in "$PCI"/devices/*; do
        bdf=${path##*/}
        is_network "$bdf" || continue
        line=$(describe "$bdf") driver=$(driver_of "$bdf") unused=$(unused_drivers "$bdf")
        line+=" unused=$unused"
        if [[ -z $driver ]]; then
            other+=("$line")
        elif is_userspace_driver "$driver"; then
            userspace+=("$line")
        else
            [[ -z $(traffic_on "$bdf") ]] || line+=' *Active*'
            kernel+=("$line")
        fi
    done
    if ((${#userspace[@]} + ${#kernel[@]} + ${#other[@]} == 0)); then
        section "No 'Network' devices detected"
    fi
    section 'Network devices using DPDK-compatible driver' "${userspace[@]+"${userspace[@]}"}"
    section 'Network devices using kernel driver' "${kernel[@]+"${kernel[@]}"}"
    section 'Other Network devices' "${other[@]+"${other[@]}"}"
}

section() { # TITLE [LINE…]: nothing for a section without lines, but for the one that says so
    if (($# == 1)) && [[ $1 != No* ]]; then return; fi
    printf '\n%s\n%s\n' "$1" "${1//?/=}"
    shift
    (($# == 0)) || printf '%s\n' "$@"
}

main "$@"
