# Shared by what puts gates up and takes them away.
# shellcheck shell=sh
# A unit decides, not the init script of the same name: keeping both alike runs perl for 4 to 20 s under emulation.
SYSTEMCTL_SKIP_SYSV=1
export SYSTEMCTL_SKIP_SYSV
policy=/usr/sbin/policy-rc.d
policy_mark='# flipside: held units are not started by package scripts; removed at the merge.'

# Replaces /etc/fstab, unless somebody changed it since it was read: status 4.
fstab() { # before and after, in base64
    table=/etc/fstab
    [ ! -L $table ] || table=$(readlink -f $table)
    [ "$(base64 -w0 <"$table")" = "$1" ] || { echo '/etc/fstab changed meanwhile' >&2; exit 4; }
    cp -p "$table" "$table.flipside" &&
        printf %s "$2" | base64 -d >"$table.flipside" &&
        sync "$table.flipside" &&
        mv "$table.flipside" "$table" &&
        sync "${table%/*}" || { rm -f "$table.flipside"; exit 71; }
}

# Puts back the links of units that were disabled, as far as enabling them did not.
relink() {
    [ -r $gate/links ] || return 0
    while IFS=$tab read -r link target; do
        [ -n "$target" ] || continue
        case $target in /*) file=$target ;; *) file=${link%/*}/$target ;; esac
        if [ ! -L "$link" ] && [ ! -e "$link" ] && [ -e "$file" ]; then
            [ -d "${link%/*}" ] || mkdir -p "${link%/*}"
            ln -s "$target" "$link" || exit 71
        fi
    done <$gate/links
}

drop_policy() {
    [ -f $policy ] || return 0
    { read -r _; read -r second; } <$policy
    [ "$second" != "$policy_mark" ] || rm -f $policy || exit 71
}
