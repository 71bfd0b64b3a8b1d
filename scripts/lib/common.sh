# shellcheck shell=bash disable=SC2034 # REPO and CACHE are used by those who source this file
# What the scripts of this repository share. Source it, don't run it:
#   . "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# devbind.sh and hugepages.sh don't: each is one file, to be copied to another machine on its own.

# Top of the checkout, and the place outside it for what is downloaded or built once.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${PACKETBOAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/packetboat}

# say TEXT…: a line for the person who watches.
say() { printf '%s\n' "$*"; }

# warn TEXT…: a line to stderr, and go on.
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die TEXT…: say what was wanted, what was found and the command that mends it; end with 1.
die() {
    warn "$@"
    exit 1
}

# run COMMAND…: print the command as one could type it, then run it.
run() {
    local line
    printf -v line '%q ' "$@"
    printf '+ %s\n' "${line% }"
    "$@"
}

# need_package PACKAGE…: install those Debian packages that aren't installed yet.
need_package() {
    local package missing=()
    command -v dpkg-query >/dev/null ||
        die "wanted the Debian packages '$*', found no dpkg-query: install their like with this system's package manager"
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) ||
        die "wanted to install '${missing[*]}', found user $(id -un), not root. Run: sudo apt-get install ${missing[*]}"
    _apt_get install -y --no-install-recommends "${missing[@]}" && return
    # The package lists may be missing (a fresh image) or too old for the mirror.
    if _apt_get update && _apt_get install -y --no-install-recommends "${missing[@]}"; then return; fi
    die "wanted the packages '${missing[*]}', found that apt-get can't install them (its messages stand above). Run: apt-get update && apt-get install ${missing[*]}"
}

# need_command COMMAND [PACKAGE]: install PACKAGE (default: COMMAND) unless COMMAND is on the PATH.
need_command() {
    command -v "$1" >/dev/null || need_package "${2:-$1}"
}

_apt_get() { DEBIAN_FRONTEND=noninteractive run apt-get -q "$@" </dev/null; }
