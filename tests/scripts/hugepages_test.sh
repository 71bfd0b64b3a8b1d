#!/bin/bash
# Tests of scripts/hugepages.sh on machines made of files. Prints one line a check.

set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=fake_machine.sh
. "$HERE/fake_machine.sh"
# shellcheck source=checks.sh
. "$HERE/checks.sh"
HUGEPAGES=$HERE/../../scripts/hugepages.sh

NODE=/sys/devices/system/node
FLAT=/sys/kernel/mm/hugepages

# Two nodes with pages of 2 MiB and 1 GiB, 8 GiB of memory each, no mount.
usual_machine() {
    local node
    new_machine
    for node in 0 1; do
        add_hugepages $NODE/node$node/hugepages 2048 $((64 * node)) $((16 * node))
        add_hugepages $NODE/node$node/hugepages 1048576 0 0
        printf 'Node %s MemTotal:  8388608 kB\nNode %s MemFree:  614400 kB\n' $node $node \
            >"$MACHINE$NODE/node$node/meminfo"
    done
    add_hugepages $FLAT 2048 64 16
    add_hugepages $FLAT 1048576 0 0
    printf '%s\n' 'MemTotal: 16777216 kB' 'MemFree: 1228800 kB' 'Hugepagesize: 2048 kB' >"$MACHINE/proc/meminfo"
    add_mounts
}

hugepages() { try "$HUGEPAGES" "$@"; }
count() { cat "$MACHINE$NODE/node$1/hugepages/hugepages-${2:-2048}kB/nr_hugepages"; }

# refused NAME WORDS…: the last command failed with 1, its message has all WORDS, and both nodes
# have what they had.
refused() {
    local name=$1 word
    shift
    exits 1 "$name: exit code 1"
    for word; do says "$word" "$name: says '$word'"; done
    is "$(count 0) $(count 1) $(count 0 1048576)" '0 64 0' "$name: nothing changed"
    is "$(cat "$MACHINE/proc/mounts")" 'proc /proc proc rw 0 0' "$name: no mount"
}

# ---- Show --------------------------------------------------------------------------------------

usual_machine
printf '%s\n' "nodev $MACHINE/mnt/huge\\040pages hugetlbfs rw,pagesize=1024M 0 0" >>"$MACHINE/proc/mounts"
hugepages --show
exits 0 'show: exit code 0'
is "$OUTPUT" 'Node  Size     Pages     Free    Total
0     1G           0        0        0
0     2M           0        0        0
1     1G           0        0        0
1     2M          64       16     128M

Hugepages of 1G mounted on /mnt/huge pages' 'show: nodes, sizes, free pages, mounts'
rm -r "$MACHINE/sys/devices"
hugepages -s
says '0     2M          64       16     128M' 'show: a kernel without NUMA'
rm -r "$MACHINE/sys/kernel/mm"
hugepages -s
exits 0 'show: a kernel without hugepages is not an error'
says 'No hugepages: this kernel has none' 'show: says that the kernel has none'

# ---- Reserve and clear -------------------------------------------------------------------------

usual_machine
hugepages --reserve 1G
exits 0 'reserve a size: exit code 0'
is "$(count 0) $(count 1)" '512 512' 'reserve a size: on each node'
is "$OUTPUT" '' 'reserve a size: prints nothing'
hugepages -r 100 --node 1
is "$(count 0) $(count 1)" '512 100' 'reserve a number of pages: on one node'
hugepages -r 2G --page-size 1G -n 0
is "$(count 0 1048576) $(count 1 1048576) $(count 0)" '2 0 512' 'reserve pages of 1 GiB: on one node'
hugepages -c --node=0 -s
is "$(count 0) $(count 1) $(count 0 1048576)" '0 100 2' 'clear: one node, one page size'
says '1     2M         100' 'clear with --show: shows it afterwards'
hugepages -c
is "$(count 0) $(count 1)" '0 0' 'clear: all nodes'
rm -r "$MACHINE/sys/devices"
hugepages -r 32
is "$(cat "$MACHINE$FLAT/hugepages-2048kB/nr_hugepages")" 32 'reserve: a kernel without NUMA'

usual_machine
limit_hugepages $NODE/node1/hugepages/hugepages-2048kB 64 0 300
hugepages -r 1024
exits 1 'fewer than asked: exit code 1'
for word in 'wanted 1024 pages of 2M (2G) on node 1' 'the kernel gives 300' '600M are free there' \
    'Put back to the 64 of before' compact_memory '-r 300 -p 2M' 'hugepagesz=2M hugepages=1:1024'; do
    says "$word" "fewer than asked: says '$word'"
done
is "$(count 0)" 0 'fewer than asked: the other node is put back'
is "$(tail -1 "$MACHINE/log")" 'node1/hugepages/hugepages-2048kB 64' 'fewer than asked: put back there, too'

usual_machine
limit_hugepages $NODE/node1/hugepages/hugepages-2048kB 64 48 300
add_process 4321 l2fwd
printf 'Name:\tl2fwd\nPid:\t4321\nHugetlbPages:\t   98304 kB\n' >"$MACHINE/proc/4321/status"
hugepages --clear
exits 1 'pages in use: exit code 1'
says 'wanted 0 pages of 2M (0) on node 1, found that 48 stay' 'pages in use: how many'
says 'PID 4321 (l2fwd) uses 96M' 'pages in use: by whom'

# ---- Mount -------------------------------------------------------------------------------------

usual_machine
hugepages -m
exits 0 'mount: exit code 0'
says "hugetlbfs $MACHINE/dev/hugepages hugetlbfs rw,relatime,pagesize=2M" 'mount: the default folder' "$MACHINE/proc/mounts"
hugepages -m
exits 0 'mount again: exit code 0'
says 'already mounted on /dev/hugepages' 'mount again: a notice'
hugepages -m -p 1G -d '/mnt/huge pages'
hugepages -s
says 'Hugepages of 1G mounted on /mnt/huge pages' 'mount: another page size and folder'
hugepages -m -p 1G -d /dev/hugepages
exits 1 'mount over another page size: exit code 1'
says 'found a hugetlbfs of 2M there' 'mount over another page size: says so'
hugepages -u
is "$(grep -c 'pagesize=2M' "$MACHINE/proc/mounts") $(grep -c 'pagesize=1024M' "$MACHINE/proc/mounts")" '0 1' 'unmount: the default folder'
hugepages -u -p 1G -d '/mnt/huge pages'
is "$(grep -c hugetlbfs "$MACHINE/proc/mounts")" 0 'unmount: a folder with a space'
hugepages -u
refused 'unmount what is not mounted' 'found none there'
hugepages --setup 256M
is "$(count 0) $(grep -c 'dev/hugepages hugetlbfs' "$MACHINE/proc/mounts")" '128 1' 'setup: reserves and mounts'
touch "$MACHINE/state/busy"
hugepages -u
exits 1 'unmount, busy: exit code 1'
says 'target is busy' 'unmount, busy: says so'
says 'fuser -vm /dev/hugepages' 'unmount, busy: says how to see by whom'

usual_machine
touch "$MACHINE/state/no_mount"
hugepages -m
refused 'mount fails' 'permission denied' /dev/hugepages
if [[ -e $MACHINE/dev/hugepages ]]; then not_ok 'mount fails: the new folder is gone'; else ok 'mount fails: the new folder is gone'; fi

# ---- What it refuses ---------------------------------------------------------------------------

usual_machine
hugepages
refused 'no action' 'wanted an action' --show
hugepages -n 0
refused 'an option without an action' 'wanted an action beside the options'
hugepages -r
refused 'reserve without a value' 'option -r wants a value'
hugepages -r lots
refused 'not an amount' "found 'lots'" 'such as 1G'
hugepages -r -5
refused 'a negative amount' "found '-5'"
hugepages -r 3M
refused 'not a multiple' 'a multiple of the page size 2M' '-p 2M -r 2'
hugepages -r 512M -p 1G
refused 'less than a page' 'a multiple of the page size 1G'
hugepages -r 99999999999999999999
refused 'a number without end' "found '99999999999999999999'"
hugepages -r 8G
refused 'all memory of a node' 'wanted 4096 pages of 2M (8G) on node 0' '8G of memory in all'
hugepages -r 1G -n 2
refused 'no such node' 'a node of this machine (0 1)' "found '2'"
hugepages -r 1G -n 0x
refused 'not a node' "found '0x'"
hugepages -r 1G -p 4M
refused 'no such page size' '(1G 2M)' "found '4M'"
hugepages -m -n 1
refused 'a node for a mount' 'a mount has no node'
hugepages -m -d here
refused 'a relative folder' "found 'here'"
touch "$MACHINE/file"
hugepages -m -d /file
refused 'a file for a folder' '/file is a file'
hugepages --colour
refused 'an unknown option' "unknown option '--colour'" --help
hugepages 1G
refused 'a word too many' "found '1G'"
hugepages --help
exits 0 'help: exit code 0'
says 'the kernel'"'"'s default, here 2M' 'help: names the default page size'
rm -r "$MACHINE/sys/kernel/mm"
hugepages -r 1G
refused 'a kernel without hugepages' CONFIG_HUGETLBFS --no-huge

if ((EUID == 0)); then
    usual_machine
    chmod 755 "$MACHINE"
    chmod -R a+rX "$MACHINE"
    cp "$HUGEPAGES" "$MACHINE/hugepages.sh"
    try setpriv --reuid 65534 --regid 65534 --clear-groups env PATH="$PATH" bash "$MACHINE/hugepages.sh" -r 64
    refused 'not root' nr_hugepages 'sudo ' '-r 64'
else
    cannot 'not root: says so' 'only root can become another user'
fi

# ---- With nothing but busybox ------------------------------------------------------------------

if ! command -v busybox >/dev/null; then
    cannot 'busybox: hugepages.sh works with its tools' 'busybox is not installed: apt-get install busybox-static'
elif ! without_dev true 2>/dev/null; then
    cannot 'busybox: hugepages.sh works with its tools' 'network and mount namespaces need root'
else
    usual_machine
    add_busybox
    try bash -c 'without_dev "$@"' - env -i PATH="$MACHINE/bin:$MACHINE/busybox" PACKETBOAT_ROOT="$MACHINE" bash "$HUGEPAGES" --setup 64M -s
    exits 0 'busybox: setup and show'
    says '0     2M          32' 'busybox: shows what it reserved'
    says 'Hugepages of 2M mounted on /dev/hugepages' 'busybox: shows the mount'
    unsays 'not found' 'busybox: no command is missing'
    unsays 'No such file' 'busybox: no file is missing'
fi

end_machine
tally
