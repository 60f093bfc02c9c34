# Starts units one after the other. Arguments: seconds, then pairs `need UNIT` or `want UNIT`.
# shellcheck shell=sh
seconds; end=$((seconds + $1)); shift
units='' needed=' ' triggers='' failed=''
while [ $# -ge 2 ]; do
    [ "$1" != need ] || needed="$needed$2 "
    units="$units $2"
    shift 2
done
# shellcheck disable=SC2086
before=$(systemctl show -p ActiveState,TriggeredBy -- $units) || exit 74
while IFS= read -r line; do
    case $line in
        TriggeredBy=?*) triggers="$triggers ${line#TriggeredBy=}" ;;
        ActiveState=failed) failed=yes ;;
    esac
done <<EOF
$before
EOF
# A unit that failed too often would be refused.
# shellcheck disable=SC2086
[ -z "$failed" ] || systemctl reset-failed -- $units 2>/dev/null
# Their sockets, timers and paths come first; a socket cannot be added to a service that runs.
for unit in $triggers; do
    ! systemctl is-enabled --quiet -- "$unit" || timeout 30 systemctl start -- "$unit"
done
for unit in $units; do
    seconds
    left=$((end - seconds))
    [ $left -gt 0 ] || left=1
    timeout $left systemctl start -- "$unit"
    status=$?
    [ $status != 0 ] || continue
    printf 'failed\t%s\t%s\n' "$unit" "$status"
    systemctl status --no-pager --full --lines=20 -- "$unit" 2>&1 | while IFS= read -r line; do
        printf 'log\t%s\t%s\n' "$unit" "$line"
    done
    case $needed in *" $unit "*) exit 0 ;; esac
done
echo show
# shellcheck disable=SC2086
systemctl show -p Id,LoadState,ActiveState,SubState,Type,Result,ConditionResult -- $units
