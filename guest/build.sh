#!/bin/bash
# Builds flipside's guest images. See README.md in this folder.
#   guest/build.sh [--only mini|demo] [--deadline SECONDS] [--offline] [--refresh] [OUTDIR]
#   guest/build.sh --needs        print the Debian packages that a build lacks
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/../target/guest
deadline=1200
max_age=$((7 * 86400))
wanted=(mini demo)
offline=no

# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/image.sh
. "$here/lib/image.sh"
# shellcheck source=lib/rootfs.sh
. "$here/lib/rootfs.sh"
# shellcheck source=lib/mini.sh
. "$here/lib/mini.sh"
# shellcheck source=lib/demo.sh
. "$here/lib/demo.sh"

usage() { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --only) case ${2-} in mini | demo) wanted=("$2") ;; *) usage ;; esac; shift ;;
        --deadline) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; deadline=$2; shift ;;
        --offline) offline=yes ;;
        --refresh) max_age=-1 ;;
        --needs) needs; exit 0 ;;
        -h | --help) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) usage ;;
        *) [ "$out" = "$here/../target/guest" ] || usage; out=$1 ;;
    esac
    shift
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
cache=$out/.cache
mkdir -p "$cache"

# One build at a time for one folder; the second finds the work done.
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    say "another build is at work in $out; waiting for it"
    flock --timeout "$(time_left)" 9 || die "the other build did not end before the deadline"
fi

# What the images are made from: every file of this folder that the build reads.
scripts_hash() {
    (cd "$here" && find build.sh lib files page upgrade -type f -printf '%m %p\n' | sort |
        while read -r mode file; do
            [ -x "$file" ] && mode=x || mode=-
            printf '%s %s %s\n' "$mode" "$file" "$(sha256sum <"$file")"
        done) | sha256sum | cut -c1-16
}

# The versions the mirrors have now: the older ones to install, the newer to upgrade to.
resolve_versions() {
    local packages suites
    : >"$cache/status.empty"
    for suites in "bookworm" "bookworm bookworm-updates bookworm-security"; do
        # shellcheck disable=SC2086
        apt_for "$cache/apt-${suites##* }" "$cache/status.empty" $suites
        "${apt[@]}" -q update >&2 || return 1
        packages=$demo_packages,$mini_packages
        # shellcheck disable=SC2086
        "${apt[@]}" -q -s install '?priority(required)' '?essential' ${packages//,/ } |
            sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' | sort >"$cache/versions.part"
        [ -s "$cache/versions.part" ] || return 1
        echo "# $suites"
        cat "$cache/versions.part"
    done
}

scripts=$(scripts_hash)
complete() {
    local name file
    for name in "${wanted[@]}"; do
        [ "$(cat "$out/$name.inputs" 2>/dev/null)" = "$1" ] || return 1
        local -n made=${name}_makes
        for file in "${made[@]}"; do [ -e "$out/$file" ] || return 1; done
    done
}

# Nothing changed here, and the versions were looked up lately: nothing to do.
versions_hash=$(sha256sum 2>/dev/null <"$cache/versions" | cut -c1-16 || true)
age=$(($(date +%s) - $(stat -c %Y "$cache/versions" 2>/dev/null || echo 0)))
if [ -n "$versions_hash" ] && complete "$scripts-$versions_hash" &&
    { [ "$offline" = yes ] || [ "$age" -le "$max_age" ]; }; then
    say "up to date: $out"
    exit 0
fi

missing=$(needs)
[ -z "$missing" ] || die "these Debian packages are needed: $(echo $missing)"
[ "$(id -u)" = 0 ] || die "a build must run as root (it makes Debian root directories)"

log=$out/build.log
: >"$log"

if [ "$age" -gt "$max_age" ] || [ -z "$versions_hash" ]; then
    say "looking up package versions"
    if (resolve_versions >"$cache/versions.new") 2>>"$log"; then
        mv "$cache/versions.new" "$cache/versions"
        versions_hash=$(sha256sum <"$cache/versions" | cut -c1-16)
    elif [ -n "$versions_hash" ] && complete "$scripts-$versions_hash"; then
        say "the mirrors do not answer; the images that are there are kept"
        exit 0
    else
        tail -n 20 "$log" >&2
        die "cannot look up package versions; log: $log"
    fi
    if complete "$scripts-$versions_hash"; then
        say "up to date: $out"
        exit 0
    fi
fi
inputs=$scripts-$versions_hash

free=$(df --output=avail -BM "$out" | tail -n 1 | tr -dc 0-9)
[ "$free" -ge 6000 ] || die "6 GB of free space are needed in $out, there are $free MB"

work=$out/.work
rm -rf --one-file-system "$work"
mkdir -p "$work"
trap 'rm -rf --one-file-system "$work"' EXIT

for name in "${wanted[@]}"; do
    if (wanted=("$name"); complete "$inputs"); then
        say "$name: up to date"
        continue
    fi
    rm -f "$out/$name.inputs"
    root_uuid=$(uuid_of "$name-root")
    "build_$name"
    # Everything is made under .work and moved in at the end, the mark last.
    declare -n makes=${name}_makes
    for file in "${makes[@]}"; do
        rm -rf "$out/$file.old"
        [ ! -d "$out/$file" ] || mv "$out/$file" "$out/$file.old"
        mv -T "$work/$file" "$out/$file"
        rm -rf "$out/$file.old"
    done
    echo "$inputs" >"$out/$name.inputs.new"
    mv "$out/$name.inputs.new" "$out/$name.inputs"
    rm -rf --one-file-system "${work:?}/$name"
    say "$name: done: $(cd "$out" && du -sh --apparent-size "${makes[@]}" | awk '{ printf "%s %s, ", $2, $1 }' | sed 's/, $//')"
    unset -n makes
done
