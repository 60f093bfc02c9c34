# Starts units one after the other. Arguments: seconds, then pairs `need UNIT` or `want UNIT`.
# shellcheck shell=sh
seconds; end=$((seconds + $1)); shift
units='' needed=' ' failed=''
while [ $# -ge 2 ]; do
    [ "$1" != need ] || needed="$needed$2 "
    units="$units $2"
    shift 2
done
# shellcheck disable=SC2086
before=$(systemctl show -p ActiveState -- $units) || exit 74
case $before in *ActiveState=failed*) failed=yes ;; esac
# A unit that failed too often would be refused.
# shellcheck disable=SC2086
[ -z "$failed" ] || systemctl reset-failed -- $units 2>/dev/null
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
