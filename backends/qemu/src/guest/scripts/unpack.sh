# Puts what was packed where it belongs, unless it changed on this side as well. Arguments: device, then paths and patterns.
# Records ended by NUL: `put COUNT`, `removed COUNT`, `conflict PATH`.
#
# A file of this side counts as changed when it changed after the split and not by us: beside each file that we put lies an
# empty one under carry/ours, younger than it. So a second run carries what changed since the first, and only that.
# shellcheck shell=sh
device=$1
shift
[ -b "$device" ] || { echo "the scratch disk $device is not there" >&2; exit 66; }
command -v tar >/dev/null 2>&1 || { echo 'there is no tar in the guest: files cannot be carried over' >&2; exit 69; }
[ -e $state/split ] || { echo 'the mark of the split is not there' >&2; exit 66; }
lock
carry=$state/carry
in=$carry/incoming
rm -rf $in
mkdir -p -m 0700 $carry $in || exit 71
tar --extract --file="$device" --directory=$in --xattrs --xattrs-include='*' --acls --numeric-owner --same-owner \
    --preserve-permissions --delay-directory-restore 2>$carry/words || { cat $carry/words >&2; exit 71; }
lists=$in$state/carry
[ -e "$lists/names" ] && [ -e "$lists/changed" ] || { echo 'the scratch disk holds no list' >&2; exit 66; }
: >$carry/report || exit 71
# shellcheck disable=SC2016
helpers='
tab="	"
mark() { mkdir -p "$carry/ours${1%/*}" && : >"$carry/ours$1%m"; }
changed() { # by somebody else, after the split
    since=$state/split
    [ ! -e "$carry/ours$1%m" ] || since=$carry/ours$1%m
    [ -n "$(find "$1" -maxdepth 0 -cnewer "$since" -print 2>/dev/null)" ]
}
aside() { # what, its path, where: for root alone
    mkdir -p -m 0700 "$state/carried" && mkdir -p "$state/carried$3${2%/*}" || return 1
    rm -rf "$state/carried$3$2"
    mv -fT -- "$1" "$state/carried$3$2"
}
same() {
    if [ -h "$1" ] || [ -h "$2" ]; then
        [ -h "$1" ] && [ -h "$2" ] && [ "$(readlink -- "$1")" = "$(readlink -- "$2")" ]
    else
        [ -f "$1" ] && [ -f "$2" ] && cmp -s -- "$1" "$2"
    fi
}
say() { printf "%s\t%s\0" "$1" "$2" >>"$carry/report"; }
'
export carry in state
# shellcheck disable=SC2016
xargs -0 -r sh -c "set -uf
$helpers"'
for path; do
    new=$in$path
    [ -e "$new" ] || [ -h "$new" ] || continue
    if [ -d "$new" ] && [ ! -h "$new" ]; then
        if [ -e "$path" ] || [ -h "$path" ]; then
            if [ ! -d "$path" ] || [ -h "$path" ]; then say conflict "$path"; continue; fi
        else
            mkdir -p -- "$path" || exit 255
        fi
        tar --create --file=- --directory="$in" --format=pax --xattrs --xattrs-include="*" --acls --numeric-owner \
            --no-recursion -- ".$path" | tar --extract --file=- --directory=/ --xattrs --xattrs-include="*" --acls \
            --numeric-owner --same-owner --preserve-permissions || exit 255
        say put "$path"
        continue
    fi
    if [ -e "$path" ] || [ -h "$path" ]; then
        if [ -d "$path" ] && [ ! -h "$path" ]; then
            aside "$new" "$path" "" || exit 255
            say conflict "$path"
            continue
        fi
        if changed "$path"; then
            same "$new" "$path" && continue
            aside "$new" "$path" "" || exit 255
            say conflict "$path"
            continue
        fi
    fi
    mkdir -p -- "${path%/*}/" || exit 255
    mv -fT -- "$new" "$path" || exit 255
    mark "$path" || exit 255
    say put "$path"
done' sh <"$lists/changed" || { echo 'a file could not be put in its place' >&2; exit 71; }
# What Production has removed since the split, and nobody touched here: deepest first.
: >$carry/here
IFS=
set +f
for rule; do
    for path in $rule; do
        [ -e "$path" ] || [ -h "$path" ] || continue
        case $path in "$state" | "$state"/*) continue ;; esac
        find "$path" -xdev \( -type f -o -type d -o -type l \) -print0 >>$carry/here
    done
done
set -f
unset IFS
sort -z "$lists/names" >$carry/there.sorted
sort -z $carry/here | comm -z -23 - $carry/there.sorted | sort -zr >$carry/gone
# shellcheck disable=SC2016
xargs -0 -r sh -c "set -uf
$helpers"'
for path; do
    if [ -d "$path" ] && [ ! -h "$path" ]; then
        rmdir --ignore-fail-on-non-empty -- "$path" 2>/dev/null
        continue
    fi
    changed "$path" && continue
    aside "$path" "$path" /removed || exit 255
    say removed "$path"
done' sh <$carry/gone || { echo 'a file could not be removed' >&2; exit 71; }
rm -rf $in
sync
cat $carry/report
