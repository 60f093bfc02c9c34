# Starts a custom action in a scope of its own, once. Arguments: folder, name of the scope, the text of action.sh, then
# what that takes.
# shellcheck shell=sh
folder=$1 scope=$2 run=$3
shift 3
[ -d /run/flipside ] || mkdir -m 0700 /run/flipside || exit 70
[ ! -d "$folder" ] || exit 0
umask 077
mkdir "$folder" && : >"$folder/out" && : >"$folder/err" || exit 70
umask 022
systemd-run --scope --quiet --collect --unit="$scope" -- /bin/sh -c "$run" flipside "$folder" "$@" </dev/null
# A manager that does not answer must not keep an action from running.
[ -e "$folder/begun" ] || exec /bin/sh -c "$run" flipside "$folder" "$@" </dev/null
