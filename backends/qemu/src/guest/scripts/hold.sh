# Holds units and data mounts. Pairs: `stop UNIT`, `assert UNIT`, `skip UNIT`, `disable UNIT`, `fstab BEFORE` `to AFTER`,
# `reload yes` when a gate is not loaded yet.
# shellcheck shell=sh
lock
stop='' assert='' skip='' disable='' before='' after='' reload=''
while [ $# -ge 2 ]; do
    case $1 in
        stop) stop="$stop $2" ;;
        assert) assert="$assert $2" ;;
        skip) skip="$skip $2" ;;
        disable) disable="$disable $2" ;;
        fstab) before=$2 ;;
        to) after=$2 ;;
        reload) reload=yes ;;
        *) exit 64 ;;
    esac
    shift 2
done
[ -d $gate ] || mkdir -p -m 0700 $gate || exit 71
[ ! -e $gate/open ] || rm -f $gate/open || exit 71
# What acts by itself first: it was copied in the middle of its work.
# shellcheck disable=SC2086
[ -z "$stop" ] || timeout 60 systemctl stop -- $stop

dirs=''
for unit in $assert $skip; do
    [ -d "/etc/systemd/system/$unit.d" ] || dirs="$dirs /etc/systemd/system/$unit.d"
done
# shellcheck disable=SC2086
[ -z "$dirs" ] || mkdir -p $dirs || exit 71
drop_in() { # unit, keyword
    file=/etc/systemd/system/$1.d/50-flipside-gate.conf
    text="# flipside: held while an upgrade is in progress.$nl[Unit]$nl$2PathExists=$gate/open"
    was=''
    [ ! -f "$file" ] || { IFS= read -r was; IFS= read -r one; IFS= read -r two; was=$was$nl$one$nl$two; } <"$file"
    [ "$was" = "$text" ] || printf '%s\n' "$text" >"$file" || exit 71
}
for unit in $assert; do drop_in "$unit" Assert; done
for unit in $skip; do drop_in "$unit" Condition; done

if [ ! -e $policy ]; then
    { printf '#!/bin/sh\n%s\n' "$policy_mark"
      cat <<'POLICY'
[ ! -e /var/lib/flipside/gate/open ] || exit 0
while read -r unit; do
    # `postgresql` is also what the packages of `postgresql@15-main.service` ask for.
    case $unit in "$1" | "$1.service" | "${1%.service}@"*) exit 101 ;; esac
done </var/lib/flipside/gate/units 2>/dev/null
exit 0
POLICY
    } >$policy.flipside && chmod 0755 $policy.flipside && mv $policy.flipside $policy || exit 71
fi
for unit in $assert $skip; do printf '%s\n' "$unit"; done >$gate/units || exit 71

if [ -n "$disable" ]; then
    # Every link to these units, for those that `systemctl enable` does not make again.
    find /etc/systemd/system -type l -printf '%p\t%l\n' | while IFS=$tab read -r link target; do
        case "$disable " in
            *" ${link##*/} "* | *" ${target##*/} "*) printf '%s\t%s\n' "$link" "$target" ;;
        esac
    done >>$gate/links || exit 71
    sync $gate/links
    # shellcheck disable=SC2086
    systemctl disable --no-reload --quiet -- $disable || exit 72
fi
[ -z "$before" ] || { fstab "$before" "$after"; reload=yes; }
if [ -n "$reload" ]; then
    systemctl daemon-reload || exit 73
    # Whatever was started before its gate was loaded.
    # shellcheck disable=SC2086
    [ -z "$stop" ] || timeout 60 systemctl stop -- $stop
fi
sync -f $gate/units
# shellcheck disable=SC2086
[ -z "$assert$skip" ] || systemctl show -p Id,LoadState,ActiveState,UnitFileState,DropInPaths -- $assert $skip
