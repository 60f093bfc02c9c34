# Starts an interactive shell on a virtio port. Arguments: rows, columns, the word that says that it ended, what the
# prompt begins with.
# `script` gives it a terminal of its own; it ends when the host closes the port.
port=/dev/virtio-ports/org.flipside.shell
[ -c "$port" ] || { echo "the guest has no port $port" >&2; exit 69; }
for tool in script setsid; do
    command -v "$tool" >/dev/null || { echo "the guest lacks the program \`$tool\`" >&2; exit 69; }
done
shell=/bin/sh
[ -x /bin/bash ] && shell=/bin/bash
# A port serves one: an older shell whose client has left is ended first.
if [ -r /run/flipside/shell.pid ]; then
    old=$(cat /run/flipside/shell.pid)
    [ -n "$old" ] && kill -s HUP -- "-$old" 2>/dev/null
fi
mkdir -p /run/flipside
cd /root 2>/dev/null || cd /
export HOME=/root TERM="${TERM:-xterm-256color}" LANG="${LANG:-C.UTF-8}" SHELL=$shell
# A port can be opened once only, so once for both directions; the older shell may need a moment to let go of it.
tries=0
until (: 3<>"$port") 2>/dev/null || [ $tries -ge 30 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
# The prompt says which side this is, whatever the shell's own files make of it.
export FLIPSIDE_SIDE="$4"
# shellcheck disable=SC2016,SC2090,SC2089
[ -z "$4" ] || export PROMPT_COMMAND='case $PS1 in "[$FLIPSIDE_SIDE] "*) ;; *) PS1="[$FLIPSIDE_SIDE] $PS1" ;; esac' \
    PS1="[$4] # "
exec 3<>"$port" || exit 69
setsid sh -c 'script -qfec "stty rows $1 cols $2; exec $4 -il" /dev/null; printf %s "$3"' \
    shell "$1" "$2" "$3" "$shell" <&3 >&3 2>&3 3>&- &
echo $! >/run/flipside/shell.pid
