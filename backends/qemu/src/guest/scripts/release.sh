# Puts startup types and the mount table back; the gates stay. Pairs: `enable UNIT`, `disable UNIT`, `mask UNIT`,
# `unmask UNIT`, `fstab BEFORE` `to AFTER`.
# shellcheck shell=sh
lock
enable='' disable='' mask='' unmask='' before='' after=''
while [ $# -ge 2 ]; do
    case $1 in
        enable) enable="$enable $2" ;;
        disable) disable="$disable $2" ;;
        mask) mask="$mask $2" ;;
        unmask) unmask="$unmask $2" ;;
        fstab) before=$2 ;;
        to) after=$2 ;;
        *) exit 64 ;;
    esac
    shift 2
done
# shellcheck disable=SC2086
[ -z "$unmask" ] || systemctl unmask --no-reload --quiet -- $unmask || exit 72
# shellcheck disable=SC2086
[ -z "$enable" ] || systemctl enable --no-reload --quiet -- $enable
# shellcheck disable=SC2086
[ -z "$disable" ] || systemctl disable --no-reload --quiet -- $disable || exit 72
# shellcheck disable=SC2086
[ -z "$mask" ] || systemctl mask --no-reload --quiet -- $mask || exit 72
relink
rm -f $gate/links
[ -z "$before" ] || fstab "$before" "$after"
drop_policy
systemctl daemon-reload || exit 73
sync -f /etc/systemd/system
