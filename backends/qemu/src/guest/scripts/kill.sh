# Ends a program started by launch.sh: its session at once, after some seconds everything in its scope.
# Arguments: folder, name of the scope.
# shellcheck shell=sh
count=0
while [ ! -s "$1/pid" ]; do
    count=$((count + 1))
    [ ! -e "$1/exit" ] || exit 0
    [ $count -lt 100 ] || { echo 'it has not begun yet' >&2; exit 1; }
    sleep 0.1
done
[ ! -e "$1/exit" ] || exit 0
read -r leader <"$1/pid"
count=0
kill -s TERM -- "-$leader" 2>/dev/null
while [ $count -lt 50 ]; do
    [ ! -e "$1/exit" ] || exit 0
    count=$((count + 1))
    sleep 0.1
done
kill -s KILL -- "-$leader" 2>/dev/null
sleep 0.2
[ ! -e "$1/exit" ] || exit 0
systemctl kill --signal=KILL -- "$2.scope"
[ -e "$1/exit" ] || echo 137 >"$1/exit"
