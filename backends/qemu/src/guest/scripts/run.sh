# Runs one program and keeps its exit status. Arguments: folder, seconds or 0, how many settings, NAME=VALUE...,
# program and arguments.
# shellcheck shell=sh
folder=$1 limit=$2 settings=$3
shift 3
: >"$folder/begun"
# A handler, not "ignore": the program gets the default back.
trap : HUP INT TERM
while [ "$settings" -gt 0 ]; do
    export "$1"
    shift
    settings=$((settings - 1))
done
[ "$limit" = 0 ] || set -- timeout --kill-after=10 "$limit" "$@"
setsid -w /bin/sh -c 'umask 077; echo $$ >"$1/pid"; umask 022; folder=$1; shift; exec "$@" >"$folder/out" 2>"$folder/err"' \
    flipside "$folder" "$@" </dev/null 2>>"$folder/err"
status=$?
echo $status >"$folder/exit.new" && mv "$folder/exit.new" "$folder/exit"
exit $status
