# Runs a custom action, in a guest or on the host, and keeps what it printed, at most so much, and its exit status.
# Arguments: folder, how many bytes of each stream are kept, then what `env -i` takes: settings, program and arguments.
# A program that goes on in the background keeps its streams: they are read and dropped for as long as it lives, so it
# neither fills anything nor is ended by a closed pipe.
# shellcheck shell=sh
folder=$1 keep=$2
shift 2
: >"$folder/begun"
# A handler, not "ignore": the program gets the default back.
trap : HUP INT TERM
ulimit -c 0
umask 077
mkfifo "$folder/out.pipe" "$folder/err.pipe" || exit 70
umask 022
unbuffered=''
! command -v stdbuf >/dev/null || unbuffered='stdbuf -o0'
take() { # pipe, file
    # shellcheck disable=SC2086
    { $unbuffered head -c "$keep"; cat >/dev/null; } <"$1" >>"$2" 2>/dev/null
}
take "$folder/out.pipe" "$folder/out" &
out=$!
take "$folder/err.pipe" "$folder/err" &
err=$!
setsid -w /bin/sh -c 'umask 077; echo $$ >"$1/pid"; umask 022; shift; exec env -i "$@"' flipside "$folder" "$@" \
    </dev/null >"$folder/out.pipe" 2>"$folder/err.pipe"
status=$?
count=0
while [ $count -lt 10 ] && { kill -0 $out || kill -0 $err; } 2>/dev/null; do
    sleep 0.05
    count=$((count + 1))
done
echo $status >"$folder/exit.new" && mv "$folder/exit.new" "$folder/exit"
exit $status
