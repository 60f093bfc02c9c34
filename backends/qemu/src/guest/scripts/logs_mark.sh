# Remembers this moment: what is logged after it is to be saved.
# shellcheck shell=sh
[ -d /run/flipside ] || mkdir -m 0700 /run/flipside || exit 70
: >/run/flipside/logs.mark
