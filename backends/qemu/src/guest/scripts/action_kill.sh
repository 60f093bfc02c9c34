# Ends a custom action and everything that it started: by asking, after five seconds by force.
# Arguments: folder, name of the scope.
# shellcheck shell=sh
[ -d "$1" ] || exit 0
everything() { # folder, scope, signal
    systemctl kill --signal="$3" -- "$2.scope" 2>/dev/null && return
    leader=''
    { read -r leader <"$1/pid"; } 2>/dev/null
    [ -z "$leader" ] || kill -s "$3" -- "-$leader" 2>/dev/null
}
everything "$1" "$2" TERM
count=0
while [ $count -lt 25 ] && { [ ! -e "$1/exit" ] || systemctl is-active --quiet -- "$2.scope"; }; do
    count=$((count + 1))
    sleep 0.2
done
everything "$1" "$2" KILL
[ -e "$1/exit" ] || { echo 137 >"$1/exit.new" && mv "$1/exit.new" "$1/exit"; }
