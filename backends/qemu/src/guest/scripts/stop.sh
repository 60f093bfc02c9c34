# Stops units one after the other. Arguments: seconds, then units in the order to stop them.
# shellcheck shell=sh
seconds; end=$((seconds + $1)); shift
# What would start them again: a socket, a timer, a path.
triggers='' running=''
before=$(systemctl show -p ActiveState,TriggeredBy -- "$@") || exit 74
while IFS= read -r line; do
    case $line in
        TriggeredBy=?*) triggers="$triggers ${line#TriggeredBy=}" ;;
        ActiveState=inactive | ActiveState=failed) ;;
        ActiveState=*) running=yes ;;
    esac
done <<EOF
$before
EOF
# shellcheck disable=SC2086
[ -z "$triggers" ] || timeout 30 systemctl stop -- $triggers
for unit; do
    [ -n "$running" ] || break
    seconds
    [ $((end - seconds)) -gt 0 ] || break
    timeout $((end - seconds)) systemctl stop -- "$unit" ||
        { status=$?; [ $status != 124 ] || { printf 'expired\t%s\n' "$unit"; break; }; }
done
echo show
systemctl show -p Id,LoadState,ActiveState,SubState -- "$@"
