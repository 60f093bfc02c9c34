# Packs what changed under the carried paths onto the scratch disk. Arguments: device, bytes it may be at most, the mark to
# go on from (a name, or `split`), the mark to make, then paths and patterns. Lines: bytes, files, changed (by others while
# they were read).
# shellcheck shell=sh
device=$1 most=$2 since=$3 next=$4
shift 4
[ -b "$device" ] || { echo "the scratch disk $device is not there" >&2; exit 66; }
command -v tar >/dev/null 2>&1 || { echo 'there is no tar in the guest: files cannot be carried over' >&2; exit 69; }
lock
carry=$state/carry
mkdir -p -m 0700 $carry || exit 71
case $since in split) since=$state/split ;; *) since=$carry/$since ;; esac
[ -e "$since" ] || { echo "the mark ${since##*/} is not there" >&2; exit 66; }
# Before anything is read: what changes meanwhile is read again the next time.
: >"$carry/$next" || exit 71
: >$carry/names || exit 71
: >$carry/changed || exit 71
IFS=
set +f
for rule; do
    for path in $rule; do
        [ -e "$path" ] || [ -h "$path" ] || continue
        case $path in "$state" | "$state"/*) continue ;; esac
        find "$path" -xdev \( -type f -o -type d -o -type l \) -print0 >>$carry/names
        find "$path" -xdev \( -type f -o -type d -o -type l \) -cnewer "$since" -print0 >>$carry/changed
    done
done
set -f
unset IFS
bytes=$(xargs -0 -r stat -c '%F %s' -- <$carry/changed 2>/dev/null | {
    sum=0
    while read -r kind size; do
        case $kind in regular) sum=$((sum + ${size##* })) ;; esac
    done
    echo $sum
})
[ "$bytes" -le "$most" ] || { printf 'bytes\t%s\n' "$bytes"; echo "$bytes bytes changed, $most fit" >&2; exit 73; }
printf '%s\0%s\0' $carry/names $carry/changed >$carry/members || exit 71
cat $carry/changed >>$carry/members || exit 71
tar --create --file="$device" --format=pax --sparse --xattrs --xattrs-include='*' --acls --numeric-owner \
    --no-recursion --absolute-names --null --files-from=$carry/members 2>$carry/words
code=$?
# 1: a file changed or went while it was read; the others are whole.
if [ $code -gt 1 ]; then cat $carry/words >&2; exit 71; fi
blockdev --flushbufs "$device" || exit 71
[ $code = 0 ] || while IFS= read -r line; do printf 'changed\t%s\n' "$line"; done <$carry/words
printf 'bytes\t%s\n' "$bytes"
printf 'files\t%s\n' "$(tr -cd '\0' <$carry/changed | wc -c)"
