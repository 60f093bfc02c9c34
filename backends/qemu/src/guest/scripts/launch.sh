# Starts a program in a scope of its own, so that it outlives a restart of the agent (an upgrade may bring one).
# Arguments: folder, name of the scope, the text of run.sh, then what run.sh takes.
# shellcheck shell=sh
folder=$1 scope=$2 run=$3
shift 3
[ -d /run/flipside ] || mkdir -m 0700 /run/flipside || exit 70
umask 077
mkdir "$folder" && : >"$folder/out" && : >"$folder/err" || exit 70
umask 022
set +u
unset SYSTEMD_COLORS SYSTEMD_PAGER SYSTEMD_LOG_LEVEL LC_ALL
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=${HOME:-/root}
export PATH HOME
# A manager that does not answer must not keep a program from running.
systemd-run --scope --quiet --collect --unit="$scope" -- /bin/sh -c "$run" flipside "$folder" "$@" </dev/null
[ -e "$folder/begun" ] || exec /bin/sh -c "$run" flipside "$folder" "$@" </dev/null
