# Lists the files that units have open. Arguments: units. Lines: pid, link, flag, stat; then the survey.
# shellcheck shell=sh
shown=$(systemctl show -p Id,ControlGroup -- "$@") || exit 74
set --
unit='' group=''
# A blank line ends each unit; the last one gets its own.
while IFS= read -r line; do
    case $line in
        ControlGroup=*) group=${line#ControlGroup=} ;;
        Id=*) unit=${line#Id=} ;;
        '')
            if [ -n "$group" ]; then
                folder=/sys/fs/cgroup$group
                [ -d "$folder" ] || folder=/sys/fs/cgroup/systemd$group
                for process in $(find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null); do
                    [ -d "/proc/$process/fd" ] || continue
                    printf 'pid\t%s\t%s\n' "$process" "$unit"
                    set -- "$@" "/proc/$process/fd"
                done
            fi
            unit='' group=''
            ;;
    esac
done <<EOF
$shown

EOF
[ $# != 0 ] || exit 0
find "$@" -maxdepth 1 -type l -printf 'link\t%p\t%l\n' 2>/dev/null
set +f
for folder; do
    shift
    set -- "$@" "${folder}info"
done
grep -rsH '^flags:' "$@" | while IFS= read -r line; do printf 'flag\t%s\n' "$line"; done
for folder; do
    shift
    set -- "$@" "${folder%info}"
done
find -L "$@" -maxdepth 1 -type f -printf 'stat\t%p\t%D\n' 2>/dev/null
set -f
survey
