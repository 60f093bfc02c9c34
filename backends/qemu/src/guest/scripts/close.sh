# Closes what lies on disks, top down, and proves that nothing uses them. Pairs, in order: `automount UNIT`,
# `umount TARGET`, `swapoff DEVICE`, `vg NAME`, `crypt NAME`, `md DEVICE`; then `mounted REGEX`, `node DEVICE`,
# `disk NAME`.
# shellcheck shell=sh
# The agent may live in a mount namespace of its own.
inside=''
[ /proc/self/ns/mnt -ef /proc/1/ns/mnt ] || inside='nsenter -t 1 -m --'

who() { # process, what it uses
    comm='' cgroup=''
    { IFS= read -r comm <"/proc/$1/comm"; } 2>/dev/null
    { IFS= read -r cgroup <"/proc/$1/cgroup"; } 2>/dev/null
    [ -z "$comm" ] || printf 'user\t%s\t%s\t%s\t%s\n' "$1" "$comm" "${cgroup##*:}" "$2"
}
# Names who uses a folder or device, at most fifty. Only called when something is busy.
blame() {
    set +f
    { find /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe -maxdepth 1 -type l \
        -printf '%p\t%l\n' 2>/dev/null | grep -F -e "$tab$1"
      grep -lsF -e " $1/" /proc/[0-9]*/maps
    } | head -n 50 | while IFS=$tab read -r link path; do
        process=${link#/proc/}
        who "${process%%/*}" "${path:-$1}"
    done
    for file in /sys/block/loop*/loop/backing_file; do
        [ -r "$file" ] || continue
        IFS= read -r path <"$file"
        file=${file#/sys/block/}
        case $path in "$1"/*) printf 'loop\t%s\t%s\n' "${file%%/*}" "$path" ;; esac
    done
    set -f
}
busy() { # what, why
    printf 'busy\t%s\t%s\n' "$1" "$2"
    blame "$1"
    exit 0
}
# Tries a command again for three seconds: what ends takes a moment to let go.
try() { # what it is about, command...
    what=$1
    shift
    seconds
    end=$((seconds + 3))
    until said=$("$@" 2>&1); do
        case $said in *'not mounted'* | *'Invalid argument'* | *'no mount point'*) return 0 ;; esac
        seconds
        [ $seconds -lt $end ] || busy "$what" "$said"
        sleep 0.1
    done
}
regex='' nodes='' disks=''
while [ $# -ge 2 ]; do
    # shellcheck disable=SC2086
    case $1 in
        automount) timeout 20 systemctl stop -- "$2" ;;
        umount) try "$2" $inside umount -- "$2" ;;
        swapoff) try "$2" swapoff -- "$2" ;;
        vg) try "$2" vgchange -an -- "$2" ;;
        crypt) try "/dev/mapper/$2" cryptsetup close -- "$2" ;;
        md) try "$2" mdadm --stop "$2" ;;
        mounted) regex=$2 ;;
        node) nodes="$nodes -o -lname $2" ;;
        disk) disks="$disks $2" ;;
        *) exit 64 ;;
    esac
    shift 2
done
[ -n "$disks" ] || { echo closed; exit 0; }
# A mount in any namespace counts: a container that kept its own goes on writing.
set +f
found=$(grep -m 1 -sE -e "$regex" /proc/[0-9]*/mountinfo)
set -f
if [ -n "$found" ]; then
    printf '%s\n' "$found" | head -n 50 | while IFS= read -r line; do
        process=${line#/proc/}
        process=${process%%/*}
        # shellcheck disable=SC2086
        set -- ${line#*:}
        who "$process" "$5"
    done
    # shellcheck disable=SC2086
    set -- ${found#*:}
    printf 'busy\t%s\tit is still mounted in the mount namespace of a process\n' "$5"
    exit 0
fi
read -r release </proc/sys/kernel/osrelease
for disk in $disks; do
    blockdev --flushbufs "/dev/$disk" || exit 71
    set +f
    for holder in "/sys/block/$disk/holders/"* "/sys/block/$disk/$disk"*/holders/*; do
        [ ! -e "$holder" ] || { printf 'busy\t%s\theld by %s\n' "/dev/$disk" "${holder##*/}"; exit 0; }
    done
    set -f
    # Takes the whole disk exclusively for a moment; a partition that is merely open fails it as well.
    try "/dev/$disk" blockdev --rereadpt "/dev/$disk"
    case $release in
        [1-4].* | 5.[0-9].* | 5.10.*)
            # These kernels re-read a mounted disk without partitions.
            try "/dev/$disk" dd if=/dev/null of="/dev/$disk" oflag=excl conv=nocreat,notrunc count=0 status=none ;;
    esac
done
# A program may have a device open without claiming it. udev looks at every change, so it is passed over.
set +f
# shellcheck disable=SC2086
found=$(find /proc/[0-9]*/fd -false $nodes 2>/dev/null)
set -f
for link in $found; do
    process=${link#/proc/}
    process=${process%%/*}
    comm=''
    { IFS= read -r comm <"/proc/$process/comm"; } 2>/dev/null
    case $comm in '' | systemd-udevd | '(udev-worker)') continue ;; esac
    who "$process" "/dev/${disks# }"
    echo "busy$tab/dev/${disks# }${tab}a process has the device open"
    exit 0
done
echo closed
