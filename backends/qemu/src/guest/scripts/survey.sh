# Prints the block devices, the mounts of the first process and the mount table; builtins only, since a fork
# costs tens of milliseconds under emulation. Lines: block, mount, fstab, swap.
# shellcheck shell=sh
serial_of() { # sysfs folder, MAJ:MIN
    serial=
    if [ -r "$1/serial" ]; then IFS= read -r serial <"$1/serial"
    elif [ -r "$1/device/serial" ]; then IFS= read -r serial <"$1/device/serial"
    elif [ -r "$1/device/vpd_pg80" ]; then
        # Four bytes of header, of which the shell drops the two that are zero.
        IFS= read -r serial <"$1/device/vpd_pg80"
        serial=${serial#??}
    fi 2>/dev/null
    if [ -z "$serial" ] && [ -r "/run/udev/data/b$2" ]; then
        while IFS= read -r line; do
            case $line in
                E:ID_SCSI_SERIAL=* | E:ID_SERIAL_SHORT=*) serial=${line#*=}; break ;;
            esac
        done <"/run/udev/data/b$2"
    fi
}
block() { # sysfs folder, name of the disk it is a partition of
    IFS= read -r dev <"$1/dev" || return 0
    dm='' uuid='' slaves='' serial='' backing=''
    [ ! -r "$1/dm/name" ] || IFS= read -r dm <"$1/dm/name"
    [ ! -r "$1/dm/uuid" ] || IFS= read -r uuid <"$1/dm/uuid"
    [ ! -r "$1/loop/backing_file" ] || IFS= read -r backing <"$1/loop/backing_file"
    if [ -z "$2" ]; then
        serial_of "$1" "$dev"
        set +f
        for slave in "$1"/slaves/*; do
            [ ! -e "$slave" ] || slaves="$slaves ${slave##*/}"
        done
        set -f
    fi
    printf 'block\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
        "${1##*/}" "$dev" "$2" "$dm" "$uuid" "${slaves# }" "$serial" "$backing"
}
survey() {
    set +f
    for disk in /sys/block/*; do
        case ${disk##*/} in ram* | '*') continue ;; loop*) [ -d "$disk/loop" ] || continue ;; esac
        block "$disk" ''
        set +f
        for part in "$disk/${disk##*/}"*; do
            [ ! -e "$part/partition" ] || block "$part" "${disk##*/}"
            set +f
        done
    done
    set -f
    while IFS= read -r line; do printf 'mount\t%s\n' "$line"; done </proc/1/mountinfo
    while IFS= read -r line; do printf 'swap\t%s\n' "$line"; done </proc/swaps
    [ ! -r /etc/fstab ] || while IFS= read -r line || [ -n "$line" ]; do
        printf 'fstab\t%s\n' "$line"
    done </etc/fstab
}
