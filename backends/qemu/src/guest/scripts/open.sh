# Mounts data file systems. Pairs: `seconds N`, `vg all`, `md all`, `crypt NAME`, `unit UNIT`, `path TARGET`,
# `extra UNIT`.
# shellcheck shell=sh
inside=''
[ /proc/self/ns/mnt -ef /proc/1/ns/mnt ] || inside='nsenter -t 1 -m --'
units='' extra='' limit=30
while [ $# -ge 2 ]; do
    # shellcheck disable=SC2086
    case $1 in
        seconds) limit=$2 ;;
        md) mdadm --assemble --scan ;;
        vg) vgchange -ay ;;
        crypt) timeout "$limit" systemctl start -- "systemd-cryptsetup@$2.service" ;;
        unit) units="$units $2" ;;
        path) $inside mount -- "$2" ;;
        extra) extra="$extra $2" ;;
        *) exit 64 ;;
    esac
    shift 2
done
# shellcheck disable=SC2086
if [ -n "$units" ] && ! timeout "$limit" systemctl start -- $units; then
    systemctl status --no-pager --full --lines=10 -- $units 2>&1 | while IFS= read -r line; do
        printf 'log\t%s\n' "$line"
    done
fi
# shellcheck disable=SC2086
[ -z "$extra" ] || timeout "$limit" systemctl start -- $extra
survey
