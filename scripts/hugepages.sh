#!/bin/bash
# Shows, reserves and frees hugepages, per NUMA node and page size, and mounts hugetlbfs.
# Its options follow DPDK's dpdk-hugepages.py. One file, bash and busybox's tools are enough, so
# that it also works in an initramfs. `hugepages.sh --help` says the rest.

set -u -o pipefail

main() {
    parse_options "$@"
    check_everything
    if ((UNMOUNT)); then unmount_pages; fi
    if [[ -n $RESERVE ]]; then
        set_pages "$PAGES" # the new total: nothing to clear before
    elif ((CLEAR)); then
        set_pages 0
    fi
    if ((MOUNT)); then mount_pages; fi
    if ((SHOW)); then show; fi
}

usage() {
    cat <<EOF_USAGE
Usage: $SELF -s
       $SELF -r SIZE|COUNT [-n NODE] [-p PAGESIZE] [-m]
       $SELF -c [-n NODE] [-p PAGESIZE]
       $SELF -m | -u [-d DIR] [-p PAGESIZE]

Several actions may stand together; they run in this order:
  -u, --unmount            unmount the hugetlbfs in DIR
  -c, --clear              give the pages of PAGESIZE back to the system
  -r, --reserve SIZE|COUNT have that many pages on each node, or on NODE: 1G or 512M of memory, or,
                           without a letter, a number of pages. It is the new total, not an addition
  -m, --mount              mount hugetlbfs in DIR (needed for --huge-dir only)
      --setup SIZE|COUNT   -r and -m in one (with -u before, if another page size is mounted)
  -s, --show               show pages per node and size, and where they are mounted
  -h, --help               show this text

Options:
  -n, --node NODE          only this NUMA node
  -p, --page-size SIZE     2M, 1G, … (default: the kernel's default, here ${DEFAULT_SIZE:-none})
  -d, --directory DIR      default: /dev/hugepages, for another page size /dev/hugepages-SIZE

Exit codes: 0 done, 1 not done. When the kernel gives fewer pages than asked, all nodes are put back
to what they had.
PACKETBOAT_ROOT is put before /sys, /proc and /dev (for tests).
EOF_USAGE
}

SELF=$0
AGAIN="$0 $*" # the whole command, for messages that say how to run it again
ROOT=${PACKETBOAT_ROOT:-}
NODES=$ROOT/sys/devices/system/node
FLAT=$ROOT/sys/kernel/mm/hugepages # all nodes together: for kernels without NUMA

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${SELF##*/}" "$*" >&2; }
die() {
    warn "$@"
    exit 1
}

# ---- Options -----------------------------------------------------------------------------------

parse_options() {
    SHOW=0 CLEAR=0 MOUNT=0 UNMOUNT=0 SETUP=0 RESERVE='' NODE='' SIZE='' DIRECTORY=''
    DEFAULT_SIZE=$(awk '$1 == "Hugepagesize:" { print $2 }' "$ROOT/proc/meminfo" 2>/dev/null)
    if [[ -n $DEFAULT_SIZE ]]; then DEFAULT_SIZE=$(human "$DEFAULT_SIZE"); fi
    (($#)) || die "wanted an action, found none. Run: $SELF --show  (or --help)"
    local option
    while (($#)); do
        option=$1
        if [[ $option == --?*=* ]]; then # --reserve=1G
            set -- "${option%%=*}" "${option#*=}" "${@:2}"
            option=$1
        fi
        case $option in
            -s | --show) SHOW=1 ;;
            -c | --clear) CLEAR=1 ;;
            -m | --mount) MOUNT=1 ;;
            -u | --unmount) UNMOUNT=1 ;;
            -h | --help)
                usage
                exit 0
                ;;
            -r | --reserve | --setup | -n | --node | -p | --page-size | --pagesize | -d | --directory)
                if (($# < 2)) || [[ $2 == -* ]]; then
                    die "option $option wants a value, found '${2-}'. Run: $SELF --help"
                fi
                take_value "$option" "$2"
                shift
                ;;
            -*) die "unknown option '$option'. Run: $SELF --help" ;;
            *) die "found '$option', which belongs to no option. Run: $SELF --help" ;;
        esac
        shift
    done
}

take_value() { # OPTION VALUE
    case $1 in
        -r | --reserve) RESERVE=$2 ;;
        --setup) RESERVE=$2 SETUP=1 MOUNT=1 ;;
        -n | --node) NODE=$2 ;;
        -p | --page*) SIZE=$2 ;;
        -d | --directory) DIRECTORY=$2 ;;
    esac
}

# check_everything: all that can be known before the first change. Sets PAGE_KB, TABLES, PAGES.
check_everything() {
    if ((!SHOW && !CLEAR && !MOUNT && !UNMOUNT)) && [[ -z $RESERVE ]]; then
        die "wanted an action beside the options, found none. Run: $SELF --show  (or --help)"
    fi
    if ((!CLEAR && !MOUNT && !UNMOUNT)) && [[ -z $RESERVE ]]; then return; fi
    check_page_size
    if [[ -n $RESERVE ]] || ((CLEAR)); then
        check_tables
        PAGES=0
        if [[ -n $RESERVE ]]; then check_amount; fi
    elif [[ -n $NODE ]]; then
        die "--node: wanted -r or -c beside it, found neither: a mount has no node. Run: $SELF --help"
    fi
    check_directory
}

check_page_size() {
    local sizes=() path
    for path in "$FLAT"/hugepages-*kB; do
        if [[ -d $path ]]; then
            path=${path##*-}
            sizes+=("$(human "${path%kB}")")
        fi
    done
    ((${#sizes[@]})) ||
        die "wanted the kernel's hugepages in $FLAT, found none: it is built without CONFIG_HUGETLBFS, or started with hugepages turned off. Run packetboat with --no-huge, or boot another kernel"
    SIZE=${SIZE:-$DEFAULT_SIZE}
    PAGE_KB=
    if [[ $SIZE =~ ^0*([0-9]{1,9})([KkMmGg])[Bb]?$ ]]; then
        PAGE_KB=$((BASH_REMATCH[1] * $(unit_kb "${BASH_REMATCH[2]}")))
    fi
    if [[ -z $PAGE_KB || ! -d $FLAT/hugepages-${PAGE_KB}kB ]]; then
        die "--page-size: wanted a page size of this machine (${sizes[*]}), found '$SIZE'. Run: $SELF --show"
    fi
    SIZE=$(human "$PAGE_KB")
}

check_tables() { # TABLES: the folders whose nr_hugepages is to be written
    local node nodes=()
    TABLES=()
    for node in "$NODES"/node[0-9]*; do
        if [[ -d $node/hugepages ]]; then nodes+=("${node##*/node}"); fi
    done
    if ((${#nodes[@]} == 0)); then
        [[ -z $NODE || $NODE == 0 ]] ||
            die "--node: wanted node 0, the only one of this machine, found '$NODE'. Run: $SELF --show"
        TABLES=("$FLAT/hugepages-${PAGE_KB}kB")
    elif [[ -n $NODE ]]; then
        [[ " ${nodes[*]} " == *" $NODE "* ]] ||
            die "--node: wanted a node of this machine (${nodes[*]}), found '$NODE'. Run: $SELF --show"
        TABLES=("$NODES/node$NODE/hugepages/hugepages-${PAGE_KB}kB")
    else
        for node in "${nodes[@]}"; do TABLES+=("$NODES/node$node/hugepages/hugepages-${PAGE_KB}kB"); done
    fi
    for node in "${TABLES[@]}"; do
        [[ -w $node/nr_hugepages ]] ||
            die "wanted to write $node/nr_hugepages, found that user $(id -un) can't (not root, or a read-only /sys). Run: sudo $AGAIN"
    done
}

check_amount() { # PAGES: how many there shall be on each node
    local table total_kb
    [[ $RESERVE =~ ^0*([0-9]{1,12})([KkMmGg]?)[Bb]?$ ]] ||
        die "--reserve: wanted an amount such as 1G or 512M, or a number of pages, found '$RESERVE'. Run: $SELF --help"
    PAGES=${BASH_REMATCH[1]}
    if [[ -n ${BASH_REMATCH[2]} ]]; then
        local asked_kb=$((PAGES * $(unit_kb "${BASH_REMATCH[2]}")))
        PAGES=$(((asked_kb + PAGE_KB - 1) / PAGE_KB))
        ((PAGES * PAGE_KB == asked_kb)) ||
            die "--reserve: wanted a multiple of the page size $SIZE, found '$RESERVE'. Run: $SELF -p $SIZE -r $PAGES"
    fi
    for table in "${TABLES[@]}"; do
        total_kb=$(memory_kb "$table" MemTotal)
        ((PAGES * PAGE_KB < total_kb)) ||
            die "--reserve: wanted $(pages "$PAGES") on $(node_of "$table"), found that it has $(human $((total_kb / 1024 * 1024))) of memory in all. Run: $SELF -r with less"
    done
}

check_directory() {
    local mounted
    if [[ -z $DIRECTORY ]]; then
        DIRECTORY=/dev/hugepages
        if [[ $SIZE != "$DEFAULT_SIZE" ]]; then DIRECTORY+=-$SIZE; fi
    fi
    if ((!MOUNT && !UNMOUNT)); then return; fi
    [[ $DIRECTORY == /* ]] ||
        die "--directory: wanted an absolute path, found '$DIRECTORY'. Run: $SELF -d $PWD/$DIRECTORY …"
    mounted=$(mounted_size "$DIRECTORY")
    if ((SETUP)) && [[ -n $mounted && $mounted != "$SIZE" ]]; then UNMOUNT=1; fi
    if ((UNMOUNT)); then
        [[ -n $mounted ]] ||
            die "--unmount: wanted a hugetlbfs mounted on $DIRECTORY, found none there. Run: $SELF --show"
    elif ((MOUNT)) && [[ -n $mounted && $mounted != "$SIZE" ]]; then
        die "--mount: wanted pages of $SIZE on $DIRECTORY, found a hugetlbfs of $mounted there. Run: $SELF -u -m -p $SIZE -d $DIRECTORY, or choose another --directory"
    fi
    [[ ! -e $ROOT$DIRECTORY || -d $ROOT$DIRECTORY ]] ||
        die "--directory: wanted a folder, found that $DIRECTORY is a file. Choose another --directory"
    if ((EUID != 0)) && [[ -z $ROOT ]]; then
        die "wanted to mount or unmount $DIRECTORY, found user $(id -un), not root. Run: sudo $AGAIN"
    fi
}

# ---- Reserving and freeing ---------------------------------------------------------------------

# set_pages COUNT: that many on each table of TABLES; if one falls short, all go back.
set_pages() {
    local table asked=$1 got former=() i
    for table in "${TABLES[@]}"; do
        former+=("$(read_number "$table/nr_hugepages")")
        WHY=
        write "$table/nr_hugepages" "$asked"
        got=$(read_number "$table/nr_hugepages")
        ((got == asked)) && [[ -z $WHY ]] && continue
        for ((i = ${#former[@]} - 1; i >= 0 && got <= asked; i--)); do
            write "${TABLES[i]}/nr_hugepages" "${former[i]}"
        done
        if ((got > asked)); then
            die "$(too_many "$table" "$asked" "$got")"
        fi
        die "$(too_few "$table" "$asked" "$got" "${former[-1]}")"
    done
}

too_few() { # TABLE ASKED GOT FORMER: the message
    local node number
    node=$(node_of "$1") number=${node#node }
    printf '%s' "wanted $(pages "$2") on $node, found that the kernel gives $3${WHY:+ ($WHY)}: "
    if [[ -n $(memory_kb "$1" MemFree) ]]; then
        printf '%s' "$(human $(($(memory_kb "$1" MemFree) / 1024 * 1024))) are free there, but not enough of it in whole pages. "
    fi
    printf '%s\n' "Put back to the $4 of before."
    printf '%s\n' \
        "  Make room, then again:  sync; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; $AGAIN" \
        "  Or take what there is:  $SELF -r $3 -p $SIZE${NODE:+ -n $NODE}"
    printf '%s' \
        "  Or reserve at boot, on the kernel's command line:  hugepagesz=$SIZE hugepages=${number:+$number:}$2"
}

too_many() { # TABLE ASKED GOT: the message
    local status users=
    for status in "$ROOT"/proc/[0-9]*/status; do
        users+=$(awk '$1 == "Name:" { name = $2 } $1 == "Pid:" { pid = $2 }
            $1 == "HugetlbPages:" && $2 > 0 { print "  PID " pid " (" name ") uses " $2 / 1024 "M" }' \
            "$status" 2>/dev/null | sed 's/^/\n/')
    done
    printf '%s' "wanted $(pages "$2") on $(node_of "$1"), found that $3 stay${WHY:+ ($WHY)}: they are in use, and go back to the system when they are let go:"
    printf '%s\n' "${users:-$'\n  no process has them mapped: look for files on the mounts'}"
    printf '%s' "  End those processes, or remove the files under the mounts that this shows:  $SELF --show"
}

# ---- Mounting ----------------------------------------------------------------------------------

mount_pages() {
    local message made=0
    if [[ -n $(mounted_size "$DIRECTORY") ]]; then
        say "Notice: hugetlbfs of $SIZE is already mounted on $DIRECTORY"
        return
    fi
    if [[ ! -d $ROOT$DIRECTORY ]]; then
        message=$(mkdir -p "$ROOT$DIRECTORY" 2>&1) ||
            die "--mount: wanted to make the folder $DIRECTORY, found: ${message##*: }. Choose another --directory"
        made=1
    fi
    if ! message=$(mount -t hugetlbfs -o "pagesize=$SIZE" hugetlbfs "$ROOT$DIRECTORY" 2>&1); then
        if ((made)); then rmdir "$ROOT$DIRECTORY"; fi
        die "--mount: wanted hugetlbfs of $SIZE on $DIRECTORY, found: ${message##*: }. See: dmesg | tail"
    fi
}

unmount_pages() {
    local message
    message=$(umount "$ROOT$DIRECTORY" 2>&1) ||
        die "--unmount: wanted to unmount $DIRECTORY, found: ${message##*: }. See who uses it: fuser -vm $DIRECTORY"
}

list_mounts() { # prints 'SIZE DIR' for each hugetlbfs
    local directory type options size
    # $(…) with a here-string for those who read this, not <(…): an initramfs may have no /dev/fd.
    while read -r _ directory type options _; do
        [[ $type == hugetlbfs ]] || continue
        printf -v directory %b "$directory" # \040 is a space
        size=$DEFAULT_SIZE
        if [[ ,$options, =~ ,pagesize=([0-9]+)([KMG]), ]]; then
            size=$(human $((BASH_REMATCH[1] * $(unit_kb "${BASH_REMATCH[2]}")))) # 1024M is 1G
        fi
        say "$size ${directory#"$ROOT"}"
    done <"$ROOT/proc/mounts"
}

mounted_size() { # DIR: prints the page size of the hugetlbfs mounted there, or nothing
    local size directory
    while read -r size directory; do
        if [[ $directory == "${1%/}" ]]; then
            printf '%s' "$size"
            return
        fi
    done <<<"$(list_mounts)"
}

# ---- Showing -----------------------------------------------------------------------------------

show() {
    local table tables=() size_kb size directory number none=1
    for table in "$NODES"/node[0-9]*/hugepages/hugepages-*kB; do
        if [[ -d $table ]]; then tables+=("$table"); fi
    done
    ((${#tables[@]})) || for table in "$FLAT"/hugepages-*kB; do
        if [[ -d $table ]]; then tables+=("$table"); fi
    done
    if ((${#tables[@]} == 0)); then
        say "No hugepages: this kernel has none (no $FLAT)"
        return
    fi
    printf '%-5s %-5s %8s %8s %8s\n' Node Size Pages Free Total
    for table in "${tables[@]}"; do
        size_kb=${table##*-} size_kb=${size_kb%kB} number=$(node_of "$table")
        printf '%-5s %-5s %8s %8s %8s\n' "${number##* }" "$(human "$size_kb")" \
            "$(read_number "$table/nr_hugepages")" "$(read_number "$table/free_hugepages")" \
            "$(human $(($(read_number "$table/nr_hugepages") * size_kb)))"
    done
    echo
    while read -r size directory; do
        [[ -n $size ]] || continue
        say "Hugepages of $size mounted on $directory"
        none=0
    done <<<"$(list_mounts)"
    if ((none)); then say 'Hugepages not mounted (needed for --huge-dir only)'; fi
}

# ---- Small things ------------------------------------------------------------------------------

unit_kb() { # LETTER
    case $1 in
        K | k) echo 1 ;;
        M | m) echo 1024 ;;
        G | g) echo 1048576 ;;
    esac
}

human() { # KB: the largest unit that leaves a whole number
    if (($1 == 0)); then
        echo 0
    elif (($1 % 1048576 == 0)); then
        echo "$(($1 / 1048576))G"
    elif (($1 % 1024 == 0)); then
        echo "$(($1 / 1024))M"
    else
        echo "${1}K"
    fi
}

pages() { # COUNT: '512 pages of 2M (1G)'
    local noun=pages
    if (($1 == 1)); then noun=page; fi
    printf '%s' "$1 $noun of $SIZE ($(human $(($1 * PAGE_KB))))"
}

node_of() { # TABLE: 'node 0'
    local node=${1#"$NODES"/node}
    if [[ $node == "$1" ]]; then node=0; fi
    printf 'node %s' "${node%%/*}"
}

memory_kb() { # TABLE MemTotal|MemFree: of its node
    local file=$ROOT/proc/meminfo
    if [[ $1 == "$NODES"/* ]]; then file=${1%/hugepages/*}/meminfo; fi
    # 'Node 0 MemFree:  123 kB', or the same without the node
    awk -v want="$2:" '$1 == want { print $2 } $3 == want { print $4 }' "$file" 2>/dev/null
}

read_number() { # FILE
    local number=0
    { read -r number <"$1"; } 2>/dev/null
    printf '%s' "$number"
}

write() { # FILE VALUE: on failure, sets WHY to the kernel's answer
    local message
    message=$({ printf '%s\n' "$2" >"$1"; } 2>&1) && return
    WHY=${message##*: }
    return 1
}

main "$@"
