# Copies what logs got since the mark, under their own paths below a folder. Arguments: that folder, the folder that
# must be there, seconds, logs. Lines: log, number, files, bytes, what went wrong.
# shellcheck shell=sh
target=$1 directory=$2 limit=$3
shift 3
# `cp --parents` sets what the folders on the way had by their paths from here.
cd / || exit 70
[ -d "$directory" ] || { echo "$directory is not there" >&2; exit 2; }
mkdir -p -m 0700 -- "$target" || exit 71
seconds
end=$((seconds + limit))
since=''
# The time of the last change of an inode cannot be set back, as that of the contents can.
[ ! -e /run/flipside/logs.mark ] || since='-cnewer /run/flipside/logs.mark'
rotated=''
index=0
for log; do
    case $log in
        'system journal') name='system*.journal*' ;;
        'user journals') name='user-*.journal*' ;;
        *) name='' ;;
    esac
    why='' files=0 bytes=0
    if [ -n "$name" ]; then
        # What is copied is closed, so that it can be read as it is.
        if [ -z "$rotated" ]; then
            rotated=yes
            timeout 20 journalctl --sync >/dev/null 2>&1
            timeout 20 journalctl --rotate >/dev/null 2>&1
        fi
        places=''
        [ ! -d /var/log/journal ] || places=/var/log/journal
        [ ! -d /run/log/journal ] || places="$places /run/log/journal"
        [ -n "$places" ] || why='there is no journal'
        # shellcheck disable=SC2086
        set -- find $places -type f -name "$name" $since
    elif [ -d "$log" ]; then
        # shellcheck disable=SC2086
        set -- find -H "$log" -type f $since
    elif [ -e "$log" ]; then
        # With what it was renamed to meanwhile.
        # shellcheck disable=SC2086
        set -- find "${log%/*}/" -maxdepth 1 -type f '(' -name "${log##*/}" -o -name "${log##*/}[.-]*" ')' $since
    else
        why='it does not exist'
    fi
    if [ -z "$why" ]; then
        seconds
        left=$((end - seconds))
        [ $left -gt 0 ] || left=1
        why=$(timeout $left "$@" -exec cp --parents --preserve=mode,ownership,timestamps -t "$target" -- {} + 2>&1)
        case $? in
            0) why='' ;;
            124) why="it was not copied within $limit s" ;;
            *) why=${why:-it could not be copied} ;;
        esac
        list=$("$@" -printf '%s\n' 2>/dev/null)
        for size in $list; do
            files=$((files + 1))
            bytes=$((bytes + size))
        done
    fi
    printf 'log\t%s\t%s\t%s\t%s\n' $index $files $bytes "${why%%"$nl"*}"
    index=$((index + 1))
done
sync -f -- "$target" || exit 72
echo 'done'
