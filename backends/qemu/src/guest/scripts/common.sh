# What every script begins with. Values come as positional parameters only and are never evaluated.
# POSIX sh, coreutils, findutils, util-linux and systemd; nothing else.
# shellcheck shell=sh
set -uf
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C SYSTEMD_COLORS=0 SYSTEMD_PAGER='' SYSTEMD_LOG_LEVEL=info
export PATH LC_ALL SYSTEMD_COLORS SYSTEMD_PAGER SYSTEMD_LOG_LEVEL
umask 022
tab='	'
nl='
'
state=/var/lib/flipside
gate=$state/gate

# Seconds since the boot, without a fork.
seconds() { read -r seconds _ </proc/uptime; seconds=${seconds%%.*}; }

# One writer at a time: an earlier call may still run after its caller gave up.
lock() {
    [ -d /run/flipside ] || mkdir -m 0700 /run/flipside || exit 70
    exec 9>/run/flipside/lock
    flock -w 20 9 || { echo 'another change is still under way in the guest' >&2; exit 75; }
}
