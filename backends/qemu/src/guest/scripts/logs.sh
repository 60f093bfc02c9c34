# Lists the logs that there are. Lines: log, kind, bytes, name.
# shellcheck shell=sh
set +f
journal() { # name, files...
    name=$1
    shift
    [ -e "$1" ] || [ $# -gt 1 ] || return 0
    total=0
    for file; do
        [ -f "$file" ] || continue
        size=$(stat -c %s -- "$file") && total=$((total + size))
    done
    [ $total = 0 ] || printf 'log\tjournal\t%s\t%s\n' $total "$name"
}
journal 'system journal' /var/log/journal/*/system*.journal /run/log/journal/*/system*.journal
journal 'user journals' /var/log/journal/*/user-*.journal /run/log/journal/*/user-*.journal
du -sb -- /var/log/* 2>/dev/null | while IFS=$tab read -r size path; do
    case $path in
        /var/log/journal | *.gz | *.xz | *.zst | *.[0-9] | *.old | '/var/log/*') continue ;;
    esac
    kind=file
    [ ! -d "$path" ] || kind=directory
    printf 'log\t%s\t%s\t%s\n' $kind "$size" "$path"
done
