# Removes everything a hold left. Pairs: `fstab BEFORE` `to AFTER`.
# shellcheck shell=sh
lock
before='' after=''
while [ $# -ge 2 ]; do
    case $1 in fstab) before=$2 ;; to) after=$2 ;; *) exit 64 ;; esac
    shift 2
done
# What was shown on the Upgrade Side.
systemctl stop --no-block flipside-announce.service >/dev/null 2>&1
rm -rf /run/flipside-side /run/motd.d/flipside
rm -f /usr/local/bin/flipside-log /usr/local/bin/flipside-help
reload=''
[ ! -e $gate/links ] || { relink; rm -f $gate/links; reload=yes; }
[ -z "$before" ] || { fstab "$before" "$after"; reload=yes; }
drop_policy
rm -f $policy.flipside /etc/fstab.flipside
set +f
for file in /etc/systemd/system/*.d/50-flipside-gate.conf; do
    [ -f "$file" ] || continue
    set -- "$@" "$file"
done
set -f
if [ $# != 0 ]; then
    rm -f -- "$@" || exit 71
    for file; do
        shift
        set -- "$@" "${file%/*}"
    done
    rmdir --ignore-fail-on-non-empty -- "$@"
    reload=yes
fi
# The flag goes last: until the reload the gates are still in force.
[ -z "$reload" ] || systemctl daemon-reload || exit 73
if [ -d $state ]; then
    rm -rf $gate || exit 71
    rmdir --ignore-fail-on-non-empty $state
    sync -f /var/lib
fi
