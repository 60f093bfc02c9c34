# Prints the survey, then sizes, volume groups and what the devices hold. Lines: size NAME SECTORS START; pv DEVICE
# GROUP; efi; then `lsblk` and its JSON to the end.
# shellcheck shell=sh
survey
sized() { # sysfs folder
    sectors='' start=''
    IFS= read -r sectors <"$1/size" || return 0
    [ ! -r "$1/start" ] || IFS= read -r start <"$1/start"
    printf 'size\t%s\t%s\t%s\n' "${1##*/}" "$sectors" "$start"
}
set +f
for disk in /sys/block/*; do
    [ -r "$disk/size" ] || continue
    sized "$disk"
    for part in "$disk/${disk##*/}"*; do
        [ ! -e "$part/partition" ] || sized "$part"
    done
done
set -f
[ ! -d /sys/firmware/efi ] || printf 'efi\tyes\n'
# Which group a device belongs to is in no file; without LVM there is no group. Read-only takes no lock.
if command -v pvs >/dev/null 2>&1; then
    timeout 10 pvs --readonly --noheadings --separator "$tab" -o pv_name,vg_name 2>/dev/null |
        while read -r pv vg; do printf 'pv\t%s\t%s\n' "$pv" "$vg"; done
fi
printf 'lsblk\t\n'
lsblk --json --list --bytes -o KNAME,FSTYPE,LABEL,UUID,PARTTYPE || echo '{}'
