# Lists the files of system disks that changed since the mark of the split. Arguments: how many at most, then the file
# systems to look at. Output: `all COUNT`, then `KIND SIZE PATH` records, each ended by NUL, in the order of find.
# What lives only while the system runs is left out: it is lost with every restart as well.
# shellcheck shell=sh
most=$1
shift
[ -e $state/split ] || { echo 'the mark of the split is not there' >&2; exit 66; }
[ -d /run/flipside ] || mkdir -m 0700 /run/flipside || exit 70
found=$(mktemp /run/flipside/changes.XXXXXX) || exit 70
trap 'rm -f "$found"' EXIT
for place; do
    find "$place" -xdev \
        \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/run \
        -o -path /var/cache -o -path $state -o -name lost+found \) -prune \
        -o ! -type d ! -type s ! -type p ! -name '*.pid' ! -name '*.lock' -cnewer $state/split \
        -printf '%y\t%s\t%p\0' 2>/dev/null
done >"$found"
printf 'all\t%s\0' "$(tr -cd '\0' <"$found" | wc -c)"
sort -z -t "$tab" -k 3 "$found" | head -z -n "$most"
