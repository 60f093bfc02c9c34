# Starts an interactive shell on a virtio port. Arguments: rows, columns.
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
setsid script -qfec "stty rows $1 cols $2; exec $shell -il" /dev/null <"$port" >"$port" 2>&1 &
echo $! >/run/flipside/shell.pid
