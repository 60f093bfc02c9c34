# Describes files and folders. Arguments: paths. Lines: at, number, kind, executable, writable, sha256 of what can be
# executed, resolved path, mode, user, group, device; then the survey.
# shellcheck shell=sh
index=0
for path; do
    kind=missing executable=no writable=no sum='' real='' facts=''
    if [ -e "$path" ]; then
        kind=other
        [ ! -d "$path" ] || kind=directory
        [ ! -f "$path" ] || kind=regular
        [ ! -x "$path" ] || executable=yes
        [ ! -w "$path" ] || writable=yes
        if [ $kind = regular ] && [ $executable = yes ]; then
            sum=$(sha256sum <"$path")
            sum=${sum%% *}
        fi
        real=$(readlink -f -- "$path")
        facts=$(stat -L -c "%a${tab}%u${tab}%g${tab}%d" -- "$path")
    fi
    printf 'at\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$index" $kind $executable $writable "$sum" "$real" "$facts"
    index=$((index + 1))
done
survey
